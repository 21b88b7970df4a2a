// SPDX-License-Identifier: Apache-2.0
//
// DCTCP (RFC 8257): switches mark early, and the window shrinks by as much as the share of marked
// bytes says, instead of by half. Without marks, and after losses, it is Reno.
#pragma once

#include "stack/tcp/congestion/reno.hpp"
#include "stack/tcp/congestion/report.hpp"

#include <algorithm>
#include <cstdint>

namespace chiru::tcp {

class Dctcp {
public:
    explicit Dctcp(Seq nxt) : rounds_(nxt) {}

    void on_ack(CongestionWindow& window, const AckReport& ack) {
        acked_bytes_ += ack.acked_bytes;
        if (ack.echoed) marked_bytes_ += ack.acked_bytes;
        if (rounds_.ended(ack)) {  // §3.3, steps 3 to 7
            const float share = acked_bytes_ == 0 ? 0.0f
                                                  : static_cast<float>(marked_bytes_) /
                                                        static_cast<float>(acked_bytes_);
            alpha_ += kGain * (share - alpha_);
            acked_bytes_ = marked_bytes_ = 0;
        }
        reno_.on_ack(window, ack);
    }

    void on_loss(CongestionWindow& window, const LossReport& loss) {
        if (!loss.marked) return reno_.on_loss(window, loss);  // §3.5
        const float kept = static_cast<float>(window.cwnd_bytes) * (1 - alpha_ / 2);  // eq. (2)
        window.ssthresh_bytes = std::max(static_cast<std::uint32_t>(kept), 2 * window.mss);
        window.cwnd_bytes = window.ssthresh_bytes;
    }

    float alpha() const { return alpha_; }

private:
    static constexpr float kGain = 1.0f / 16;  // g, §4.2

    Reno reno_;
    Rounds rounds_;
    float alpha_ = 1;  ///< DCTCP.Alpha: until more is known, a mark is as bad as a loss
    std::uint32_t acked_bytes_ = 0;  ///< in this round
    std::uint32_t marked_bytes_ = 0;
};

}  // namespace chiru::tcp
