// SPDX-License-Identifier: Apache-2.0
//
// Received text, in place: one record for each slot of the receive arena.
//
//   free -> queued (in order, waiting for the client to take it)  -> delivered -> free
//        -> reassembly (behind a gap) -> queued
//
// Behind gaps slots are linked in the order of their text. Those without a gap between them are a
// run, whose first and last slot know each other: a place is found by walking over runs, of which
// there are as many as gaps, however much lies behind these.
//
// A slot that is delivered belongs to a session until it releases it; the lists of a session's
// delivered slots let them come back however the session ends. The records also answer whether a
// client that releases a slot holds it.
#pragma once

#include "stack/frame.hpp"
#include "stack/tcp/connection.hpp"
#include "stack/tcp/index.hpp"
#include "stack/tcp/seq.hpp"
#include "stack/tcp/wide.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace chiru::tcp {

enum class SlotState : std::uint8_t { Free = 0, Queued, Reassembly, Delivered };

struct RxSlot {
    Index next = kNil;
    Index prev = kNil;
    Index connection = kNil;       ///< that holds it; not in Free
    std::uint32_t generation = 0;  ///< of that connection
    Seq first;                     ///< Reassembly: where the text stands
    Index run = kNil;              ///< of a run's first slot its last, and the reverse
    std::uint16_t length = 0;
    std::uint16_t offset = 0;      ///< of the text, from the slot's start
    std::uint16_t session = kNobody;
    SlotState state{};
    std::uint8_t reserved = 0;

    Seq end() const { return first + length; }
};
static_assert(sizeof(RxSlot) == 32);

/// Of a connection.
using SlotList = Ring<RxSlot, &RxSlot::next, &RxSlot::prev>;
/// Of a session.
using DeliveredList = List<RxSlot, &RxSlot::next, &RxSlot::prev>;

/// Dividing by a slot's size, without a division. Exact for offsets below 2^48.
class SlotDivider {
public:
    SlotDivider() = default;
    explicit SlotDivider(std::uint32_t bytes)
        : bytes_(bytes), inverse_(bytes > 1 ? ~std::uint64_t{0} / bytes + 1 : 0) {}

    std::uint32_t slot(std::uint64_t offset) const {
        if (inverse_ == 0) return static_cast<std::uint32_t>(offset);
        return static_cast<std::uint32_t>(product_high(offset, inverse_));
    }
    std::uint64_t offset(std::uint32_t slot) const { return std::uint64_t{slot} * bytes_; }
    std::uint32_t bytes() const { return bytes_; }

private:
    std::uint32_t bytes_ = 1;
    std::uint64_t inverse_ = 0;
};

/// The slots of the shared arena, and the queues of connections over them.
class ReceiveQueue {
public:
    ReceiveQueue(RxSlot* records, std::uint32_t count, ArenaView arena)
        : slots_(records), count_(count), arena_(arena), divider_(arena.slot_bytes) {}

    RxSlot& operator[](Index i) { return slots_[i]; }
    const RxSlot& at(Index i) const { return slots_[i]; }
    RxSlot* records() { return slots_; }
    std::uint32_t count() const { return count_; }
    const SlotDivider& divider() const { return divider_; }
    /// In any state but Free.
    std::uint32_t held() const { return held_; }

    shm::Slice slice_of(Index i) const {
        const RxSlot& s = slots_[i];
        return {divider_.offset(i) + s.offset, s.length, shm::kRxArena, 0};
    }
    std::byte* bytes_of(Index i) const {
        return arena_.base + divider_.offset(i) + slots_[i].offset;
    }

    /// May another text of `length` be copied behind the newest queued one, instead of pinning a
    /// slot of its own?
    bool can_append(const Connection& c, std::uint32_t length) const;
    void append(Connection& c, std::span<const std::byte> text);

    /// Keeps `slot` with text at `offset` at the end of the in-order queue.
    void enqueue(Connection& c, Index slot, std::uint16_t offset, std::uint32_t length);
    /// The oldest queued slot leaves the queue, for a session.
    Index deliver(Connection& c);

    /// What was delivered of it and not released comes back to the front of the queue.
    void recall(Connection& c, Index self, DeliveredList& delivered);

    /// Where out-of-order text would go, cut to what is new.
    struct Gap {
        Index before = kNil;  ///< the last slot of the run before it; nil: in front of all
        Seq first;
        Seq end;
        bool empty() const { return first == end; }
    };
    Gap find_gap(const Connection& c, Seq first, Seq end) const;
    /// Takes out a slot that lies in the gap whole, if there is one; unlinked but not free.
    Index drop_covered(Connection& c, const Gap& gap);
    /// Would text there touch no run?
    bool makes_run(const Connection& c, const Gap& gap) const;
    void insert(Connection& c, Index slot, std::uint16_t offset, const Gap& gap);
    /// Moves the text of the slot behind `left` into that, if it is short, follows at once and
    /// finds room; returns that slot, unlinked but not free, or kNil. With this after each insert
    /// two neighbours hold more than either's text could pin, whatever pieces it came in.
    Index merge(Connection& c, Index left);
    struct Run {
        Seq first;
        Seq end;
    };
    /// The run that holds `first`; there must be one.
    Run run_around(const Connection& c, Seq first) const;
    Index before(const Connection& c, Index slot) const {
        return SlotList::before(slots_, c.reassembly_head, slot);
    }
    /// Moves the first slot behind a gap, which reaches beyond rcv_nxt and is no gap any longer,
    /// to the queue's end; returns its new bytes.
    std::uint32_t move_up(Connection& c, Seq rcv_nxt);

    /// Marks a slot free. The caller gives its memory back.
    void free(Index slot) {
        slots_[slot].state = SlotState::Free;
        --held_;
    }
    /// The head of a queue or of the reassembly list, unlinked but not free; kNil when empty.
    Index drop_queued(Connection& c);
    Index drop_reassembly(Connection& c) { return unlink(c, c.reassembly_head); }
    /// The tail of the reassembly list likewise, which must not be empty.
    Index drop_last_reassembly(Connection& c) { return unlink(c, last_reassembly(c)); }
    Index last_reassembly(const Connection& c) const {
        return SlotList::tail(slots_, c.reassembly_head);
    }

private:
    /// Takes a slot out of the reassembly list; nil stays nil.
    Index unlink(Connection& c, Index i);
    /// The last slot of the last run that begins at `first` or before it; kNil: none does.
    Index run_before(const Connection& c, Seq first) const;
    /// May text of `length` be copied behind the slot's?
    bool has_room(Index slot, std::uint32_t length) const;

    RxSlot* slots_;
    std::uint32_t count_;
    std::uint32_t held_ = 0;
    ArenaView arena_;
    SlotDivider divider_;
};

}  // namespace chiru::tcp
