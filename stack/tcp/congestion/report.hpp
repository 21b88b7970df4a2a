// SPDX-License-Identifier: Apache-2.0
//
// The values that pass between loss recovery and congestion control.
#pragma once

#include "base/time.hpp"
#include "stack/tcp/seq.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>

namespace chiru::tcp {

/// The congestion window of one connection.
struct CongestionWindow {
    static constexpr std::uint32_t kNoThreshold = std::numeric_limits<std::uint32_t>::max();
    std::uint32_t cwnd_bytes = 0;
    std::uint32_t ssthresh_bytes = kNoThreshold;
    std::uint32_t mss = 0;

    bool slow_start() const { return cwnd_bytes < ssthresh_bytes; }
    /// Did nothing ever stop its growth?
    bool untried() const { return ssthresh_bytes == kNoThreshold; }
};

/// RFC 6928 §2.
constexpr std::uint32_t initial_window(std::uint32_t mss) {
    return std::min(10 * mss, std::max(2 * mss, 14'600u));
}

/// What a transmission carries of the deliveries before it (congestion/rate.hpp). Times are low
/// bits of the clock.
struct SentStamp {
    std::uint32_t delivered = 0;      ///< bytes, until then
    std::uint32_t delivered_us = 0;   ///< the last of them
    std::uint32_t first_sent_us = 0;  ///< of those that the same ACKs will tell of
    bool app_limited = false;
};

/// Of the transmissions that an ACK tells of, the one that went last.
struct NewestArrival {
    SentStamp stamp;
    std::uint32_t sent_us = 0;
    bool known = false;
};

/// What one incoming ACK taught us.
struct AckReport {
    Instant now{};
    std::uint32_t acked_bytes = 0;      ///< newly acknowledged, cumulatively
    std::uint32_t sacked_bytes = 0;     ///< newly acknowledged, selectively
    std::uint32_t in_flight_bytes = 0;  ///< before this ACK
    std::uint32_t delivered_bytes = 0;  ///< that left the network: either, but nothing twice
    bool needless_repeat = false;       ///< the peer got something twice (DSACK, RFC 2883)
    std::uint32_t needless_bytes = 0;   ///< of what this recovery sent again, so much of it
    bool cwnd_limited = false;          ///< the window, not the application, was the limit
    bool echoed = false;                ///< ECE: the peer saw marks (RFC 3168)
    bool reducing = false;              ///< in recovery, or at its end: the window must not grow
    Micros smoothed_rtt{0};             ///< 0 until there was a sample
    Micros rtt{0};                      ///< of the newest text acknowledged; 0: not measured
    bool original = false;  ///< text that was sent once and thought lost arrived
    bool recovering = false;            ///< something is thought lost
    std::uint64_t lost_bytes = 0;       ///< thought lost, since the connection began
    NewestArrival newest;               ///< if transmissions are stamped
    Seq una;                            ///< SND.UNA, after this ACK
    Seq nxt;                            ///< SND.NXT
};

/// The network is congested. Sent once per round trip, not once per lost segment or mark.
struct LossReport {
    Instant now{};
    std::uint32_t in_flight_bytes = 0;  ///< FlightSize, when the loss was detected
    bool timeout = false;               ///< found by the RTO, not by ACKs
    bool marked = false;                ///< told by ECE: nothing was lost
};

/// How much time a paced burst may run ahead (pacing.cpp): some of a round trip, but not less than
/// the timing wheel can tell, and not more than a millisecond.
constexpr Micros burst_time(std::uint32_t min_rtt_us) {
    return Micros(std::clamp<std::int64_t>(min_rtt_us / 8, 250, 1000));
}
constexpr std::uint32_t burst_bytes(std::uint32_t kbps, std::uint32_t min_rtt_us) {
    const auto us = static_cast<std::uint64_t>(burst_time(min_rtt_us).count());
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(kbps * us / 1000, 1u << 30));
}

/// Round trips, told apart by sequence numbers: one ends when what was SND.NXT at its beginning is
/// acknowledged.
class Rounds {
public:
    Rounds() = default;
    explicit Rounds(Seq nxt) : end_(nxt) {}

    /// Does this ACK end a round?
    bool ended(const AckReport& ack) {
        if (ack.una < end_) return false;
        end_ = ack.nxt;
        return true;
    }

private:
    Seq end_;
};

}  // namespace chiru::tcp
