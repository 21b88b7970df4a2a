// SPDX-License-Identifier: Apache-2.0
//
// ICMP and ICMPv6: echo (RFC 792, RFC 4443 §4), errors that we send (RFC 1122 §3.2.2, RFC 4443
// §2.4) and errors that we are sent, which only the connection they speak of can judge (RFC 5927).
#include "stack/ip/network.hpp"

#include "stack/wire/checksum.hpp"
#include "stack/wire/icmpv4.hpp"
#include "stack/wire/tcp.hpp"

#include <algorithm>
#include <cstring>
#include <optional>

namespace chiru::ip {
namespace {

using wire::Icmpv4Type;
using wire::Icmpv6Type;
using Kind = tcp::IcmpError::Kind;

constexpr std::size_t kQuoteV4 = wire::kIpv4MinReassembly - sizeof(wire::Ipv4Header) -
                                 sizeof(wire::Icmpv4Header);
constexpr std::size_t kQuoteV6 = kMinMtuV6 - sizeof(wire::Ipv6Header) -
                                 sizeof(wire::Icmpv6Header);

/// Sizes that links have, for routers that do not tell theirs (RFC 1191 §7).
constexpr std::array<std::uint16_t, 6> kPlateaus{8166, 4352, 2002, 1492, 1006, 576};

std::uint16_t plateau_below(std::uint16_t bytes) {
    for (const std::uint16_t plateau : kPlateaus)
        if (plateau < bytes) return plateau;
    return kMinMtuV4;
}

std::optional<Kind> kind_v4(const wire::Icmpv4Header& icmp) {
    if (static_cast<Icmpv4Type>(icmp.type) == Icmpv4Type::TimeExceeded)
        return Kind::TimeExceeded;
    if (static_cast<Icmpv4Type>(icmp.type) != Icmpv4Type::Unreachable) return std::nullopt;
    switch (icmp.code) {
    case wire::kIcmpv4ProtocolUnreachable: return Kind::ProtocolUnreachable;
    case wire::kIcmpv4PortUnreachable: return Kind::PortUnreachable;
    case wire::kIcmpv4FragmentationNeeded: return Kind::PacketTooBig;
    case 1: case 7: case 8: case 12: return Kind::HostUnreachable;
    case 9: case 10: case 13: return Kind::Prohibited;
    default: return Kind::NetUnreachable;
    }
}

std::optional<Kind> kind_v6(const wire::Icmpv6Header& icmp) {
    switch (static_cast<Icmpv6Type>(icmp.type)) {
    case Icmpv6Type::PacketTooBig: return Kind::PacketTooBig;
    case Icmpv6Type::TimeExceeded: return Kind::TimeExceeded;
    case Icmpv6Type::ParameterProblem:
        return icmp.code == wire::kIcmpv6UnknownNextHeader
                   ? std::optional(Kind::ProtocolUnreachable) : std::nullopt;
    case Icmpv6Type::Unreachable: break;
    default: return std::nullopt;
    }
    switch (icmp.code) {
    case 0: return Kind::NetUnreachable;
    case 1: case 5: case 6: return Kind::Prohibited;
    case wire::kIcmpv6PortUnreachable: return Kind::PortUnreachable;
    default: return Kind::HostUnreachable;
    }
}

bool is_first(const Packet& packet) {
    const auto v4 = read_header<wire::Ipv4Header>(packet.packet);
    return packet.source.is_v6() || v4->fragment_offset() == 0;
}

}  // namespace

Network::Fate Network::receive_icmpv4(const Packet& packet, Instant now) {
    const auto icmp = read_header<wire::Icmpv4Header>(packet.l4);
    if (!icmp) return {Counter::InMalformed};
    if (transport_checksum(packet, false) != 0) return {Counter::InBadChecksum};
    if (wire::is_icmpv4_error(icmp->type)) return receive_error_v4(packet, now);
    if (static_cast<Icmpv4Type>(icmp->type) != Icmpv4Type::Echo)
        return {Counter::InUnknownProtocol};
    if (packet.to_group) return {Counter::InNotForUs};  // RFC 1122 §3.2.2.6 leaves it to us
    const be16 before = static_cast<std::uint16_t>(icmp->type << 8);
    return echo(packet, static_cast<std::uint8_t>(Icmpv4Type::EchoReply),
                wire::checksum_update(icmp->checksum, before, 0));
}

Network::Fate Network::receive_icmpv6(const Packet& packet, Instant now) {
    const auto icmp = read_header<wire::Icmpv6Header>(packet.l4);
    if (!icmp) return {Counter::InMalformed};
    if (transport_checksum(packet, true) != 0) return {Counter::InBadChecksum};
    if (wire::is_icmpv6_error(icmp->type)) return receive_error_v6(packet, now);
    if (wire::is_neighbor_discovery(icmp->type)) {
        const auto type = static_cast<Icmpv6Type>(icmp->type);
        if (packet.frame == nullptr) return {Counter::InImpossible};  // RFC 6980: never in pieces
        if (type == Icmpv6Type::ListenerQuery) {
            if (packet.hop_limit != 1 || !packet.source.is_link_local())
                return {Counter::InImpossible};
            return receive_listener_query(packet, now);
        }
        if (packet.hop_limit != 255 || (packet.frame->flags & kRxLocal) != 0)
            return {Counter::InImpossible};  // it crossed a router: not of this link
        std::size_t fixed = sizeof(wire::NeighborMessage);
        if (type == Icmpv6Type::RouterAdvertisement) fixed = sizeof(wire::RouterAdvertisement);
        if (icmp->code != 0 || packet.l4.size() < fixed) return {Counter::InMalformed};
        if (!wire::for_each_nd_option(packet.l4.subspan(fixed), [](auto, auto) {}))
            return {Counter::InMalformed};
        switch (type) {
        case Icmpv6Type::NeighborSolicitation: return receive_solicitation(packet, now);
        case Icmpv6Type::NeighborAdvertisement: return receive_advertisement(packet, now);
        case Icmpv6Type::RouterAdvertisement: return receive_router(packet, now);
        default: return {Counter::InNotForUs};
        }
    }
    if (static_cast<Icmpv6Type>(icmp->type) != Icmpv6Type::Echo ||
        packet.source.is_unspecified())
        return {Counter::InUnknownProtocol};
    constexpr auto kReply = static_cast<std::uint8_t>(Icmpv6Type::EchoReply);
    const std::uint16_t swapped = wire::checksum_update(
        icmp->checksum, static_cast<std::uint16_t>(icmp->type << 8),
        static_cast<std::uint16_t>(kReply << 8));
    if (!packet.destination.is_multicast()) return echo(packet, kReply, swapped);

    // Asked as one of a group: answered from an address of our own, which the checksum covers.
    const auto source =
        select_source(interfaces_, packet.source, {packet.source, packet.interface});
    if (!source) return {Counter::InNotForUs};
    std::uint16_t checksum = swapped;
    for (std::size_t i = 0; i < 16; i += 2) {
        const auto word = [i](const IpAddress& address) {
            return static_cast<std::uint16_t>(address.bytes()[i] << 8 | address.bytes()[i + 1]);
        };
        checksum = wire::checksum_update(checksum, word(packet.destination), word(*source));
    }
    Packet alone = packet;
    alone.destination = *source;
    return echo(alone, kReply, checksum);
}

/// The reply is the request but for its first four bytes: the rest is sent from the request's
/// own slots.
Network::Fate Network::echo(const Packet& packet, std::uint8_t reply_type,
                            std::uint16_t checksum) {
    const LocalAddress* ours = interfaces_.find(packet.destination);
    if (ours == nullptr || !ours->usable()) return {Counter::InNotForUs};
    const std::uint32_t index = control_.take(false);
    if (index == kNoJob) {
        counters_.add(Counter::IcmpRateLimited);
        return {Counter::InAccepted};
    }
    Job& job = control_[index];
    std::uint32_t chain = packet.chain;
    if (chain == kNoPiece) chain = pieces_.hold(*packet.frame, packet.l4);
    if (chain == kNoPiece) {
        control_.finish(index);
        counters_.add(Counter::IcmpRateLimited);
        return {Counter::InAccepted};
    }
    Piece& first = pieces_[chain];
    first.offset += sizeof(wire::Icmpv4Header);
    first.length -= static_cast<std::uint32_t>(sizeof(wire::Icmpv4Header));

    wire::Icmpv4Header header = *read_header<wire::Icmpv4Header>(packet.l4);
    header.type = reply_type;
    header.checksum = checksum;
    std::memcpy(job.head.data(), &header, sizeof header);
    job.head_bytes = sizeof header;
    job.kind = JobKind::Packet;
    job.protocol = packet.protocol;
    job.options = {.tos = packet.tos, .ttl = 64};
    job.interface = packet.interface;
    job.local = packet.destination;
    job.remote = packet.source;
    job.path.interface = packet.interface;
    job.first_piece = chain;
    job.piece_bytes = static_cast<std::uint32_t>(packet.l4_bytes - sizeof header);
    control_.push(index, false);
    counters_.add(Counter::IcmpEchoReplies);
    return {Counter::InAccepted, true};
}

std::optional<IpAddress> Network::error_source(const Packet& packet) const {
    if (packet.destination.is_multicast())
        return select_source(interfaces_, packet.source, {packet.source, packet.interface});
    const LocalAddress* ours = interfaces_.find(packet.destination);
    if (ours == nullptr || !ours->usable()) return std::nullopt;
    return packet.destination;
}

bool Network::may_answer_with_error(const Packet& packet, bool even_to_group) const {
    if ((packet.to_group && !even_to_group) || packet.source.is_unspecified() ||
        packet.source.is_multicast() || !is_first(packet))
        return false;
    if (packet.l4.empty()) return true;
    const auto type = std::to_integer<std::uint8_t>(packet.l4[0]);
    if (packet.protocol == static_cast<std::uint8_t>(wire::Protocol::Icmp))
        return !wire::is_icmpv4_error(type);
    if (packet.protocol == static_cast<std::uint8_t>(wire::Protocol::Icmpv6))
        return !wire::is_icmpv6_error(type) && !wire::is_neighbor_discovery(type);
    return true;
}

bool Network::send_error(const Packet& packet, std::uint8_t type, std::uint8_t code,
                         std::uint32_t word, Instant now, bool even_to_group) {
    const std::optional<IpAddress> source = error_source(packet);
    if (!source || !may_answer_with_error(packet, even_to_group)) return false;
    const bool v4 = packet.source.is_v4();
    const std::uint32_t index = error_budget_.take(now) ? control_.take(false) : kNoJob;
    if (index == kNoJob) {
        counters_.add(Counter::IcmpRateLimited);
        return false;
    }
    Job& job = control_[index];
    const std::size_t bytes = std::min(packet.packet.size(), v4 ? kQuoteV4 : kQuoteV6);
    const std::span<const std::byte> quote = packet.packet.first(bytes);
    std::uint32_t piece = packet.chain;
    if (piece == kNoPiece) {
        piece = pieces_.hold(*packet.frame, quote);
    } else {  // the first fragment is quoted, the others are not needed
        pieces_.release_chain(pieces_[piece].next);
        pieces_[piece].next = kNoPiece;
        pieces_[piece].offset = static_cast<std::uint64_t>(quote.data() - rx_arena_.base);
        pieces_[piece].length = static_cast<std::uint32_t>(bytes);
    }
    if (piece == kNoPiece) {
        control_.finish(index);
        counters_.add(Counter::IcmpRateLimited);
        return false;
    }
    wire::Icmpv6Header header{.type = type, .code = code, .word = word};
    const auto protocol = static_cast<std::uint8_t>(v4 ? wire::Protocol::Icmp
                                                       : wire::Protocol::Icmpv6);
    wire::ChecksumSum sum;
    if (!v4)
        sum = wire::pseudo_header(*source, packet.source, protocol, sizeof header + bytes);
    sum.add(std::as_bytes(std::span(&header, 1)));
    sum.add(quote);
    header.checksum = sum.checksum();
    std::memcpy(job.head.data(), &header, sizeof header);
    job.head_bytes = sizeof header;
    job.kind = JobKind::Packet;
    job.protocol = protocol;
    job.interface = packet.interface;
    job.local = *source;
    job.remote = packet.source;
    job.path.interface = packet.interface;
    job.first_piece = piece;
    job.piece_bytes = static_cast<std::uint32_t>(bytes);
    control_.push(index, false);
    counters_.add(Counter::IcmpErrorsSent);
    return true;
}

Network::Fate Network::receive_error_v4(const Packet& packet, Instant now) {
    const auto icmp = read_header<wire::Icmpv4Header>(packet.l4);
    const auto quote = packet.l4.subspan(sizeof(wire::Icmpv4Header));
    const auto header = read_header<wire::Ipv4Header>(quote);
    const auto kind = kind_v4(*icmp);
    if (!kind || !header || header->header_bytes() < sizeof(wire::Ipv4Header) ||
        header->header_bytes() > quote.size() || header->fragment_offset() != 0)
        return {Counter::InIcmpIgnored};
    std::uint32_t mtu = icmp->word1;
    if (mtu == 0) mtu = plateau_below(header->total_length);  // RFC 1191 §5: an old router
    tcp::IcmpError error;
    error.kind = *kind;
    error.mtu = std::max<std::uint32_t>(mtu, kMinMtuV4);
    error.local.address = IpAddress::v4(header->source);
    error.remote.address = IpAddress::v4(header->destination);
    return receive_error(header->protocol, quote.subspan(header->header_bytes()), error, now);
}

Network::Fate Network::receive_error_v6(const Packet& packet, Instant now) {
    const auto icmp = read_header<wire::Icmpv6Header>(packet.l4);
    const auto quote = packet.l4.subspan(sizeof(wire::Icmpv6Header));
    const auto header = read_header<wire::Ipv6Header>(quote);
    const auto kind = kind_v6(*icmp);
    if (!kind || !header) return {Counter::InIcmpIgnored};
    // RFC 8201 §4: no link has less, so no honest router says so.
    if (*kind == Kind::PacketTooBig && icmp->word < kMinMtuV6) return {Counter::InIcmpIgnored};
    tcp::IcmpError error;
    error.kind = *kind;
    error.mtu = icmp->word;
    error.local.address = header->source;
    error.remote.address = header->destination;
    const auto upper =
        wire::find_upper_layer(header->next_header, quote.subspan(sizeof(wire::Ipv6Header)));
    if (!upper) return {Counter::InIcmpIgnored};
    return receive_error(upper->protocol, upper->bytes, error, now);
}

/// The quoted packet must be one of ours; whether it was really sent, its connection knows.
Network::Fate Network::receive_error(std::uint8_t protocol, std::span<const std::byte> l4,
                                     tcp::IcmpError error, Instant now) {
    struct Start {  // what every quote holds of TCP's header (RFC 792); UDP's ports are alike
        be16 source_port;
        be16 destination_port;
        be32 sequence;
    };
    const auto start = read_header<Start>(l4);
    const bool known = protocol == static_cast<std::uint8_t>(wire::Protocol::Tcp) ||
                       protocol == static_cast<std::uint8_t>(wire::Protocol::Udp);
    if (!known || !start ||
        interfaces_.find(error.local.address) == nullptr)
        return {Counter::InIcmpIgnored};
    error.local.port = start->source_port;
    error.remote.port = start->destination_port;
    error.sequence = start->sequence;
    if (protocol == static_cast<std::uint8_t>(wire::Protocol::Udp))
        return receive_udp_error(error, now);
    if (!tcp_->icmp_error(error, now)) return {Counter::InIcmpIgnored};
    if (error.kind == Kind::PacketTooBig) told_path_mtu(error, now);
    return {Counter::InAccepted};
}

}  // namespace chiru::ip
