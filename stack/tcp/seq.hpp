// SPDX-License-Identifier: Apache-2.0
//
// Sequence numbers: 32-bit integers that wrap (RFC 9293 §3.4).
#pragma once

#include <cstdint>

namespace chiru::tcp {

class Seq {
public:
    constexpr Seq() = default;
    constexpr explicit Seq(std::uint32_t raw) : raw_(raw) {}
    constexpr std::uint32_t raw() const { return raw_; }

    constexpr Seq& operator+=(std::uint32_t bytes) { raw_ += bytes; return *this; }
    friend constexpr Seq operator+(Seq s, std::uint32_t bytes) { return s += bytes; }
    friend constexpr Seq operator-(Seq s, std::uint32_t bytes) { return s += 0u - bytes; }

    /// Signed distance from b to a. Exact while the two are less than 2^31 apart, which the
    /// largest window of 2^30 bytes guarantees (RFC 7323 §2.3).
    friend constexpr std::int32_t operator-(Seq a, Seq b) {
        return static_cast<std::int32_t>(a.raw_ - b.raw_);
    }

    friend constexpr bool operator==(Seq, Seq) = default;
    friend constexpr bool operator<(Seq a, Seq b) { return a - b < 0; }
    friend constexpr bool operator<=(Seq a, Seq b) { return a - b <= 0; }
    friend constexpr bool operator>(Seq a, Seq b) { return b < a; }
    friend constexpr bool operator>=(Seq a, Seq b) { return b <= a; }
    // No operator<=>: modular order is not transitive, so a Seq must never be sorted or
    // serve as the key of an ordered container.

    /// Is this one of the `size` sequence numbers that start at `first`?
    constexpr bool in_window(Seq first, std::uint32_t size) const {
        return raw_ - first.raw_ < size;
    }

private:
    std::uint32_t raw_ = 0;
};

static_assert(Seq(0xffff'ffff) + 1 == Seq(0));
static_assert(Seq(0xffff'fff0) < Seq(0x10));
static_assert(Seq(5).in_window(Seq(0xffff'fff0), 0x100));
static_assert(!Seq(0).in_window(Seq(0), 0));

}  // namespace chiru::tcp
