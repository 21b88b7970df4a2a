// SPDX-License-Identifier: Apache-2.0
//
// What all targets need: numbers off the fuzzer's input, and the word for "this must hold".
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>

namespace chiru::fuzz {

inline void must(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "%s\n", what);
    std::abort();
}

/// `fault` says what is wrong; empty: nothing.
inline void must_be_none(const std::string& fault) { must(fault.empty(), fault.c_str()); }

/// Reads numbers off the input; zeroes when it is used up.
class Input {
public:
    Input(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}

    bool empty() const { return rest_.empty(); }
    std::uint8_t byte() {
        if (rest_.empty()) return 0;
        const std::uint8_t value = rest_[0];
        rest_ = rest_.subspan(1);
        return value;
    }
    std::uint16_t word() {
        const auto high = static_cast<std::uint16_t>(byte() << 8);
        return static_cast<std::uint16_t>(high | byte());
    }
    /// A signed number of 16 bits, to be added to a sequence number.
    std::uint32_t delta() {
        return static_cast<std::uint32_t>(std::int32_t{static_cast<std::int16_t>(word())});
    }
    /// Near zero, or anywhere: a small number is a distance, a large one a shift.
    std::uint32_t distance() {
        const std::uint8_t b = byte();
        if (b < 200) return static_cast<std::uint32_t>(static_cast<std::int32_t>(b) - 100);
        return 1u << (b - 200) % 32;
    }
    /// As many as are left, at most.
    std::span<const std::byte> bytes(std::size_t count) {
        const auto taken = rest_.first(std::min(count, rest_.size()));
        rest_ = rest_.subspan(taken.size());
        return std::as_bytes(taken);
    }

private:
    std::span<const std::uint8_t> rest_;
};

}  // namespace chiru::fuzz
