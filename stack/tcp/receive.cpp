// SPDX-License-Identifier: Apache-2.0
//
// The seventh and eighth step (RFC 9293 §3.10.7.4): text and FIN; and with them when to acknowledge
// (§3.8.6.3, RFC 5681 §4.2).
//
// Text is not moved: the slot it came in becomes part of the connection's queue. Short text that
// finds room behind the newest queued text is copied there, so tiny segments cannot pin the pool.
#include "stack/tcp/machine.hpp"

#include "stack/wire/tcp.hpp"

#include <algorithm>
#include <cerrno>
#include <optional>

namespace chiru::tcp {

using shm::Counter;

namespace {

/// Gaps that a connection may have: each piece of text that begins behind a new one costs a slot,
/// and a step of the search for a place (as in CVE-2018-5390). With every twentieth segment lost
/// they are enough for windows of 15 MB.
constexpr std::uint32_t kMaxReassemblyRuns = 512;
/// What a connection may send before anybody accepts it, besides kMaxUnownedBytes.
constexpr std::uint32_t kMaxUnownedSlots = 16;
/// Of one connection, of either arena; rx_slots has 16 bits.
constexpr std::uint32_t kMaxHeldSlots = 60'000;

}  // namespace

Verdict Machine::take_text(Connection& c, Arrival& a) {
    Segment& seg = a.seg;
    if (seg.text.empty()) return kContinue;
    if (c.negotiated(shm::kNegotiatedEcn)) take_mark(c, a);
    if (!may_receive(c.info.state)) return kContinue;  // "this should not occur": after a FIN
    if (seg.seq < c.rcv_nxt()) {
        const auto known = static_cast<std::uint32_t>(c.rcv_nxt() - seg.seq);
        owe_dsack(c, {seg.seq,
                      seg.seq + std::min(known, static_cast<std::uint32_t>(seg.text.size()))});
        if (known >= seg.text.size()) {  // a FIN alone is new
            seg.trim_front(static_cast<std::uint32_t>(seg.text.size()));
            owe_ack(c, a.self);
            return Counter::InDuplicate;
        }
        seg.trim_front(known);
    }
    const auto room = static_cast<std::uint32_t>(c.rcv_nxt() + c.info.rcv_wnd - seg.seq);
    seg.keep_front(room);
    if (seg.text.empty()) return kContinue;
    if (c.has(kClientGone)) {
        // RFC 1122 §4.2.2.13: nobody will read what is new, and the peer shall know that.
        reset(c, a.self, ECONNRESET);
        return Counter::InNoSocket;
    }
    return seg.seq == c.rcv_nxt() ? take_in_order(c, a) : take_out_of_order(c, a);
}

bool Machine::may_hold_slot(const Connection& c, bool in_order) const {
    // Text behind a gap must leave room for the text that fills it.
    const std::uint32_t limit = in_order ? slot_limit_ : slot_limit_ / 4 * 3;
    if (rx_.held() >= limit) return false;
    if (c.session == kNobody)
        return c.info.unread_bytes + c.info.out_of_order_bytes < kMaxUnownedBytes &&
               c.reassembly_slots < kMaxUnownedSlots && unowned_slots_ < slot_limit_ / 4;
    const Session& session = sessions_[c.session];
    const std::uint32_t quota = session.config.max_rx_slots;
    if (session.slots_held >= (in_order ? quota : quota / 4 * 3)) return false;
    // No more of the quota than is left to its other connections, and no more of the arena than is
    // left to other sessions: whoever reads finds room beside those who do not, however many they
    // are. What fills a gap will be read, and does not count.
    const bool fills_gap = in_order && c.reassembly_head != kNil;
    if (c.info.rx_slots >= kMaxHeldSlots) return false;
    if (!fills_gap && c.info.rx_slots >= quota - session.slots_held) return false;
    return session.shared_slots() < limit - rx_.held();
}

void Machine::charge_slot(const Connection& c) {
    if (c.session == kNobody) {
        ++unowned_slots_;
        return;
    }
    Session& session = sessions_[c.session];
    ++session.slots_held;
    if (session.config.counters != nullptr)
        session.config.counters->rx_slots_held.set(session.slots_held);
}

/// The slot's text is the connection's from now on.
void Machine::hold_slot(Connection& c, Index self, Index slot) {
    rx_[slot].connection = self;
    rx_[slot].generation = c.info.generation;
    ++c.info.rx_slots;
    charge_slot(c);
}

// Text behind a gap makes room for the text that fills it: the peer keeps what was told by SACK
// only until it is acknowledged, and must send it again (RFC 2018 §8).
bool Machine::make_room(Connection& c) {
    if (c.reassembly_head == kNil) return false;
    const Seq first = rx_[rx_.last_reassembly(c)].first;
    free_slot(rx_.drop_last_reassembly(c));
    count(Counter::TcpOutOfOrderDropped);
    std::size_t kept = 0;
    for (std::size_t i = 0; i < c.sack_count; ++i) {
        if (c.sack[i].first >= first) continue;
        c.sack[kept] = c.sack[i];
        if (c.sack[kept].end > first) c.sack[kept].end = first;
        ++kept;
    }
    c.sack_count = static_cast<std::uint8_t>(kept);
    return true;
}

Verdict Machine::take_in_order(Connection& c, Arrival& a) {
    const Segment& seg = a.seg;
    const auto length = static_cast<std::uint32_t>(seg.text.size());
    if (rx_.can_append(c, length)) {
        rx_.append(c, seg.text);
        count(Counter::CopiedRxSmall, length);
    } else if (may_hold_slot(c, true) || make_room(c)) {
        const Index slot = rx_.divider().slot(a.in.frame->slice.offset);
        const std::uint64_t at = a.in.frame->slice.offset +
                                 static_cast<std::uint64_t>(seg.text.data() - a.in.frame->data);
        rx_.enqueue(c, slot, static_cast<std::uint16_t>(at - rx_.divider().offset(slot)), length);
        hold_slot(c, a.self, slot);
        a.kept_slot = true;
    } else {
        owe_ack(c, a.self);
        a.seg.keep_front(0);
        return Counter::InNoBuffer;
    }
    accept_bytes(c, length);
    const bool gap_filled = c.reassembly_head != kNil;
    if (gap_filled) fill_gaps(c);
    mark_event(c, a.self);
    if (gap_filled) owe_ack(c, a.self);  // RFC 5681 §4.2
    else schedule_ack(c, a);
    return kContinue;
}

void Machine::accept_bytes(Connection& c, std::uint32_t bytes) {
    c.info.rcv_nxt += bytes;
    // Text behind a FIN: one of them is forged, and to end the stream early is the worse mistake.
    if (c.has(kPeerFinKnown) && c.peer_fin < c.rcv_nxt()) c.clear(kPeerFinKnown);
    c.info.rcv_wnd -= std::min(bytes, c.info.rcv_wnd);
    c.info.unread_bytes += bytes;
    c.info.rx_bytes += bytes;
    if (c.session != kNobody && sessions_[c.session].config.counters != nullptr)
        sessions_[c.session].config.counters->rx_bytes.add(bytes);
}

void Machine::fill_gaps(Connection& c) {
    while (c.reassembly_head != kNil) {
        const RxSlot& s = rx_[c.reassembly_head];
        if (s.first > c.rcv_nxt()) break;
        if (s.end() <= c.rcv_nxt()) free_slot(rx_.drop_reassembly(c));
        else accept_bytes(c, rx_.move_up(c, c.rcv_nxt()));
    }
    trim_sack(c);
}

Verdict Machine::take_out_of_order(Connection& c, Arrival& a) {
    const Segment& seg = a.seg;
    owe_ack(c, a.self);  // at once: the sender learns of the gap by it (RFC 5681 §4.2)
    count(Counter::TcpOutOfOrder);
    ++c.info.out_of_order_segments;
    const Seq end = seg.seq + static_cast<std::uint32_t>(seg.text.size());
    const ReceiveQueue::Gap gap = rx_.find_gap(c, seg.seq, end);
    if (gap.empty()) {
        owe_dsack(c, {seg.seq, end});
        return Counter::InDuplicate;
    }
    if (!may_hold_slot(c, false) ||
        (c.reassembly_runs >= kMaxReassemblyRuns && rx_.makes_run(c, gap))) {
        count(Counter::TcpOutOfOrderDropped);
        return Counter::InNoBuffer;
    }
    std::optional<SackBlock> twice;  // RFC 2883 §4.2: the part that was there already
    if (gap.first > seg.seq) twice = {seg.seq, gap.first};
    for (Index i; (i = rx_.drop_covered(c, gap)) != kNil; free_slot(i))
        if (!twice) twice = {rx_[i].first, rx_[i].end()};
    const Index slot = rx_.divider().slot(a.in.frame->slice.offset);
    const std::uint64_t at = a.in.frame->slice.offset +
                             static_cast<std::uint64_t>(seg.text.data() - a.in.frame->data) +
                             static_cast<std::uint64_t>(gap.first - seg.seq);
    rx_.insert(c, slot, static_cast<std::uint16_t>(at - rx_.divider().offset(slot)), gap);
    hold_slot(c, a.self, slot);
    a.kept_slot = true;
    const ReceiveQueue::Run run = rx_.run_around(c, gap.first);
    note_sack(c, run.first, run.end);
    if (!twice && gap.end < end) twice = {gap.end, end};
    if (twice) owe_dsack(c, *twice);
    join_short(c, slot);
    return kContinue;
}

// Text in small pieces takes no more slots than in large ones, in whatever order they come: what
// is behind a gap, or what was on both sides of it, moves together.
void Machine::join_short(Connection& c, Index slot) {
    const Index left = rx_.before(c, slot);
    for (const Index keeper : {slot, left}) {
        const Index spare = rx_.merge(c, keeper);
        if (spare == kNil) continue;
        count(Counter::CopiedRxSmall, rx_[spare].length);
        free_slot(spare);
    }
}

// The duplicate is told once, and takes the place of the block told longest ago.
void Machine::owe_dsack(Connection& c, const SackBlock& duplicate) {
    c.set(kDsackOwed);
    c.sack.back() = duplicate;
    c.sack_count = static_cast<std::uint8_t>(std::min<std::size_t>(c.sack_count, kSackBlocks - 1));
}

// RFC 2018 §4: the block with the newest text comes first, then those told most recently.
void Machine::note_sack(Connection& c, Seq first, Seq end) {
    std::array<SackBlock, kSackBlocks> kept{};
    const std::size_t most = c.has(kDsackOwed) ? kSackBlocks - 1 : kSackBlocks;
    if (most < kSackBlocks) kept.back() = c.sack.back();
    std::size_t count = 1;
    SackBlock merged{first, end};
    for (std::size_t i = 0; i < c.sack_count; ++i) {
        const SackBlock& old = c.sack[i];
        if (old.first <= merged.end && merged.first <= old.end) {
            if (old.first < merged.first) merged.first = old.first;
            if (old.end > merged.end) merged.end = old.end;
        } else if (count < most) {
            kept[count++] = old;
        }
    }
    kept[0] = merged;
    c.sack = kept;
    c.sack_count = static_cast<std::uint8_t>(count);
}

void Machine::trim_sack(Connection& c) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < c.sack_count; ++i)
        if (c.sack[i].end > c.rcv_nxt()) c.sack[count++] = c.sack[i];
    c.sack_count = static_cast<std::uint8_t>(count);
    if (c.reassembly_head == kNil) c.sack_count = 0;
}

// Every second full segment at the latest, and else when the timer ends; sooner if text goes back
// that can carry it.
void Machine::schedule_ack(Connection& c, Arrival& a) {
    const auto unacknowledged = static_cast<std::uint32_t>(c.rcv_nxt() - c.last_ack_sent);
    const std::uint32_t full = std::min(c.info.mss, std::uint32_t{c.info.peer_mss});
    if (unacknowledged >= 2 * full) follow_reader(c, a.self, a);
    if (c.has(kQuickAck) || unacknowledged >= 2 * full) {
        owe_ack(c, a.self);
        return;
    }
    if (c.ack_at != kNever) return;
    // A peer with a retransmission timer as short as ours must hear of its text in time.
    const Micros limit = std::max(config_.tcp.min_rto * 4 / 5, Micros(c.info.srtt_us));
    c.ack_at = a.now + std::min(config_.tcp.delayed_ack, limit);
}

// A FIN may come before the text in front of it; it is remembered until the gap is filled.
void Machine::check_fin(Connection& c, Arrival& a) {
    const Segment& seg = a.seg;
    if (c.info.state == TcpState::Closed || c.info.state == TcpState::Free) return;
    if (seg.has(wire::kFin)) {
        const Seq fin = seg.seq + static_cast<std::uint32_t>(seg.text.size());
        if (fin >= c.rcv_nxt() && !c.has(kPeerFinKnown) && may_receive(c.info.state)) {
            c.set(kPeerFinKnown);
            c.peer_fin = fin;
        }
        owe_ack(c, a.self);
    }
    if (c.has(kPeerFinKnown) && c.peer_fin == c.rcv_nxt() && may_receive(c.info.state))
        take_fin(c, a.self, a.now);
}

void Machine::take_fin(Connection& c, Index self, Instant now) {
    ++c.info.rcv_nxt;
    c.info.rcv_wnd -= std::min(1u, c.info.rcv_wnd);
    owe_ack(c, self);
    tell(c, self, kEventPeerClosed);
    switch (c.info.state) {
        case TcpState::Established: c.info.state = TcpState::CloseWait; return;
        case TcpState::FinWait1: c.info.state = TcpState::Closing; return;
        case TcpState::FinWait2: enter_time_wait(c, self, now); return;
        default: return;
    }
}

}  // namespace chiru::tcp
