// SPDX-License-Identifier: Apache-2.0
//
// How evenly to send: a connection that has a rate leaves in short bursts, a timer apart, instead
// of a window at once. What was sent uses up time; nothing is sent before that time has passed,
// and a burst may run some of it ahead. A timer that was late is made up for by the next burst, so
// the rate holds over a few of them.
//
// What must go at once does: the first repeat after a time-out, a tail loss probe, all that
// carries no text.
#include "stack/tcp/machine.hpp"

#include <algorithm>

namespace chiru::tcp {

using shm::CongestionAlgorithm;

namespace {

/// Shorter round trips hold no more than a few bursts: the ACKs space them well enough.
constexpr std::uint32_t kLeastPacedRttUs = 1'000;
/// As Linux: twice the window a round trip while it doubles, else a fifth more than it.
constexpr std::uint64_t kSlowStartPercent = 200;
constexpr std::uint64_t kAvoidancePercent = 120;

std::int64_t nanoseconds(Instant now) { return now.time_since_epoch().count() * 1000; }

}  // namespace

/// After whatever may have changed the rate.
void Machine::update_pacing(Connection& c) {
    const bool wanted = choice(c.info.interface).pacing == PacingPolicy::On &&
                        c.info.srtt_us >= kLeastPacedRttUs;
    Extra* known = wanted ? need_extra(c) : extra(c);
    if (known == nullptr) return;
    std::uint64_t kbps = 0;
    if (known->bbr_runs) {
        kbps = known->bbr.pacing_kbps();
    } else if (wanted) {
        const std::uint64_t window = std::max(c.info.cwnd_bytes, c.pipe_bytes());
        const bool doubling = c.info.cwnd_bytes < c.info.ssthresh_bytes / 2;
        kbps = window * (doubling ? kSlowStartPercent : kAvoidancePercent) * 10 / c.info.srtt_us;
    }
    const std::uint64_t most = known->pace.most_kbps;
    if (most != 0) kbps = kbps == 0 ? most : std::min(kbps, most);
    c.info.pacing_kbps = static_cast<std::uint32_t>(std::min<std::uint64_t>(kbps, 0xffff'ffff));
    if (kbps == 0) known->pace.waiting = false;
}

/// Has the connection text to send that must wait? A timer looks again.
bool Machine::waits_for_pace(Connection& c, Instant now) {
    if (c.info.pacing_kbps == 0) return false;
    Pace& pace = extra(c)->pace;
    const bool ready = c.unsent_bytes() > 0 || c.lost_bytes > 0;
    if (!ready || c.has(kForceOne | kOweTail)) {
        pace.waiting = false;
        return false;
    }
    const std::int64_t ahead = pace.next_ns - nanoseconds(now);
    const std::int64_t burst = burst_time(c.info.min_rtt_us).count() * 1000;
    pace.waiting = pace.waiting ? ahead > 0 : ahead >= burst;
    // As Linux: a window of which half is in use is about to be the limit.
    if (pace.waiting && c.pipe_bytes() >= c.info.cwnd_bytes / 2) c.set(kCwndLimited);
    return pace.waiting;
}

/// Is the time of what was sent not over yet?
bool Machine::pace_runs_ahead(const Connection& c, Instant now) const {
    return c.info.pacing_kbps != 0 && extra(c)->pace.next_ns > nanoseconds(now);
}

/// Text has left. After a pause no more than one burst's time is given back.
void Machine::use_pace(Connection& c, std::uint32_t bytes, Instant now) {
    if (c.info.pacing_kbps == 0) return;
    Pace& pace = extra(c)->pace;
    const std::int64_t earliest =
        nanoseconds(now) - burst_time(c.info.min_rtt_us).count() * 1000;
    const std::uint64_t takes = std::uint64_t{bytes} * 1'000'000 / c.info.pacing_kbps;
    pace.next_ns = std::max(pace.next_ns, earliest) + static_cast<std::int64_t>(takes);
}

/// How much a port that cuts segments may be given at once.
std::uint32_t Machine::paced_burst(const Connection& c) const {
    if (c.info.pacing_kbps == 0) return 0xffff'ffff;
    return std::max(burst_bytes(c.info.pacing_kbps, c.info.min_rtt_us), 2 * c.info.mss);
}

Instant Machine::pace_deadline(const Connection& c) const {
    if (c.info.pacing_kbps == 0 || !extra(c)->pace.waiting) return kNever;
    return Instant(Micros(std::max<std::int64_t>(extra(c)->pace.next_ns / 1000 + 1, 0)));
}

/// All that is outstanding is known lost, and waits for its pace to go again: no answer is due.
bool Machine::nothing_left_yet(const Connection& c) const {
    return c.info.pacing_kbps != 0 && extra(c)->pace.waiting && c.lost_bytes > 0 &&
           c.pipe_bytes() == 0;
}

}  // namespace chiru::tcp
