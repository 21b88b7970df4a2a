// SPDX-License-Identifier: Apache-2.0
//
// Reno's window (RFC 5681 §3.1, with the byte counting of RFC 3465 it recommends).
#pragma once

#include "stack/tcp/congestion/report.hpp"

#include <algorithm>
#include <cstdint>

namespace chiru::tcp {

class Reno {
public:
    void on_ack(CongestionWindow& window, const AckReport& ack) {
        // An idle application proves nothing about the path.
        if (ack.reducing || !ack.cwnd_limited) return;
        if (window.slow_start()) {
            // RFC 3465 §2.2, L = 2: an ACK of two segments counts for both
            window.cwnd_bytes += std::min(ack.acked_bytes, 2 * window.mss);
            return;
        }
        avoidance_bytes_ += ack.acked_bytes;  // congestion avoidance: one MSS per window
        if (avoidance_bytes_ < window.cwnd_bytes) return;
        avoidance_bytes_ -= window.cwnd_bytes;
        window.cwnd_bytes += window.mss;
    }

    void on_loss(CongestionWindow& window, const LossReport& loss) {
        window.ssthresh_bytes = std::max(loss.in_flight_bytes / 2, 2 * window.mss);  // eq. (4)
        // Down to ssthresh and no inflation by duplicate ACKs: recovery counts the pipe
        // (RFC 6675 §5, 4.2). After a timeout the path is unknown: one segment (§3.1).
        window.cwnd_bytes = loss.timeout ? window.mss : window.ssthresh_bytes;
        avoidance_bytes_ = 0;
    }

private:
    std::uint32_t avoidance_bytes_ = 0;  ///< acknowledged since cwnd last grew
};

}  // namespace chiru::tcp
