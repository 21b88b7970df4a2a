// SPDX-License-Identifier: Apache-2.0
//
// Who holds which receive slot for a datagram: what waits in a socket's queue or is lent to its
// client. A slot of the shared arena may be held by several sockets at once, when a datagram to a
// group is theirs all; it is free when the last one lets go. A slot of a session's own arena has
// one holder.
//
// Bounds: so many holds in a stack, so many for a session, and for none more than are left to the
// others; the rest of the arena is TCP's and the devices'.
#pragma once

#include "shm/descriptor.hpp"
#include "stack/session.hpp"
#include "stack/tcp/receive_queue.hpp"
#include "stack/udp/sockets.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace chiru::udp {

/// One socket's share of one slot.
struct Hold {
    Index next = kNil;  ///< in the session's list, or free
    Index prev = kNil;
    Index same_slot = kNil;  ///< another hold of this slot
    std::uint32_t slot = 0;
    std::uint32_t socket = 0;  ///< shm::DatagramId
    std::uint32_t charge = 0;  ///< bytes
    SessionIndex session = 0;
};

/// What came back with a released slot.
struct Released {
    std::uint32_t socket = 0;
    std::uint32_t charge = 0;
};

class Holdings {
public:
    struct Tables {
        /// `most` holds in all.
        Tables(tcp::TableLayout& layout, std::uint32_t rx_slots, std::uint32_t most)
            : holds(layout.take<Hold>(most)), of_slot(layout.take<Index>(rx_slots)),
              slots(rx_slots), share(most) {}
        Hold* holds;
        Index* of_slot;  ///< first hold of each slot
        std::uint32_t slots;
        std::uint32_t share;
    };

    Holdings(const Tables& tables, ArenaView rx_arena, BufferPool& pool);

    void attach(SessionIndex session, const SessionConfig& config);
    /// Everything the session holds comes back.
    void detach(SessionIndex session);

    bool is_private(SessionIndex session) const { return sessions_[session].arena.base != nullptr; }
    /// May the session hold `slots` more?
    bool session_has_room(SessionIndex session, std::uint32_t slots) const;
    /// May the stack, for it? A session gets no more holds than are left to the others, so that
    /// none can take all. Sessions with an arena of their own do not count.
    bool stack_has_room(SessionIndex session, std::uint32_t slots) const {
        return sessions_[session].held_count + slots <= holds_.available();
    }

    /// The slot that `slice` lies in is held for `socket`. There must be room.
    void hold(SessionIndex session, std::uint32_t socket, const shm::Slice& slice,
              std::uint32_t charge);
    /// A slot of the session's own arena, as a slice of all of it. There must be room.
    shm::Slice take_private(SessionIndex session, std::uint32_t socket, std::uint32_t charge);
    std::byte* private_bytes(SessionIndex session, const shm::Slice& slice) const {
        return sessions_[session].arena.base + slice.offset;
    }
    std::uint32_t private_slot_bytes(SessionIndex session) const {
        return sessions_[session].arena.slot_bytes;
    }
    /// The slot that a slice told to this session lies in.
    std::uint32_t slot_of(SessionIndex session, const shm::Slice& slice) const {
        if (slice.arena == shm::kRxArena) return divider_.slot(slice.offset);
        return static_cast<std::uint32_t>(slice.offset / private_slot_bytes(session));
    }

    /// The session gives back a slot; nothing if it does not hold it.
    std::optional<Released> release(SessionIndex session, shm::ArenaId arena, std::uint32_t slot);
    /// Gives what is free back to the pool; at the end of each call into the stack.
    void flush();

private:
    using HoldList = tcp::List<Hold, &Hold::next, &Hold::prev>;
    struct PrivateSlot {
        std::uint32_t socket = 0;  ///< 0: free
        std::uint32_t charge = 0;
    };
    struct Session {
        HoldList held;
        std::uint32_t held_count = 0;
        std::uint32_t limit = 0;
        ArenaView arena;  ///< its own; base nullptr: it reads the shared one
        std::uint32_t first_slot = 0;
        std::vector<PrivateSlot> slots;
        std::vector<std::uint32_t> free;
        shm::SessionCounters* counters = nullptr;
    };

    void drop(Session& session, Index hold);
    void count(Session& session);
    void give_back(std::uint32_t slot);

    Tables tables_;
    tcp::Pool<Hold, &Hold::next> holds_;
    tcp::SlotDivider divider_;
    BufferPool& pool_;
    std::vector<Session> sessions_;
    std::array<shm::Slice, 64> batch_;
    std::size_t batch_count_ = 0;
};

}  // namespace chiru::udp
