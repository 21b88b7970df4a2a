// SPDX-License-Identifier: Apache-2.0
//
// CUBIC (RFC 9438): the window grows with the cube of the time since the last loss, flat around
// the size at which that loss happened, and never slower than Reno would.
//
// Windows are in segments here, as in the RFC, times in seconds; single precision is enough for a
// window of 2^24 segments.
#pragma once

#include "base/time.hpp"
#include "stack/tcp/congestion/report.hpp"

#include <cstdint>

namespace chiru::tcp {

class Cubic {
public:
    void on_ack(CongestionWindow& window, const AckReport& ack);
    void on_loss(CongestionWindow& window, const LossReport& loss);

private:
    void begin_epoch(const CongestionWindow& window, Instant now);

    std::uint32_t epoch_ms_ = 0;  ///< when congestion avoidance began, its low bits; 0: not yet
    float w_max_ = 0;             ///< §4.1.2, segments; the plateau
    float k_s_ = 0;               ///< §4.2, seconds until the plateau
    float w_est_ = 0;             ///< §4.3, what Reno would have
    float gathered_ = 0;          ///< growth below one byte, carried on
};

}  // namespace chiru::tcp
