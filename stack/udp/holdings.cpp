// SPDX-License-Identifier: Apache-2.0
#include "stack/udp/holdings.hpp"

#include "base/check.hpp"

#include <algorithm>

namespace chiru::udp {

Holdings::Holdings(const Tables& tables, ArenaView rx_arena, BufferPool& pool)
    : tables_(tables),
      holds_(tables.holds, tables.share),
      divider_(rx_arena.slot_bytes),
      pool_(pool),
      sessions_(shm::kMaxSessions) {
    std::fill_n(tables_.of_slot, tables_.slots, kNil);
}

void Holdings::attach(SessionIndex index, const SessionConfig& config) {
    Session& session = sessions_[index];
    session = Session{};
    session.limit = std::max(config.max_rx_slots, 1u);
    session.counters = config.counters;
    session.arena = config.private_rx_arena;
    if (session.arena.base == nullptr) return;
    session.first_slot = config.private_first_slot;
    session.slots.resize(config.private_slots);
    session.free.reserve(config.private_slots);
    for (std::uint32_t i = config.private_slots; i > 0; --i) session.free.push_back(i - 1);
}

void Holdings::detach(SessionIndex index) {
    Session& session = sessions_[index];
    while (!session.held.empty()) drop(session, session.held.head);
    session = Session{};
    flush();
}

bool Holdings::session_has_room(SessionIndex index, std::uint32_t slots) const {
    const Session& session = sessions_[index];
    if (session.arena.base != nullptr) return session.free.size() >= slots;
    return session.held_count + slots <= session.limit;
}

void Holdings::count(Session& session) {
    if (session.counters != nullptr)
        session.counters->datagram_slots_held.set(session.held_count);
}

void Holdings::hold(SessionIndex owner, std::uint32_t socket, const shm::Slice& slice,
                    std::uint32_t charge) {
    const Index i = holds_.take();
    DCHECK(i != kNil);
    const std::uint32_t slot = divider_.slot(slice.offset);
    holds_[i] = {.same_slot = tables_.of_slot[slot],
                 .slot = slot,
                 .socket = socket,
                 .charge = charge,
                 .session = owner};
    tables_.of_slot[slot] = i;
    Session& session = sessions_[owner];
    session.held.push_back(holds_.data(), i);
    ++session.held_count;
    count(session);
}

shm::Slice Holdings::take_private(SessionIndex owner, std::uint32_t socket,
                                  std::uint32_t charge) {
    Session& session = sessions_[owner];
    const std::uint32_t number = session.free.back();
    session.free.pop_back();
    session.slots[number] = {socket, charge};
    ++session.held_count;
    count(session);
    const std::uint64_t at =
        (std::uint64_t{session.first_slot} + number) * session.arena.slot_bytes;
    return {at, session.arena.slot_bytes, shm::kPrivateRxArena, 0};
}

/// Out of its session's list and its slot's; the slot is free with its last hold.
void Holdings::drop(Session& session, Index i) {
    const std::uint32_t slot = holds_[i].slot;
    Index* at = &tables_.of_slot[slot];
    while (*at != i) at = &holds_[*at].same_slot;
    *at = holds_[i].same_slot;
    session.held.remove(holds_.data(), i);
    --session.held_count;
    holds_.give(i);
    if (tables_.of_slot[slot] == kNil) give_back(slot);
}

std::optional<Released> Holdings::release(SessionIndex owner, shm::ArenaId arena,
                                          std::uint32_t slot) {
    Session& session = sessions_[owner];
    if (arena == shm::kRxArena && session.arena.base == nullptr) {
        if (slot >= tables_.slots) return std::nullopt;
        Index i = tables_.of_slot[slot];
        while (i != kNil && holds_[i].session != owner) i = holds_[i].same_slot;
        if (i == kNil) return std::nullopt;
        const Released released{holds_[i].socket, holds_[i].charge};
        drop(session, i);
        count(session);
        return released;
    }
    const std::uint32_t number = slot - session.first_slot;
    if (arena != shm::kPrivateRxArena || number >= session.slots.size()) return std::nullopt;
    PrivateSlot& held = session.slots[number];
    if (held.socket == 0) return std::nullopt;
    const Released released{held.socket, held.charge};
    held = {};
    session.free.push_back(number);
    --session.held_count;
    count(session);
    return released;
}

void Holdings::give_back(std::uint32_t slot) {
    batch_[batch_count_++] = {divider_.offset(slot), 0, shm::kRxArena, 0};
    if (batch_count_ == batch_.size()) flush();
}

void Holdings::flush() {
    if (batch_count_ == 0) return;
    pool_.release(std::span(batch_).first(batch_count_));
    batch_count_ = 0;
}

}  // namespace chiru::udp
