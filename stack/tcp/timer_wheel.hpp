// SPDX-License-Identifier: Apache-2.0
//
// When each connection next wants attention: a hierarchical timing wheel (Varghese and Lauck,
// 1987) of 4 levels with 256 slots.
//
//   level 0: 64 us a slot    level 1: 16 ms    level 2: 4.2 s    level 3: 18 min
//
// A connection stands in one slot, chosen by the highest digit (base 256) in which its tick
// differs from now; when the wheel turns there, it moves to a finer level or fires. Inserting and
// removing are O(1); turning skips empty slots by bitmap, so idle connections cost nothing.
//
// A deadline that moves back is not moved here: the connection fires at the old one, and whoever
// drives the wheel looks again. So an ACK that restarts the RTO does not touch the wheel.
#pragma once

#include "base/time.hpp"
#include "stack/tcp/connection.hpp"
#include "stack/tcp/index.hpp"

#include <array>
#include <cstdint>

namespace chiru::tcp {

class TimerWheel {
public:
    TimerWheel(Connection* connections, Instant now);

    /// Makes the connection fire at `at` or a little later, unless it fires earlier anyway.
    void schedule(Index connection, Instant at);
    void cancel(Index connection);

    /// Takes out one connection that is due, or kNil. Call until kNil.
    Index pop_due(Instant now);

    /// When pop_due() next has work, at the latest; kNever if the wheel is empty.
    Instant next() const;

private:
    static constexpr unsigned kTickShift = 6;  // 64 us
    static constexpr unsigned kDigit = 8;
    static constexpr unsigned kLevels = 4;
    static constexpr unsigned kSlots = 1u << kDigit;
    /// Later deadlines are looked at again after this long; 19 hours.
    static constexpr std::uint64_t kFarthest = 1u << 30;

    using SlotList = List<Connection, &Connection::wheel_next, &Connection::wheel_prev>;
    struct Position {
        unsigned level;
        unsigned slot;
    };

    struct Level {
        std::array<SlotList, kSlots> slots;
        std::array<std::uint64_t, kSlots / 64> occupied{};
    };

    Position place(std::uint32_t tick) const;
    void insert(Index connection, std::uint32_t tick);
    void unlink(Index connection);
    /// The first occupied slot after the current one; kSlots if none.
    unsigned next_slot(unsigned level) const;
    /// The first tick of the earliest occupied slot, or nothing.
    bool earliest(std::uint64_t& tick, Position& position) const;

    Connection* connections_;
    std::uint64_t now_;  ///< ticks; all before have fired
    SlotList due_;
    std::array<Level, kLevels> levels_;
};

}  // namespace chiru::tcp
