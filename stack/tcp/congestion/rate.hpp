// SPDX-License-Identifier: Apache-2.0
//
// How fast the network delivers (draft-ietf-ccwg-bbr §4.1): each transmission carries what had been
// delivered when it was made; when it arrives, what was delivered since, over the time it took, is
// a sample. Of the times between transmissions and between ACKs the longer counts, so neither a
// burst of ours nor ACKs that come in a lump make the path look faster than it is.
#pragma once

#include "stack/tcp/congestion/report.hpp"

#include <algorithm>
#include <cstdint>
#include <optional>

namespace chiru::tcp {

struct RateSample {
    std::uint32_t kbps = 0;       ///< kilobytes a second
    std::uint32_t delivered = 0;  ///< bytes, in that time
    bool app_limited = false;     ///< the program, not the path, was the limit
};

class DeliveryRate {
public:
    /// What a transmission carries. `in_flight`: before it.
    SentStamp stamp(std::uint32_t now_us, std::uint32_t in_flight) {
        if (in_flight == 0) first_sent_us_ = delivered_us_ = now_us;
        return {delivered_, delivered_us_, first_sent_us_, app_limited_};
    }

    /// The program has nothing to send, and the window would allow more.
    void run_dry(std::uint32_t in_flight) {
        app_limited_ = true;
        bubble_end_ = delivered_ + in_flight;
    }

    /// What this ACK says; nothing if no stamped transmission arrived, or too soon to be true.
    std::optional<RateSample> on_ack(const AckReport& ack, std::uint32_t min_rtt_us) {
        const auto now_us = static_cast<std::uint32_t>(ack.now.time_since_epoch().count());
        delivered_ += ack.delivered_bytes;
        if (ack.delivered_bytes > 0) delivered_us_ = now_us;
        if (app_limited_ && static_cast<std::int32_t>(delivered_ - bubble_end_) > 0)
            app_limited_ = false;
        if (!ack.newest.known) return std::nullopt;
        const SentStamp& sent = ack.newest.stamp;
        first_sent_us_ = ack.newest.sent_us;
        const std::uint32_t interval =
            std::max(ack.newest.sent_us - sent.first_sent_us, now_us - sent.delivered_us);
        if (interval == 0 || interval < min_rtt_us) return std::nullopt;
        const std::uint32_t bytes = delivered_ - sent.delivered;
        const std::uint64_t kbps = std::uint64_t{bytes} * 1000 / interval;
        return RateSample{static_cast<std::uint32_t>(std::min<std::uint64_t>(kbps, UINT32_MAX)),
                          bytes, sent.app_limited};
    }

    std::uint32_t delivered() const { return delivered_; }

private:
    std::uint32_t delivered_ = 0;  ///< bytes, low bits
    std::uint32_t delivered_us_ = 0;
    std::uint32_t first_sent_us_ = 0;
    std::uint32_t bubble_end_ = 0;  ///< if app_limited_: until so much is delivered
    bool app_limited_ = false;
};

}  // namespace chiru::tcp
