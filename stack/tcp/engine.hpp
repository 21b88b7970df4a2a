// SPDX-License-Identifier: Apache-2.0
//
// TCP for one stack: every connection, listener and session of a shard, in tables of plain records
// (RFC 9293 and its companions; docs/rfc.md lists which). It sits on Lower, is fed segments by
// ip/, and is otherwise driven by exactly the calls of class Stack, whose contracts hold here.
//
// Input never makes output: it sets what is owed, and transmit() asks each connection that owes
// something. So a burst of segments makes one ACK without special code.
#pragma once

#include "base/address.hpp"
#include "base/time.hpp"
#include "shm/counters.hpp"
#include "shm/descriptor.hpp"
#include "shm/tables.hpp"
#include "stack/config.hpp"
#include "stack/frame.hpp"
#include "stack/lower.hpp"
#include "stack/session.hpp"
#include "stack/tcp/fast_open_cookie.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace chiru::tcp {

/// A TCP segment as ip/ hands it up: addresses are ours and plausible, `l4` begins with the TCP
/// header and is as long as the IP header said.
struct Incoming {
    const RxFrame* frame = nullptr;  ///< whose slot holds `l4`
    std::span<const std::byte> l4;
    IpAddress source;
    IpAddress destination;
    std::uint16_t interface = 0;
    std::uint8_t tos = 0;        ///< or traffic class; the ECN bits count
    bool checksum_good = false;  ///< the device or the local path vouches for it
    bool follows = false;        ///< of the same flow as the one before it in the burst
    std::uint64_t hash = 0;      ///< set by prefetch(); 0: not yet computed
};

/// What became of a segment.
struct Fate {
    shm::Counter counter{};  ///< of group "in"; the caller counts it
    bool kept_slot = false;  ///< the engine releases the frame's slot later; else the caller does
};

/// An ICMP error about a segment of ours, from the packet it quotes.
struct IcmpError {
    enum class Kind : std::uint8_t {
        NetUnreachable,
        HostUnreachable,
        ProtocolUnreachable,
        PortUnreachable,
        Prohibited,
        TimeExceeded,
        PacketTooBig,
    };
    Kind kind{};
    Endpoint local;   ///< source of the quoted packet
    Endpoint remote;  ///< its destination
    std::uint32_t sequence = 0;
    std::uint32_t mtu = 0;  ///< PacketTooBig
};

class Engine final : public Upper {
public:
    /// Bytes of `tables` that this configuration needs, alignment included.
    static std::size_t tables_bytes(const StackConfig& config);

    /// `tables` is zeroed and outlives the engine; it may lie anywhere behind `published`, whose
    /// `connections` and `listeners` are filled in here.
    Engine(const StackConfig& config, std::span<std::byte> tables, shm::ShardTables& published,
           ArenaView rx_arena, Lower& lower, BufferPool& pool, shm::CounterBlock& counters,
           Instant now);
    ~Engine() override;
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    /// Starts the memory accesses that receive() of these segments will wait for. Optional; worth
    /// it for a burst.
    void prefetch(std::span<Incoming> burst) const;
    [[nodiscard]] Fate receive(const Incoming& incoming, Instant now);
    /// Did a connection believe it? RFC 5927: only if it names data in flight.
    [[nodiscard]] bool icmp_error(const IcmpError& error, Instant now);
    void path_ready(std::uint32_t neighbor, bool reachable, Instant now) override;

    void advance(Instant now);
    std::size_t transmit(std::span<TxFrame> frames, Instant now);
    void hold(SendRecord record);
    void sent(SendRecord record);
    Instant next_deadline() const;

    void attach_session(SessionIndex session, const SessionConfig& config);
    void detach_session(SessionIndex session, Instant now, Parting parting = Parting::Lost);
    bool session_gone(SessionIndex session) const;
    void attach_channel(ChannelIndex channel, SessionIndex session);
    void detach_channel(ChannelIndex channel, Instant now);

    void listen(shm::ListenerId listener, const Endpoint& local, std::uint32_t bind_flags,
                const ListenTerms& terms);
    void share_listener(shm::ListenerId listener, SessionIndex session);
    void leave_listener(shm::ListenerId listener, SessionIndex session, Instant now);
    void unlisten(shm::ListenerId listener, Instant now);

    bool connection_info(SessionIndex session, shm::ConnectionId connection,
                         shm::ConnectionInfo& info) const;
    bool take_learnt_cookie(LearntCookie& learnt);
    void learn_cookie(const LearntCookie& learnt, Instant now);

    /// How many submissions of this channel the send queues are sure to have room for. A driver
    /// that pops no more than that never sees a connection end with ENOBUFS.
    std::size_t submission_room(ChannelIndex channel) const;
    [[nodiscard]] Violation submit(ChannelIndex channel,
                                   std::span<const shm::Submission> submissions, Instant now);
    std::size_t ready_channels(std::span<ChannelIndex> channels) const;
    std::size_t complete(ChannelIndex channel, std::span<shm::Completion> completions);

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace chiru::tcp
