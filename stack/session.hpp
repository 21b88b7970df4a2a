// SPDX-License-Identifier: Apache-2.0
//
// What the daemon tells a stack about its clients, and how the stack answers a client that broke
// the rules.
#pragma once

#include "shm/directory.hpp"
#include "stack/frame.hpp"

#include <cstdint>

namespace chiru {

/// Slots in shm::Directory's tables; both sides of a stack use the same numbers.
using SessionIndex = std::uint16_t;
using ChannelIndex = std::uint16_t;

/// What a session brings along. The memory must stay mapped until session_gone().
struct SessionConfig {
    std::uint32_t id = 0;
    ArenaView tx_arena;
    /// Isolated sessions: text is copied into this arena; this stack may use `private_slots` slots
    /// of it from `private_first_slot` on. Else base is nullptr.
    ArenaView private_rx_arena;
    std::uint32_t private_first_slot = 0;
    std::uint32_t private_slots = 0;
    std::uint32_t max_connections = 0;  ///< on this shard
    std::uint32_t max_rx_slots = 0;     ///< receive buffers it may pin on this shard
    std::uint16_t first_port = 0;       ///< the lowest it may connect from, if it chooses
    shm::SessionCounters* counters = nullptr;
};

/// What a listener asks for.
struct ListenTerms {
    std::uint32_t backlog = 0;
    std::uint32_t defer_s = 0;      ///< accept only once text came, or after so many seconds
    std::uint32_t max_segment = 0;  ///< bytes, in either direction; 0: the path's
    std::uint32_t fast_open = 0;    ///< connections at once that are open before their handshake
                                    ///< is complete (RFC 7413), on each shard; 0: none
};

/// How a session ends: with a process that crashed or was killed, or with one that said farewell.
enum class Parting : std::uint8_t {
    Lost,     ///< its connections are reset
    Orderly,  ///< they are closed as if it had closed them: what is queued goes out, then a FIN
};

/// Why a client's submissions were refused. All but None end its session.
enum class Violation : std::uint8_t {
    None = 0,
    UnknownOperation,
    BadCount,
    SliceOutsideArena,
    NotItsConnection,
    NotItsSlot,
    NotItsListener,
    BadOption,
};
const char* to_string(Violation violation);

}  // namespace chiru
