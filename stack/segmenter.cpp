// SPDX-License-Identifier: Apache-2.0
#include "stack/segmenter.hpp"

#include "base/check.hpp"
#include "stack/wire/checksum.hpp"
#include "stack/wire/ipv4.hpp"
#include "stack/wire/ipv6.hpp"
#include "stack/wire/tcp.hpp"

#include <algorithm>
#include <cstring>
#include <span>

namespace chiru {
namespace {

template <class Field>
Field load(const std::byte* from) {
    Field field;
    std::memcpy(&field, from, sizeof field);
    return field;
}

template <class Field>
void store(std::byte* to, Field field) {
    std::memcpy(to, &field, sizeof field);
}

std::size_t tcp_at(const TxFrame& frame) { return std::size_t{frame.l2_bytes} + frame.l3_bytes; }

}  // namespace

Segmenter::Segmenter(const TxFrame& frame)
    : frame_(frame),
      header_bytes_(tcp_at(frame) + frame.l4_bytes),
      text_bytes_(frame.length() - header_bytes_),
      step_(frame.segment_bytes),
      pseudo_sum_(load<be16>(frame.head + tcp_at(frame) + offsetof(wire::TcpHeader, checksum))) {
    DCHECK((frame.flags & kTxSegment) != 0 && step_ > 0);
}

bool Segmenter::next(TxFrame& segment) {
    const std::size_t bytes = std::min(step_, text_bytes_ - done_);
    if (bytes == 0) return false;
    write_headers(segment, bytes);
    place_text(segment, bytes);
    finish_checksum(segment, bytes);
    done_ += bytes;
    return true;
}

void Segmenter::write_headers(TxFrame& segment, std::size_t text_bytes) const {
    segment.port = frame_.port;
    segment.flags = static_cast<std::uint16_t>(frame_.flags & ~kTxSegment);
    segment.vlan_tci = frame_.vlan_tci;
    segment.segment_bytes = 0;
    segment.l2_bytes = frame_.l2_bytes;
    segment.l3_bytes = frame_.l3_bytes;
    segment.l4_bytes = frame_.l4_bytes;
    segment.slice_count = 0;
    segment.head_length = static_cast<std::uint16_t>(header_bytes_);
    std::memcpy(segment.head, frame_.head, header_bytes_);

    std::byte* ip = segment.head + frame_.l2_bytes;
    const std::size_t l4_bytes = frame_.l4_bytes + text_bytes;
    if ((frame_.flags & kTxIpv6) != 0) {
        const be16 length(
            static_cast<std::uint16_t>(frame_.l3_bytes - sizeof(wire::Ipv6Header) + l4_bytes));
        store(ip + offsetof(wire::Ipv6Header, payload_length), length);
    } else {
        auto header = load<wire::Ipv4Header>(ip);
        header.total_length = static_cast<std::uint16_t>(frame_.l3_bytes + l4_bytes);
        header.id = static_cast<std::uint16_t>(header.id + done_ / step_);
        header.checksum = 0;
        store(ip, header);
        if ((frame_.flags & kTxIpChecksum) == 0)
            store(ip + offsetof(wire::Ipv4Header, checksum),
                  be16(wire::checksum({ip, frame_.l3_bytes})));
    }
    std::byte* l4 = ip + frame_.l3_bytes;
    auto header = load<wire::TcpHeader>(l4);
    header.sequence = header.sequence + static_cast<std::uint32_t>(done_);
    std::uint8_t not_here = 0;
    if (done_ > 0) not_here |= wire::kCwr;  // told once (RFC 3168 §6.1.2)
    if (done_ + text_bytes < text_bytes_) not_here |= wire::kFin | wire::kPsh;
    header.flags = static_cast<std::uint8_t>(header.flags & ~not_here);
    store(l4, header);
}

void Segmenter::place_text(TxFrame& segment, std::size_t bytes) {
    const std::size_t in_head = frame_.head_length - header_bytes_;
    if (done_ < in_head) {
        const std::size_t part = std::min(bytes, in_head - done_);
        std::memcpy(segment.head + header_bytes_, frame_.head + header_bytes_ + done_, part);
        segment.head_length = static_cast<std::uint16_t>(header_bytes_ + part);
        bytes -= part;
    }
    while (bytes > 0) {
        const TxSlice& whole = frame_.slices[slice_];
        const auto part = static_cast<std::uint32_t>(
            std::min<std::size_t>(bytes, whole.slice.length - slice_done_));
        segment.slices[segment.slice_count++] = {
            whole.data + slice_done_,
            {whole.slice.offset + slice_done_, part, whole.slice.arena, 0}, whole.record};
        bytes -= part;
        slice_done_ += part;
        if (slice_done_ == whole.slice.length) {
            ++slice_;
            slice_done_ = 0;
        }
    }
}

void Segmenter::finish_checksum(TxFrame& segment, std::size_t text_bytes) const {
    const std::size_t at = tcp_at(frame_);
    std::byte* field = segment.head + at + offsetof(wire::TcpHeader, checksum);
    wire::ChecksumSum sum;
    sum.add16(pseudo_sum_);
    sum.add16(static_cast<std::uint16_t>(frame_.l4_bytes + text_bytes));
    if ((frame_.flags & kTxL4Checksum) != 0) {
        store(field, be16(sum.sum()));
        return;
    }
    store(field, be16(0));
    sum.add(std::span(segment.head + at, segment.head_length - at));
    for (std::size_t i = 0; i < segment.slice_count; ++i)
        sum.add(std::span(segment.slices[i].data, segment.slices[i].slice.length));
    store(field, be16(sum.checksum()));
}

}  // namespace chiru
