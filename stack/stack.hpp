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
#include "stack/lower.hpp"
#include "stack/session.hpp"
#include "stack/tcp/fast_open_cookie.hpp"
#include "stack/udp/engine.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace chiru {

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

    /// The driver names a slice in one frame more: sent() will come once more for it.
    void hold(SendRecord record);

    /// The device needs this slice of a frame no longer.
    void sent(SendRecord record);

    /// When advance() next has work; kNever if nothing is pending. There may be frames to
    /// transmit() regardless.
    Instant next_deadline() const;

    // The control side: what the daemon's control thread decides, alike on every shard.

    /// The port's link has come up: who is there may have changed meanwhile. Its neighbours are
    /// asked for anew, and told where we are.
    void link_up(PortIndex port, Instant now);

    void attach_session(SessionIndex session, const SessionConfig& config);
    /// Ends everything of the session: its connections are reset, its slots come back.
    void detach_session(SessionIndex session, Instant now, Parting parting = Parting::Lost);
    /// Does no frame or queue refer to the session's memory any longer?
    bool session_gone(SessionIndex session) const;

    void attach_channel(ChannelIndex channel, SessionIndex session);
    void detach_channel(ChannelIndex channel, Instant now);

    /// Starts answering SYNs to `local` (address unspecified: any of ours). Channels get
    /// connections once they give AcceptCredit. A second call changes the backlog.
    void listen(shm::ListenerId listener, const Endpoint& local, std::uint32_t bind_flags,
                const ListenTerms& terms);
    /// Lets a session give credit to a listener.
    void share_listener(shm::ListenerId listener, SessionIndex session);
    /// The session takes no part any longer; its undelivered connections go to the others.
    void leave_listener(shm::ListenerId listener, SessionIndex session, Instant now);
    /// Ends the listener: connections nobody accepted are reset.
    void unlisten(shm::ListenerId listener, Instant now);

    /// UDP sockets; their sessions and channels are attached.
    void open_datagram(const udp::SocketConfig& config, Instant now);
    /// Sets the peer, or with a remote of nothing dissolves. The local end and the path's MTU, or
    /// an errno value.
    Result<DatagramLower::DatagramRoute, int> connect_datagram(shm::DatagramId socket,
                                                               const Endpoint& remote,
                                                               std::uint16_t interface,
                                                               Instant now);
    void close_datagram(shm::DatagramId socket);
    /// One member of a multicast group more. `interface` counts from 1; 0: where routes lead. Its
    /// number, or an errno value.
    Result<std::uint16_t, int> join_group(const IpAddress& group, std::uint16_t interface,
                                          Instant now);
    void leave_group(const IpAddress& group, std::uint16_t interface, Instant now);

    /// What this stack learnt of paths' MTUs since the last call, and what another one did: they
    /// all send to the same hosts, and a router tells only one.
    std::size_t take_path_mtus(std::span<PathMtu> news);
    void learn_path_mtu(const PathMtu& path, Instant now);

    /// A snapshot, or false if the connection is not this session's.
    bool connection_info(SessionIndex session, shm::ConnectionId connection,
                         shm::ConnectionInfo& info) const;

    /// Addresses and routes as they are now, learnt ones included. `interfaces_version` counts
    /// their changes.
    shm::InterfaceInfo interface_info(std::uint16_t interface) const;
    std::uint32_t interfaces_version() const;

    /// Moves out a cookie of TCP Fast Open (RFC 7413) that this stack was given, for the other
    /// shards; false if there is none.
    bool take_learnt_cookie(tcp::LearntCookie& learnt);
    void learn_cookie(const tcp::LearntCookie& learnt, Instant now);

    // The client side: ring contents, already copied out of shared memory.

    /// How many submissions of this channel the send queues are sure to have room for. Pop no more
    /// than that, and the client's full ring is its back-pressure; what is submitted beyond may
    /// end a connection with ENOBUFS.
    std::size_t submission_room(ChannelIndex channel) const;

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
