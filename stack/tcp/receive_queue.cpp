// SPDX-License-Identifier: Apache-2.0
#include "stack/tcp/receive_queue.hpp"

#include "base/check.hpp"

#include <cstring>

namespace chiru::tcp {

namespace {

/// Longer text is worth a slot of its own, shorter text is moved together: else a peer that sends
/// single bytes would pin a slot for each.
constexpr std::uint32_t kAppendBytes = 512;

}  // namespace

bool ReceiveQueue::can_append(const Connection& c, std::uint32_t length) const {
    if (length > kAppendBytes || c.receive_tail == kNil) return false;
    const RxSlot& s = slots_[c.receive_tail];
    return s.offset + s.length + length <= arena_.slot_bytes;
}

void ReceiveQueue::append(Connection& c, std::span<const std::byte> text) {
    RxSlot& s = slots_[c.receive_tail];
    std::memcpy(bytes_of(c.receive_tail) + s.length, text.data(), text.size());
    s.length += static_cast<std::uint32_t>(text.size());
}

void ReceiveQueue::enqueue(Connection& c, Index slot, std::uint16_t offset, std::uint32_t length) {
    RxSlot& s = slots_[slot];
    DCHECK(s.state == SlotState::Free);
    s.offset = offset;
    s.length = length;
    s.state = SlotState::Queued;
    s.session = c.session;
    ++held_;
    SlotList list = queue_of(c);
    list.push_back(slots_, slot);
    store_queue(c, list);
}

Index ReceiveQueue::drop_queued(Connection& c) {
    SlotList list = queue_of(c);
    const Index i = list.pop_front(slots_);
    store_queue(c, list);
    return i;
}

Index ReceiveQueue::unlink(Connection& c, Index i) {
    if (i == kNil) return kNil;
    SlotList list = reassembly_of(c);
    list.remove(slots_, i);
    store_reassembly(c, list);
    --c.reassembly_slots;
    c.info.out_of_order_bytes -= slots_[i].length;
    return i;
}

Index ReceiveQueue::deliver(Connection& c) {
    const Index i = drop_queued(c);
    slots_[i].state = SlotState::Delivered;
    return i;
}

void ReceiveQueue::recall(Connection& c, Index self, SlotList& delivered) {
    SlotList queue;
    for (Index i = delivered.head; i != kNil;) {
        RxSlot& s = slots_[i];
        const Index next = s.next;
        if (s.connection == self && s.generation == c.info.generation) {
            delivered.remove(slots_, i);
            s.state = SlotState::Queued;
            queue.push_back(slots_, i);
        }
        i = next;
    }
    while (c.receive_head != kNil) {
        const Index i = drop_queued(c);
        queue.push_back(slots_, i);
    }
    store_queue(c, queue);
}

// What lies over the end of one slot or the beginning of another is cut off. Slots that the text
// covers whole give way to it (drop_covered()), so that it stays one piece.
ReceiveQueue::Gap ReceiveQueue::find_gap(const Connection& c, Seq first, Seq end) const {
    Index after = kNil;
    Index before = c.reassembly_tail;
    while (before != kNil && slots_[before].first > first) {
        after = before;
        before = slots_[before].prev;
    }
    if (before != kNil && slots_[before].end() > first) first = slots_[before].end();
    // The rest may reach over slots that begin where the predecessor ends.
    while (after != kNil && slots_[after].first <= first && first < end) {
        if (slots_[after].end() > first) first = slots_[after].end();
        before = after;
        after = slots_[after].next;
    }
    while (after != kNil && slots_[after].end() <= end) after = slots_[after].next;
    if (after != kNil && slots_[after].first < end) end = slots_[after].first;
    if (first >= end) return {before, end, end};
    return {before, first, end};
}

Index ReceiveQueue::drop_covered(Connection& c, const Gap& gap) {
    const Index i = gap.before == kNil ? c.reassembly_head : slots_[gap.before].next;
    return i == kNil || slots_[i].end() > gap.end ? kNil : unlink(c, i);
}

void ReceiveQueue::insert(Connection& c, Index slot, std::uint16_t offset, const Gap& gap) {
    RxSlot& s = slots_[slot];
    DCHECK(s.state == SlotState::Free);
    s.first = gap.first;
    s.length = static_cast<std::uint32_t>(gap.end - gap.first);
    s.offset = offset;
    s.state = SlotState::Reassembly;
    s.session = c.session;
    s.prev = gap.before;
    s.next = gap.before == kNil ? c.reassembly_head : slots_[gap.before].next;
    if (s.prev == kNil) c.reassembly_head = slot;
    else slots_[s.prev].next = slot;
    if (s.next == kNil) c.reassembly_tail = slot;
    else slots_[s.next].prev = slot;
    ++held_;
    ++c.reassembly_slots;
    c.info.out_of_order_bytes += s.length;
}

std::uint32_t ReceiveQueue::move_up(Connection& c, Seq rcv_nxt) {
    const Index i = drop_reassembly(c);
    RxSlot& s = slots_[i];
    DCHECK(s.first <= rcv_nxt && rcv_nxt < s.end());
    // In-order text that arrived later may have covered the beginning.
    const auto known = static_cast<std::uint32_t>(rcv_nxt - s.first);
    s.offset = static_cast<std::uint16_t>(s.offset + known);
    s.length -= known;
    s.state = SlotState::Queued;
    SlotList list = queue_of(c);
    list.push_back(slots_, i);
    store_queue(c, list);
    return s.length;
}

}  // namespace chiru::tcp
