// SPDX-License-Identifier: Apache-2.0
//
// IPv6 and its extension headers (RFC 8200).
#pragma once

#include "base/address.hpp"
#include "base/endian.hpp"
#include "stack/wire/ipv4.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace chiru::wire {

struct Ipv6Header {
    be32 version_class_flow = 0x6000'0000u;
    be16 payload_length{};
    std::uint8_t next_header = 0;
    std::uint8_t hop_limit = 0;
    IpAddress source{};
    IpAddress destination{};

    std::uint8_t traffic_class() const {
        return static_cast<std::uint8_t>(version_class_flow >> 20);
    }
};
static_assert(sizeof(Ipv6Header) == 40 && alignof(Ipv6Header) == 1);

struct Ipv6Packet {
    Ipv6Header header;
    std::span<const std::byte> payload;  ///< extension headers included; padding is gone
};

/// Nothing if a length contradicts the others.
inline std::optional<Ipv6Packet> parse_ipv6(std::span<const std::byte> packet) {
    const auto header = read_header<Ipv6Header>(packet);
    if (!header || header->version_class_flow >> 28 != 6) return std::nullopt;
    const std::span<const std::byte> payload = packet.subspan(sizeof(Ipv6Header));
    const std::size_t length = header->payload_length;
    if (length > payload.size()) return std::nullopt;
    return Ipv6Packet{*header, payload.first(length)};
}

struct FragmentHeader {
    std::uint8_t next_header = 0;
    std::uint8_t reserved = 0;
    be16 offset_flags{};  ///< offset in units of 8 bytes (13 bits), 2 reserved, more fragments
    be32 id{};

    std::size_t offset() const { return std::size_t{offset_flags & 0xfff8u}; }
    bool more_fragments() const { return (offset_flags & 1) != 0; }
    /// Whole after all: treated as if the header were not there (RFC 6946).
    bool is_atomic() const { return (offset_flags & 0xfff9) == 0; }
};
static_assert(sizeof(FragmentHeader) == 8 && alignof(FragmentHeader) == 1);

/// Everything of one kind that precedes the upper layer, as far as a host must look.
struct Ipv6Chain {
    enum class End : std::uint8_t {
        UpperLayer,    ///< `protocol` at `offset`
        Fragment,      ///< a fragment: `fragment`, its part of the payload at `offset`
        Malformed,     ///< a header is cut off or lies about its length
        BadOption,     ///< an option that asks to be refused is at `problem`; see `option_action`
        BadRouting,    ///< a routing header with segments left, of a type we do not know
        BadHeader,     ///< hop-by-hop options are not first; `problem` points to the number
        TooLong,       ///< more headers than any honest packet has
    };
    End end = End::Malformed;
    std::uint8_t protocol = 0;
    std::uint8_t option_action = 0;  ///< the two high bits of the option's type (RFC 8200 §4.2)
    std::size_t offset = 0;          ///< from the first byte behind the IPv6 header
    std::size_t problem = 0;         ///< where what ended the walk is, from the IPv6 header
    std::size_t protocol_at = 0;     ///< where the number `protocol` was read, from the IPv6 header
    FragmentHeader fragment;
};

/// Bounds of the walk: a packet that exceeds them is refused, not half understood.
inline constexpr int kMaxExtensionHeaders = 8;
inline constexpr int kMaxHeaderOptions = 32;

/// Walks extension headers from the first; obeys none but the fragment header's meaning.
/// `problem` and `protocol_at` count from the first byte of the IPv6 header.
/// So many headers of the packet, `walked`, were seen before.
Ipv6Chain walk_extensions(std::uint8_t first, std::span<const std::byte> payload, int walked = 0);

/// What a packet carries behind extension headers that nobody obeys here: one that is quoted in an
/// ICMP error, or refused for one of them. Nothing if it is cut off before, or no first fragment.
struct UpperLayer {
    std::uint8_t protocol = 0;
    std::span<const std::byte> bytes;
};
std::optional<UpperLayer> find_upper_layer(std::uint8_t first,
                                           std::span<const std::byte> payload);

}  // namespace chiru::wire
