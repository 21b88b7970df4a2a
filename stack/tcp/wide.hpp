// SPDX-License-Identifier: Apache-2.0
//
// The 128-bit product of two 64-bit numbers, which every 64-bit machine has an instruction for.
#pragma once

#include <cstdint>

namespace chiru::tcp {

__extension__ typedef unsigned __int128 Wide;

inline std::uint64_t product_high(std::uint64_t a, std::uint64_t b) {
    return static_cast<std::uint64_t>(Wide{a} * b >> 64);
}
inline std::uint64_t product_low(std::uint64_t a, std::uint64_t b) { return a * b; }

}  // namespace chiru::tcp
