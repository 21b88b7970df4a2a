// SPDX-License-Identifier: Apache-2.0
//
// TCP header and options on the wire (RFC 9293 §3.1, RFC 7323 §2.2 and §3.2, RFC 2018 §2-3).
#pragma once

#include "base/endian.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace chiru::wire {

struct TcpHeader {
    be16 source_port;
    be16 destination_port;
    be32 sequence;
    be32 acknowledgment;
    std::uint8_t data_offset;  ///< high nibble: header length in 32-bit words
    std::uint8_t flags;        ///< TcpFlag bits
    be16 window;               ///< as sent, still scaled
    be16 checksum;
    be16 urgent_pointer;

    std::size_t length_bytes() const { return std::size_t{data_offset} >> 4 << 2; }
};
static_assert(sizeof(TcpHeader) == 20 && alignof(TcpHeader) == 1);

enum TcpFlag : std::uint8_t {
    kFin = 0x01, kSyn = 0x02, kRst = 0x04, kPsh = 0x08,
    kAck = 0x10, kUrg = 0x20, kEce = 0x40, kCwr = 0x80,
};

/// The two low bits of the IPv4 TOS or IPv6 traffic class (RFC 3168 §5).
inline constexpr std::uint8_t kEcnBits = 3;
inline constexpr std::uint8_t kEcnCapable = 2;  ///< ECT(0)
inline constexpr std::uint8_t kEcnMarked = 3;   ///< CE

enum class TcpOption : std::uint8_t {
    EndOfList = 0, NoOperation = 1, Mss = 2, WindowScale = 3,
    SackPermitted = 4, Sack = 5, Timestamps = 8, FastOpen = 34,
};

/// The option bytes of `segment`; empty if there are none, nothing if the data offset lies.
inline std::optional<std::span<const std::byte>> options_of(const TcpHeader& header,
                                                            std::span<const std::byte> segment) {
    const std::size_t length = header.length_bytes();
    if (length < sizeof(TcpHeader) || length > segment.size()) return std::nullopt;
    return segment.subspan(sizeof(TcpHeader), length - sizeof(TcpHeader));
}

/// Calls visit(TcpOption, body) for each option, in order. Returns false if the list is
/// malformed; options before the fault have been visited by then.
/// Terminates: every turn of the loop consumes at least one byte.
template <class Visit>
bool for_each_option(std::span<const std::byte> options, Visit&& visit) {
    while (!options.empty()) {
        const auto kind = static_cast<TcpOption>(options[0]);
        if (kind == TcpOption::EndOfList) return true;
        if (kind == TcpOption::NoOperation) {
            options = options.subspan(1);
            continue;
        }
        if (options.size() < 2) return false;
        const auto length = std::to_integer<std::size_t>(options[1]);
        if (length < 2 || length > options.size()) return false;  // counts its own two bytes
        visit(kind, options.subspan(2, length - 2));
        options = options.subspan(length);
    }
    return true;
}

}  // namespace chiru::wire
