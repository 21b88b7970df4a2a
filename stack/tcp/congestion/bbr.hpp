// SPDX-License-Identifier: Apache-2.0
//
// BBR: sends at the rate that the network was seen to deliver, and keeps as much in flight as a
// round trip of that rate holds, instead of filling queues until they overflow.
//
//   Startup    doubles the rate each round trip, until it brings no more
//   Drain      empties the queue that this made
//   ProbeBw    sends at the rate found; once in eight round trips faster, then slower
//   ProbeRtt   every ten seconds, for a moment, with half of it: to see the path without a queue
//
// The model is that of draft-cardwell-iccrg-bbr-congestion-control-00 (BBRv1), the gains of Startup
// and ProbeRtt those of draft-ietf-ccwg-bbr (v3). Single losses are no sign of congestion here; but
// where a tenth and more of what is sent is lost, the rate is what arrives, and no more is in
// flight than then (docs/rfc.md says why).
#pragma once

#include "base/time.hpp"
#include "stack/tcp/congestion/rate.hpp"
#include "stack/tcp/congestion/report.hpp"

#include <array>
#include <cstdint>

namespace chiru::tcp {

/// The largest of the last rounds' values, in three records (Nichols' filter).
class RoundMax {
public:
    void update(std::uint32_t value, std::uint32_t round);
    void reset(std::uint32_t value, std::uint32_t round) { best_.fill({value, round}); }
    std::uint32_t best() const { return best_[0].value; }

private:
    struct Entry {
        std::uint32_t value = 0;
        std::uint32_t round = 0;
    };
    std::array<Entry, 3> best_{};
};

class Bbr {
public:
    enum class Mode : std::uint8_t { Startup, Drain, ProbeBw, ProbeRtt };

    Bbr() = default;
    /// `srtt`: zero if not known yet. `lost_bytes`: as in the reports that will come.
    Bbr(const CongestionWindow& window, Micros srtt, std::uint64_t lost_bytes, Instant now);

    void on_ack(CongestionWindow& window, const AckReport& ack);
    void on_loss(CongestionWindow& window, const LossReport& loss);
    /// It was none.
    void on_undo() { inflight_hi_ = 0; }
    /// A transmission after a pause in which nothing was in flight.
    void on_restart();

    /// Kilobytes a second to send at.
    std::uint32_t pacing_kbps() const { return pacing_kbps_; }
    std::uint32_t bandwidth_kbps() const { return bandwidth_.best(); }
    std::uint32_t min_rtt_us() const { return min_rtt_us_; }
    Mode mode() const { return mode_; }
    DeliveryRate& rate() { return rate_; }

private:
    void take_sample(const RateSample& sample);
    void count_round(const AckReport& ack);
    void begin_stretch(const AckReport& ack);
    void judge_losses(const CongestionWindow& window, const AckReport& ack);
    void check_full_pipe();
    bool take_rtt(const AckReport& ack);
    void note_aggregation(const AckReport& ack, std::uint32_t cwnd_bytes);
    void move_on(const AckReport& ack);
    bool phase_over(const AckReport& ack) const;
    void enter_probe_bw(Instant now);
    void probe_rtt(CongestionWindow& window, const AckReport& ack, bool due);
    void leave_probe_rtt(CongestionWindow& window, Instant now);
    void set_pace();
    void set_window(CongestionWindow& window, const AckReport& ack);
    float pacing_gain() const;
    /// Bytes that `gain` times the path holds.
    std::uint32_t inflight(float gain) const;
    std::uint32_t target(const CongestionWindow& window) const;

    DeliveryRate rate_;
    RoundMax bandwidth_;  ///< kilobytes a second
    RoundMax extra_acked_;
    Instant min_rtt_at_{};
    Instant phase_at_{};
    Instant probe_rtt_end_{};
    Instant aggregate_at_{};
    std::uint64_t aggregate_bytes_ = 0;  ///< acknowledged since then
    std::uint32_t min_rtt_us_ = 0;  ///< 0: not known
    std::uint32_t round_ = 0;
    std::uint32_t round_end_ = 0;  ///< delivered() at which the round ends
    std::uint32_t full_kbps_ = 0;  ///< the best that Startup has seen
    std::uint32_t pacing_kbps_ = 0;
    std::uint32_t prior_cwnd_ = 0;    ///< before a time-out, or ProbeRtt; 0: neither
    std::uint32_t inflight_hi_ = 0;   ///< bytes; 0: no bound
    // A stretch of one round trip at least, over which losses are judged.
    Instant stretch_at_{};
    std::uint32_t stretch_delivered_ = 0;  ///< delivered() when it began
    std::uint64_t stretch_lost_ = 0;       ///< AckReport::lost_bytes then
    Mode mode_ = Mode::Startup;
    std::uint8_t phase_ = 0;        ///< of ProbeBw
    std::uint8_t full_rounds_ = 0;  ///< without growth
    bool full_ = false;             ///< the pipe was seen full
    bool round_began_ = false;      ///< with this ACK
    bool app_limited_ = false;      ///< the latest sample
    bool restarted_ = false;        ///< after a pause: its round trips prove nothing
    bool probe_rtt_low_ = false;    ///< in ProbeRtt, and in flight is no more than shall be
    bool timed_out_ = false;        ///< prior_cwnd_ comes back when recovery is over
};

}  // namespace chiru::tcp
