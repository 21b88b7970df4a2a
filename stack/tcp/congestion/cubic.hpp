// SPDX-License-Identifier: Apache-2.0
//
// CUBIC (RFC 9438): the window grows with the cube of the time since the last loss, flat around
// the size at which that loss happened, and never slower than Reno would. Before the first loss
// there is no such size: HyStart++ looks for it.
//
// Windows are in segments here, as in the RFC, times in seconds; single precision is enough for a
// window of 2^24 segments.
#pragma once

#include "base/time.hpp"
#include "stack/tcp/congestion/hystart.hpp"
#include "stack/tcp/congestion/report.hpp"

#include <cstdint>
#include <memory>

namespace chiru::tcp {

class Cubic {
public:
    Cubic() : start_(Seq()) {}
    Cubic(const CongestionWindow& window, Seq nxt) {
        if (window.untried()) std::construct_at(&start_, nxt);
        else std::construct_at(&curve_);
    }

    void on_ack(CongestionWindow& window, const AckReport& ack);
    void on_loss(CongestionWindow& window, const LossReport& loss);

private:
    struct Curve {
        std::uint32_t epoch_ms = 0;  ///< when congestion avoidance began, low bits; 0: not yet
        float w_max = 0;             ///< §4.1.2, segments; the plateau
        float k_s = 0;               ///< §4.2, seconds until the plateau
        float w_est = 0;             ///< §4.3, what Reno would have
        float gathered = 0;          ///< growth below one byte, carried on
    };

    static void begin_epoch(Curve& curve, const CongestionWindow& window, Instant now);

    union {
        HyStart start_;  ///< while the window is untried()
        Curve curve_;    ///< afterwards
    };
};

}  // namespace chiru::tcp
