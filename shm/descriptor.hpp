// SPDX-License-Identifier: Apache-2.0
//
// What travels on the rings of a channel: 64-byte records that name payload and move its
// ownership, never the payload itself.
//
//   client  --- submissions --->  shard      one ring for each shard of the daemon
//   client  <-- completions ----  shard
//
// Payload is named by a Slice: (arena, offset, length). Offsets count from the arena's first
// byte, so they mean the same in every process; no pointer ever crosses.
//
//   receive   the shard owns an RX slot until it pushes Received; then the client owns it, until
//             it submits Release. The bytes in between must not change: clients map the RX arenas
//             read-only.
//   send      the client owns its TX arena. From Send until the Sent that covers it, the named
//             bytes belong to the shard and must not change, for they may go out again.
//
// The life of a name. A Connect has no name yet: Connected or Closed answers it, and `user` tells
// which one. From Connected or Accepted on, the name is good until Closed, the last completion
// about it. With Closed every byte the client ever named in a Send on that connection is the
// client's again, whatever `sent_bytes` has told. After Close or Abort the client submits nothing
// more for that name; the shard then tells no payload and no end of it, only Sent and one Closed,
// at the latest when all queued bytes and the FIN are acknowledged or given up. A submission that
// crossed with Closed finds no connection: it is counted and dropped, and no harm done. Slots of a
// Received stay the client's until it releases them, though the connection be long over.
//
// A Return gives up an accepted connection on which the client has sent nothing and released no
// slot, and all credit of its channel at that listener. Which slots of it are the client's still is
// told by the Closed that answers, so until then it releases none of them.
//
// TCP Fast Open (RFC 7413). A Connect with the bit of ConnectionOption::FastOpen is answered by
// Opening, before the handshake, and then by Connected or Closed. If Opening tells of room, the SYN
// waits for the first Send and takes its beginning along; else it has gone already. What is sent
// between the two is queued.
//
// Datagrams. A UDP socket is made by the control socket and has the same name on every shard; a
// datagram comes from the shard its flow belongs to, and may be sent by any. Nothing about it is
// ordered but the datagrams of one shard, each told by
//
//   [Destination]  Datagram  DatagramMore ...     one after the other; `more` counts the last ones
//
// The slots of its slices are the client's until ReleaseDatagrams. SendDatagram hands over bytes
// of the TX arena until a DatagramsSent brings its cookie back, sent or not.
//
// The daemon copies a submission out of the ring before it checks it, and believes nothing in it:
// not the connection, not the arena, not the range. A violation ends the session.
#pragma once

#include "base/address.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

namespace chiru::shm {

enum class ArenaId : std::uint16_t {};
inline constexpr ArenaId kRxArena{0};  ///< the daemon's receive arena; read-only for clients
inline constexpr ArenaId kTxArena{1};  ///< the session's own send arena
inline constexpr ArenaId kPrivateRxArena{2};  ///< per session, if its traffic is isolated

/// Some bytes of an arena.
struct Slice {
    std::uint64_t offset = 0;  ///< from the arena's first byte
    std::uint32_t length = 0;  ///< bytes
    ArenaId arena{};
    std::uint16_t reserved = 0;  ///< zero
};
static_assert(sizeof(Slice) == 16);

/// Names a connection of one shard. The generation tells a reused block from the one that was
/// meant: a stale name is an error, never another connection.
struct ConnectionId {
    std::uint32_t index = 0;
    std::uint32_t generation = 0;  ///< never 0 for a connection that exists

    friend bool operator==(const ConnectionId&, const ConnectionId&) = default;
};
inline constexpr ConnectionId kNoConnection{};

/// Names a listener. The control thread hands them out; they mean the same on every shard.
enum class ListenerId : std::uint32_t {};
inline constexpr ListenerId kNoListener{0};

/// Names a UDP socket; given out by the control thread, the same on every shard. The low bits are
/// its place in the tables, the others tell its users apart.
enum class DatagramId : std::uint32_t {};
inline constexpr DatagramId kNoDatagram{0};
inline constexpr std::uint32_t kMaxDatagramSockets = 8192;  ///< of the daemon; a power of two
constexpr std::uint32_t place_of(DatagramId id) {
    return static_cast<std::uint32_t>(id) % kMaxDatagramSockets;
}
/// IPv4's and IPv6's largest UDP payload without jumbograms.
inline constexpr std::uint32_t kMaxDatagramBytesV4 = 65'507;
inline constexpr std::uint32_t kMaxDatagramBytesV6 = 65'527;
/// Into how many datagrams a submission with segment_bytes may be cut: as many as Linux allows.
inline constexpr std::uint32_t kMaxDatagramSegments = 128;

inline constexpr std::size_t kSlicesPerDescriptor = 2;
inline constexpr std::size_t kReleasesPerDescriptor = 9;
inline constexpr std::size_t kCookiesPerDescriptor = 10;

// ---- client to shard -----------------------------------------------------------------------

enum class SubmissionOp : std::uint8_t {
    None = 0,
    Connect,      ///< body.endpoints; `user` comes back in Connected or Closed
    Send,         ///< body.slices[0 .. count)
    Release,      ///< body.release: the client has read these slots; opens the window
    Shutdown,     ///< no more data from us: FIN after what is queued
    Close,        ///< both ways; the name is dead for the client, the shard finishes the rest
    Abort,        ///< RST now; the name is dead for the client
    SetOption,    ///< body.option
    AcceptCredit, ///< body.credit: may hand this many more connections to this channel
    SetUser,      ///< `user` is from now on the user word of this connection's completions
    Return,       ///< an Accepted that the program did not take: the listener may have it again
    SendDatagram, ///< body.datagram, `hints`, `flags`; `user` is the offset in the TX arena
    ReleaseDatagrams,   ///< body.release: as Release, for slots that datagrams came in
    SetDatagramOption,  ///< body.datagram_option
};

struct ConnectBody {
    Endpoint remote;
    Endpoint local;  ///< unspecified address and port 0 leave the choice to the daemon
    std::uint32_t options = 0;  ///< ConnectionOption bits to start with, kConnectCongestionShift
};

/// Slot numbers of one RX arena, as offset / slot_bytes of the Slice that named them.
struct ReleaseBody {
    std::array<std::uint32_t, kReleasesPerDescriptor> slots{};
    ArenaId arena{};
    std::uint16_t reserved = 0;
};

enum class ConnectionOption : std::uint32_t {
    NoDelay = 1,        ///< value 0 or 1: Nagle off (RFC 896)
    Cork,               ///< value 0 or 1: hold back partial segments
    KeepAlive,          ///< value 0 or 1
    KeepIdle,           ///< seconds before the first probe
    KeepInterval,       ///< seconds between probes
    KeepCount,          ///< probes before giving up
    UserTimeout,        ///< milliseconds (RFC 5482); 0: the default
    QuickAck,           ///< value 0 or 1
    ReceiveBuffer,      ///< bytes the window may grow to; 0: automatic
    SendBuffer,         ///< bytes that may be queued
    LingerZero,         ///< value 0 or 1: Close sends RST and discards
    CongestionControl,  ///< CongestionAlgorithm
    MaxSegment,         ///< bytes
    TypeOfService,      ///< IPv4 TOS or IPv6 traffic class
    TimeToLive,         ///< IPv4 TTL or IPv6 hop limit
    // What follows is the client's own business, or travels with Listen; a shard ignores it.
    DeferAccept,        ///< of a listener: seconds to wait for text
    // A shard's again.
    UnsentLowWater,     ///< bytes not sent yet, beyond which the client queues no more; 0: no bound
    FastOpen,           ///< Connect: answer by Opening first. Of a listener: see ListenRequest
    MaxPacingRate,      ///< bytes a second; 0: as fast as congestion control allows
};

enum class CongestionAlgorithm : std::uint8_t { Cubic = 0, Reno = 1, Dctcp = 2, Bbr = 3 };
/// As Linux names them.
inline constexpr std::array<std::string_view, 4> kCongestionNames{"cubic", "reno", "dctcp", "bbr"};
inline constexpr std::uint64_t kCongestionAlgorithms = kCongestionNames.size();

/// The part of ConnectBody::options from this bit on: a CongestionAlgorithm and 1; 0: the default.
inline constexpr unsigned kConnectCongestionShift = 24;

struct OptionBody {
    ConnectionOption option{};
    std::uint32_t reserved = 0;
    std::uint64_t value = 0;
};

struct CreditBody {
    ListenerId listener{};
    std::uint32_t count = 0;
    /// How many more the program has taken of those this channel was given, the oldest first. The
    /// others go to another channel if this one ends.
    std::uint32_t taken = 0;
};

/// One datagram, or with hints.segment_bytes several of that size to the same place. The bytes are
/// `length` ones of the TX arena from Submission::user on; Submission::connection holds the
/// socket's id and the cookie.
struct DatagramBody {
    IpAddress remote;
    IpAddress source;          ///< unspecified: the socket's, or the route's choice
    std::uint16_t port = 0;
    std::uint16_t interface = 0;  ///< 1 + the directory's index; 0: the route's choice
    std::uint32_t length = 0;
};
static_assert(sizeof(DatagramBody) == 40);

struct DatagramHints {
    std::uint8_t tos = 0;
    std::uint8_t ttl = 0;             ///< 0: the default, 64 or 1 to groups
    std::uint16_t segment_bytes = 0;  ///< 0: one datagram
};

enum class DatagramOption : std::uint32_t {
    ReceiveBuffer = 1,  ///< bytes that may wait in the socket on one shard, with their overhead
    WantDestination,    ///< value 0 or 1: a Destination before each Datagram
};

struct DatagramOptionBody {
    DatagramOption option{};
    std::uint32_t reserved = 0;
    std::uint64_t value = 0;
};

struct Submission {
    Submission() : raw{} {}

    SubmissionOp op{};
    std::uint8_t count = 0;  ///< used slices (Send) or slots (Release, ReleaseDatagrams)
    std::uint16_t flags = 0;  ///< SubmissionFlag bits
    union {
        std::uint32_t max_segment = 0;  ///< Connect: bytes, in either direction; 0: the path's
        DatagramHints hints;            ///< SendDatagram
    };
    ConnectionId connection;  ///< datagrams: the socket's id, and the cookie of a send
    std::uint64_t user = 0;  ///< Connect, SetUser: echoed in every completion; SendDatagram: offset
    union {
        std::array<Slice, kSlicesPerDescriptor> slices;
        ConnectBody connect;
        ReleaseBody release;
        OptionBody option;
        CreditBody credit;
        DatagramBody datagram;
        DatagramOptionBody datagram_option;
        std::array<std::byte, 40> raw;
    };
};
static_assert(sizeof(Submission) == 64 && alignof(Submission) == 8);
static_assert(std::is_trivially_copyable_v<Submission>);
static_assert(offsetof(Submission, connection) == 8 && offsetof(Submission, slices) == 24);

enum SubmissionFlag : std::uint16_t {
    kMoreToCome = 1,  ///< Send: MSG_MORE, a partial segment may wait for the next Send
    // SendDatagram; without one of the first three: in fragments if it is larger than the path
    // takes, and IPv4's only then without the Don't Fragment bit.
    kMayFragment = 2,     ///< never the Don't Fragment bit
    kNeverFragment = 4,   ///< EMSGSIZE if it is larger than the path takes
    kProbePath = 8,       ///< the same, but only the link's own MTU counts
    kNoLoop = 16,         ///< to a group: not to this host's own members
};

// ---- shard to client -----------------------------------------------------------------------

enum class CompletionOp : std::uint8_t {
    None = 0,
    Accepted,   ///< body.endpoints; `user` is the listener's id
    Connected,  ///< body.endpoints; answers Connect
    Received,   ///< body.slices[0 .. count): in-order payload, now the client's
    Sent,       ///< body.sent, and `sent_bytes`
    PeerClosed, ///< FIN: no more payload will come
    Closed,     ///< the connection is over; `error` says how. The last word about it.
                ///< After Return with `count` 1: it is not over, but another's, with all its slots
    Destination,    ///< body.endpoints.local: where the next Datagram of this ring was sent to
    Datagram,       ///< body.arrived: a datagram, or its beginning
    DatagramMore,   ///< body.slices[0 .. count): more of the last Datagram
    DatagramError,  ///< `error` about body.endpoints.remote; EMSGSIZE with body.endpoints.path_mtu
    DatagramsSent,  ///< body.cookies[0 .. count): these bytes are the client's again
    Opening,    ///< body.endpoints, with syn_room: a Connect with FastOpen has a name
};

struct EndpointsBody {
    Endpoint remote;
    Endpoint local;
    union {
        std::uint32_t peer_mss = 0;
        std::uint32_t path_mtu;  ///< DatagramError
        std::uint32_t syn_room;  ///< Opening: bytes of the first Send that the SYN would carry
    };
};

struct SentBody {
    std::uint32_t room_bytes = 0;  ///< how much it is worth to have queued: it follows cwnd
    /// With UnsentLowWater: of what was queued, so much was sent for the first time since this was
    /// last told. The first is negative: what was not sent yet when the option was set.
    std::int32_t left_bytes = 0;
};

struct ArrivedBody {
    Slice slice;  ///< may be of no bytes; its slot is the client's all the same
    IpAddress remote;
    std::uint16_t port = 0;
    std::uint16_t interface = 0;  ///< 1 + the directory's index; 0: it never left the daemon
    std::uint8_t ttl = 0;   ///< or hop limit, as it arrived; 0: not known
    std::uint8_t tos = 0;   ///< or traffic class
    std::uint16_t more = 0; ///< DatagramMore completions that follow
};
static_assert(sizeof(ArrivedBody) == 40);

struct Completion {
    Completion() : raw{} {}

    CompletionOp op{};
    std::uint8_t count = 0;   ///< Received, DatagramMore: used slices; DatagramsSent: cookies
    std::uint16_t error = 0;  ///< Closed, DatagramError: an errno value, 0 after an orderly end
    std::uint32_t sent_bytes = 0;  ///< payload, oldest first, that is the client's again
    ConnectionId connection;  ///< datagrams: the socket's id, and 0
    std::uint64_t user = 0;
    union {
        std::array<Slice, kSlicesPerDescriptor> slices;
        EndpointsBody endpoints;
        SentBody sent;
        ArrivedBody arrived;
        std::array<std::uint32_t, kCookiesPerDescriptor> cookies;
        std::array<std::byte, 40> raw;
    };
};
static_assert(sizeof(Completion) == 64 && alignof(Completion) == 8);
static_assert(std::is_trivially_copyable_v<Completion>);
static_assert(offsetof(Completion, connection) == 8 && offsetof(Completion, slices) == 24);

}  // namespace chiru::shm
