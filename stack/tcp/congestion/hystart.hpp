// SPDX-License-Identifier: Apache-2.0
//
// HyStart++ (RFC 9406): leaves slow start when round trips grow longer, which a filling queue
// shows, instead of when it overflows. For some round trips the window grows slower first; should
// they become short again, it was a false alarm.
#pragma once

#include "stack/tcp/congestion/report.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>

namespace chiru::tcp {

class HyStart {
public:
    explicit HyStart(Seq nxt) : rounds_(nxt) {}

    /// Grows the window. Returns whether slow start is over.
    bool on_ack(CongestionWindow& window, const AckReport& ack) {
        if (ack.cwnd_limited) {
            const std::uint32_t growth = std::min(ack.acked_bytes, kBurst * window.mss);
            window.cwnd_bytes += cautious() ? growth / kCautiousDivisor : growth;
        }
        take_sample(ack);
        if (!rounds_.ended(ack)) return false;
        last_min_us_ = current_min_us_;
        current_min_us_ = kNone;
        samples_ = 0;
        return cautious() && ++cautious_rounds_ >= kCautiousRounds;
    }

    /// In what the RFC calls conservative slow start?
    bool cautious() const { return baseline_us_ != kNone; }

private:
    static constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();
    // §4.3
    static constexpr std::uint32_t kLeastRiseUs = 4'000;
    static constexpr std::uint32_t kMostRiseUs = 16'000;
    static constexpr std::uint32_t kRiseDivisor = 8;
    static constexpr std::uint8_t kSamples = 8;
    static constexpr std::uint32_t kCautiousDivisor = 4;
    static constexpr std::uint8_t kCautiousRounds = 5;
    static constexpr std::uint32_t kBurst = 8;  // L

    void take_sample(const AckReport& ack) {
        if (ack.rtt.count() == 0) return;
        current_min_us_ = std::min(current_min_us_, static_cast<std::uint32_t>(ack.rtt.count()));
        if (samples_ < kSamples) ++samples_;
        if (samples_ < kSamples) return;
        if (cautious()) {
            if (current_min_us_ < baseline_us_) baseline_us_ = kNone;
        } else if (last_min_us_ != kNone) {
            const std::uint32_t rise =
                std::clamp(last_min_us_ / kRiseDivisor, kLeastRiseUs, kMostRiseUs);
            if (current_min_us_ < last_min_us_ + rise) return;
            baseline_us_ = current_min_us_;
            cautious_rounds_ = 0;
        }
    }

    Rounds rounds_;
    std::uint32_t last_min_us_ = kNone;     ///< lastRoundMinRTT
    std::uint32_t current_min_us_ = kNone;  ///< currentRoundMinRTT
    std::uint32_t baseline_us_ = kNone;     ///< cssBaselineMinRtt; none: ordinary slow start
    std::uint8_t samples_ = 0;
    std::uint8_t cautious_rounds_ = 0;
};

}  // namespace chiru::tcp
