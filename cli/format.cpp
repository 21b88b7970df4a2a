// SPDX-License-Identifier: Apache-2.0
#include "cli/format.hpp"

#include <array>
#include <cstdio>

namespace chiru::cli {
namespace {

template <class... Parts>
std::string print(const char* format, Parts... parts) {
    char text[48];
    std::snprintf(text, sizeof text, format, parts...);
    return text;
}

std::string scaled(std::uint64_t number, unsigned step, const char* units) {
    if (number < step) return std::to_string(number);
    auto value = static_cast<double>(number);
    std::size_t unit = 0;
    // 999.5 would print as "1000".
    while (value >= 999.5 && units[unit] != '\0') {
        value /= step;
        ++unit;
    }
    const int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
    return print("%.*f%c", decimals, value, units[unit - 1]);
}

}  // namespace

std::string count_text(std::uint64_t count, Digits digits) {
    return digits == Digits::Exact ? std::to_string(count) : scaled(count, 1000, "kMGTPE");
}

std::string bytes_text(std::uint64_t bytes, Digits digits) {
    return digits == Digits::Exact ? std::to_string(bytes) : scaled(bytes, 1024, "KMGTPE");
}

std::string duration_text(std::int64_t micros) {
    if (micros < 0) micros = 0;
    if (micros < 1000) return print("%ldus", static_cast<long>(micros));
    const auto value = static_cast<double>(micros);
    if (micros < 10'000) return print("%.2fms", value / 1e3);
    if (micros < 1'000'000) return print("%.1fms", value / 1e3);
    if (micros < 60'000'000) return print("%.2fs", value / 1e6);
    const long seconds = static_cast<long>(micros / 1'000'000);
    if (seconds < 3600) return print("%ldm%02lds", seconds / 60, seconds % 60);
    if (seconds < 86'400) return print("%ldh%02ldm", seconds / 3600, seconds % 3600 / 60);
    return print("%ldd%02ldh", seconds / 86'400, seconds % 86'400 / 3600);
}

std::string rate_text(double per_second) {
    if (per_second < 100) return print("%.1f", per_second);
    return count_text(static_cast<std::uint64_t>(per_second));
}

std::string counted(std::uint64_t count, const char* noun) {
    return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

}  // namespace chiru::cli
