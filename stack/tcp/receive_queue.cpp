// SPDX-License-Identifier: Apache-2.0
#include "stack/tcp/receive_queue.hpp"

#include "base/check.hpp"

#include <algorithm>
#include <cstring>

namespace chiru::tcp {

namespace {

/// Longer text is worth a slot of its own, shorter text is moved together: else a peer that sends
/// single bytes would pin a slot for each.
constexpr std::uint32_t kAppendBytes = 512;
/// RxSlot::length has 16 bits.
constexpr std::uint32_t kMostBytes = 0xffff;

}  // namespace

bool ReceiveQueue::has_room(Index slot, std::uint32_t length) const {
    const RxSlot& s = slots_[slot];
    return length <= kAppendBytes &&
           std::uint32_t{s.offset} + s.length + length <= std::min(arena_.slot_bytes, kMostBytes);
}

bool ReceiveQueue::can_append(const Connection& c, std::uint32_t length) const {
    const Index tail = SlotList::tail(slots_, c.receive_head);
    return tail != kNil && has_room(tail, length);
}

void ReceiveQueue::append(Connection& c, std::span<const std::byte> text) {
    const Index tail = SlotList::tail(slots_, c.receive_head);
    RxSlot& s = slots_[tail];
    std::memcpy(bytes_of(tail) + s.length, text.data(), text.size());
    s.length = static_cast<std::uint16_t>(s.length + text.size());
}

void ReceiveQueue::enqueue(Connection& c, Index slot, std::uint16_t offset, std::uint32_t length) {
    RxSlot& s = slots_[slot];
    DCHECK(s.state == SlotState::Free);
    s.offset = offset;
    s.length = static_cast<std::uint16_t>(length);
    s.state = SlotState::Queued;
    s.session = c.session;
    ++held_;
    SlotList::push_back(slots_, c.receive_head, slot);
}

Index ReceiveQueue::drop_queued(Connection& c) {
    return SlotList::pop_front(slots_, c.receive_head);
}

Index ReceiveQueue::deliver(Connection& c) {
    const Index i = drop_queued(c);
    slots_[i].state = SlotState::Delivered;
    return i;
}

void ReceiveQueue::recall(Connection& c, Index self, DeliveredList& delivered) {
    Index queue = kNil;
    for (Index i = delivered.head; i != kNil;) {
        RxSlot& s = slots_[i];
        const Index next = s.next;
        if (s.connection == self && s.generation == c.info.generation) {
            delivered.remove(slots_, i);
            s.state = SlotState::Queued;
            SlotList::push_back(slots_, queue, i);
        }
        i = next;
    }
    while (c.receive_head != kNil) SlotList::push_back(slots_, queue, drop_queued(c));
    c.receive_head = queue;
}

// From both ends at once: text comes at the end, or fills the first gaps.
Index ReceiveQueue::run_before(const Connection& c, Seq first) const {
    Index tail = last_reassembly(c);
    Index head = c.reassembly_head;
    while (tail != kNil) {
        if (slots_[slots_[tail].run].first <= first) return tail;
        if (slots_[head].first > first) return before(c, head);
        tail = before(c, slots_[tail].run);
        head = slots_[slots_[head].run].next;
    }
    return kNil;
}

// What lies over the end of one run or the beginning of another is cut off. Runs that the text
// covers whole give way to it (drop_covered()), so that it stays one piece.
ReceiveQueue::Gap ReceiveQueue::find_gap(const Connection& c, Seq first, Seq end) const {
    const Index tail = run_before(c, first);
    if (tail != kNil && slots_[tail].end() > first) first = slots_[tail].end();
    Index next = tail == kNil ? c.reassembly_head : slots_[tail].next;
    while (next != kNil && slots_[slots_[next].run].end() <= end)
        next = slots_[slots_[next].run].next;
    if (next != kNil && slots_[next].first < end) end = slots_[next].first;
    if (first >= end) return {tail, end, end};
    return {tail, first, end};
}

Index ReceiveQueue::drop_covered(Connection& c, const Gap& gap) {
    const Index i = gap.before == kNil ? c.reassembly_head : slots_[gap.before].next;
    return i == kNil || slots_[i].end() > gap.end ? kNil : unlink(c, i);
}

bool ReceiveQueue::makes_run(const Connection& c, const Gap& gap) const {
    const Index next = gap.before == kNil ? c.reassembly_head : slots_[gap.before].next;
    return (gap.before == kNil || slots_[gap.before].end() != gap.first) &&
           (next == kNil || slots_[next].first > gap.end);
}

void ReceiveQueue::insert(Connection& c, Index slot, std::uint16_t offset, const Gap& gap) {
    RxSlot& s = slots_[slot];
    DCHECK(s.state == SlotState::Free);
    s.first = gap.first;
    s.length = static_cast<std::uint16_t>(gap.end - gap.first);
    s.offset = offset;
    s.state = SlotState::Reassembly;
    s.session = c.session;
    SlotList::insert(slots_, c.reassembly_head, gap.before, slot);
    // It is a run, or lengthens one, or makes one of two.
    const bool follows = gap.before != kNil && slots_[gap.before].end() == gap.first;
    const bool leads = s.next != kNil && slots_[s.next].first == gap.end;
    const Index head = follows ? slots_[gap.before].run : slot;
    const Index tail = leads ? slots_[s.next].run : slot;
    slots_[head].run = tail;
    slots_[tail].run = head;
    c.reassembly_runs =
        static_cast<std::uint16_t>(c.reassembly_runs + 1 - (follows ? 1 : 0) - (leads ? 1 : 0));
    ++held_;
    ++c.reassembly_slots;
    c.info.out_of_order_bytes += s.length;
}

ReceiveQueue::Run ReceiveQueue::run_around(const Connection& c, Seq first) const {
    const Index tail = run_before(c, first);
    return {slots_[slots_[tail].run].first, slots_[tail].end()};
}

Index ReceiveQueue::unlink(Connection& c, Index i) {
    if (i == kNil) return kNil;
    const RxSlot& s = slots_[i];
    const Index left = before(c, i);
    const bool head = left == kNil || slots_[left].end() != s.first;
    const bool tail = s.next == kNil || slots_[s.next].first != s.end();
    if (head && tail) {
        --c.reassembly_runs;
    } else if (head || tail) {
        const Index edge = head ? s.next : left;
        slots_[edge].run = s.run;
        slots_[s.run].run = edge;
    }
    SlotList::remove(slots_, c.reassembly_head, i);
    --c.reassembly_slots;
    c.info.out_of_order_bytes -= s.length;
    return i;
}

Index ReceiveQueue::merge(Connection& c, Index left) {
    if (left == kNil || slots_[left].next == kNil) return kNil;
    const Index right = slots_[left].next;
    const std::uint32_t length = slots_[right].length;
    if (slots_[left].end() != slots_[right].first || !has_room(left, length)) return kNil;
    unlink(c, right);
    std::memcpy(bytes_of(left) + slots_[left].length, bytes_of(right), length);
    slots_[left].length = static_cast<std::uint16_t>(slots_[left].length + length);
    c.info.out_of_order_bytes += length;
    return right;
}

std::uint32_t ReceiveQueue::move_up(Connection& c, Seq rcv_nxt) {
    const Index i = drop_reassembly(c);
    RxSlot& s = slots_[i];
    DCHECK(s.first <= rcv_nxt && rcv_nxt < s.end());
    // In-order text that arrived later may have covered the beginning.
    const auto known = static_cast<std::uint32_t>(rcv_nxt - s.first);
    s.offset = static_cast<std::uint16_t>(s.offset + known);
    s.length = static_cast<std::uint16_t>(s.length - known);
    s.state = SlotState::Queued;
    SlotList::push_back(slots_, c.receive_head, i);
    return s.length;
}

}  // namespace chiru::tcp
