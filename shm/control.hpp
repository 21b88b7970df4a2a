// SPDX-License-Identifier: Apache-2.0
//
// The control socket: what clients and observers ask of the daemon, one SOCK_SEQPACKET message
// for each request and one for its answer. Memory and doorbells travel as file descriptors
// (SCM_RIGHTS). The daemon takes the peer's pid, uid and gid from the kernel (SO_PEERCRED), never
// from a message. The socket's end is the death notice of either side.
//
// Every message is one Message; `type` says which member of the union counts. A request's
// `sequence` comes back in its answer, and `error` is 0 or an errno value. A client has one
// request under way at a time.
#pragma once

#include "base/address.hpp"
#include "base/result.hpp"
#include "base/time.hpp"
#include "shm/descriptor.hpp"
#include "shm/directory.hpp"
#include "shm/region.hpp"
#include "shm/tables.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace chiru::shm {

inline constexpr std::uint16_t kControlVersion = 3;
inline constexpr const char* kDefaultControlSocket = "/run/chiru/control.sock";
inline constexpr std::size_t kMaxMessageFds = 2 + kMaxShards;

enum class MessageType : std::uint16_t {
    None = 0,
    Attach,          ///< become a client; fds: directory, RX arena, TX arena [, private RX arena]
    Observe,         ///< become an observer; fds: directory [, tables of each shard if allowed]
    CreateChannel,   ///< fds: channel region, client doorbell, doorbell of each shard
    DestroyChannel,
    Bind,            ///< reserve an address and port
    Listen,          ///< let a bound name accept connections, on every shard
    Adopt,           ///< another process of the same user takes part in a listener
    Unbind,          ///< give a bound name back; a listener ends with its last holder
    ConnectionInfo,  ///< a snapshot of one connection of this session
    Farewell,        ///< not answered: the process ends in order, so close its connections, as a
                     ///< kernel does, when this socket ends; without it they are reset
    OpenDatagram,    ///< a UDP socket: reserve a name and receive on it, on every shard
    ConnectDatagram, ///< set or dissolve its peer
    CloseDatagram,
    Membership,      ///< join or leave a multicast group
};

struct AttachRequest {
    FixedText<32> program;  ///< for people only
};

struct AttachReply {
    std::uint32_t session = 0;
    std::uint32_t shard_count = 0;
    std::uint64_t directory_bytes = 0;
    std::uint64_t rx_arena_bytes = 0;
    std::uint64_t tx_arena_bytes = 0;
    std::uint64_t private_rx_arena_bytes = 0;  ///< 0: the session reads the shared arena
    std::uint32_t rx_slot_bytes = 0;           ///< stride of slots in either RX arena
    std::uint32_t max_connections = 0;
    Isolation isolation{};
    std::array<std::uint8_t, 7> reserved{};
};

struct ObserveReply {
    std::uint32_t shard_count = 0;
    std::uint32_t tables_allowed = 0;  ///< 0: not root and not in the operators' group
    std::uint64_t directory_bytes = 0;
    std::array<std::uint64_t, kMaxShards> tables_bytes{};
};

struct ChannelReply {
    std::uint32_t channel = 0;
    std::uint32_t shard_count = 0;
    std::uint64_t channel_bytes = 0;
};

enum BindFlag : std::uint32_t {
    kBindReuseAddress = 1,
    kBindReusePort = 2,
    kBindV6Only = 4,  ///< an unspecified IPv6 address does not take IPv4 as well
};

struct BindRequest {
    Endpoint endpoint;  ///< port 0: the daemon chooses
    std::uint32_t flags = 0;
};

/// Proves to Adopt that the asker inherited the listener: 128 random bits.
using ListenerToken = std::array<std::uint64_t, 2>;

struct BindReply {
    ListenerId listener{};
    Endpoint endpoint;
    ListenerToken token{};
};

struct ListenRequest {
    ListenerId listener{};
    std::uint32_t backlog = 0;
    std::uint32_t defer_s = 0;      ///< accept only once text came, or after so many seconds
    std::uint16_t max_segment = 0;  ///< bytes, in either direction; 0: the path's
    std::uint16_t fast_open = 0;    ///< connections at once that data in a SYN may open; 0: none
};

struct AdoptRequest {
    ListenerId listener{};
    std::uint32_t reserved = 0;
    ListenerToken token{};
};

struct UnbindRequest {
    ListenerId listener{};
};

struct DestroyChannelRequest {
    std::uint32_t channel = 0;
};

struct ConnectionInfoRequest {
    std::uint32_t shard = 0;
    ConnectionId connection;
};

struct OpenDatagramRequest {
    Endpoint endpoint;  ///< port 0: the daemon chooses; a group's address is good, too
    std::uint16_t reserved = 0;
    std::uint32_t flags = 0;    ///< BindFlag bits
    std::uint32_t channel = 0;  ///< where its datagrams are told
    std::uint32_t receive_buffer = 0;  ///< bytes; 0: the default
    std::uint64_t user = 0;     ///< echoed in its completions
};

/// Answers OpenDatagram and ConnectDatagram.
struct DatagramReply {
    DatagramId socket{};
    Endpoint local;  ///< once connected, with the address that was chosen
    std::uint16_t path_mtu = 0;  ///< of IP packets; connected sockets only
};

struct ConnectDatagramRequest {
    DatagramId socket{};
    Endpoint remote;  ///< port 0 and no address: dissolve
    std::uint16_t interface = 0;  ///< as in DatagramBody
};

struct CloseDatagramRequest {
    DatagramId socket{};
};

struct MembershipRequest {
    DatagramId socket{};
    IpAddress group;
    std::uint16_t interface = 0;  ///< 1 + the directory's index; 0: where routes lead
    std::uint16_t join = 0;       ///< 0: leave
};

struct Message {
    Message() : raw{} {}

    std::uint16_t version = kControlVersion;
    MessageType type{};
    std::uint32_t sequence = 0;
    std::int32_t error = 0;
    std::array<std::byte, 52> reserved{};  ///< zero, and no padding: nobody's stack travels along
    union {
        AttachRequest attach;
        AttachReply attached;
        ObserveReply observed;
        ChannelReply channel;
        DestroyChannelRequest destroy_channel;
        BindRequest bind;
        BindReply bound;
        ListenRequest listen;
        AdoptRequest adopt;
        UnbindRequest unbind;
        ConnectionInfoRequest query;
        ConnectionInfo connection;
        OpenDatagramRequest open_datagram;
        DatagramReply datagram;
        ConnectDatagramRequest connect_datagram;
        CloseDatagramRequest close_datagram;
        MembershipRequest membership;
        std::array<std::byte, 512> raw;
    };
};
static_assert(std::is_trivially_copyable_v<Message>);
static_assert(offsetof(Message, raw) == 64 && sizeof(Message) == 64 + 512);

/// A message with the descriptors that came or go with it.
struct Parcel {
    Message message;
    std::vector<UniqueFd> fds;
    bool fds_lost = false;  ///< received: more came than this process may have open
};

/// Sends one message; the descriptors stay open with the caller. Returns 0 or an errno value
/// (EAGAIN if a non-blocking socket is full, EPIPE if the other side is gone; no SIGPIPE).
int send_message(int socket, const Message& message, const std::vector<int>& fds = {});

/// Receives one message. EPIPE: the other side is gone. EPROTO: something that is no Message of
/// this version; descriptors that came with it are closed. Received descriptors are CLOEXEC.
Result<Parcel, int> receive_message(int socket);

/// The same of what strangers send. No request passes descriptors: they never become this
/// process's, for to close one may wait for whoever serves its file. EPROTO: there were some.
Result<Parcel, int> receive_request(int socket);

/// A connected control socket, or an errno value. CLOEXEC. With a timeout, connecting, sending and
/// receiving give up with EAGAIN after so long.
Result<UniqueFd, int> connect_control(const std::string& path, Micros timeout = Micros(0));

/// The path to use: `given` if not empty, else $CHIRU_SOCKET, else the default.
std::string control_socket_path(const std::string& given = {});

}  // namespace chiru::shm
