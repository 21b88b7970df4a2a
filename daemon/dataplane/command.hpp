// SPDX-License-Identifier: Apache-2.0
//
// What the control thread and a shard tell each other: small values on two SPSC rings, one in
// each direction. Commands are carried out in order, and each is answered by exactly one report
// with the same tag, except where its comment says otherwise. A shard also reports what it finds
// by itself: a client that broke the ring protocol, a cookie of a peer's, the MTU of a path.
//
// Memory and descriptors that a command names belong to the control thread, and stay mapped and
// open until the report that says the shard let go of them.
#pragma once

#include "shm/channel.hpp"
#include "shm/descriptor.hpp"
#include "shm/doorbell.hpp"
#include "shm/spsc_ring.hpp"
#include "shm/tables.hpp"
#include "stack/lower.hpp"
#include "stack/session.hpp"
#include "stack/tcp/fast_open_cookie.hpp"
#include "stack/udp/engine.hpp"

#include <cstdint>
#include <type_traits>
#include <variant>

namespace chiru::daemon {

// ---- control to shard ----------------------------------------------------------------------

struct AttachSession {
    SessionIndex session{};
    SessionConfig config;
};

/// Takes what the session's channels still hold, detaches them, and ends its connections.
/// Answered by SessionGone, once no frame, queue or device refers to the session's memory any
/// longer.
struct DetachSession {
    SessionIndex session{};
    Parting parting{};
};

struct AttachChannel {
    ChannelIndex channel{};
    SessionIndex session{};
    shm::ShardLane* lane = nullptr;                     ///< this shard's
    const shm::DoorbellWord* client_doorbell = nullptr; ///< Channel::client_doorbell
    int client_event_fd = -1;  ///< wakes the client
    int shard_event_fd = -1;   ///< wakes this shard; every channel has its own for each shard
};

/// Its connections are reset. Once answered, the shard touches neither lane nor descriptors.
struct DetachChannel {
    ChannelIndex channel{};
};

struct Listen {
    shm::ListenerId listener{};
    Endpoint local;
    std::uint32_t bind_flags = 0;  ///< shm::BindFlag bits
    ListenTerms terms;
};

struct ShareListener {
    shm::ListenerId listener{};
    SessionIndex session{};
};

struct LeaveListener {
    shm::ListenerId listener{};
    SessionIndex session{};
};

struct Unlisten {
    shm::ListenerId listener{};
};

/// The shard leaves the port's queues alone until ResumePort: control works on the device. Frames
/// for it are lost meanwhile, as on a cut wire.
struct PausePort {
    PortIndex port = 0;
};

struct ResumePort {
    PortIndex port = 0;
};

/// The port's link has come up.
struct LinkUp {
    PortIndex port = 0;
};

struct OpenDatagram {
    udp::SocketConfig config;
};

/// Answered by DatagramConnected.
struct ConnectDatagram {
    shm::DatagramId socket{};
    Endpoint remote;  ///< nothing: dissolve
    std::uint16_t interface = 0;
};

/// What its channel submitted before is taken first, and goes out.
struct CloseDatagram {
    shm::DatagramId socket{};
    ChannelIndex channel{};
};

/// Answered by GroupJoined.
struct JoinGroup {
    IpAddress group;
    std::uint16_t interface = 0;
};

struct LeaveGroup {
    IpAddress group;
    std::uint16_t interface = 0;
};

/// Another shard was given it.
struct LearnCookie {
    tcp::LearntCookie learnt;
};

/// Another shard learnt it. Not answered.
struct LearnPathMtu {
    PathMtu path;
};

/// Answered by ConnectionSnapshot.
struct QueryConnection {
    SessionIndex session{};
    shm::ConnectionId connection;
};

struct Command {
    std::uint64_t tag = 0;  ///< comes back in the report
    std::variant<AttachSession, DetachSession, AttachChannel, DetachChannel, Listen, ShareListener,
                 LeaveListener, Unlisten, OpenDatagram, ConnectDatagram, CloseDatagram, JoinGroup,
                 LeaveGroup, LearnCookie, LearnPathMtu, QueryConnection, PausePort, ResumePort,
                 LinkUp>
        what;
};
static_assert(std::is_trivially_copyable_v<Command>);

// ---- shard to control ----------------------------------------------------------------------

/// The command was carried out.
struct Done {};

struct SessionGone {
    SessionIndex session{};
};

struct ConnectionSnapshot {
    bool found = false;
    shm::ConnectionInfo info;
};

struct DatagramConnected {
    int error = 0;  ///< errno value
    std::uint16_t path_mtu = 0;
    IpAddress local;
};

struct GroupJoined {
    int error = 0;  ///< errno value
    std::uint16_t interface = 0;  ///< where, also if none was asked for; counts from 1
};

/// The client broke the contract. The shard takes nothing more from this channel; the control
/// thread ends the session. Not an answer: its tag is 0.
struct ClientViolation {
    ChannelIndex channel{};
    SessionIndex session{};
    Violation violation{};      ///< None: `corrupt_ring`
    bool corrupt_ring = false;  ///< a ring position no correct client can publish
};

/// For the other shards. Not an answer: its tag is 0.
struct CookieLearnt {
    tcp::LearntCookie learnt;
};

/// The shard learnt the MTU of a path; the others are to know it. Not an answer: its tag is 0.
struct PathMtuLearnt {
    PathMtu path;
};

struct Report {
    std::uint32_t shard = 0;
    std::uint64_t tag = 0;
    std::variant<Done, SessionGone, ConnectionSnapshot, DatagramConnected, GroupJoined,
                 ClientViolation, CookieLearnt, PathMtuLearnt> what;
};
static_assert(std::is_trivially_copyable_v<Report>);

using CommandRing = shm::SpscRing<Command, 64>;
using ReportRing = shm::SpscRing<Report, 64>;

}  // namespace chiru::daemon
