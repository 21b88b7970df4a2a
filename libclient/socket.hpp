// SPDX-License-Identifier: Apache-2.0
//
// A socket as its channel keeps it: plain data in a PagedPool, named by index and generation,
// 128 bytes while idle, with no file descriptor. All calls are Channel's; others read the fields
// through the functions here.
#pragma once

#include "base/address.hpp"
#include "base/cache.hpp"
#include "libclient/paged_pool.hpp"
#include "shm/descriptor.hpp"

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace chiru::client {

/// What a socket is ready for. Levels: they say what holds now. As edges they say what became
/// true, or true once more (more data, more room), since they were last taken.
enum Readiness : std::uint8_t {
    kReadable = 1,    ///< receive() or accept() would not say EAGAIN; also at the end of data
    kWritable = 2,    ///< send() would not say EAGAIN
    kPeerClosed = 4,  ///< the peer will send no more (EPOLLRDHUP)
    kHangup = 8,      ///< over, both ways (EPOLLHUP)
    kError = 16,      ///< take_error() has something to say (EPOLLERR)
};

enum class SocketState : std::uint8_t {
    Free = 0,
    Open,         ///< fresh: may connect or listen
    Connecting,
    Connected,
    Listening,
    Over,         ///< ended by the peer, an error or with the daemon; waits for close()
    Lingering,    ///< closed by the program; the shard still finishes it
    Datagrams,    ///< a UDP socket, bound, perhaps connected
};

/// Names a socket of one channel. A stale name is an error, never another socket.
struct SocketName {
    std::uint32_t index = 0;
    std::uint32_t generation = 0;  ///< never 0 for a socket that exists

    friend bool operator==(const SocketName&, const SocketName&) = default;
};

struct alignas(kCacheLine) Socket {
    // -- line 0: what every call and completion touches
    shm::ConnectionId connection;   ///< the shard's name of it, once connected
    SocketName name;
    std::uint64_t user = 0;         ///< the program's word
    std::uint32_t rx_first = kNone; ///< received and unread: a list of RxChunk, or of RxDatagram
    std::uint32_t rx_last = kNone;
    std::uint32_t rx_bytes = 0;
    std::uint32_t tx_first = kNone; ///< sent and not yet returned, oldest first: TxExtent
    std::uint32_t tx_last = kNone;
    std::uint32_t tx_bytes = 0;
    std::uint32_t tx_limit = 0;     ///< tx_bytes beyond which send() says EAGAIN
    SocketState state{};
    std::uint8_t shard = 0;
    std::uint8_t edges = 0;         ///< Readiness bits since they were last taken
    std::uint8_t redirects = 0;     ///< how often connect was sent to another shard
    std::uint16_t flags = 0;        ///< SocketFlag bits
    std::uint16_t error = 0;        ///< errno value not yet told
    std::uint32_t next_changed = kNone;  ///< in the channel's list of sockets with edges

    // -- line 1: the rest
    std::uint32_t next = kNone;          ///< in the free list, or a listener's accept queue
    std::uint32_t next_waiting = kNone;  ///< in the channel's list of senders without room
    std::uint32_t listener = kNone;      ///< Listening: the channel's record of it
    std::uint32_t options = kNone;       ///< options set before there was a connection
    std::uint32_t unsent_low_water = 0;  ///< streams; 0: never set
    union {
        shm::DatagramId datagram{};      ///< Datagrams: the daemon's name of it
        std::uint32_t unsent;            ///< streams, once the low-water mark was set
    };
    std::uint16_t path_mtu = 0;          ///< Datagrams, connected: of IP packets
    std::uint16_t syn_room = 0;          ///< Connecting: what the SYN, which waits, would carry
    Endpoint local;
    Endpoint remote;

    /// What holds now.
    std::uint8_t readiness() const;
    /// Bytes that receive() would return at once.
    std::uint32_t unread_bytes() const { return rx_bytes; }
    /// Bytes queued or in flight, not yet acknowledged.
    std::uint32_t unsent_bytes() const { return tx_bytes; }
    /// May more be queued, as TCP_NOTSENT_LOWAT has it? `part` 2: is it worth waking for?
    bool few_unsent(std::uint64_t part = 1) const {
        return unsent_low_water == 0 || unsent * part < unsent_low_water;
    }
};
static_assert(sizeof(Socket) == 128);
static_assert(offsetof(Socket, next) == 64);
static_assert(std::is_trivially_copyable_v<Socket>);

enum SocketFlag : std::uint16_t {
    kPeerDone = 1,       ///< the peer's FIN came
    kSendDone = 2,       ///< shutdown for sending
    kReceiveDone = 4,    ///< shutdown for receiving: data is dropped
    kAcceptWaiting = 8,  ///< a listener with connections to accept
    kWantsRoom = 16,     ///< send() said EAGAIN; a kWritable edge is owed
    kInChanged = 32,
    kInWaiting = 64,
    kUnaccepted = 128,   ///< in a listener's queue; its edges wait for accept()
    kFixedRoom = 256,    ///< the program has chosen tx_limit
    kHasPeer = 512,      ///< Datagrams: connected
    kReturned = 1024,    ///< Lingering: given back to its listener; payload is kept until Closed
    kAnswered = 2048,    ///< Connecting with Fast Open: the shard has told of syn_room
};

inline std::uint8_t Socket::readiness() const {
    if (state == SocketState::Datagrams) {
        std::uint8_t levels = rx_first != kNone ? kReadable : 0;
        if ((flags & kWantsRoom) == 0 && tx_bytes < tx_limit) levels |= kWritable;
        if (error != 0) levels |= kError;
        return levels;
    }
    const bool over = state == SocketState::Over;
    const bool fresh = state == SocketState::Open;  // as Linux has it: writable, hung up
    const bool peer_done = (flags & kPeerDone) != 0 || over;
    std::uint8_t ready = 0;
    if (rx_bytes != 0 || peer_done || (flags & (kAcceptWaiting | kReceiveDone)) != 0)
        ready |= kReadable;
    const bool room = (flags & kWantsRoom) == 0 && tx_bytes < tx_limit && few_unsent(2);
    const bool waits = state == SocketState::Connecting && syn_room != 0;  // for what to send
    if (over || fresh || waits || (state == SocketState::Connected && room)) ready |= kWritable;
    if (peer_done || (flags & kReceiveDone) != 0) ready |= kPeerClosed;
    if (over || fresh || (peer_done && (flags & kSendDone) != 0)) ready |= kHangup;
    if (error != 0) ready |= kError;
    return ready;
}

}  // namespace chiru::client
