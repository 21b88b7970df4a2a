// SPDX-License-Identifier: Apache-2.0
//
// One process at the control socket, and the memory it was given.
//
//   Visitor --Attach--> Attaching --every shard knows it--> Client --socket ends--> Ending --every
//   shard has let go--> destroyed, and with it all of its memory and descriptors
//
// A visitor that only observes stays one.
#pragma once

#include "base/result.hpp"
#include "base/time.hpp"
#include "daemon/config/config.hpp"
#include "daemon/session/credentials.hpp"
#include "shm/channel.hpp"
#include "shm/control.hpp"
#include "shm/doorbell.hpp"
#include "shm/region.hpp"
#include "stack/session.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace chiru::daemon {

/// A channel as the daemon keeps it.
struct ChannelMemory {
    shm::Region region;
    shm::ClientDoorbell doorbell;               ///< wakes the client
    std::vector<shm::UniqueFd> shard_doorbells; ///< wakes shard i

    /// An errno value on failure.
    static Result<ChannelMemory, int> make(ChannelIndex channel, std::uint32_t shard_count);

    shm::Channel& layout() const;
    /// As CreateChannel's answer carries them.
    std::vector<int> fds_for_client() const;
};

/// What one session may use, out of the configuration and the size of the receive arena.
struct Quota {
    std::uint64_t tx_arena_bytes = 0;
    std::uint32_t max_connections = 0;  ///< on each shard
    std::uint32_t max_rx_slots = 0;     ///< over all shards
    std::uint32_t max_channels = 0;
    std::uint16_t first_port = 0;  ///< the lowest it may choose
};
Quota quota_of(const Config& config, std::uint32_t rx_slots, std::uint32_t shard_count);

/// Does a session of user `uid` get a receive arena of its own?
shm::Isolation isolation_of(IsolationPolicy policy, std::uint32_t uid, std::uint32_t daemon_uid);

struct Session {
    enum class State : std::uint8_t { Visitor, Attaching, Client, Ending };

    std::uint64_t number = 0;  ///< never used again in the life of this daemon
    shm::UniqueFd socket;
    Credentials peer;
    State state = State::Visitor;
    bool observed = false;
    bool said_farewell = false;  ///< its process ends in order
    bool busy = false;  ///< a request waits for the shards; no other is read
    Instant since{};
    std::string program;

    // from Attaching on
    SessionIndex index = 0;
    shm::Isolation isolation{};
    Quota quota;
    shm::Region tx_arena;
    shm::Region private_rx_arena;  ///< empty if it reads the shared one
    std::map<ChannelIndex, ChannelMemory> channels;

    bool holds_slot() const { return state != State::Visitor; }
    std::uint32_t id() const { return static_cast<std::uint32_t>(number); }
    /// "session 3 (redis-server, pid 12, uid 0)"
    std::string to_string() const;

    /// Makes its arenas; an errno value on failure.
    Result<void, int> make_memory(std::uint32_t rx_slot_bytes);
    /// What `shard`, one of `shard_count`, is to know of it.
    SessionConfig config_for(std::uint32_t shard, std::uint32_t shard_count,
                             std::uint32_t rx_slot_bytes, shm::SessionCounters* counters) const;
};

}  // namespace chiru::daemon
