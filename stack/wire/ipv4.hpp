// SPDX-License-Identifier: Apache-2.0
//
// IPv4 (RFC 791, RFC 6864). Options are skipped, never obeyed.
#pragma once

#include "base/address.hpp"
#include "base/endian.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace chiru::wire {

/// Numbers of what IPv4 and IPv6 carry alike.
enum class Protocol : std::uint8_t {
    HopByHop = 0,
    Icmp = 1,
    Igmp = 2,
    Tcp = 6,
    Udp = 17,
    Routing = 43,
    Fragment = 44,
    Icmpv6 = 58,
    NoNextHeader = 59,
    DestinationOptions = 60,
};

struct Ipv4Header {
    std::uint8_t version_length = 0x45;  ///< version 4; low nibble: header length in words
    std::uint8_t tos = 0;
    be16 total_length{};
    be16 id{};
    be16 fragment{};  ///< flags and offset in units of 8 bytes
    std::uint8_t ttl = 0;
    std::uint8_t protocol = 0;
    be16 checksum{};
    be32 source{};
    be32 destination{};

    std::size_t header_bytes() const { return std::size_t{version_length & 0xfu} * 4; }
    std::size_t fragment_offset() const { return std::size_t{fragment & 0x1fffu} * 8; }
    bool more_fragments() const { return (fragment & 0x2000) != 0; }
    bool is_fragment() const { return (fragment & 0x3fff) != 0; }
};
static_assert(sizeof(Ipv4Header) == 20 && alignof(Ipv4Header) == 1);

inline constexpr std::uint16_t kIpv4DontFragment = 0x4000;
inline constexpr std::uint16_t kIpv4MoreFragments = 0x2000;
/// Every host must accept datagrams of this size (RFC 1122 §3.3.2).
inline constexpr std::size_t kIpv4MinReassembly = 576;

struct Ipv4Packet {
    Ipv4Header header;
    std::span<const std::byte> payload;  ///< as long as the header says; padding is gone
};

/// Nothing if a length contradicts the others. The checksum is the caller's to verify.
inline std::optional<Ipv4Packet> parse_ipv4(std::span<const std::byte> packet) {
    const auto header = read_header<Ipv4Header>(packet);
    if (!header || header->version_length >> 4 != 4) return std::nullopt;
    const std::size_t header_bytes = header->header_bytes();
    const std::size_t total = header->total_length;
    if (header_bytes < sizeof(Ipv4Header) || total < header_bytes || total > packet.size())
        return std::nullopt;
    return Ipv4Packet{*header, packet.subspan(header_bytes, total - header_bytes)};
}

}  // namespace chiru::wire
