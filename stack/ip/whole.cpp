// SPDX-License-Identifier: Apache-2.0
//
// What becomes of a datagram that was put together from fragments. It lies in several slots, and
// is never copied into one: UDP and ICMP are read piece by piece, and TCP is handed a segment for
// each piece, with the header of the first written in front of the others.
#include "stack/ip/network.hpp"

#include "stack/ip/flow_hash.hpp"
#include "stack/wire/icmpv4.hpp"
#include "stack/wire/tcp.hpp"

#include <algorithm>
#include <cstring>
#include <optional>

namespace chiru::ip {
namespace {

using wire::TcpHeader;

/// They count for the end of a segment's text only.
constexpr auto kLastFlags = static_cast<std::uint8_t>(wire::kFin | wire::kPsh);

/// The header that later pieces get: without options but for timestamps, which a connection that
/// agreed on them demands (RFC 7323 §3.2). 32 bytes fit in front of every fragment's payload,
/// where the link and IP headers were.
struct PieceHeader {
    std::array<std::byte, sizeof(TcpHeader) + 12> bytes{};
    std::size_t size = sizeof(TcpHeader);
};

PieceHeader make_piece_header(std::span<const std::byte> segment) {
    PieceHeader result;
    TcpHeader header = *read_header<TcpHeader>(segment);
    header.flags &= static_cast<std::uint8_t>(~wire::kSyn);
    const auto options = wire::options_of(header, segment);
    wire::for_each_option(*options, [&](wire::TcpOption kind, std::span<const std::byte> body) {
        if (kind != wire::TcpOption::Timestamps || body.size() != 8) return;
        std::byte* at = result.bytes.data() + sizeof(TcpHeader);
        at[0] = at[1] = std::byte{1};  // two NOPs align it
        at[2] = std::byte{8};
        at[3] = std::byte{10};
        std::memcpy(at + 4, body.data(), body.size());
        result.size = sizeof(TcpHeader) + 12;
    });
    header.data_offset = static_cast<std::uint8_t>(result.size / 4 << 4);
    std::memcpy(result.bytes.data(), &header, sizeof header);
    return result;
}

}  // namespace

Network::Fate Network::receive_fragment(const Fragment& fragment, const RxFrame& frame,
                                        Instant now) {
    const Reassembly::Outcome outcome = fragments_.add(fragment, frame, now);
    switch (outcome.verdict) {
    case Reassembly::Verdict::Held: return {Counter::InFragmentHeld, true};
    case Reassembly::Verdict::Duplicate: return {Counter::InDuplicate, false};
    case Reassembly::Verdict::Dropped: return {Counter::InFragmentDropped, false};
    case Reassembly::Verdict::Malformed: return {Counter::InMalformed, false};
    case Reassembly::Verdict::Complete: break;
    }
    counters_.add(Counter::IpReassembled);
    return {receive_whole(outcome.datagram, now), true};  // its slot is in the chain
}

std::optional<Network::Fate> Network::skip_whole_headers(Packet& packet, Instant now) {
    // In the first fragment's own packet, which an error quotes: headers, and what it brought.
    const std::size_t before = packet.packet.size() - packet.l4.size();
    wire::Ipv6Chain chain = wire::walk_extensions(packet.protocol, packet.l4, 1);
    const auto in_quote = [&](std::size_t at) {
        if (at >= sizeof(wire::Ipv6Header)) return at - sizeof(wire::Ipv6Header) + before;
        return before - sizeof(wire::FragmentHeader);  // its next header
    };
    chain.problem = in_quote(chain.problem);
    packet.protocol = chain.protocol;
    packet.protocol_at = in_quote(chain.protocol_at);
    if (chain.end != wire::Ipv6Chain::End::UpperLayer) return refuse_chain(packet, chain, now);
    Piece& first = pieces_[packet.chain];
    first.offset += chain.offset;
    first.length -= static_cast<std::uint32_t>(chain.offset);
    packet.l4 = pieces_.bytes(packet.chain);
    packet.l4_bytes -= chain.offset;
    return std::nullopt;
}

shm::Counter Network::receive_whole(std::uint32_t index, Instant now) {
    const Datagram datagram = fragments_[index];
    Packet packet{.frame = nullptr,
                  .interface = datagram.interface,
                  .protocol = datagram.protocol,
                  .tos = datagram.tos,
                  .hop_limit = datagram.hop_limit,
                  .to_group = datagram.to_group != 0,
                  .source = datagram.key.source,
                  .destination = datagram.key.destination,
                  .packet = {rx_arena_.base + datagram.quote_offset, datagram.quote_bytes},
                  .l4 = {},
                  .l4_bytes = datagram.total_bytes,
                  .protocol_at = 0,
                  .chain = fragments_.take(index)};
    packet.l4 = pieces_.bytes(packet.chain);
    std::optional<Fate> fate;
    if (packet.source.is_v6()) fate = skip_whole_headers(packet, now);
    if (!fate && packet.protocol == static_cast<std::uint8_t>(wire::Protocol::Tcp))
        return receive_whole_tcp(packet, now);
    if (!fate) fate = dispatch(packet, now);
    if (!fate->kept_slot) pieces_.release_chain(packet.chain);
    return fate->counter;
}

shm::Counter Network::receive_whole_tcp(const Packet& packet, Instant now) {
    const auto header = read_header<TcpHeader>(packet.l4);
    const auto refused = [&](Counter why) {
        pieces_.release_chain(packet.chain);
        return why;
    };
    if (!header || !wire::options_of(*header, packet.l4)) return refused(Counter::InMalformed);
    if (packet.to_group || packet.source.is_unspecified()) return refused(Counter::InImpossible);
    if (!is_local(packet.destination)) return refused(Counter::InNotForUs);
    if (transport_checksum(packet, true) != 0) return refused(Counter::InBadChecksum);
    const PieceHeader repeated = make_piece_header(packet.l4);
    const std::uint32_t hash = flow_hash(Endpoint{packet.source, header->source_port},
                                         Endpoint{packet.destination, header->destination_port});
    const bool ours = flow_map_[flow_group(hash)] == shard_;
    const std::size_t first_bytes = header->length_bytes();
    std::uint32_t text_before = 0;
    Counter first_fate = Counter::InAccepted;
    for (std::uint32_t piece = packet.chain; piece != kNoPiece;) {
        const std::uint32_t next = pieces_[piece].next;
        const bool first = piece == packet.chain;
        Piece& part = pieces_[piece];
        const std::size_t header_bytes = first ? first_bytes : repeated.size;
        if (!first) {
            if (part.offset - part.slot.offset < repeated.size) {  // shorter than any IP header
                pieces_.release_chain(piece);
                return first_fate;
            }
            part.offset -= repeated.size;
            part.length += static_cast<std::uint32_t>(repeated.size);
            std::memcpy(pieces_.data(part), repeated.bytes.data(), repeated.size);
        }
        TcpHeader written;
        std::memcpy(&written, pieces_.data(part), sizeof written);
        written.sequence = written.sequence + text_before;
        if (next != kNoPiece) written.flags &= static_cast<std::uint8_t>(~kLastFlags);
        std::memcpy(pieces_.data(part), &written, sizeof written);
        text_before += part.length - static_cast<std::uint32_t>(header_bytes);
        if (first && (header->flags & wire::kSyn) != 0) ++text_before;
        part.next = kNoPiece;
        const Counter fate = hand_piece_to_tcp(packet, piece, header_bytes, ours, now);
        if (first) first_fate = fate;
        piece = next;
    }
    return first_fate;
}

/// To this shard's TCP, or by way of kLocalPort to that of the shard the flow belongs to.
shm::Counter Network::hand_piece_to_tcp(const Packet& packet, std::uint32_t piece,
                                        std::size_t header_bytes, bool ours, Instant now) {
    Piece& part = pieces_[piece];
    if (ours) {
        const RxFrame frame{.data = rx_arena_.base + part.slot.offset,
                            .slice = part.slot,
                            .port = 0,
                            .flags = kRxIpChecksumGood | kRxL4ChecksumGood};
        const Fate fate = tcp_->receive({.frame = &frame,
                                         .l4 = pieces_.bytes(piece),
                                         .source = packet.source,
                                         .destination = packet.destination,
                                         .interface = packet.interface,
                                         .tos = packet.tos,
                                         .checksum_good = true},
                                        now);
        if (fate.kept_slot) pieces_.forget(piece);
        else pieces_.release_chain(piece);
        return fate.counter;
    }
    const std::uint32_t index = control_.take(false);
    if (index == kNoJob) {
        pieces_.release_chain(piece);
        return Counter::InFragmentDropped;
    }
    Job& job = control_[index];
    std::memcpy(job.head.data(), pieces_.data(part), header_bytes);
    part.offset += header_bytes;
    part.length -= static_cast<std::uint32_t>(header_bytes);
    job.kind = JobKind::Segment;
    job.protocol = packet.protocol;
    job.options = {.tos = packet.tos, .ttl = 64};
    job.interface = packet.interface;
    job.head_bytes = static_cast<std::uint16_t>(header_bytes);
    job.local = packet.source;
    job.remote = packet.destination;
    job.first_piece = piece;
    job.piece_bytes = part.length;
    control_.push(index, false);
    return Counter::InAccepted;
}

/// With a header in front of it the piece may be larger than a frame; then it is cut as TCP cuts,
/// not into fragments, which would come back to this shard.
Network::Sent Network::send_segment_job(Job& job, TxFrame& frame) {
    fill_local_path(job.path);
    const std::size_t ip_bytes =
        job.remote.is_v4() ? sizeof(wire::Ipv4Header) : sizeof(wire::Ipv6Header);
    const std::size_t room = std::min<std::size_t>(job.path.mtu,
                                                   frame.head_capacity - kMaxLinkBytes);
    const std::size_t text = std::min<std::size_t>(job.piece_bytes - job.sent_bytes,
                                                   room - ip_bytes - job.head_bytes);
    const bool last = job.sent_bytes + text == job.piece_bytes;
    write_headers(frame, job.path, job.local, job.remote, job.protocol, job.head_bytes + text,
                  job.options, {});
    std::byte* at = frame.head + frame.head_length;
    control_.copy(job, 0, {at, job.head_bytes});
    control_.copy(job, job.head_bytes + job.sent_bytes, {at + job.head_bytes, text});
    TcpHeader header;
    std::memcpy(&header, at, sizeof header);
    header.sequence = header.sequence + job.sent_bytes;
    if (!last) header.flags &= static_cast<std::uint8_t>(~kLastFlags);
    std::memcpy(at, &header, sizeof header);
    frame.head_length = static_cast<std::uint16_t>(frame.head_length + job.head_bytes + text);
    job.sent_bytes += static_cast<std::uint32_t>(text);
    return last ? Sent::Done : Sent::More;
}

void Network::expire_fragments(Instant now) {
    for (std::uint32_t index = fragments_.expired(now); index != kNoDatagram;
         index = fragments_.expired(now)) {
        const Datagram datagram = fragments_[index];
        counters_.add(Counter::IpFragmentsExpired);
        if (datagram.quote_bytes == 0) {  // without the first fragment nobody is told
            fragments_.drop(index);
            continue;
        }
        const Packet packet{.interface = datagram.interface,
                            .protocol = datagram.protocol,
                            .to_group = datagram.to_group != 0,
                            .source = datagram.key.source,
                            .destination = datagram.key.destination,
                            .packet = {rx_arena_.base + datagram.quote_offset,
                                       datagram.quote_bytes},
                            .l4 = pieces_.bytes(datagram.first_piece),
                            .l4_bytes = datagram.received_bytes,
                            .chain = fragments_.take(index)};
        const bool v4 = packet.source.is_v4();
        const bool kept =
            v4 ? send_error(packet, static_cast<std::uint8_t>(wire::Icmpv4Type::TimeExceeded),
                            wire::kIcmpv4ReassemblyTime, 0, now)
               : send_error(packet, static_cast<std::uint8_t>(wire::Icmpv6Type::TimeExceeded),
                            wire::kIcmpv6ReassemblyTime, 0, now);
        if (!kept) pieces_.release_chain(packet.chain);
    }
}

}  // namespace chiru::ip
