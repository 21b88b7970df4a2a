// SPDX-License-Identifier: Apache-2.0
//
// How often something may be done: `per_second` on average, `burst` at once.
#pragma once

#include "base/time.hpp"

#include <algorithm>
#include <cstdint>

namespace chiru::ip {

class TokenBucket {
public:
    TokenBucket(std::uint32_t per_second, std::uint32_t burst)
        : interval_us_(1'000'000 / per_second), depth_us_(interval_us_ * burst) {}

    /// Takes one token, if there is one.
    bool take(Instant now) {
        const std::int64_t now_us = now.time_since_epoch().count();
        // `empty_at_us_` is when the bucket was, or would have been, empty; it fills by time.
        const std::int64_t empty_at = std::max(empty_at_us_, now_us - depth_us_);
        if (now_us - empty_at < interval_us_) return false;
        empty_at_us_ = empty_at + interval_us_;
        return true;
    }

private:
    std::int64_t interval_us_;
    std::int64_t depth_us_;
    std::int64_t empty_at_us_ = INT64_MIN / 2;
};

}  // namespace chiru::ip
