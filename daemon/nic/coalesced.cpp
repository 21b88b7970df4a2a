// SPDX-License-Identifier: Apache-2.0
#include "daemon/nic/coalesced.hpp"

#include "base/check.hpp"
#include "stack/wire/checksum.hpp"
#include "stack/wire/ethernet.hpp"
#include "stack/wire/ipv4.hpp"
#include "stack/wire/ipv6.hpp"
#include "stack/wire/tcp.hpp"

#include <rte_mbuf.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace chiru::daemon::nic {

std::optional<CoalescedFrame> CoalescedFrame::parse(std::span<const std::byte> first,
                                                    std::size_t frame_bytes, std::size_t room) {
    constexpr auto kTcp = static_cast<std::uint8_t>(wire::Protocol::Tcp);
    const auto link = wire::parse_link(first);
    if (!link) return std::nullopt;
    CoalescedFrame frame;
    frame.ip_at_ = link->bytes;
    const auto packet = first.subspan(link->bytes);
    std::size_t ip_bytes = 0;  // header and payload
    if (link->type == wire::EtherType::Ipv4) {
        const auto ip = read_header<wire::Ipv4Header>(packet);
        if (!ip || ip->version_length >> 4 != 4 || ip->protocol != kTcp || ip->is_fragment() ||
            ip->header_bytes() < sizeof(wire::Ipv4Header))
            return std::nullopt;
        frame.tcp_at_ = frame.ip_at_ + ip->header_bytes();
        ip_bytes = ip->total_length;
    } else if (link->type == wire::EtherType::Ipv6) {
        const auto ip = read_header<wire::Ipv6Header>(packet);
        if (!ip || ip->next_header != kTcp) return std::nullopt;
        frame.v6_ = true;
        frame.tcp_at_ = frame.ip_at_ + sizeof(wire::Ipv6Header);
        ip_bytes = sizeof(wire::Ipv6Header) + ip->payload_length;
    } else {
        return std::nullopt;
    }
    if (frame.tcp_at_ > first.size()) return std::nullopt;
    const auto tcp = read_header<wire::TcpHeader>(first.subspan(frame.tcp_at_));
    if (!tcp || tcp->length_bytes() < sizeof(wire::TcpHeader)) return std::nullopt;
    const std::size_t headers = frame.tcp_at_ + tcp->length_bytes();
    const std::size_t end = frame.ip_at_ + ip_bytes;  // what is behind it is padding
    if (headers > first.size() || end > frame_bytes || end < headers || headers >= room)
        return std::nullopt;
    frame.headers_ = first.first(headers);
    frame.text_ = end - headers;
    frame.most_ = room - headers;
    return frame;
}

std::size_t CoalescedFrame::pieces() const {
    return std::max<std::size_t>((text_ + most_ - 1) / most_, 1);
}

std::size_t CoalescedFrame::text_bytes(std::size_t piece) const {
    return std::min(most_, text_ - piece * most_);
}

void CoalescedFrame::write_headers(std::size_t piece, std::span<std::byte> to) const {
    CHECK(to.size() >= headers_.size());
    std::memcpy(to.data(), headers_.data(), headers_.size());
    const std::size_t l4_bytes = headers_.size() - tcp_at_ + text_bytes(piece);
    if (v6_) {
        const be16 length(static_cast<std::uint16_t>(l4_bytes));
        std::memcpy(to.data() + ip_at_ + offsetof(wire::Ipv6Header, payload_length), &length,
                    sizeof length);
    } else {
        wire::Ipv4Header ip;
        std::memcpy(&ip, to.data() + ip_at_, sizeof ip);
        ip.total_length = static_cast<std::uint16_t>(tcp_at_ - ip_at_ + l4_bytes);
        ip.checksum = 0;
        std::memcpy(to.data() + ip_at_, &ip, sizeof ip);
        ip.checksum = wire::checksum(to.subspan(ip_at_, tcp_at_ - ip_at_));
        std::memcpy(to.data() + ip_at_, &ip, sizeof ip);
    }
    wire::TcpHeader tcp;
    std::memcpy(&tcp, to.data() + tcp_at_, sizeof tcp);
    tcp.sequence = tcp.sequence + static_cast<std::uint32_t>(piece * most_);
    // What ends the text stands on the last piece, what begins a reaction on the first.
    if (piece + 1 < pieces())
        tcp.flags = static_cast<std::uint8_t>(tcp.flags & ~(wire::kFin | wire::kPsh));
    if (piece > 0) tcp.flags = static_cast<std::uint8_t>(tcp.flags & ~wire::kCwr);
    std::memcpy(to.data() + tcp_at_, &tcp, sizeof tcp);
}

std::size_t most_pieces(std::size_t room) {
    constexpr std::size_t kHeaders = 14 + 4 + 60 + 60, kLargestPacket = 65'535;
    return kLargestPacket / (room - kHeaders) + 1;
}

namespace {

/// Bytes of a chain from `at` on; returns whether there were so many.
bool copy_out(const rte_mbuf& chain, std::size_t at, std::size_t bytes, std::byte* to) {
    const void* found = rte_pktmbuf_read(&chain, static_cast<std::uint32_t>(at),
                                         static_cast<std::uint32_t>(bytes), to);
    if (found == nullptr) return false;
    if (found != to) std::memcpy(to, found, bytes);
    return true;
}

/// What the device said of the whole holds for each part.
rte_mbuf* part_of(const rte_mbuf& chain, rte_mempool* pool) {
    rte_mbuf* part = rte_pktmbuf_alloc(pool);
    if (part == nullptr) return nullptr;
    part->ol_flags = chain.ol_flags;
    part->packet_type = chain.packet_type;
    part->vlan_tci = chain.vlan_tci;
    part->hash = chain.hash;
    return part;
}

void set_length(rte_mbuf& part, std::size_t bytes) {
    part.data_len = static_cast<std::uint16_t>(bytes);
    part.pkt_len = static_cast<std::uint32_t>(bytes);
}

}  // namespace

std::size_t copy_chain(const rte_mbuf& chain, rte_mempool* pool, std::size_t room,
                       std::span<rte_mbuf*> pieces) {
    std::array<std::byte, 14 + 4 + 60 + 60> head;
    const std::size_t head_bytes = std::min<std::size_t>(head.size(), chain.pkt_len);
    const bool whole = chain.pkt_len <= room;
    std::optional<CoalescedFrame> frame;
    if (!whole && copy_out(chain, 0, head_bytes, head.data()))
        frame = CoalescedFrame::parse(std::span(head).first(head_bytes), chain.pkt_len, room);
    const std::size_t count = whole ? 1 : frame ? frame->pieces() : 0;
    if (count == 0 || count > pieces.size()) return 0;
    for (std::size_t i = 0; i < count; ++i) {
        pieces[i] = part_of(chain, pool);
        std::size_t headers = 0, at = 0, bytes = chain.pkt_len;
        if (frame) headers = frame->header_bytes(), at = frame->text_at(i),
                   bytes = frame->text_bytes(i);
        auto* data = pieces[i] != nullptr ? rte_pktmbuf_mtod(pieces[i], std::byte*) : nullptr;
        if (data == nullptr || !copy_out(chain, at, bytes, data + headers)) {
            rte_pktmbuf_free_bulk(pieces.data(),
                                  static_cast<unsigned>(pieces[i] != nullptr ? i + 1 : i));
            return 0;
        }
        if (frame) frame->write_headers(i, {data, headers});
        set_length(*pieces[i], headers + bytes);
    }
    return count;
}

}  // namespace chiru::daemon::nic
