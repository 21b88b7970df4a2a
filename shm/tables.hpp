// SPDX-License-Identifier: Apache-2.0
//
// What a shard lets operators read of its live state: connections, listeners, neighbours.
//
//   ShardTables | connection blocks | listeners | neighbours | whatever the stack adds
//
// The stack keeps its state in this region, so reading it costs the shard nothing and works on a
// wedged daemon too. Each record begins with the part described here; a table's stride says where
// the next one begins. Readers copy a record, and take it as a snapshot that may be torn between
// fields: good for people, not for decisions.
//
// Root and the operators' group get this region, read-only; clients do not.
#pragma once

#include "base/address.hpp"
#include "base/cache.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace chiru::shm {

inline constexpr std::uint32_t kTablesMagic = 0x4348'5254;  // "CHRT"
inline constexpr std::uint32_t kTablesVersion = 3;

struct TableRef {
    std::uint64_t offset = 0;  ///< of the first record, from the region's start
    std::uint32_t stride = 0;  ///< bytes from a record to the next
    std::uint32_t capacity = 0;  ///< records
};

struct ShardTables {
    std::uint32_t magic = kTablesMagic;
    std::uint32_t version = kTablesVersion;
    std::uint32_t shard = 0;
    std::uint32_t reserved = 0;
    std::uint64_t bytes = 0;  ///< of the whole region
    TableRef connections;     ///< of ConnectionInfo
    TableRef listeners;       ///< of ListenerInfo
    TableRef neighbors;       ///< of NeighborInfo
    TableRef datagrams;       ///< of DatagramInfo
    /// Blocks in use are among the first `connections_high` ones; a reader stops there.
    std::uint32_t connections_high = 0;
    std::uint32_t connections_live = 0;  ///< in any state but Free
    std::int64_t now_us = 0;  ///< the shard's clock when it last turned
};

/// RFC 9293 §3.3.2, and Free for a block that is not in use.
enum class TcpState : std::uint8_t {
    Free = 0,
    Listen,
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    Closed,
};

constexpr const char* to_string(TcpState state) {
    constexpr std::array kNames{"FREE",       "LISTEN",     "SYN-SENT",  "SYN-RECEIVED",
                                "ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT",
                                "CLOSING",    "LAST-ACK",   "TIME-WAIT", "CLOSED"};
    const auto i = static_cast<std::size_t>(state);
    return i < kNames.size() ? kNames[i] : "?";
}

/// What was negotiated in the handshake.
enum NegotiatedOption : std::uint8_t {
    kNegotiatedTimestamps = 1,
    kNegotiatedSack = 2,
    kNegotiatedWindowScale = 4,
    kNegotiatedEcn = 8,
};

/// How far a handshake is, or was, with TCP Fast Open (RFC 7413).
enum FastOpenState : std::uint8_t {
    kFastOpenOption = 1,    ///< the next SYN carries the option
    kFastOpenAsked = 2,     ///< a SYN of ours did
    kFastOpenDeferred = 4,  ///< the SYN waits for the text that it may carry
    kFastOpenText = 8,      ///< our SYN carried text
    kFastOpenTaken = 16,    ///< text in a SYN was taken: by the peer, or by us
    kFastOpenEarly = 32,    ///< open before the peer's ACK has proven its address
};
/// Why the text did not travel, or was not taken; in the bits above. As Linux numbers it.
inline constexpr unsigned kFastOpenFailShift = 6;
enum class FastOpenFail : std::uint8_t { None = 0, NoCookie, NotTaken, SynLost };

enum class RecoveryState : std::uint8_t {
    Open = 0,
    Fast = 1,          ///< ACKs told of losses (RFC 6675, 8985)
    AfterTimeout = 2,
    Reduced = 3,       ///< marks told of congestion (RFC 3168); nothing was lost
};

/// The first part of every connection block; the stack works on these fields themselves. Sequence
/// numbers are raw 32-bit values. Times are microseconds of the shard's clock (CLOCK_MONOTONIC).
struct alignas(kCacheLine) ConnectionInfo {
    // -- line 0: who, and the state; all a lookup needs
    IpAddress local_address;
    IpAddress remote_address;
    std::uint16_t local_port = 0;
    std::uint16_t remote_port = 0;
    std::uint32_t generation = 0;
    TcpState state{};
    std::uint8_t negotiated = 0;  ///< NegotiatedOption bits
    std::uint8_t snd_shift = 0;   ///< Snd.Wind.Shift (RFC 7323 §2.3)
    std::uint8_t rcv_shift = 0;
    std::uint32_t session = 0;    ///< the owner; 0 for none (an orphan that finishes)
    std::uint16_t channel = 0;
    std::uint16_t interface = 0;
    std::uint32_t flags = 0;      ///< the stack's own bits
    std::uint64_t user = 0;       ///< the client's word, echoed in completions

    // -- line 1: what every segment touches
    std::uint32_t snd_una = 0;
    std::uint32_t snd_nxt = 0;
    std::uint32_t snd_wnd = 0;  ///< bytes, unscaled
    std::uint32_t snd_wl1 = 0;
    std::uint32_t ts_recent = 0;  ///< TS.Recent (RFC 7323 §4.3)
    std::uint32_t snd_end = 0;  ///< sequence number after the last byte the client queued
    std::uint32_t rcv_nxt = 0;
    std::uint32_t rcv_wnd = 0;  ///< bytes promised from rcv_nxt on
    std::uint32_t cwnd_bytes = 0;
    std::uint32_t ssthresh_bytes = 0;
    std::uint32_t srtt_us = 0;
    std::uint32_t rttvar_us = 0;
    std::uint32_t rto_us = 0;
    std::uint32_t mss = 0;           ///< payload bytes of a full segment, options deducted
    std::uint32_t unread_bytes = 0;  ///< in order, not yet released by the client
    std::uint32_t out_of_order_bytes = 0;

    // -- lines 2 and 3: for people
    std::uint64_t rx_segments = 0;
    std::uint64_t rx_bytes = 0;  ///< payload delivered in order
    std::uint64_t tx_segments = 0;
    std::uint64_t tx_bytes = 0;  ///< payload sent for the first time
    std::uint64_t retransmitted_bytes = 0;
    std::int64_t opened_us = 0;
    std::int64_t last_received_us = 0;
    std::int64_t last_sent_us = 0;
    std::uint32_t retransmitted_segments = 0;
    std::uint32_t out_of_order_segments = 0;
    std::uint32_t iss = 0;
    std::uint32_t irs = 0;
    std::uint32_t min_rtt_us = 0;
    std::uint32_t rcv_buffer_bytes = 0;  ///< how far the window may open now
    std::uint16_t peer_mss = 0;
    std::uint8_t timeouts = 0;   ///< in a row, without progress
    std::uint8_t fast_open = 0;  ///< FastOpenState bits (RFC 7413)
    std::uint8_t congestion = 0;  ///< CongestionAlgorithm
    std::uint8_t recovery = 0;    ///< RecoveryState
    std::uint16_t error = 0;      ///< errno of a connection that failed
    std::uint16_t dup_acks = 0;
    std::uint8_t rto_patience = 0;  ///< doublings of the RTO's floor, learnt from early time-outs
    std::uint8_t ecn = 0;           ///< the stack's own bits
    std::uint32_t max_snd_wnd = 0;  ///< the largest window the peer ever offered
    std::uint32_t sent_bytes = 0;   ///< acknowledged, and not yet given back to the client
    std::uint32_t delivery_kbps = 0;    ///< kilobytes a second that arrived lately
    std::uint32_t pacing_kbps = 0;      ///< kilobytes a second it may send at most; 0: not paced
    std::uint32_t user_timeout_ms = 0;  ///< 0: the default
    std::uint16_t keep_idle_s = 0;      ///< 0: the default, as for the interval and the count
    std::uint16_t keep_interval_s = 0;
    std::uint8_t keep_count = 0;
    std::uint8_t rcv_fixed = 0;   ///< 1: the program has chosen rcv_buffer_bytes; it does not grow
    std::uint16_t rx_slots = 0;   ///< receive buffers its text is in, unread or behind a gap

    /// Queued and never sent.
    std::uint32_t unsent_bytes() const {
        const auto left = static_cast<std::int32_t>(snd_end - snd_nxt);
        return left > 0 && state != TcpState::Closed ? static_cast<std::uint32_t>(left) : 0;
    }
};
static_assert(std::is_trivially_copyable_v<ConnectionInfo>);
static_assert(offsetof(ConnectionInfo, snd_una) == 64);
static_assert(offsetof(ConnectionInfo, rx_segments) == 128);
static_assert(sizeof(ConnectionInfo) == 256);

struct alignas(kCacheLine) ListenerInfo {
    IpAddress address;  ///< unspecified: any
    std::uint16_t port = 0;
    std::uint8_t in_use = 0;
    std::uint8_t v6_only = 0;
    std::uint32_t listener = 0;
    std::uint32_t session = 0;
    std::uint32_t backlog = 0;
    std::uint32_t syn_received = 0;  ///< handshakes under way
    std::uint32_t waiting = 0;       ///< completed, waiting for accept
    std::uint64_t accepted = 0;
    std::uint64_t refused = 0;       ///< SYNs beyond the backlog
};
static_assert(std::is_trivially_copyable_v<ListenerInfo> && sizeof(ListenerInfo) == 64);

/// The first part of every UDP socket's record. Each shard has one for every socket, and counts
/// what it did for it.
struct alignas(kCacheLine) DatagramInfo {
    IpAddress local_address;   ///< unspecified: any
    IpAddress remote_address;  ///< if connected
    std::uint16_t local_port = 0;
    std::uint16_t remote_port = 0;
    std::uint32_t id = 0;  ///< DatagramId
    std::uint8_t in_use = 0;
    std::uint8_t connected = 0;
    std::uint8_t v6_only = 0;
    std::uint8_t reserved = 0;
    std::uint32_t session = 0;
    std::uint32_t receive_buffer = 0;  ///< bytes that may wait, with their overhead
    std::uint32_t waiting_bytes = 0;   ///< of those, what the client has not released
    std::uint64_t user = 0;

    std::uint64_t rx_datagrams = 0;
    std::uint64_t rx_bytes = 0;
    std::uint64_t tx_datagrams = 0;
    std::uint64_t tx_bytes = 0;
    std::uint64_t dropped = 0;  ///< arrived, and found no room
    std::int64_t opened_us = 0;
    std::uint64_t reserved1 = 0;
    std::uint64_t reserved2 = 0;
};
static_assert(std::is_trivially_copyable_v<DatagramInfo> && sizeof(DatagramInfo) == 128);

/// RFC 4861 §7.3.2; ARP entries use the same states.
enum class NeighborState : std::uint8_t {
    Free = 0,
    Incomplete,
    Reachable,
    Stale,
    Delay,
    Probe,
    Failed,
};

struct alignas(kCacheLine) NeighborInfo {
    IpAddress address;
    MacAddress mac;
    std::uint16_t interface = 0;
    NeighborState state{};
    std::uint8_t is_router = 0;
    std::uint16_t queued_frames = 0;  ///< waiting for the answer
    std::uint16_t probes = 0;
    std::uint16_t reserved = 0;
    std::int64_t updated_us = 0;
    std::int64_t deadline_us = 0;
};
static_assert(std::is_trivially_copyable_v<NeighborInfo> && sizeof(NeighborInfo) == 64);

}  // namespace chiru::shm
