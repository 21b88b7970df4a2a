// SPDX-License-Identifier: Apache-2.0
//
// One TCP/IP stack, for one thread.
//
// It holds protocol state and nothing else: no thread, no clock, no device, no source of
// randomness, no log, no system call, no memory of its own. Whoever drives it hands in frames,
// submissions and the time, and takes out frames and completions. A shard of the daemon, a
// client's own thread and the simulator drive the same code; what differs is ten lines of loop.
//
//   receive(frames, now)  ->  submit(channel, submissions, now)  ->  advance(now)
//     ->  transmit(frames, now)  ->  complete(channel, completions)
//
// All state that must outlive a call lies in `tables`, as plain records linked by index: readable
// from outside (shm/tables.hpp), movable, adoptable.
#pragma once

#include "base/address.hpp"
#include "base/time.hpp"
#include "shm/counters.hpp"
#include "shm/descriptor.hpp"
#include "shm/directory.hpp"
#include "shm/tables.hpp"
#include "stack/config.hpp"
#include "stack/frame.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

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
    shm::SessionCounters* counters = nullptr;
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

class Stack {
public:
    /// Bytes of `tables` that this configuration needs.
    static std::size_t tables_bytes(const StackConfig& config);

    /// `tables` is zeroed, kNoSharing-aligned, and outlives the stack; it begins with
    /// shm::ShardTables. `rx_arena` is the shared receive arena.
    Stack(const StackConfig& config, std::span<std::byte> tables, ArenaView rx_arena,
          BufferPool& pool, shm::CounterBlock& counters, Instant now);
    ~Stack();
    Stack(const Stack&) = delete;
    Stack& operator=(const Stack&) = delete;

    // The device side. Time never runs backwards from one call to the next.

    /// Consumes every frame, however malformed.
    void receive(std::span<const RxFrame> frames, Instant now);

    /// Runs the timers that are due.
    void advance(Instant now);

    /// Fills `frames` with what may be sent now and returns how many. Control traffic comes first.
    std::size_t transmit(std::span<TxFrame> frames, Instant now);

    /// The device needs this slice of a frame no longer.
    void sent(SendRecord record);

    /// When advance() next has work; kNever if nothing is pending. There may be frames to
    /// transmit() regardless.
    Instant next_deadline() const;

    // The control side: what the daemon's control thread decides, alike on every shard.

    void attach_session(SessionIndex session, const SessionConfig& config);
    /// Ends everything of the session: its connections are reset, its slots come back.
    void detach_session(SessionIndex session, Instant now);
    /// Does no frame or queue refer to the session's memory any longer?
    bool session_gone(SessionIndex session) const;

    void attach_channel(ChannelIndex channel, SessionIndex session);
    void detach_channel(ChannelIndex channel, Instant now);

    /// Starts answering SYNs to `local` (address unspecified: any of ours). Channels get
    /// connections once they give AcceptCredit. A second call changes the backlog.
    void listen(shm::ListenerId listener, const Endpoint& local, std::uint32_t bind_flags,
                std::uint32_t backlog);
    /// Lets a session give credit to a listener.
    void share_listener(shm::ListenerId listener, SessionIndex session);
    /// The session takes no part any longer; its undelivered connections go to the others.
    void leave_listener(shm::ListenerId listener, SessionIndex session, Instant now);
    /// Ends the listener: connections nobody accepted are reset.
    void unlisten(shm::ListenerId listener, Instant now);

    /// A snapshot, or false if the connection is not this session's.
    bool connection_info(SessionIndex session, shm::ConnectionId connection,
                         shm::ConnectionInfo& info) const;

    /// Addresses and routes as they are now, learnt ones included. `interfaces_version` counts
    /// their changes.
    shm::InterfaceInfo interface_info(std::uint16_t interface) const;
    std::uint32_t interfaces_version() const;

    // The client side: ring contents, already copied out of shared memory.

    /// Carries out submissions in order. Nothing in them is believed; a violation stops there.
    [[nodiscard]] Violation submit(ChannelIndex channel,
                                   std::span<const shm::Submission> submissions, Instant now);

    /// Which channels have completions; returns how many were written to `channels`. A channel is
    /// listed until complete() has taken all of its completions.
    std::size_t ready_channels(std::span<ChannelIndex> channels) const;

    /// Moves completions out. What is not taken stays, and its receive windows stay closed.
    std::size_t complete(ChannelIndex channel, std::span<shm::Completion> completions);

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace chiru
