// SPDX-License-Identifier: Apache-2.0
//
// UDP's part of ip/ (RFC 768): a datagram that is sound goes to its sockets, in the pieces it came
// in; one that nobody is bound for is answered with port unreachable (RFC 1122 §4.1.3.1).
#include "stack/ip/network.hpp"

#include "stack/ip/flow_hash.hpp"
#include "stack/wire/icmpv4.hpp"
#include "stack/wire/icmpv6.hpp"

#include <algorithm>
#include <array>
#include <cerrno>

namespace chiru::ip {
namespace {

int errno_of(tcp::IcmpError::Kind kind) {
    using Kind = tcp::IcmpError::Kind;
    switch (kind) {
    case Kind::NetUnreachable: return ENETUNREACH;
    case Kind::ProtocolUnreachable: return ENOPROTOOPT;
    case Kind::PortUnreachable: return ECONNREFUSED;
    case Kind::PacketTooBig: return EMSGSIZE;
    case Kind::HostUnreachable:
    case Kind::Prohibited:
    case Kind::TimeExceeded: break;
    }
    return EHOSTUNREACH;
}

}  // namespace

Network::Fate Network::receive_udp(const Packet& packet, Instant now) {
    const auto udp = read_header<wire::UdpHeader>(packet.l4);
    if (!udp || udp->length < sizeof(wire::UdpHeader) || udp->length > packet.l4_bytes)
        return {Counter::InMalformed};
    const bool vouched = packet.frame != nullptr && (packet.frame->flags & kRxL4ChecksumGood) != 0;
    if (packet.frame != nullptr && (packet.frame->flags & kRxL4ChecksumBad) != 0 &&
        udp->checksum != 0)
        return {Counter::InBadChecksum};
    if (udp->checksum == 0) {
        if (packet.source.is_v6()) return {Counter::InBadChecksum};  // RFC 8200 §8.1
    } else if (!vouched) {
        Packet exact = packet;  // behind UDP's own length may be padding
        if (packet.chain == kNoPiece) exact.l4 = packet.l4.first(udp->length);
        if (packet.chain == kNoPiece) exact.l4_bytes = udp->length;
        if (transport_checksum(exact, true) != 0) return {Counter::InBadChecksum};
    }
    if (udp_ == nullptr || packet.source.is_unspecified()) return refuse_udp(packet, now);
    switch (hand_to_udp(packet, *udp)) {
    case udp::Fate::NoSocket: return refuse_udp(packet, now);
    case udp::Fate::NoRoom: return {Counter::InDatagramNoRoom};
    case udp::Fate::Copied: return {Counter::InAccepted};
    case udp::Fate::Kept: break;
    }
    for (std::uint32_t i = packet.chain; i != kNoPiece;) {  // the slots are the socket's now
        const std::uint32_t next = pieces_[i].next;
        pieces_.forget(i);
        i = next;
    }
    return {Counter::InAccepted, true};
}

udp::Fate Network::hand_to_udp(const Packet& packet, const wire::UdpHeader& header) {
    std::array<udp::Part, kDatagramPieces> parts;
    std::size_t count = 0;
    std::size_t left = header.length;
    std::size_t skip = sizeof header;
    const auto add = [&](const shm::Slice& slot, std::span<const std::byte> bytes) {
        const std::size_t used = std::min(bytes.size(), left);
        left -= used;
        const std::size_t begin = std::min(skip, used);
        skip -= begin;
        const auto payload = bytes.first(used).subspan(begin);
        const auto offset = static_cast<std::uint64_t>(payload.data() - rx_arena_.base);
        parts[count++] = {slot, payload.data(),
                          {offset, static_cast<std::uint32_t>(payload.size()), shm::kRxArena, 0}};
    };
    if (packet.chain == kNoPiece) add(packet.frame->slice, packet.l4);
    for (std::uint32_t i = packet.chain; i != kNoPiece; i = pieces_[i].next)
        add(pieces_[i].slot, pieces_.bytes(i));

    const bool loopback = interfaces_[packet.interface].is_loopback();
    const bool group = packet.destination.is_multicast() ||
                       interfaces_.find(packet.destination) == nullptr;
    if (!group && (packet.to_group || !interfaces_.find(packet.destination)->usable()))
        return udp::Fate::NoSocket;  // RFC 1122 §3.3.6: our address in a broadcast frame
    return udp_->receive(
        {.remote = {packet.source, header.source_port},
         .local = {packet.destination, header.destination_port},
         .interface = static_cast<std::uint16_t>(loopback ? 0 : packet.interface + 1),
         .ttl = packet.hop_limit,
         .tos = packet.tos,
         .to_group = group,
         .bytes = static_cast<std::uint32_t>(header.length - sizeof header),
         .parts = std::span(parts).first(count)});
}

Network::Fate Network::refuse_udp(const Packet& packet, Instant now) {
    const bool v4 = packet.source.is_v4();
    const bool kept =
        v4 ? send_error(packet, static_cast<std::uint8_t>(wire::Icmpv4Type::Unreachable),
                        wire::kIcmpv4PortUnreachable, 0, now)
           : send_error(packet, static_cast<std::uint8_t>(wire::Icmpv6Type::Unreachable),
                        wire::kIcmpv6PortUnreachable, 0, now);
    return {Counter::InNoSocket, kept};
}

/// Every shard may send for a socket, so each is shown what is too big (flow_hash.cpp) and learns
/// the path's MTU; the client hears it from the shard that its datagrams arrive at.
Network::Fate Network::receive_udp_error(const tcp::IcmpError& error, Instant now) {
    const bool ours = flow_map_[flow_group(flow_hash(error.remote, error.local))] == shard_;
    const bool believed =
        udp_ != nullptr && udp_->icmp_error({.local = error.local,
                                             .remote = error.remote,
                                             .error = errno_of(error.kind),
                                             .mtu = error.mtu,
                                             .tell = ours});
    if (!believed) return {Counter::InIcmpIgnored};
    if (error.kind == tcp::IcmpError::Kind::PacketTooBig) told_path_mtu(error, now);
    return {Counter::InAccepted};
}

}  // namespace chiru::ip
