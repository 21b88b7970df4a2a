// SPDX-License-Identifier: Apache-2.0
#include "stack/tcp/timer_wheel.hpp"

#include "base/check.hpp"

#include <algorithm>
#include <bit>

namespace chiru::tcp {

TimerWheel::TimerWheel(Connection* connections, Instant now)
    : connections_(connections),
      now_(static_cast<std::uint64_t>(now.time_since_epoch().count()) >> kTickShift) {}

// Ticks are kept in 32 bits in the blocks: the wheel's reach is far less than half of that.
void TimerWheel::schedule(Index connection, Instant at) {
    Connection& c = connections_[connection];
    const auto us = static_cast<std::uint64_t>(std::max<std::int64_t>(
        at.time_since_epoch().count(), 0));
    const std::uint64_t wanted = (us >> kTickShift) + 1;  // never early
    const std::uint64_t tick = std::clamp(wanted, now_ + 1, now_ + kFarthest);
    const auto low = static_cast<std::uint32_t>(tick);
    if (c.has(kInWheel)) {
        if (static_cast<std::int32_t>(low - c.wheel_tick) >= 0) return;
        unlink(connection);
    }
    c.set(kInWheel);
    insert(connection, low);
}

void TimerWheel::cancel(Index connection) {
    Connection& c = connections_[connection];
    if (!c.has(kInWheel)) return;
    unlink(connection);
    c.clear(kInWheel);
}

// Only the digits below the highest one in which `tick` and now differ can lie in the past of the
// slot, so the slot is always ahead of the current one of its level.
TimerWheel::Position TimerWheel::place(std::uint32_t tick) const {
    const std::uint32_t differ = tick ^ static_cast<std::uint32_t>(now_);
    const unsigned level = (31u - static_cast<unsigned>(std::countl_zero(differ | 1))) / kDigit;
    return {level, (tick >> (level * kDigit)) & (kSlots - 1)};
}

void TimerWheel::insert(Index connection, std::uint32_t tick) {
    connections_[connection].wheel_tick = tick;
    if (static_cast<std::int32_t>(tick - static_cast<std::uint32_t>(now_)) <= 0) {
        due_.push_back(connections_, connection);
        return;
    }
    const Position at = place(tick);
    Level& level = levels_[at.level];
    level.slots[at.slot].push_back(connections_, connection);
    level.occupied[at.slot / 64] |= std::uint64_t{1} << (at.slot % 64);
}

void TimerWheel::unlink(Index connection) {
    const std::uint32_t tick = connections_[connection].wheel_tick;
    if (static_cast<std::int32_t>(tick - static_cast<std::uint32_t>(now_)) <= 0) {
        due_.remove(connections_, connection);
        return;
    }
    const Position at = place(tick);
    Level& level = levels_[at.level];
    level.slots[at.slot].remove(connections_, connection);
    if (level.slots[at.slot].empty())
        level.occupied[at.slot / 64] &= ~(std::uint64_t{1} << (at.slot % 64));
}

unsigned TimerWheel::next_slot(unsigned level) const {
    const auto& occupied = levels_[level].occupied;
    const auto current = static_cast<unsigned>(now_ >> (level * kDigit)) & (kSlots - 1);
    for (unsigned word = current / 64; word < occupied.size(); ++word) {
        std::uint64_t bits = occupied[word];
        if (word == current / 64) bits &= ~std::uint64_t{0} << (current % 64);
        if (bits != 0) return word * 64 + static_cast<unsigned>(std::countr_zero(bits));
    }
    // The top level alone may hold slots that lie behind: they come after its next turn.
    if (level + 1 == kLevels)
        for (unsigned word = 0; word < occupied.size(); ++word)
            if (occupied[word] != 0)
                return kSlots + word * 64 + static_cast<unsigned>(std::countr_zero(occupied[word]));
    return 2 * kSlots;
}

bool TimerWheel::earliest(std::uint64_t& tick, Position& position) const {
    for (unsigned level = 0; level < kLevels; ++level) {
        const unsigned slot = next_slot(level);
        if (slot == 2 * kSlots) continue;
        const unsigned shift = level * kDigit;
        const std::uint64_t turn = now_ >> shift >> kDigit << kDigit;
        tick = (turn + slot) << shift;
        position = {level, slot & (kSlots - 1)};
        return true;  // a finer level always comes before a coarser one
    }
    return false;
}

Index TimerWheel::pop_due(Instant now) {
    const auto until = static_cast<std::uint64_t>(now.time_since_epoch().count()) >> kTickShift;
    while (due_.empty() && now_ < until) {
        std::uint64_t tick = 0;
        Position at{};
        if (!earliest(tick, at) || tick > until) {
            now_ = until;
            break;
        }
        now_ = std::max(now_, tick);
        Level& level = levels_[at.level];
        SlotList moved = level.slots[at.slot];
        level.slots[at.slot] = {};
        level.occupied[at.slot / 64] &= ~(std::uint64_t{1} << (at.slot % 64));
        while (!moved.empty()) {
            const Index i = moved.pop_front(connections_);
            insert(i, connections_[i].wheel_tick);
        }
    }
    const Index i = due_.pop_front(connections_);
    if (i != kNil) connections_[i].clear(kInWheel);
    return i;
}

Instant TimerWheel::next() const {
    if (!due_.empty()) return Instant{};
    std::uint64_t tick = 0;
    Position at{};
    if (!earliest(tick, at)) return kNever;
    return Instant(Micros(static_cast<std::int64_t>(tick << kTickShift)));
}

}  // namespace chiru::tcp
