// SPDX-License-Identifier: Apache-2.0
//
// How often something may be said. A client can cause messages; it must not fill the disk, nor
// hide another message among its own.
#pragma once

#include "base/time.hpp"

#include <algorithm>
#include <cstdint>

namespace chiru::daemon {

/// A token bucket: `burst` at once, then one for each `interval`.
class RateLimit {
public:
    RateLimit(std::uint32_t burst, Micros interval)
        : burst_(burst), interval_(interval), tokens_(burst) {}

    /// Is there room for one more? If not, it is counted.
    bool allow(Instant now) {
        const std::int64_t earned = std::min<std::int64_t>((now - filled_) / interval_, burst_);
        if (earned > 0) {
            tokens_ = std::min(burst_, tokens_ + static_cast<std::uint32_t>(earned));
            filled_ = now;
        }
        if (tokens_ == 0) {
            ++left_out_;
            return false;
        }
        --tokens_;
        return true;
    }
    /// How many were refused since the last call.
    std::uint64_t take_left_out() {
        const std::uint64_t count = left_out_;
        left_out_ = 0;
        return count;
    }

private:
    std::uint32_t burst_;
    Micros interval_;
    std::uint32_t tokens_;
    Instant filled_{};
    std::uint64_t left_out_ = 0;
};

}  // namespace chiru::daemon
