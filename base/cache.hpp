// SPDX-License-Identifier: Apache-2.0
//
// How far apart two words must lie so that their writers do not disturb each other.
#pragma once

#include <cstddef>

namespace chiru {

/// Two cache lines: the adjacent-line prefetcher of x86 fetches them in pairs. A constant of
/// ours, because std::hardware_destructive_interference_size differs between compilers and
/// would then change a layout that two processes share.
inline constexpr std::size_t kNoSharing = 128;

inline constexpr std::size_t kCacheLine = 64;

}  // namespace chiru
