// SPDX-License-Identifier: Apache-2.0
//
// Toeplitz by table: the hash is linear, so each half byte of the input contributes a word that
// depends only on its position and value. 72 positions of 16 values are 4.6 kB, which stay in the
// first-level cache beside everything else; a table by whole bytes would not.
#include "stack/ip/flow_hash.hpp"

#include "stack/wire/ethernet.hpp"
#include "stack/wire/icmpv4.hpp"
#include "stack/wire/icmpv6.hpp"
#include "stack/wire/ipv4.hpp"
#include "stack/wire/ipv6.hpp"
#include "stack/wire/udp.hpp"

#include <optional>

namespace chiru::ip {
namespace {

constexpr std::array<std::uint8_t, kFlowKeyBytes> kKey{
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
    0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
    0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};

constexpr std::size_t kMaxInputBytes = 36;  // two IPv6 addresses and two ports
using NibbleTable = std::array<std::array<std::uint32_t, 16>, 2 * kMaxInputBytes>;

constexpr std::uint32_t key_window(std::size_t bit) {
    std::uint64_t window = 0;
    for (std::size_t i = 0; i < 5; ++i) window = window << 8 | kKey[bit / 8 + i];
    return static_cast<std::uint32_t>(window >> (8 - bit % 8));
}

constexpr NibbleTable make_table() {
    NibbleTable table{};
    for (std::size_t position = 0; position < table.size(); ++position)
        for (std::size_t value = 0; value < 16; ++value)
            for (std::size_t bit = 0; bit < 4; ++bit)
                if ((value & (8u >> bit)) != 0)
                    table[position][value] ^= key_window(4 * position + bit);
    return table;
}

constexpr NibbleTable kTable = make_table();

class Toeplitz {
public:
    void add(std::uint8_t byte) {
        hash_ ^= kTable[position_][byte >> 4] ^ kTable[position_ + 1][byte & 0xf];
        position_ += 2;
    }
    void add(std::span<const std::uint8_t> bytes) {
        for (const std::uint8_t byte : bytes) add(byte);
    }
    void add(std::uint16_t port) {
        add(static_cast<std::uint8_t>(port >> 8));
        add(static_cast<std::uint8_t>(port));
    }
    std::uint32_t hash() const { return hash_; }

private:
    std::uint32_t hash_ = 0;
    std::size_t position_ = 0;
};

struct Ports {
    std::uint16_t source;
    std::uint16_t destination;
};

/// TCP and UDP begin alike.
std::optional<Ports> ports_of(std::uint8_t protocol, std::span<const std::byte> l4) {
    if (protocol != static_cast<std::uint8_t>(wire::Protocol::Tcp) &&
        protocol != static_cast<std::uint8_t>(wire::Protocol::Udp))
        return std::nullopt;
    struct Start {
        be16 source;
        be16 destination;
    };
    const auto start = read_header<Start>(l4);
    if (!start) return std::nullopt;
    return Ports{start->source, start->destination};
}

/// The flow of a packet of ours that an ICMP error quotes: what we sent, seen from the other side.
/// Quotes may be cut off, so their lengths are not held against them.
std::optional<std::uint32_t> quoted_v4(std::span<const std::byte> quote) {
    const auto header = read_header<wire::Ipv4Header>(quote);
    if (!header || header->header_bytes() > quote.size() || header->fragment_offset() != 0)
        return std::nullopt;
    const auto ports = ports_of(header->protocol, quote.subspan(header->header_bytes()));
    if (!ports) return std::nullopt;
    return flow_hash(Endpoint{IpAddress::v4(header->destination), ports->destination},
                     Endpoint{IpAddress::v4(header->source), ports->source});
}

std::optional<std::uint32_t> quoted_v6(std::span<const std::byte> quote) {
    const auto header = read_header<wire::Ipv6Header>(quote);
    if (!header) return std::nullopt;
    const auto upper =
        wire::find_upper_layer(header->next_header, quote.subspan(sizeof(wire::Ipv6Header)));
    if (!upper) return std::nullopt;
    const auto ports = ports_of(upper->protocol, upper->bytes);
    if (!ports) return std::nullopt;
    return flow_hash(Endpoint{header->destination, ports->destination},
                     Endpoint{header->source, ports->source});
}

/// A report of the path's MTU for UDP: a socket's datagrams may leave by any shard.
bool concerns_every_shard_v4(const wire::Icmpv4Header& icmp, std::span<const std::byte> quote) {
    const auto header = read_header<wire::Ipv4Header>(quote);
    return static_cast<wire::Icmpv4Type>(icmp.type) == wire::Icmpv4Type::Unreachable &&
           icmp.code == wire::kIcmpv4FragmentationNeeded && header &&
           header->protocol == static_cast<std::uint8_t>(wire::Protocol::Udp);
}

bool concerns_every_shard_v6(const wire::Icmpv6Header& icmp, std::span<const std::byte> quote) {
    const auto header = read_header<wire::Ipv6Header>(quote);
    if (static_cast<wire::Icmpv6Type>(icmp.type) != wire::Icmpv6Type::PacketTooBig || !header)
        return false;
    const auto upper =
        wire::find_upper_layer(header->next_header, quote.subspan(sizeof(wire::Ipv6Header)));
    return upper && upper->protocol == static_cast<std::uint8_t>(wire::Protocol::Udp);
}

Placement place_v4(std::span<const std::byte> packet) {
    const auto ip = wire::parse_ipv4(packet);
    if (!ip) return {};
    const IpAddress source = IpAddress::v4(ip->header.source);
    const IpAddress destination = IpAddress::v4(ip->header.destination);
    if (ip->header.protocol == static_cast<std::uint8_t>(wire::Protocol::Igmp))
        return {.every_shard = true};
    if (!ip->header.is_fragment()) {
        if (const auto ports = ports_of(ip->header.protocol, ip->payload))
            return {.hash = flow_hash(Endpoint{source, ports->source},
                                      Endpoint{destination, ports->destination})};
        const auto icmp = read_header<wire::Icmpv4Header>(ip->payload);
        if (ip->header.protocol == static_cast<std::uint8_t>(wire::Protocol::Icmp) && icmp &&
            wire::is_icmpv4_error(icmp->type)) {
            const auto quote = ip->payload.subspan(sizeof(wire::Icmpv4Header));
            if (concerns_every_shard_v4(*icmp, quote)) return {.every_shard = true};
            if (const auto hash = quoted_v4(quote)) return {.hash = *hash};
        }
    }
    return {.hash = flow_hash(source, destination)};
}

Placement place_v6(std::span<const std::byte> packet) {
    const auto ip = wire::parse_ipv6(packet);
    if (!ip) return {};
    const wire::Ipv6Header& header = ip->header;
    const wire::Ipv6Chain chain = wire::walk_extensions(header.next_header, ip->payload);
    if (chain.end == wire::Ipv6Chain::End::UpperLayer) {
        const std::span<const std::byte> l4 = ip->payload.subspan(chain.offset);
        if (const auto ports = ports_of(chain.protocol, l4))
            return {.hash = flow_hash(Endpoint{header.source, ports->source},
                                      Endpoint{header.destination, ports->destination})};
        const auto icmp = read_header<wire::Icmpv6Header>(l4);
        if (chain.protocol == static_cast<std::uint8_t>(wire::Protocol::Icmpv6) && icmp) {
            if (wire::is_neighbor_discovery(icmp->type)) return {.every_shard = true};
            const auto quote = l4.subspan(sizeof(wire::Icmpv6Header));
            if (concerns_every_shard_v6(*icmp, quote)) return {.every_shard = true};
            if (wire::is_icmpv6_error(icmp->type))
                if (const auto hash = quoted_v6(quote)) return {.hash = *hash};
        }
    }
    return {.hash = flow_hash(header.source, header.destination)};
}

}  // namespace

const std::array<std::uint8_t, kFlowKeyBytes> kFlowKey = kKey;

std::uint32_t flow_hash(const Endpoint& remote, const Endpoint& local) {
    Toeplitz toeplitz;
    toeplitz.add(remote.address.wire());
    toeplitz.add(local.address.wire());
    toeplitz.add(remote.port);
    toeplitz.add(local.port);
    return toeplitz.hash();
}

std::uint32_t flow_hash(const IpAddress& remote, const IpAddress& local) {
    Toeplitz toeplitz;
    toeplitz.add(remote.wire());
    toeplitz.add(local.wire());
    return toeplitz.hash();
}

Placement place(std::span<const std::byte> frame) {
    const auto link = wire::parse_link(frame);
    if (!link) return {};
    const std::span<const std::byte> payload = frame.subspan(link->bytes);
    switch (link->type) {
    case wire::EtherType::Arp: return {.every_shard = true};
    case wire::EtherType::Ipv4: return place_v4(payload);
    case wire::EtherType::Ipv6: return place_v6(payload);
    default: return {};
    }
}

}  // namespace chiru::ip
