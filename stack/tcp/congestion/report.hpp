// SPDX-License-Identifier: Apache-2.0
//
// The values that pass between loss recovery and congestion control.
#pragma once

#include "base/time.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>

namespace chiru::tcp {

/// The congestion window of one connection.
struct CongestionWindow {
    std::uint32_t cwnd_bytes = 0;
    std::uint32_t ssthresh_bytes = std::numeric_limits<std::uint32_t>::max();
    std::uint32_t mss = 0;

    bool slow_start() const { return cwnd_bytes < ssthresh_bytes; }
};

/// RFC 6928 §2.
constexpr std::uint32_t initial_window(std::uint32_t mss) {
    return std::min(10 * mss, std::max(2 * mss, 14'600u));
}

/// What one incoming ACK taught us.
struct AckReport {
    Instant now;
    std::uint32_t acked_bytes = 0;      ///< newly acknowledged, cumulatively
    std::uint32_t sacked_bytes = 0;     ///< newly acknowledged, selectively
    std::uint32_t in_flight_bytes = 0;  ///< before this ACK
    bool needless_repeat = false;       ///< the peer got something twice (DSACK, RFC 2883)
    bool cwnd_limited = false;          ///< the window, not the application, was the limit
    Micros smoothed_rtt{0};             ///< 0 until there was a sample
};

/// Data was lost. Sent once per recovery episode, not once per lost segment.
struct LossReport {
    Instant now;
    std::uint32_t in_flight_bytes = 0;  ///< FlightSize, when the loss was detected
    bool timeout = false;               ///< found by the RTO, not by ACKs
};

}  // namespace chiru::tcp
