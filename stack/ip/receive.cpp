// SPDX-License-Identifier: Apache-2.0
//
// From a frame to the transport it carries. Every frame ends in exactly one counter, here.
#include "stack/ip/network.hpp"

#include "stack/ip/same_flow.hpp"
#include "stack/wire/checksum.hpp"
#include "stack/wire/ethernet.hpp"
#include "stack/wire/icmpv4.hpp"
#include "stack/wire/tcp.hpp"

namespace chiru::ip {
namespace {

constexpr tcp::Fate ended(shm::Counter counter) { return {counter, false}; }

constexpr std::uint32_t kClassE = 0xf000'0000u;  // 240.0.0.0/4, RFC 1112 §4

/// A packet that is refused for one of its extension headers, by what it carries behind them:
/// errors are never answered (RFC 4443 §2.4 e.1).
Packet by_content(Packet packet, std::uint8_t first, std::span<const std::byte> payload) {
    if (const auto upper = wire::find_upper_layer(first, payload)) {
        packet.protocol = upper->protocol;
        packet.l4 = upper->bytes;
    }
    return packet;
}

}  // namespace

void Network::receive(std::span<const RxFrame> frames, Instant now) {
    now_ = now;
    for (; !frames.empty(); frames = frames.subspan(std::min(frames.size(), Burst::kFrames)))
        receive_burst(frames.first(std::min(frames.size(), Burst::kFrames)), now);
    slots_.flush();
    follow_changes();
}

void Network::receive_burst(std::span<const RxFrame> frames, Instant now) {
    std::uint64_t bytes = 0;
    for (const RxFrame& frame : frames) {
        __builtin_prefetch(frame.data);
        bytes += frame.slice.length;
    }
    counters_.add(Counter::RxFrames, frames.size());
    counters_.add(Counter::RxBytes, bytes);

    for (const RxFrame& frame : frames) {
        if (follow(frame)) continue;
        const std::size_t waiting = burst_.count;
        leader_ = {};
        const Fate fate = receive_frame(frame, now);
        if (burst_.count != waiting) continue;  // TCP decides
        counters_.add(fate.counter);
        if (!fate.kept_slot) slots_.release(frame.slice);
    }
    const auto segments = std::span(burst_.segments).first(burst_.count);
    tcp_->prefetch(segments);
    for (const tcp::Incoming& segment : segments) {
        const Fate fate = tcp_->receive(segment, now);
        counters_.add(fate.counter);
        if (!fate.kept_slot) slots_.release(segment.frame->slice);
    }
    burst_.count = 0;
    leader_ = {};
}

/// Takes the next segment of the flow that the one before belongs to; false: it has to be looked
/// at in full, which also says what is wrong with it.
bool Network::follow(const RxFrame& frame) {
    if (leader_.frame == nullptr) return false;
    const RxFrame& before = *leader_.frame;
    constexpr std::uint16_t kAlike = kRxVlanStripped | kRxLocal;
    const std::size_t l3 = leader_.l3;
    const std::size_t header_bytes =
        leader_.v4 ? sizeof(wire::Ipv4Header) : sizeof(wire::Ipv6Header);
    const std::size_t least = l3 + header_bytes + sizeof(wire::TcpHeader);
    if (frame.slice.length < least || frame.port != before.port ||
        frame.vlan_tci != before.vlan_tci || ((frame.flags ^ before.flags) & kAlike) != 0 ||
        (frame.flags & (kRxIpChecksumBad | kRxL4ChecksumBad)) != 0)
        return false;
    const std::byte* ip = frame.data + l3;
    if (!same_bytes<14>(frame.data, before.data) ||
        (l3 > 14 && !same_bytes<4>(frame.data + 14, before.data + 14)))
        return false;

    std::size_t total = 0;  // of the packet
    std::uint8_t tos = 0;
    if (leader_.v4) {
        if (!same_flow_v4(ip, before.data + l3)) return false;
        const auto header = *read_header<wire::Ipv4Header>({ip, sizeof(wire::Ipv4Header)});
        if ((frame.flags & kRxIpChecksumGood) == 0 &&
            wire::checksum({ip, sizeof(wire::Ipv4Header)}) != 0)
            return false;
        total = header.total_length;
        tos = header.tos;
    } else {
        if (!same_flow_v6(ip, before.data + l3)) return false;
        const auto header = *read_header<wire::Ipv6Header>({ip, sizeof(wire::Ipv6Header)});
        total = sizeof(wire::Ipv6Header) + header.payload_length;
        tos = header.traffic_class();
    }
    if (total < header_bytes + sizeof(wire::TcpHeader) || total > frame.slice.length - l3)
        return false;
    tcp::Incoming& segment = burst_.segments[burst_.count];
    segment = burst_.segments[burst_.count - 1];
    segment.frame = &frame;
    segment.l4 = {ip + header_bytes, total - header_bytes};
    segment.tos = tos;
    segment.checksum_good = (frame.flags & kRxL4ChecksumGood) != 0;
    segment.follows = true;
    ++burst_.count;
    leader_.frame = &frame;
    return true;
}

Network::Fate Network::receive_frame(const RxFrame& frame, Instant now) {
    const std::span<const std::byte> bytes(frame.data, frame.slice.length);
    const auto link = wire::parse_link(bytes);
    if (!link) return ended(Counter::InMalformed);
    // A tag in the frame behind one that the port took off is not of our VLANs.
    if ((frame.flags & kRxVlanStripped) != 0 && link->bytes != sizeof(wire::EthernetHeader))
        return ended(Counter::InUnknownProtocol);
    const bool local = (frame.flags & kRxLocal) != 0;
    const std::uint16_t vlan = (frame.flags & kRxVlanStripped) != 0
                                   ? frame.vlan_tci & wire::kVlanIdMask
                                   : link->vlan;
    const Interface* interface = local ? &interfaces_[interfaces_.loopback()]
                                       : interfaces_.attached(frame.port, vlan);
    if (interface == nullptr) return ended(Counter::InNotForUs);
    const bool group = link->destination.is_multicast();
    if (!local && !group && link->destination != interface->mac)
        return ended(Counter::InNotForUs);

    const std::span<const std::byte> payload = bytes.subspan(link->bytes);
    switch (link->type) {
    case wire::EtherType::Ipv4: return receive_v4(frame, *interface, group, payload, now);
    case wire::EtherType::Ipv6: return receive_v6(frame, *interface, group, payload, now);
    case wire::EtherType::Arp:
        return local ? ended(Counter::InImpossible) : receive_arp(*interface, payload, now);
    default: return ended(Counter::InUnknownProtocol);
    }
}

bool Network::plausible_source_v4(const Interface& interface, const IpAddress& source,
                                  bool local) const {
    if (source.is_multicast() || source.is_unspecified() || source.v4_bits() >= kClassE)
        return false;
    if (local) return true;
    if (source.is_loopback() || interfaces_.is_broadcast(interface, source)) return false;
    return interfaces_.find(source) == nullptr;  // ours, from outside: LAND and its like
}

bool Network::plausible_source_v6(const IpAddress& source, bool local) const {
    // A mapped address on the wire could not be told from IPv4 further up (RFC 4291 §2.5.5.2).
    if (source.is_multicast() || source.is_v4()) return false;
    if (local) return true;
    if (source.is_loopback()) return false;
    const LocalAddress* ours = interfaces_.find(source);
    return ours == nullptr || !ours->usable();  // tentative: discovery judges that itself
}

Network::Fate Network::receive_v4(const RxFrame& frame, const Interface& interface,
                                  bool link_group, std::span<const std::byte> bytes,
                                  Instant now) {
    const auto ip = wire::parse_ipv4(bytes);
    if (!ip) return ended(Counter::InMalformed);
    const wire::Ipv4Header& header = ip->header;
    if ((frame.flags & kRxIpChecksumBad) != 0) return ended(Counter::InBadChecksum);
    if ((frame.flags & kRxIpChecksumGood) == 0 &&
        wire::checksum(bytes.first(header.header_bytes())) != 0)
        return ended(Counter::InBadChecksum);

    const bool local = (frame.flags & kRxLocal) != 0;
    const IpAddress source = IpAddress::v4(header.source);
    const IpAddress destination = IpAddress::v4(header.destination);
    const LocalAddress* ours = interfaces_.find(destination);
    const bool joined = destination.is_multicast() &&
                        (destination == wire::kAllHosts ||
                         (local ? groups_.has(destination)
                                : groups_.has(interfaces_.index_of(interface), destination)));
    const bool group =
        ours == nullptr && (joined || interfaces_.is_broadcast(interface, destination));
    if (ours == nullptr && !group) return ended(Counter::InNotForUs);
    if (!plausible_source_v4(interface, source, local)) return ended(Counter::InImpossible);
    if (!local && destination.is_loopback()) return ended(Counter::InImpossible);

    Packet packet{.frame = &frame,
                  .interface = interfaces_.index_of(interface),
                  .protocol = header.protocol,
                  .tos = header.tos,
                  .hop_limit = header.ttl,
                  .to_group = group || link_group,
                  .source = source,
                  .destination = destination,
                  .packet = bytes.first(header.total_length),
                  .l4 = ip->payload,
                  .l4_bytes = ip->payload.size()};
    if (!header.is_fragment()) return dispatch(packet, now);
    return receive_fragment({.key = {source, destination, header.id, header.protocol},
                             .protocol = header.protocol,
                             .tos = header.tos,
                             .hop_limit = header.ttl,
                             .interface = packet.interface,
                             .offset = header.fragment_offset(),
                             .more = header.more_fragments(),
                             .to_group = packet.to_group,
                             .payload = packet.l4,
                             .packet = packet.packet},
                            frame, now);
}

namespace {

/// RFC 7112 §5, RFC 8200 §4.5: a first fragment has every header, also the upper layer's.
bool holds_all_headers(std::uint8_t first, std::span<const std::byte> bytes) {
    const wire::Ipv6Chain chain = wire::walk_extensions(first, bytes, 1);
    if (chain.end == wire::Ipv6Chain::End::Malformed) return false;
    if (chain.end != wire::Ipv6Chain::End::UpperLayer) return true;  // refused when it is whole
    const std::size_t rest = bytes.size() - chain.offset;
    switch (static_cast<wire::Protocol>(chain.protocol)) {
    case wire::Protocol::Tcp: return rest >= sizeof(wire::TcpHeader);
    case wire::Protocol::Udp: return rest >= sizeof(wire::UdpHeader);
    case wire::Protocol::Icmpv6: return rest >= sizeof(wire::Icmpv6Header);
    default: return true;
    }
}

}  // namespace

Network::Fate Network::receive_v6(const RxFrame& frame, const Interface& interface,
                                  bool link_group, std::span<const std::byte> bytes,
                                  Instant now) {
    const auto ip = wire::parse_ipv6(bytes);
    if (!ip) return ended(Counter::InMalformed);
    const wire::Ipv6Header& header = ip->header;
    const bool local = (frame.flags & kRxLocal) != 0;
    const bool group = header.destination.is_multicast();
    const auto joined = [&] {
        return local ? groups_.has(header.destination)
                     : groups_.has(interfaces_.index_of(interface), header.destination);
    };
    if (group ? !interfaces_.listens_to(interface, header.destination) && !joined()
              : interfaces_.find(header.destination) == nullptr)
        return ended(Counter::InNotForUs);
    if (!plausible_source_v6(header.source, local) || header.destination.is_v4())
        return ended(Counter::InImpossible);
    if (!local && header.destination.is_loopback()) return ended(Counter::InImpossible);

    const wire::Ipv6Chain chain = wire::walk_extensions(header.next_header, ip->payload);
    Packet packet{.frame = &frame,
                  .interface = interfaces_.index_of(interface),
                  .protocol = chain.protocol,
                  .tos = header.traffic_class(),
                  .hop_limit = header.hop_limit,
                  .to_group = group || link_group,
                  .source = header.source,
                  .destination = header.destination,
                  .packet = bytes.first(sizeof(wire::Ipv6Header) + ip->payload.size()),
                  .l4 = ip->payload.subspan(chain.offset),
                  .l4_bytes = ip->payload.size() - chain.offset,
                  .protocol_at = chain.protocol_at};
    if (chain.end == wire::Ipv6Chain::End::UpperLayer) return dispatch(packet, now);
    if (chain.end != wire::Ipv6Chain::End::Fragment)
        return refuse_chain(by_content(packet, header.next_header, ip->payload), chain, now);
    if (header.source.is_unspecified()) return ended(Counter::InImpossible);
    if (chain.fragment.offset() == 0 && !holds_all_headers(chain.protocol, packet.l4)) {
        const bool kept = send_error(
            packet, static_cast<std::uint8_t>(wire::Icmpv6Type::ParameterProblem),
            wire::kIcmpv6IncompleteHeaders, 0, now);
        return {Counter::InMalformed, kept};
    }

    const Fate fate = receive_fragment({.key = {header.source, header.destination,
                                                chain.fragment.id, 0},
                                        .protocol = chain.protocol,
                                        .tos = packet.tos,
                                        .hop_limit = packet.hop_limit,
                                        .interface = packet.interface,
                                        .offset = chain.fragment.offset(),
                                        .more = chain.fragment.more_fragments(),
                                        .to_group = packet.to_group,
                                        .payload = packet.l4,
                                        .packet = packet.packet},
                                       frame, now);
    if (fate.kept_slot || fate.counter != Counter::InMalformed || packet.l4.empty()) return fate;
    // RFC 8200 §4.5: the sender learns which field was wrong, the length or the offset.
    const std::uint32_t at = packet.l4.size() % 8 != 0 && chain.fragment.more_fragments()
                                 ? offsetof(wire::Ipv6Header, payload_length)
                                 : static_cast<std::uint32_t>(sizeof(wire::Ipv6Header) +
                                                              chain.offset - 6);
    const bool kept = send_error(
        packet, static_cast<std::uint8_t>(wire::Icmpv6Type::ParameterProblem),
        wire::kIcmpv6BadHeader, at, now);
    return {fate.counter, kept};
}

Network::Fate Network::refuse_chain(const Packet& packet, const wire::Ipv6Chain& chain,
                                    Instant now) {
    using End = wire::Ipv6Chain::End;
    constexpr auto kProblem = static_cast<std::uint8_t>(wire::Icmpv6Type::ParameterProblem);
    const auto answer = [&](std::uint8_t code, bool even_to_group = false) {
        return send_error(packet, kProblem, code, static_cast<std::uint32_t>(chain.problem), now,
                          even_to_group);
    };
    switch (chain.end) {
    case End::BadHeader: return {Counter::InMalformed, answer(wire::kIcmpv6UnknownNextHeader)};
    case End::BadRouting: return {Counter::InUnknownProtocol, answer(wire::kIcmpv6BadHeader)};
    case End::BadOption:
        // RFC 8200 §4.2: 01 silently, 10 with an answer, 11 with one unless to a group.
        if (chain.option_action == 1) return ended(Counter::InUnknownProtocol);
        return {Counter::InUnknownProtocol,
                answer(wire::kIcmpv6UnknownOption, chain.option_action == 2)};
    default: return ended(Counter::InMalformed);
    }
}

Network::Fate Network::dispatch(Packet& packet, Instant now) {
    const bool v4 = packet.destination.is_v4();
    switch (static_cast<wire::Protocol>(packet.protocol)) {
    case wire::Protocol::Tcp: return hand_to_tcp(packet);
    case wire::Protocol::Udp: return receive_udp(packet, now);
    case wire::Protocol::Icmp:
        if (v4) return receive_icmpv4(packet, now);
        break;
    case wire::Protocol::Igmp:
        if (v4) return receive_igmp(packet, now);
        break;
    case wire::Protocol::Icmpv6:
        if (!v4) return receive_icmpv6(packet, now);
        break;
    case wire::Protocol::NoNextHeader:
        if (!v4) return ended(Counter::InAccepted);  // RFC 8200 §4.7: nothing to do
        break;
    default: break;
    }
    const bool kept =
        v4 ? send_error(packet, static_cast<std::uint8_t>(wire::Icmpv4Type::Unreachable),
                        wire::kIcmpv4ProtocolUnreachable, 0, now)
           : send_error(packet, static_cast<std::uint8_t>(wire::Icmpv6Type::ParameterProblem),
                        wire::kIcmpv6UnknownNextHeader,
                        static_cast<std::uint32_t>(packet.protocol_at), now);
    return {Counter::InUnknownProtocol, kept};
}

Network::Fate Network::hand_to_tcp(const Packet& packet) {
    const LocalAddress* ours = interfaces_.find(packet.destination);
    if (packet.to_group || packet.source.is_unspecified())
        return ended(Counter::InImpossible);  // RFC 9293 §3.9.2.3 (MUST-57)
    if (ours == nullptr || !ours->usable()) return ended(Counter::InNotForUs);
    const std::uint16_t flags = packet.frame->flags;
    if ((flags & kRxL4ChecksumBad) != 0) return ended(Counter::InBadChecksum);
    burst_.segments[burst_.count++] = {.frame = packet.frame,
                                       .l4 = packet.l4,
                                       .source = packet.source,
                                       .destination = packet.destination,
                                       .interface = packet.interface,
                                       .tos = packet.tos,
                                       .checksum_good = (flags & kRxL4ChecksumGood) != 0,
                                       .hash = 0};
    const std::size_t header_bytes =
        packet.source.is_v4() ? sizeof(wire::Ipv4Header) : sizeof(wire::Ipv6Header);
    if (packet.l4.data() == packet.packet.data() + header_bytes)  // no options, no extensions
        leader_ = {packet.frame,
                   static_cast<std::uint16_t>(packet.packet.data() - packet.frame->data),
                   packet.source.is_v4()};
    return ended(Counter::InAccepted);
}

std::uint16_t Network::transport_checksum(const Packet& packet, bool with_pseudo_header) const {
    wire::ChecksumSum sum;
    if (with_pseudo_header)
        sum = wire::pseudo_header(packet.source, packet.destination, packet.protocol,
                                  packet.l4_bytes);
    if (packet.chain == kNoPiece) sum.add(packet.l4);
    else
        for (std::uint32_t i = packet.chain; i != kNoPiece; i = pieces_[i].next)
            sum.add(pieces_.bytes(i));
    return sum.checksum();
}

}  // namespace chiru::ip
