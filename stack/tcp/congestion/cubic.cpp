// SPDX-License-Identifier: Apache-2.0
#include "stack/tcp/congestion/cubic.hpp"

#include <algorithm>
#include <cmath>

namespace chiru::tcp {

namespace {

constexpr float kC = 0.4f;     // §5, segments per second cubed
constexpr float kBeta = 0.7f;  // §4.6
constexpr float kAlpha = 3 * (1 - kBeta) / (1 + kBeta);  // §4.3

float segments(std::uint32_t bytes, const CongestionWindow& window) {
    return static_cast<float>(bytes) / static_cast<float>(window.mss);
}

/// Milliseconds, the low bits, and never 0.
std::uint32_t stamp(Instant now) {
    return static_cast<std::uint32_t>(now.time_since_epoch().count() / 1000) | 1;
}

}  // namespace

void Cubic::begin_epoch(const CongestionWindow& window, Instant now) {
    epoch_ms_ = stamp(now);
    const float cwnd = segments(window.cwnd_bytes, window);
    w_est_ = cwnd;
    gathered_ = 0;
    w_max_ = std::max(w_max_, cwnd);
    k_s_ = std::cbrt((w_max_ - cwnd) / kC);  // eq. (2)
}

void Cubic::on_ack(CongestionWindow& window, const AckReport& ack) {
    if (ack.reducing) return;
    if (!ack.cwnd_limited) {  // §5.8: while the application had nothing to send, no growth
        epoch_ms_ = 0;
        return;
    }
    if (window.slow_start()) {
        window.cwnd_bytes += std::min(ack.acked_bytes, 2 * window.mss);
        return;
    }
    if (epoch_ms_ == 0) begin_epoch(window, ack.now);

    const float cwnd = segments(window.cwnd_bytes, window);
    const float acked = segments(ack.acked_bytes, window);
    const float t = static_cast<float>(stamp(ack.now) - epoch_ms_) * 1e-3f +
                    static_cast<float>(ack.smoothed_rtt.count()) * 1e-6f;
    const float off = t - k_s_;
    const float w_cubic = w_max_ + kC * off * off * off;      // eq. (1), one RTT ahead
    const float target = std::clamp(w_cubic, cwnd, 1.5f * cwnd);  // §4.2

    // §4.3; once it has caught up with the old plateau, Reno's own factor is the fair one
    w_est_ += (w_est_ > w_max_ ? 1.0f : kAlpha) * acked / cwnd;

    gathered_ += (target - cwnd) / cwnd * acked;  // §4.4
    const float grown = std::max(gathered_, w_est_ - cwnd);
    if (grown <= 0) return;
    const auto bytes = static_cast<std::uint32_t>(grown * static_cast<float>(window.mss));
    if (bytes == 0) return;
    gathered_ = std::max(0.0f, gathered_ - segments(bytes, window));
    window.cwnd_bytes += bytes;
}

void Cubic::on_loss(CongestionWindow& window, const LossReport& loss) {
    const float cwnd = segments(std::max(loss.in_flight_bytes, window.mss), window);
    // §4.7, fast convergence: a plateau lower than the last one makes room for newcomers
    w_max_ = cwnd < w_max_ ? cwnd * (1 + kBeta) / 2 : cwnd;
    epoch_ms_ = 0;
    const float kept = static_cast<float>(loss.in_flight_bytes) * kBeta;
    const auto reduced = static_cast<std::uint32_t>(kept);
    window.ssthresh_bytes = std::max(reduced, 2 * window.mss);  // §4.6
    window.cwnd_bytes = loss.timeout ? window.mss : window.ssthresh_bytes;  // §4.8
}

}  // namespace chiru::tcp
