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
    bool reducing = false;              ///< in recovery: the window must not grow
    Micros smoothed_rtt{0};             ///< 0 until there was a sample
    Micros rtt{0};                      ///< of the newest text acknowledged; 0: not measured
    bool original = false;  ///< text that was sent once and thought lost arrived
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
