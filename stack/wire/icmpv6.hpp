// SPDX-License-Identifier: Apache-2.0
//
// ICMPv6 (RFC 4443), neighbour discovery (RFC 4861), multicast listener reports (RFC 3810).
#pragma once

#include "base/address.hpp"
#include "base/endian.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace chiru::wire {

enum class Icmpv6Type : std::uint8_t {
    Unreachable = 1,
    PacketTooBig = 2,
    TimeExceeded = 3,
    ParameterProblem = 4,
    Echo = 128,
    EchoReply = 129,
    ListenerQuery = 130,
    RouterSolicitation = 133,
    RouterAdvertisement = 134,
    NeighborSolicitation = 135,
    NeighborAdvertisement = 136,
    Redirect = 137,
    ListenerReport2 = 143,
};

inline constexpr std::uint8_t kIcmpv6PortUnreachable = 4;
inline constexpr std::uint8_t kIcmpv6ReassemblyTime = 1;
/// Codes of ParameterProblem.
inline constexpr std::uint8_t kIcmpv6BadHeader = 0;
inline constexpr std::uint8_t kIcmpv6UnknownNextHeader = 1;
inline constexpr std::uint8_t kIcmpv6UnknownOption = 2;
inline constexpr std::uint8_t kIcmpv6IncompleteHeaders = 3;  // RFC 7112 §5

constexpr bool is_icmpv6_error(std::uint8_t type) { return type < 128; }

/// Messages that concern a link, not a flow: every shard learns from them.
constexpr bool is_neighbor_discovery(std::uint8_t type) {
    return type == static_cast<std::uint8_t>(Icmpv6Type::ListenerQuery) ||
           (type >= static_cast<std::uint8_t>(Icmpv6Type::RouterSolicitation) &&
            type <= static_cast<std::uint8_t>(Icmpv6Type::Redirect));
}

struct Icmpv6Header {
    std::uint8_t type = 0;
    std::uint8_t code = 0;
    be16 checksum{};
    be32 word{};  ///< Echo: identifier, sequence. PacketTooBig: MTU. ParameterProblem: pointer
};
static_assert(sizeof(Icmpv6Header) == 8 && alignof(Icmpv6Header) == 1);

/// Solicitation and advertisement; of the latter, `flags` counts (RFC 4861 §4.3, §4.4).
struct NeighborMessage {
    std::uint8_t type = 0;
    std::uint8_t code = 0;
    be16 checksum{};
    be32 flags{};  ///< NeighborFlag bits
    IpAddress target{};
};
static_assert(sizeof(NeighborMessage) == 24 && alignof(NeighborMessage) == 1);

enum NeighborFlag : std::uint32_t {
    kNdRouter = 0x8000'0000u,
    kNdSolicited = 0x4000'0000u,
    kNdOverride = 0x2000'0000u,
};

/// RFC 4861 §4.2.
struct RouterAdvertisement {
    std::uint8_t type = 0;
    std::uint8_t code = 0;
    be16 checksum{};
    std::uint8_t hop_limit = 0;  ///< 0: unspecified
    std::uint8_t flags = 0;
    be16 lifetime_s{};  ///< as a default router; 0: it is none
    be32 reachable_ms{};
    be32 retransmit_ms{};
};
static_assert(sizeof(RouterAdvertisement) == 16 && alignof(RouterAdvertisement) == 1);

enum class NdOption : std::uint8_t {
    SourceLinkAddress = 1,
    TargetLinkAddress = 2,
    PrefixInformation = 3,
    Mtu = 5,
};

struct LinkAddressOption {
    std::uint8_t type = 0;
    std::uint8_t units = 1;  ///< length in units of 8 bytes
    MacAddress mac{};
};
static_assert(sizeof(LinkAddressOption) == 8 && alignof(LinkAddressOption) == 1);

struct PrefixOption {
    std::uint8_t type = 0;
    std::uint8_t units = 4;
    std::uint8_t prefix_length = 0;
    std::uint8_t flags = 0;  ///< kPrefixOnLink, kPrefixAutonomous
    be32 valid_s{};            ///< all ones: forever
    be32 preferred_s{};
    be32 reserved{};
    IpAddress prefix{};
};
static_assert(sizeof(PrefixOption) == 32 && alignof(PrefixOption) == 1);

inline constexpr std::uint8_t kPrefixOnLink = 0x80;
inline constexpr std::uint8_t kPrefixAutonomous = 0x40;
inline constexpr std::uint32_t kForever = 0xffff'ffffu;

struct MtuOption {
    std::uint8_t type = 0;
    std::uint8_t units = 1;
    be16 reserved{};
    be32 mtu{};
};
static_assert(sizeof(MtuOption) == 8 && alignof(MtuOption) == 1);

/// Calls visit(NdOption, whole option) for each. Returns false if the list is malformed, after
/// which the message must be dropped (RFC 4861 §4.6); so check once with an empty visit first.
/// Terminates: every turn of the loop consumes at least eight bytes.
template <class Visit>
bool for_each_nd_option(std::span<const std::byte> options, Visit&& visit) {
    while (!options.empty()) {
        if (options.size() < 8) return false;
        const std::size_t length = 8 * std::to_integer<std::size_t>(options[1]);
        if (length == 0 || length > options.size()) return false;
        visit(static_cast<NdOption>(options[0]), options.first(length));
        options = options.subspan(length);
    }
    return true;
}

/// ff02::1:ffxx:xxxx, which `address` listens to (RFC 4291 §2.7.1).
constexpr IpAddress solicited_node(const IpAddress& address) {
    const IpAddress::Bytes& b = address.bytes();
    return IpAddress(IpAddress::Bytes{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, b[13], b[14],
                                      b[15]});
}

inline constexpr IpAddress kAllNodes(IpAddress::Bytes{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                                      0, 1});
inline constexpr IpAddress kAllRouters(IpAddress::Bytes{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                                        0, 0, 2});
inline constexpr IpAddress kAllListenerRouters(IpAddress::Bytes{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                                                0, 0, 0, 0, 0x16});

/// The Ethernet group of a multicast address (IPv6: RFC 2464 §7).
constexpr MacAddress multicast_mac(const IpAddress& group) {
    const IpAddress::Bytes& b = group.bytes();
    if (group.is_v4()) {  // of IPv4's 28 bits, 23 have a place (RFC 1112 §6.4)
        const auto middle = static_cast<std::uint8_t>(b[13] & 0x7f);
        return MacAddress{{0x01, 0x00, 0x5e, middle, b[14], b[15]}};
    }
    return MacAddress{{0x33, 0x33, b[12], b[13], b[14], b[15]}};
}

}  // namespace chiru::wire
