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

void Cubic::begin_epoch(Curve& curve, const CongestionWindow& window, Instant now) {
    curve.epoch_ms = stamp(now);
    const float cwnd = segments(window.cwnd_bytes, window);
    curve.w_est = cwnd;
    curve.gathered = 0;
    curve.w_max = std::max(curve.w_max, cwnd);
    curve.k_s = std::cbrt((curve.w_max - cwnd) / kC);  // eq. (2)
}

void Cubic::on_ack(CongestionWindow& window, const AckReport& ack) {
    if (ack.reducing) return;
    if (window.untried()) {
        if (!start_.on_ack(window, ack)) return;
        window.ssthresh_bytes = window.cwnd_bytes;
        std::construct_at(&curve_);
        return;
    }
    Curve& curve = curve_;
    if (!ack.cwnd_limited) {  // §5.8: while the application had nothing to send, no growth
        curve.epoch_ms = 0;
        return;
    }
    if (window.slow_start()) {
        window.cwnd_bytes += std::min(ack.acked_bytes, 2 * window.mss);
        return;
    }
    if (curve.epoch_ms == 0) begin_epoch(curve, window, ack.now);

    const float cwnd = segments(window.cwnd_bytes, window);
    const float acked = segments(ack.acked_bytes, window);
    const float t = static_cast<float>(stamp(ack.now) - curve.epoch_ms) * 1e-3f +
                    static_cast<float>(ack.smoothed_rtt.count()) * 1e-6f;
    const float off = t - curve.k_s;
    const float w_cubic = curve.w_max + kC * off * off * off;      // eq. (1), one RTT ahead
    const float target = std::clamp(w_cubic, cwnd, 1.5f * cwnd);  // §4.2

    // §4.3; once it has caught up with the old plateau, Reno's own factor is the fair one
    curve.w_est += (curve.w_est > curve.w_max ? 1.0f : kAlpha) * acked / cwnd;

    curve.gathered += (target - cwnd) / cwnd * acked;  // §4.4
    const float grown = std::max(curve.gathered, curve.w_est - cwnd);
    if (grown <= 0) return;
    const auto bytes = static_cast<std::uint32_t>(grown * static_cast<float>(window.mss));
    if (bytes == 0) return;
    curve.gathered = std::max(0.0f, curve.gathered - segments(bytes, window));
    window.cwnd_bytes += bytes;
}

void Cubic::on_loss(CongestionWindow& window, const LossReport& loss) {
    if (window.untried()) std::construct_at(&curve_);
    Curve& curve = curve_;
    const float cwnd = segments(std::max(loss.in_flight_bytes, window.mss), window);
    // §4.7, fast convergence: a plateau lower than the last one makes room for newcomers. After a
    // time-out (§4.8) the curve begins flat where slow start will have ended.
    if (loss.timeout) curve.w_max = 0;
    else curve.w_max = cwnd < curve.w_max ? cwnd * (1 + kBeta) / 2 : cwnd;
    curve.epoch_ms = 0;
    const float kept = static_cast<float>(loss.in_flight_bytes) * kBeta;
    const auto reduced = static_cast<std::uint32_t>(kept);
    window.ssthresh_bytes = std::max(reduced, 2 * window.mss);  // §4.6
    window.cwnd_bytes = loss.timeout ? window.mss : window.ssthresh_bytes;  // §4.8
}

}  // namespace chiru::tcp
