// SPDX-License-Identifier: Apache-2.0
//
// Segments become frames (RFC 9293 §3.1, §3.2): header, options, text, checksum. A frame is headers
// in memory the driver lent, and slices of clients' memory; only short text is copied.
#include "stack/tcp/machine.hpp"

#include "base/check.hpp"
#include "stack/tcp/options.hpp"
#include "stack/wire/checksum.hpp"
#include "stack/wire/tcp.hpp"

#include <algorithm>
#include <cstring>

namespace chiru::tcp {

using shm::Counter;
using wire::kAck;
using wire::kRst;
using wire::kSyn;

namespace {

constexpr std::uint8_t kProtocolTcp = 6;
/// Text up to this length costs less to copy than to attach: a slice is worth a descriptor and a
/// completion of the device.
constexpr std::uint32_t kCopyBytes = 256;

}  // namespace

/// Options of a SYN: what we offer, or of what was offered what we take.
static SynOptions syn_options(const Connection& c, bool answer, std::uint32_t stamp) {
    const auto takes = [&](shm::NegotiatedOption o) { return !answer || c.negotiated(o); };
    SynOptions o;
    if (takes(shm::kNegotiatedWindowScale)) o.shift = c.info.rcv_shift;
    o.sack = takes(shm::kNegotiatedSack);
    o.timestamps = takes(shm::kNegotiatedTimestamps);
    o.stamp = stamp;
    o.echo = answer ? c.info.ts_recent : 0;
    return o;
}

static void write_options(OptionWriter& w, const Connection& c, std::uint32_t stamp, bool blocks) {
    if (c.negotiated(shm::kNegotiatedTimestamps)) {
        w.word(0x0101'080au);
        w.word(stamp);
        w.word(c.info.ts_recent);
    }
    if (!blocks || !c.negotiated(shm::kNegotiatedSack)) return;
    const bool dsack = c.has(kDsackOwed);
    const std::size_t count = std::min<std::size_t>(c.sack_count + (dsack ? 1u : 0u), kSackBlocks);
    if (count == 0) return;
    w.word(0x0101'0500u | static_cast<std::uint32_t>(2 + 8 * count));
    std::size_t left = count;
    const auto block = [&](const SackBlock& b) {
        if (left == 0) return;
        --left;
        w.word(b.first.raw());
        w.word(b.end.raw());
    };
    if (dsack) block(c.sack.back());  // RFC 2883 §4: the duplicate is reported first
    for (std::size_t i = 0; i < c.sack_count; ++i) block(c.sack[i]);
}

// The one function that makes a connection's segments.
Machine::Outcome Machine::build(Connection& c, Index self, Sink& out, Seq seq, std::uint8_t flags,
                                const Payload& payload, const MarkEdge* edge) {
    std::array<std::byte, kMaxOptionBytes> options;
    OptionWriter writer(options.data());
    const std::uint32_t stamp = timestamp(c, out.now);
    const bool syn = (flags & kSyn) != 0;
    if (syn) {
        const bool answer = (flags & kAck) != 0;
        SynOptions offer = syn_options(c, answer, stamp);
        const bool pending = c.has(kPassive) && !c.early();  // else its listener may be gone
        // Of an active open nothing but the client's bound is known yet.
        const std::uint32_t bound = !answer ? c.info.peer_mss
                                    : pending ? listeners_[c.listener].max_segment
                                              : 0;
        offer.mss = offered_mss(c.path, c.info.remote_address, bound);
        offer.fast_open = fast_open_option(c, out.now);
        write_syn_options(writer, offer);
    } else {
        write_options(writer, c, stamp, payload.length == 0 && (flags & kRst) == 0);
    }
    const std::size_t header_bytes = sizeof(wire::TcpHeader) + writer.size();
    const std::size_t l4_bytes = header_bytes + payload.length;

    TxFrame& frame = out.frames[out.used];
    frame.head_length = 0;
    frame.flags = 0;
    frame.slice_count = 0;
    frame.segment_bytes = 0;
    IpOptions ip = c.ip;
    const bool ecn = c.negotiated(shm::kNegotiatedEcn) && !syn && edge == nullptr;
    // Neither what is sent again nor what carries no text may be marked (RFC 3168 §6.1.4, §6.1.5).
    const bool new_text = payload.length > 0 && seq == c.snd_nxt();
    if (ecn && new_text) ip.tos |= wire::kEcnCapable;
    const std::uint16_t mtu_before = c.path.mtu;
    const BeginResult begun = lower_.begin(frame, c.path, c.info.local_address,
                                           c.info.remote_address, kProtocolTcp, l4_bytes, ip,
                                           out.now);
    if (c.path.mtu != mtu_before && synchronized(c.info.state)) {
        const std::uint32_t mss_before = c.info.mss;
        follow_path_mtu(c);
        if (c.info.mss < mss_before && payload.length > c.info.mss) return Outcome::More;  // anew
    }
    if (begun != BeginResult::Ready) return undeliverable(c, self, begun, out.now);
    const bool cut = payload.length > c.info.mss && !payload.probe;
    if (cut) {
        // The way leads through another port now, behind which less is cut, or nothing.
        if (payload.length > c.path.tso_bytes) return Outcome::More;
        frame.flags |= kTxSegment;  // begin() has written the others
        frame.segment_bytes = static_cast<std::uint16_t>(c.info.mss);
    }

    if (ecn && (flags & kRst) == 0) flags |= ecn_flags(c, new_text);
    const Seq ack = edge != nullptr ? edge->ack : c.rcv_nxt();
    const std::uint16_t window =
        syn ? static_cast<std::uint16_t>(std::min(c.info.rcv_wnd, 65'535u))
            : window_to_send(c, ack);
    wire::TcpHeader header{};
    header.source_port = c.info.local_port;
    header.destination_port = c.info.remote_port;
    header.sequence = seq.raw();
    header.acknowledgment = (flags & kAck) != 0 ? ack.raw() : 0;
    header.data_offset = static_cast<std::uint8_t>(header_bytes / 4 << 4);
    header.flags = flags;
    header.window = window;
    std::byte* at = frame.head + frame.head_length;
    std::memcpy(at, &header, sizeof header);
    std::memcpy(at + sizeof header, options.data(), writer.size());
    frame.l4_bytes = static_cast<std::uint8_t>(header_bytes);
    frame.head_length = static_cast<std::uint16_t>(frame.head_length + header_bytes);
    if (payload.length > 0) place_payload(frame, payload, sessions_[c.session].config.tx_arena);
    finish_frame(frame, tuple_of(c), l4_bytes, c.path.offload_l4 != 0);

    ++out.used;
    const std::uint32_t segments = cut ? (payload.length + c.info.mss - 1) / c.info.mss : 1;
    count(Counter::TcpSegmentsOut, segments);
    c.info.tx_segments += segments;
    c.info.last_sent_us = out.now.time_since_epoch().count();
    if ((flags & kAck) != 0) {
        // Beside text the SACK blocks were not told.
        c.last_ack_sent = ack;
        if (edge != nullptr) return Outcome::Done;  // the rest is owed still
        c.clear(kOweAck | kDsackOwed);
        c.ack_at = kNever;
    }
    return Outcome::Done;
}

// Walks the records under a segment, and cuts it where it has too many slices for a frame: behind a
// whole segment, or else short enough to be copied together.
std::uint32_t Machine::fit_slices(const Payload& payload, std::uint32_t mss) const {
    std::uint32_t length = 0;
    std::uint32_t offset = payload.offset;
    std::size_t slices = 0;
    for (Index i = payload.record; i != kNil && length < payload.length; ++slices) {
        if (slices == kMaxTxSlices) {
            if (payload.length <= mss) return payload.length;
            return std::max(length / mss, 1u) * mss;
        }
        length += std::min(send_.records()[i].slice.length - offset, payload.length - length);
        i = send_.records()[i].next;
        offset = 0;
    }
    return payload.length;
}

void Machine::place_payload(TxFrame& frame, const Payload& payload, const ArenaView& arena) {
    std::size_t slices = 0;
    std::uint32_t left = payload.length;
    std::uint32_t offset = payload.offset;
    for (Index i = payload.record; left > 0; ++slices) {
        left -= std::min(send_.records()[i].slice.length - offset, left);
        i = send_.records()[i].next;
        offset = 0;
    }
    const std::size_t room = std::size_t{frame.head_capacity} - frame.head_length;
    const bool copy = payload.length <= room &&
                      (slices > kMaxTxSlices || payload.length <= kCopyBytes * slices);
    if (copy) count(Counter::CopiedTxSmall, payload.length);

    left = payload.length;
    offset = payload.offset;
    for (Index i = payload.record; left > 0;) {
        SendEntry& entry = send_.records()[i];
        const std::uint32_t piece = std::min(entry.slice.length - offset, left);
        const std::byte* data = arena.base + entry.slice.offset + offset;
        if (copy) {
            std::memcpy(frame.head + frame.head_length, data, piece);
            frame.head_length = static_cast<std::uint16_t>(frame.head_length + piece);
        } else {
            DCHECK(frame.slice_count < kMaxTxSlices);
            ++entry.device_refs;
            frame.slices[frame.slice_count++] = {
                data, {entry.slice.offset + offset, piece, entry.slice.arena, 0}, SendRecord{i}};
        }
        left -= piece;
        i = entry.next;
        offset = 0;
    }
}

// The checksum: all of it, or the pseudo header's sum for a port that does the rest.
void Machine::finish_frame(TxFrame& frame, const Tuple& tuple, std::size_t l4_bytes,
                           bool offload) {
    const std::size_t l4_at = std::size_t{frame.l2_bytes} + frame.l3_bytes;
    std::uint16_t sum = 0;
    const bool cut = (frame.flags & kTxSegment) != 0;
    if (offload) frame.flags |= kTxL4Checksum;
    if (offload || cut) {
        // Who cuts the frame adds each segment's length, and what else is missing.
        sum = wire::pseudo_header(tuple.local, tuple.remote, kProtocolTcp, cut ? 0 : l4_bytes)
                  .sum();
    } else {
        auto all = wire::pseudo_header(tuple.local, tuple.remote, kProtocolTcp, l4_bytes);
        all.add(std::span(frame.head + l4_at, frame.head_length - l4_at));
        for (std::size_t i = 0; i < frame.slice_count; ++i)
            all.add(std::span(frame.slices[i].data, frame.slices[i].slice.length));
        sum = all.checksum();
    }
    const be16 field(sum);
    std::memcpy(frame.head + l4_at + offsetof(wire::TcpHeader, checksum), &field, sizeof field);
}

void Machine::emit_reply(const Reply& reply, Sink& out) {
    const auto route = lower_.route(reply.tuple.remote, reply.tuple.local, reply.link);
    if (!route) return;
    Path path = route->path;
    TxFrame& frame = out.frames[out.used];
    frame.head_length = 0;
    frame.flags = 0;
    frame.slice_count = 0;
    frame.segment_bytes = 0;
    const std::size_t l4_bytes = sizeof(wire::TcpHeader) + reply.option_bytes;
    const BeginResult begun = lower_.begin(frame, path, reply.tuple.local, reply.tuple.remote,
                                           kProtocolTcp, l4_bytes, {}, out.now);
    if (begun == BeginResult::Unresolved) {
        waiting_replies_[next_waiting_++ % kWaitingReplies] = {reply, path.neighbor};
        return;
    }
    if (begun != BeginResult::Ready) return;
    wire::TcpHeader header{};
    header.source_port = reply.tuple.local_port;
    header.destination_port = reply.tuple.remote_port;
    header.sequence = reply.seq.raw();
    header.acknowledgment = reply.ack.raw();
    header.data_offset = static_cast<std::uint8_t>(l4_bytes / 4 << 4);
    header.flags = reply.flags;
    header.window = reply.window;
    std::byte* at = frame.head + frame.head_length;
    std::memcpy(at, &header, sizeof header);
    std::memcpy(at + sizeof header, reply.options.data(), reply.option_bytes);
    frame.l4_bytes = static_cast<std::uint8_t>(l4_bytes);
    frame.head_length = static_cast<std::uint16_t>(frame.head_length + l4_bytes);
    finish_frame(frame, reply.tuple, l4_bytes, path.offload_l4 != 0);
    ++out.used;
    count(Counter::TcpSegmentsOut);
    if ((reply.flags & kRst) != 0) count(Counter::TcpResetsSent);
}

}  // namespace chiru::tcp
