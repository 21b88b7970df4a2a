// SPDX-License-Identifier: Apache-2.0
//
// Quantities as people read them. Counts are in steps of 1000 (k, M, G), bytes in steps of 1024
// (K, M, G, as ls -h has them), three digits each.
#pragma once

#include <cstdint>
#include <string>

namespace chiru::cli {

/// Human, or every digit.
enum class Digits : std::uint8_t { Rounded, Exact };

std::string count_text(std::uint64_t count, Digits digits = Digits::Rounded);
std::string bytes_text(std::uint64_t bytes, Digits digits = Digits::Rounded);
/// "850us", "12.3ms", "4.20s", "3m12s", "2h05m", "3d04h".
std::string duration_text(std::int64_t micros);
/// Per second; below 100 with one decimal.
std::string rate_text(double per_second);
/// "1 client", "3 clients".
std::string counted(std::uint64_t count, const char* noun);

}  // namespace chiru::cli
