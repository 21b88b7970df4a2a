// SPDX-License-Identifier: Apache-2.0
#include "stack/tcp/congestion/bbr.hpp"

#include <algorithm>

namespace chiru::tcp {

namespace {

using namespace std::chrono_literals;

constexpr float kStartupPace = 2.77f;     // 4 ln 2: doubles the rate in a round trip
constexpr float kDrainPace = 0.35f;       // what a round trip of Startup put into the queue
constexpr float kWindowGain = 2;          // for delayed ACKs, and ACKs that come in lumps
constexpr float kProbeRttGain = 0.5f;
constexpr float kMargin = 0.99f;          // a rate somewhat too low builds no queue
constexpr float kGrowth = 1.25f;          // by less, Startup found the end
constexpr std::uint8_t kFullRounds = 3;
constexpr std::uint32_t kBandwidthRounds = 10;
constexpr std::array<float, 8> kPhases{1.25f, 0.75f, 1, 1, 1, 1, 1, 1};
constexpr Micros kMinRttLife = 10s;
constexpr Micros kProbeRttTime = 200ms;
/// Timers cannot tell a shorter phase.
constexpr Micros kLeastPhase = 1ms;
constexpr std::uint32_t kLeastSegments = 4;
/// A stretch of fewer segments tells more of chance than of the path.
constexpr std::uint32_t kStretchSegments = 400;
constexpr std::uint32_t kTooManyLost = 10;  // one in so many
constexpr Micros kMostAggregation = 100ms;

std::uint32_t low_us(Instant now) {
    return static_cast<std::uint32_t>(now.time_since_epoch().count());
}

bool reached(std::uint32_t value, std::uint32_t mark) {
    return static_cast<std::int32_t>(value - mark) >= 0;
}

}  // namespace

// The best of the whole window, the best since that one, and the best since the second.
void RoundMax::update(std::uint32_t value, std::uint32_t round) {
    const Entry entry{value, round};
    if (value >= best_[0].value || round - best_[2].round > kBandwidthRounds) {
        best_.fill(entry);
        return;
    }
    if (value >= best_[1].value) best_[1] = best_[2] = entry;
    else if (value >= best_[2].value) best_[2] = entry;

    const std::uint32_t age = round - best_[0].round;
    if (age > kBandwidthRounds) {
        best_[0] = best_[1];
        best_[1] = best_[2];
        best_[2] = entry;
        if (round - best_[0].round > kBandwidthRounds) {
            best_[0] = best_[1];
            best_[1] = best_[2];
        }
    } else if (best_[1].round == best_[0].round && age > kBandwidthRounds / 4) {
        best_[1] = best_[2] = entry;
    } else if (best_[2].round == best_[1].round && age > kBandwidthRounds / 2) {
        best_[2] = entry;
    }
}

Bbr::Bbr(const CongestionWindow& window, Micros srtt, std::uint64_t lost_bytes, Instant now)
    : min_rtt_at_(now),
      min_rtt_us_(static_cast<std::uint32_t>(srtt.count())),
      stretch_at_(now),
      stretch_lost_(lost_bytes) {
    if (min_rtt_us_ != 0)
        pacing_kbps_ = static_cast<std::uint32_t>(
            kStartupPace * static_cast<float>(window.cwnd_bytes) * 1000 /
            static_cast<float>(min_rtt_us_));
}

void Bbr::on_ack(CongestionWindow& window, const AckReport& ack) {
    const auto sample = rate_.on_ack(ack, min_rtt_us_);
    count_round(ack);
    if (sample) take_sample(*sample);
    judge_losses(window, ack);
    check_full_pipe();
    note_aggregation(ack, window.cwnd_bytes);
    const bool old = take_rtt(ack);
    move_on(ack);
    probe_rtt(window, ack, old);
    set_pace();
    set_window(window, ack);
    round_began_ = false;
}

void Bbr::count_round(const AckReport& ack) {
    if (!ack.newest.known || !reached(ack.newest.stamp.delivered, round_end_)) return;
    round_end_ = rate_.delivered();
    ++round_;
    round_began_ = true;
    if (inflight_hi_ == 0) return;
    inflight_hi_ += inflight_hi_ / 16;  // nothing was amiss for a round trip: try more
    if (inflight_hi_ > inflight(kWindowGain)) inflight_hi_ = 0;
}

/// While the program is the limit, or the window that a time-out left, samples tell only how fast
/// the path is at least.
void Bbr::take_sample(const RateSample& sample) {
    app_limited_ = sample.app_limited || timed_out_;
    if (!app_limited_ || sample.kbps >= bandwidth_.best())
        bandwidth_.update(std::max(sample.kbps, 1u), round_);
}

void Bbr::begin_stretch(const AckReport& ack) {
    stretch_at_ = ack.now;
    stretch_delivered_ = rate_.delivered();
    stretch_lost_ = ack.lost_bytes;
}

/// Random losses are few. Where many are lost a queue overflows that is too short for our bursts or
/// for all who share it: then the best rate ever seen is not ours to have.
void Bbr::judge_losses(const CongestionWindow& window, const AckReport& ack) {
    if (full_ && !round_began_) return;
    if (timed_out_ || mode_ == Mode::Drain) return begin_stretch(ack);  // old losses, or none
    const std::uint64_t delivered = rate_.delivered() - stretch_delivered_;
    // Some of it may have been found again.
    const std::uint64_t lost = std::max(ack.lost_bytes, stretch_lost_) - stretch_lost_;
    const std::uint32_t segments = full_ ? kStretchSegments : kStretchSegments / 2;
    if (delivered + lost < std::uint64_t{segments} * window.mss) return;
    const auto took = static_cast<std::uint64_t>(std::max((ack.now - stretch_at_).count(),
                                                          std::int64_t{1}));
    const std::uint32_t share = full_ ? kTooManyLost : kTooManyLost / 2;
    const bool too_many = lost * share >= delivered + lost;
    if (too_many || round_began_) begin_stretch(ack);
    if (!too_many) return;
    if (!full_) {
        full_ = true;  // Startup overflows the queue: that was the end
        return;
    }
    const auto average = static_cast<std::uint32_t>(delivered * 1000 / took);
    if (average == 0 || app_limited_) return;
    bandwidth_.reset(std::min(average, bandwidth_.best()), round_);
    inflight_hi_ = std::max(inflight(1), kLeastSegments * window.mss);
}

void Bbr::check_full_pipe() {
    if (full_ || !round_began_ || app_limited_) return;
    const std::uint32_t best = bandwidth_.best();
    if (static_cast<float>(best) >= static_cast<float>(full_kbps_) * kGrowth) {
        full_kbps_ = best;
        full_rounds_ = 0;
        return;
    }
    full_ = ++full_rounds_ >= kFullRounds;
}

/// What comes above the rate comes in lumps; the window must last from one to the next.
void Bbr::note_aggregation(const AckReport& ack, std::uint32_t cwnd_bytes) {
    const std::uint64_t best = bandwidth_.best();
    const auto since = static_cast<std::uint64_t>((ack.now - aggregate_at_).count());
    std::uint64_t expected = best * since / 1000;
    if (aggregate_bytes_ <= expected) {
        aggregate_bytes_ = expected = 0;
        aggregate_at_ = ack.now;
    }
    aggregate_bytes_ += ack.delivered_bytes;
    const std::uint64_t most = best * kMostAggregation.count() / 1000;
    const std::uint64_t extra = std::min(aggregate_bytes_ - expected, most);
    extra_acked_.update(static_cast<std::uint32_t>(std::min<std::uint64_t>(extra, cwnd_bytes)),
                        round_);
}

/// Returns whether the path's round trip must be looked at without a queue.
bool Bbr::take_rtt(const AckReport& ack) {
    const auto rtt = static_cast<std::uint32_t>(ack.rtt.count());
    const bool old = ack.now > min_rtt_at_ + kMinRttLife && !restarted_;
    if (rtt != 0 && (min_rtt_us_ == 0 || rtt <= min_rtt_us_ || old)) {
        min_rtt_us_ = rtt;
        min_rtt_at_ = ack.now;
    }
    if (ack.delivered_bytes > 0) restarted_ = false;
    return old && full_;
}

void Bbr::enter_probe_bw(Instant now) {
    mode_ = Mode::ProbeBw;
    phase_at_ = now;
    // Anywhere but in the phase that sends less, so that flows which began together do not stay so.
    phase_ = static_cast<std::uint8_t>(2 + (low_us(now) ^ rate_.delivered() >> 8) % 7);
    if (phase_ == kPhases.size()) phase_ = 0;
}

bool Bbr::phase_over(const AckReport& ack) const {
    const Micros length = std::max(Micros(min_rtt_us_), kLeastPhase);
    const bool passed = ack.now - phase_at_ > length;
    const float gain = kPhases[phase_];
    if (gain > 1)
        return passed && (ack.lost_bytes != stretch_lost_ || inflight_hi_ != 0 ||
                          ack.in_flight_bytes >= inflight(gain));
    if (gain < 1) return passed || ack.in_flight_bytes <= inflight(1);
    return passed;
}

void Bbr::move_on(const AckReport& ack) {
    if (mode_ == Mode::Startup && full_) mode_ = Mode::Drain;
    if (mode_ == Mode::Drain && ack.in_flight_bytes <= inflight(1)) enter_probe_bw(ack.now);
    if (mode_ == Mode::ProbeBw && phase_over(ack)) {
        phase_ = static_cast<std::uint8_t>((phase_ + 1u) % kPhases.size());
        phase_at_ = ack.now;
    }
}

/// For a while, and for a round trip, with little in flight.
void Bbr::probe_rtt(CongestionWindow& window, const AckReport& ack, bool due) {
    if (mode_ != Mode::ProbeRtt) {
        if (!due) return;
        mode_ = Mode::ProbeRtt;
        prior_cwnd_ = std::max(prior_cwnd_, window.cwnd_bytes);
        probe_rtt_low_ = false;
    }
    const std::uint32_t least =
        std::max(inflight(kProbeRttGain), kLeastSegments * window.mss);
    if (!probe_rtt_low_) {
        if (ack.in_flight_bytes > least) return;
        probe_rtt_low_ = true;
        probe_rtt_end_ = ack.now + kProbeRttTime;
        round_end_ = rate_.delivered();
    } else if (round_began_ && ack.now >= probe_rtt_end_) {
        leave_probe_rtt(window, ack.now);
    }
}

void Bbr::leave_probe_rtt(CongestionWindow& window, Instant now) {
    min_rtt_at_ = now;
    window.cwnd_bytes = std::max(window.cwnd_bytes, prior_cwnd_);
    prior_cwnd_ = 0;
    enter_probe_bw(now);
}

float Bbr::pacing_gain() const {
    switch (mode_) {
        case Mode::Startup: return kStartupPace;
        case Mode::Drain: return kDrainPace;
        case Mode::ProbeBw: return inflight_hi_ != 0 ? std::min(kPhases[phase_], 1.0f)
                                                     : kPhases[phase_];
        case Mode::ProbeRtt: return 1;
    }
    return 1;
}

/// In Startup the pace never falls: the first samples are of a window that did not fill the path.
void Bbr::set_pace() {
    if (bandwidth_.best() == 0) return;
    const float kbps = pacing_gain() * static_cast<float>(bandwidth_.best()) * kMargin;
    const auto pace = std::max(static_cast<std::uint32_t>(kbps), 1u);
    if (full_ || pace > pacing_kbps_) pacing_kbps_ = pace;
}

std::uint32_t Bbr::inflight(float gain) const {
    if (min_rtt_us_ == 0) return 0;
    const double bytes = static_cast<double>(gain) * bandwidth_.best() * min_rtt_us_ / 1000;
    return static_cast<std::uint32_t>(std::min(bytes, static_cast<double>(1u << 30)));
}

/// Twice what the path holds, and what bursts and lumps of ACKs need on top.
std::uint32_t Bbr::target(const CongestionWindow& window) const {
    std::uint32_t bytes = inflight(kWindowGain);
    if (bytes == 0) return initial_window(window.mss);
    if (inflight_hi_ != 0) bytes = std::min(bytes, inflight_hi_);
    else if (full_) bytes += extra_acked_.best();
    return bytes + 3 * std::max(burst_bytes(pacing_kbps_, min_rtt_us_), window.mss);
}

void Bbr::set_window(CongestionWindow& window, const AckReport& ack) {
    const std::uint32_t least = kLeastSegments * window.mss;
    if (timed_out_ && !ack.recovering) {  // all that was outstanding is accounted for
        timed_out_ = false;
        window.cwnd_bytes = std::max(window.cwnd_bytes, prior_cwnd_);
        prior_cwnd_ = 0;
    }
    const std::uint32_t wanted = target(window);
    if (full_) window.cwnd_bytes = std::min(window.cwnd_bytes + ack.delivered_bytes, wanted);
    else if (window.cwnd_bytes < wanted || rate_.delivered() < initial_window(window.mss))
        window.cwnd_bytes += ack.delivered_bytes;
    if (!timed_out_) window.cwnd_bytes = std::max(window.cwnd_bytes, least);
    if (mode_ == Mode::ProbeRtt)
        window.cwnd_bytes = std::min(window.cwnd_bytes, std::max(inflight(kProbeRttGain), least));
}

void Bbr::on_loss(CongestionWindow& window, const LossReport& loss) {
    if (loss.timeout) {  // nothing is known to be in the network any longer
        if (!timed_out_) prior_cwnd_ = std::max(prior_cwnd_, window.cwnd_bytes);
        timed_out_ = true;
        window.cwnd_bytes = window.mss;
    } else if (loss.marked && full_) {
        inflight_hi_ = std::max(inflight(1), kLeastSegments * window.mss);
    }
}

void Bbr::on_restart() {
    restarted_ = true;
    if (mode_ != Mode::ProbeBw || bandwidth_.best() == 0) return;
    pacing_kbps_ = std::max(
        static_cast<std::uint32_t>(kMargin * static_cast<float>(bandwidth_.best())), 1u);
}

}  // namespace chiru::tcp
