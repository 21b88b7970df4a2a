// SPDX-License-Identifier: Apache-2.0
//
// The long part of a checksum: words added up in the compiler's vectors, of the width the caller
// is compiled for, so that one text serves every processor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace chiru::wire {

template <std::size_t kBytes>
using Lanes [[gnu::vector_size(kBytes)]] = std::uint64_t;

/// Words of 32 bits, in the machine's order, each added to a lane of 64. Carries cannot be lost:
/// 2^32 such words fit.
template <std::size_t kBytes>
[[gnu::always_inline]] inline void add_lanes(Lanes<kBytes>& sum, const std::byte* from) {
    Lanes<kBytes> words;
    std::memcpy(&words, from, kBytes);
    sum += (words & 0xffff'ffff) + (words >> 32);
}

/// The sum of `blocks` times 4 * kBytes. Four sums, so that none waits for the one before it.
template <std::size_t kBytes>
[[gnu::always_inline]] inline std::uint64_t sum_lanes(const std::byte* from, std::size_t blocks) {
    Lanes<kBytes> a{}, b{}, c{}, d{};
    for (; blocks > 0; from += 4 * kBytes, --blocks) {
        add_lanes<kBytes>(a, from);
        add_lanes<kBytes>(b, from + kBytes);
        add_lanes<kBytes>(c, from + 2 * kBytes);
        add_lanes<kBytes>(d, from + 3 * kBytes);
    }
    a = (a + b) + (c + d);
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < kBytes / sizeof(std::uint64_t); ++i) sum += a[i];
    return sum;
}

}  // namespace chiru::wire
