// SPDX-License-Identifier: Apache-2.0
//
// So many answers a second, but not the same number in each: whoever sees which of his own
// segments are answered must not learn how many others were. RFC 5961 §7's fixed limit, shared by
// all connections, told strangers that a connection exists, and its numbers (CVE-2016-5696).
#pragma once

#include "base/siphash.hpp"
#include "base/time.hpp"

#include <array>
#include <cstdint>
#include <span>

namespace chiru::tcp {

class NoisyLimit {
public:
    /// Between half of `per_second` and one and a half times as many, by the second's secret.
    explicit NoisyLimit(std::uint32_t per_second) : per_second_(per_second) {}

    bool take(const SipKey& key, Instant now) {
        const std::int64_t second = now.time_since_epoch().count() >> 20;
        if (second != second_) {
            second_ = second;
            const std::array<std::uint64_t, 2> input{static_cast<std::uint64_t>(second),
                                                     per_second_};
            const std::uint64_t noise = siphash(key, std::as_bytes(std::span(input)));
            left_ = per_second_ / 2 + static_cast<std::uint32_t>(noise % (per_second_ + 1));
        }
        if (left_ == 0) return false;
        --left_;
        return true;
    }

private:
    std::uint32_t per_second_;
    std::uint32_t left_ = 0;
    std::int64_t second_ = -1;
};

}  // namespace chiru::tcp
