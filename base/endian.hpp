// SPDX-License-Identifier: Apache-2.0
//
// Integers as they travel on the wire: big-endian, with no alignment requirement.
//
// A protocol header is declared as a struct of these fields, so the struct *is* the
// layout. Neither packed attributes, nor pointer casts, nor byte-swap calls appear
// anywhere else in the program.
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <type_traits>

namespace chiru {

template <std::unsigned_integral T>
class BigEndian {
public:
    // Conversions are implicit: a field is read and assigned like the integer it holds.
    constexpr BigEndian() = default;
    constexpr BigEndian(T value) : bytes_(std::bit_cast<Bytes>(swap(value))) {}
    constexpr operator T() const { return swap(std::bit_cast<T>(bytes_)); }

private:
    using Bytes = std::array<std::byte, sizeof(T)>;

    static constexpr T swap(T value) {  // std::byteswap is C++23
        if constexpr (std::endian::native == std::endian::big) return value;
        else if constexpr (sizeof(T) == 2) return __builtin_bswap16(value);
        else if constexpr (sizeof(T) == 4) return __builtin_bswap32(value);
        else return __builtin_bswap64(value);
    }

    Bytes bytes_{};
};

using be16 = BigEndian<std::uint16_t>;
using be32 = BigEndian<std::uint32_t>;

/// Copies a header out of the front of a packet, or returns nothing if it does not fit.
/// The copy is a register move or two; it buys freedom from alignment and aliasing rules.
template <class Header>
    requires(std::is_trivially_copyable_v<Header> && alignof(Header) == 1)
std::optional<Header> read_header(std::span<const std::byte> packet) {
    if (packet.size() < sizeof(Header)) return std::nullopt;
    Header header;
    std::memcpy(&header, packet.data(), sizeof header);
    return header;
}

}  // namespace chiru
