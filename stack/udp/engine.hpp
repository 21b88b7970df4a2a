// SPDX-License-Identifier: Apache-2.0
//
// UDP for one stack (RFC 768, RFC 8200 §8.1, RFC 1122 §4.1). It sits on DatagramLower, is fed
// whole datagrams by ip/, and is otherwise driven by calls of class Stack.
//
//   engine.cpp    sockets and sessions come and go; what clients submit and are told
//   receive.cpp   a datagram meets its sockets; ICMP errors
//   transmit.cpp  what goes out: routes, fragments, segments, checksums
//
// A socket exists on every shard; a datagram is handled where it arrives. Payload stays where the
// device wrote it until the client releases it, and is sent from where the client put it.
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
#include "stack/udp/holdings.hpp"
#include "stack/udp/sockets.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace chiru::udp {

/// A piece of a datagram's payload, and the receive slot it lies in.
struct Part {
    shm::Slice slot;
    const std::byte* data = nullptr;
    shm::Slice payload;
};

/// A datagram as ip/ hands it up: whole, its checksum right, its header taken off.
struct Incoming {
    Endpoint remote;
    Endpoint local;
    std::uint16_t interface = 0;  ///< 1 + index; 0: from one of our own addresses
    std::uint8_t ttl = 0;
    std::uint8_t tos = 0;
    bool to_group = false;
    std::uint32_t bytes = 0;
    std::span<const Part> parts;  ///< at least one
};

enum class Fate : std::uint8_t {
    NoSocket,  ///< nobody is bound there
    NoRoom,    ///< somebody is, and had no room
    Copied,    ///< delivered; the slots are the caller's again
    Kept,      ///< delivered; the engine releases the slots
};

/// An ICMP error about a datagram of ours, from the packet it quotes.
struct IcmpError {
    Endpoint local;
    Endpoint remote;
    int error = 0;          ///< errno value
    std::uint32_t mtu = 0;  ///< EMSGSIZE
    bool tell = true;       ///< false: another shard tells the client
};

/// What the control thread decided about a new socket.
struct SocketConfig {
    shm::DatagramId id{};
    Endpoint local;
    std::uint32_t flags = 0;  ///< shm::BindFlag bits
    SessionIndex session = 0;
    ChannelIndex channel = 0;
    std::uint32_t receive_buffer = 0;  ///< 0: the default
    std::uint64_t user = 0;
};

class Engine {
public:
    static std::size_t tables_bytes(const StackConfig& config);

    Engine(const StackConfig& config, std::span<std::byte> tables, shm::ShardTables& published,
           ArenaView rx_arena, DatagramLower& lower, BufferPool& pool,
           shm::CounterBlock& counters, Instant now);

    [[nodiscard]] Fate receive(const Incoming& incoming);
    /// Did a socket of ours send that, as far as one can tell? Nobody believes the error otherwise.
    [[nodiscard]] bool icmp_error(const IcmpError& error);
    void path_ready(std::uint32_t neighbor, bool reachable);

    std::size_t transmit(std::span<TxFrame> frames, Instant now);
    static bool is_ours(SendRecord record) {
        return (static_cast<std::uint32_t>(record) & kRecordMark) != 0;
    }
    void sent(SendRecord record);

    void attach_session(SessionIndex session, const SessionConfig& config);
    void detach_session(SessionIndex session, Parting parting);
    bool session_gone(SessionIndex session) const;
    void attach_channel(ChannelIndex channel, SessionIndex session);
    void detach_channel(ChannelIndex channel, Instant now);

    void open(const SocketConfig& config, Instant now);
    /// The local end and the path's MTU, or an errno value. A `remote` of no address dissolves.
    Result<DatagramLower::DatagramRoute, int> connect(shm::DatagramId id, const Endpoint& remote,
                                                      std::uint16_t interface, Instant now);
    void close(shm::DatagramId id);

    /// How many SendDatagrams of this channel there is room for; any number if it never had a
    /// socket.
    std::size_t submission_room(ChannelIndex channel) const;
    [[nodiscard]] Violation submit(ChannelIndex channel, const shm::Submission& submission,
                                   Instant now);
    /// Adds channels to `channels` from `count` on; returns the new count.
    std::size_t ready_channels(std::span<ChannelIndex> channels, std::size_t count) const;
    std::size_t complete(ChannelIndex channel, std::span<shm::Completion> completions);
    /// After submissions: gives free slots back to the pool.
    void flush() { holdings_.flush(); }

    /// Those a submission of which is for submit() here.
    static bool takes(shm::SubmissionOp op) {
        return op >= shm::SubmissionOp::SendDatagram &&
               op <= shm::SubmissionOp::SetDatagramOption;
    }

private:
    static constexpr std::uint32_t kRecordMark = 0x8000'0000u;

    /// A completion that waits for room in its ring.
    struct Note {
        shm::Completion completion;
        Index next = kNil;
    };
    /// A SendDatagram on its way: queued, parked, in devices' queues, or waiting to be told.
    struct Outgoing {
        Index next = kNil;
        IpAddress remote;
        IpAddress source;
        Path path;
        std::uint64_t offset = 0;    ///< in the TX arena
        std::uint32_t length = 0;
        std::uint32_t cookie = 0;
        std::uint32_t socket = 0;    ///< shm::DatagramId
        std::uint32_t begun = 0;     ///< where the current datagram begins
        std::uint32_t done = 0;      ///< bytes behind its IP headers that went out, UDP's included
        std::uint32_t packet_id = 0;
        std::uint32_t device_refs = 0;
        std::uint16_t remote_port = 0;
        std::uint16_t local_port = 0;
        std::uint16_t interface = 0;
        std::uint16_t link_mtu = 0;
        std::uint16_t segment_bytes = 0;
        std::uint16_t flags = 0;     ///< shm::SubmissionFlag bits
        SessionIndex session = 0;
        ChannelIndex channel = 0;
        std::uint8_t tos = 0;
        std::uint8_t ttl = 0;
        bool group = false;    ///< to all that listen on the path's interface
        bool looping = false;  ///< to a group: now to our own members
        bool finished = false;
    };
    struct Tables {
        Tables(const StackConfig& config, std::span<std::byte> region);
        tcp::TableLayout layout;
        Sockets::Tables sockets;
        Holdings::Tables holdings;
        Outgoing* records;
        Note* notes;
        std::uint32_t note_count;
    };
    struct Queue {
        Index first = kNil;
        Index last = kNil;
    };
    struct Channel {
        SessionIndex session = kNobody;
        bool ready = false;
        bool had_sockets = false;  ///< so there may be datagrams in its ring
        Index first_note = kNil;
        Index last_note = kNil;
        Index first_error = kNil;  ///< of sockets
        Index first_sent = kNil;   ///< of records whose cookies are to be told
        Index last_sent = kNil;
        Index next = kNil;
        Index prev = kNil;
    };
    struct Session {
        bool attached = false;
        std::uint32_t id = 0;
        ArenaView tx_arena;
        shm::SessionCounters* counters = nullptr;
        std::uint32_t records = 0;
        std::uint32_t parked = 0;  ///< of the records
        std::uint32_t notes = 0;
        Queue output;
        bool sending = false;  ///< among senders_
        Index next = kNil;
        Index prev = kNil;
    };
    static constexpr SessionIndex kNobody = 0xffff;
    enum class Emitted : std::uint8_t { Frame, NotYet, Nothing };

    void count(shm::Counter counter, std::uint64_t n = 1) { counters_.add(counter, n); }

    // engine.cpp
    bool alive(SessionIndex session) const {
        return session < sessions_.size() && sessions_[session].attached;
    }
    void close(Socket& socket);
    void drop_channel(ChannelIndex channel);
    Violation release(ChannelIndex channel, const shm::Submission& submission);
    Violation set_option(ChannelIndex channel, const shm::Submission& submission);
    void channel_ready(ChannelIndex channel);
    void channel_idle_if_empty(ChannelIndex channel);
    void uncharge(const Released& released);
    void tell_error(Socket& socket, int error, const Endpoint& remote, std::uint32_t mtu);
    void drop_error(Socket& socket);
    bool tell_errors(Channel& channel, std::span<shm::Completion> out, std::size_t& used);
    void tell_sent(Channel& channel, std::span<shm::Completion> out, std::size_t& used);

    // receive.cpp
    bool deliver(Socket& socket, const Incoming& incoming);
    bool has_room(Socket& socket, const Incoming& incoming, std::uint32_t charge);
    bool notes_have_room(SessionIndex session, std::uint32_t notes) const;
    void tell(Socket& socket, const Incoming& incoming, std::span<const shm::Slice> slices);
    void note(ChannelIndex channel, const shm::Completion& completion);
    std::size_t copy_private(Socket& socket, const Incoming& incoming,
                             std::span<shm::Slice> slices);

    // transmit.cpp
    Violation send(ChannelIndex channel, const shm::Submission& submission);
    void append(Queue& queue, Index record);
    void enqueue(Index record);
    void drop_queued(SessionIndex session, std::uint32_t keep);
    void drop_beyond(Queue& queue, SessionIndex session, std::uint32_t& keep);
    std::size_t transmit_session(Session& session, std::span<TxFrame> frames, Instant now);
    Emitted emit(Index index, TxFrame& frame, Instant now);
    int find_route(Outgoing& out, Socket& socket);
    IpAddress& destination_place(const IpAddress& remote) {
        return destinations_[siphash(destination_key_, std::as_bytes(std::span(remote.bytes()))) %
                             kDestinations];
    }
    bool loop_back(Outgoing& out);
    void next_datagram(Outgoing& out, bool was_sent);
    std::uint32_t datagram_bytes(const Outgoing& out) const;
    void write_header(TxFrame& frame, const Outgoing& out, bool cut);
    void place_payload(TxFrame& frame, Outgoing& out, Index index, std::uint32_t at,
                       std::uint32_t bytes);
    void undeliverable(Outgoing& out, int error, std::uint32_t mtu);
    void park(Index index);
    void finish(Index index);
    Index take_record(Session& session);
    void free_record(Index index);

    Tables tables_;
    Sockets sockets_;
    Holdings holdings_;
    tcp::Pool<Outgoing, &Outgoing::next> records_;
    tcp::Pool<Note, &Note::next> notes_;
    DatagramLower& lower_;
    shm::CounterBlock& counters_;
    Queue parked_;
    std::uint32_t parked_count_ = 0;
    tcp::List<Channel, &Channel::next, &Channel::prev> ready_;
    std::vector<Channel> channels_;
    std::vector<Session> sessions_;
    tcp::List<Session, &Session::next, &Session::prev> senders_;  ///< with output, next one first
    /// Destinations of late, each in its place: who is told of a path's MTU must have used it.
    static constexpr std::size_t kDestinations = 1024;
    std::vector<IpAddress> destinations_;
    SipKey destination_key_;
    std::uint32_t shared_records_;       ///< all but those set apart for each session
    std::uint32_t shared_records_used_ = 0;
};

}  // namespace chiru::udp
