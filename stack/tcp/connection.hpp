// SPDX-License-Identifier: Apache-2.0
//
// The block of one connection (RFC 9293 §3.3.1): plain data, linked by index, 512 bytes. It begins
// with what operators may read (shm::ConnectionInfo), and that is the live state, not a copy.
//
//   lines 0-1  who, and the sequence variables    lines 2-3  for people
//   line  4    deadlines, lists it is in          line  5    queues
//   lines 6-7  recovery, options
//
// Invariant: snd_una <= snd_nxt, and snd_nxt never moves back (but over text of a SYN, when the
// handshake shows that the peer did not take it). What must be sent again is told by the flights
// (send_queue.hpp). snd_end is where the queued bytes end; a FIN takes the number
// snd_end itself.
#pragma once

#include "base/time.hpp"
#include "shm/tables.hpp"
#include "stack/lower.hpp"
#include "stack/tcp/congestion/controller.hpp"
#include "stack/tcp/index.hpp"
#include "stack/tcp/seq.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>

namespace chiru::tcp {

using shm::TcpState;

/// What a connection has to put on the wire, or remembers about itself.
enum ConnectionFlag : std::uint32_t {
    kOweAck = 1u << 0,         ///< at the next transmit()
    kOweSyn = 1u << 1,         ///< SYN, or SYN and ACK
    kOweReset = 1u << 2,       ///< then the block can go
    kOweProbe = 1u << 3,       ///< zero-window probe
    kOweKeepAlive = 1u << 4,
    kOweTail = 1u << 5,        ///< tail loss probe (RFC 8985 §7.3)
    kFinQueued = 1u << 6,      ///< the client sends no more
    kFinSent = 1u << 7,
    kPeerFinKnown = 1u << 8,   ///< peer_fin is valid, perhaps still ahead of a gap
    kPassive = 1u << 9,        ///< came from a listener
    kClientGone = 1u << 10,    ///< Close or Abort: the client wants to hear no payload
    kNoDelay = 1u << 11,
    kCork = 1u << 12,
    kMoreToCome = 1u << 13,
    kQuickAck = 1u << 14,
    kKeepAlive = 1u << 15,
    kLingerZero = 1u << 16,
    kInOutput = 1u << 17,      ///< linked in the list of those with something to send
    kInEvents = 1u << 18,      ///< linked in its channel's list of those with something to say
    kParked = 1u << 19,        ///< linked in the list of those who wait for a neighbour
    kTailProbed = 1u << 20,    ///< one probe a tail
    kReorderSeen = 1u << 21,   ///< RFC 8985 §6.2 step 3
    kDsackOwed = 1u << 22,
    kPending = 1u << 23,       ///< linked in its listener's list
    kTailWasRepeat = 1u << 24, ///< the tail loss probe carried old text
    kOverride = 1u << 25,      ///< patience ended: send what the window allows, full or not
    kForceOne = 1u << 26,      ///< one retransmission regardless of cwnd (RFC 6675 §5, 4.3)
    kInWheel = 1u << 27,       ///< the wheel holds it
    kClosedTold = 1u << 28,    ///< the client knows, or will with its next completion
    kTailArmed = 1u << 29,     ///< retransmit_at is the tail loss probe's
    kCwndLimited = 1u << 30,   ///< the congestion window was what stopped the last transmission
    kBlocked = 1u << 31,       ///< waits for a private slot, in its session's list
};

/// What the client has not been told yet.
enum EventFlag : std::uint8_t {
    kEventAccepted = 1,
    kEventConnected = 2,
    kEventPeerClosed = 4,
    kEventClosed = 8,
    kEventLaunched = 16,  ///< what the client thinks unsent was sent
    kEventOpening = 32,   ///< a Connect with FastOpen has a name
};

/// What either end remembers of marks (RFC 3168 §6.1, RFC 8257 §3).
enum EcnFlag : std::uint8_t {
    kEcnAsk = 1,     ///< our SYN asks for it
    kEcnEcho = 2,    ///< ACKs carry ECE: until the peer says CWR, or with DCTCP as DCTCP.CE says
    kEcnOweCwr = 4,  ///< the next new text carries CWR
};

/// Where the test of a time-out stands (RFC 5682 §2.1).
enum SpuriousTest : std::uint8_t {
    kNoTest = 0,
    kAwaitAck = 1,   ///< step 2: the oldest was sent again
    kAwaitNext = 2,  ///< step 3: then new text, and nothing else was sent again
};

struct SackBlock {
    Seq first;
    Seq end;  ///< one past the last
};

inline constexpr std::size_t kSackBlocks = 3;  ///< beside timestamps no more than three fit

/// Bytes the network delivered, for what the state of recovery asks: outside of one, how many a
/// round trip carries; in Fast and Reduced, how many may follow them (RFC 9937).
union Delivery {
    struct {
        std::uint32_t first;     ///< SND.UNA when the round began
        std::uint32_t end;       ///< SND.NXT then: acknowledging it ends the round
        std::uint32_t began_us;  ///< 0: no round
    } round{};
    struct {
        std::uint32_t flight;     ///< RecoverFS
        std::uint32_t delivered;  ///< prr_delivered
        std::uint32_t sent;       ///< prr_out
    } reduction;
};

inline constexpr std::uint16_t kNobody = 0xffff;  ///< no session, no channel

struct alignas(kCacheLine) Connection {
    shm::ConnectionInfo info;

    // -- line 4: deadlines, one each, of which the wheel knows the earliest; memberships
    Instant retransmit_at = kNever;  ///< RTO, tail loss probe, zero-window probe or override
    Instant ack_at = kNever;         ///< delayed ACK
    Instant reorder_at = kNever;     ///< RFC 8985 §6.2 step 5
    Instant life_at = kNever;        ///< keep-alive; an orphan's end in FIN-WAIT-2 or TIME-WAIT
    std::uint32_t wheel_tick = 0;    ///< what the wheel was told, if kInWheel
    Index wheel_next = kNil;
    Index wheel_prev = kNil;
    Index output_next = kNil;
    Index output_prev = kNil;
    Index event_next = kNil;  ///< of the channel, or of the listener
    Index event_prev = kNil;
    Index session_next = kNil;  ///< of the session; of all in TIME-WAIT that have none

    // -- line 5: queues, and what they are worth
    Index session_prev = kNil;
    Index send_head = kNil;    ///< oldest record, not yet given back
    Index send_tail = kNil;
    Index send_cursor = kNil;  ///< the record that holds snd_nxt; nil at the end of the queue
    std::uint32_t send_cursor_offset = 0;
    Index flight_head = kNil;
    Index flight_oldest = kNil;    ///< of those neither lost nor with the peer: sent longest ago
    Index sack_hint = kNil;        ///< the flight that SACK told of last
    Index receive_head = kNil;     ///< in order, not yet delivered
    Index reassembly_head = kNil;  ///< behind a gap
    std::uint16_t reassembly_runs = 0;  ///< pieces of text behind gaps
    std::uint16_t sacked_segments = 0;
    Seq last_ack_sent;               ///< RCV.NXT as the peer knows it
    std::uint32_t ts_offset = 0;     ///< added to our clock
    std::uint16_t session = kNobody;  ///< SessionIndex
    std::uint16_t listener = kNobody;
    std::uint8_t events = 0;         ///< EventFlag bits
    std::uint8_t sack_count = 0;
    std::uint16_t reassembly_slots = 0;

    // -- lines 6 and 7: loss recovery, options, and what only some connections need
    CongestionState congestion;
    Path path;
    IpOptions ip;
    std::uint8_t keep_probes = 0;  ///< sent without an answer
    std::uint8_t spurious = 0;     ///< SpuriousTest: was the time-out one? (RFC 5682)
    std::uint32_t sacked_bytes = 0;
    std::uint32_t lost_bytes = 0;     ///< thought lost, and not yet sent again
    Index retransmit_hint = kNil;     ///< no lost flight lies before this one; nil: from the head
    Seq recover;                      ///< end of the recovery; outside of one, TLP.end_seq
    std::uint32_t rack_sent_us = 0;   ///< RACK.xmit_ts
    Seq rack_end;                     ///< RACK.end_seq
    std::uint32_t undo_stamp = 0;     ///< our timestamp when recovery sent its first repeat
    std::uint32_t undo_cwnd = 0;      ///< cwnd before that; 0: nothing to undo. More in Extra
    Seq small_end;                    ///< end of the last segment shorter than the MSS
    Seq peer_fin;                     ///< if kPeerFinKnown
    /// The first sack_count are to be sent. With kDsackOwed the last is the duplicate's.
    std::array<SackBlock, kSackBlocks> sack{};
    Delivery delivery;
    Index extra = kNil;               ///< the record for what few connections need
    std::uint32_t unanswered_since_ms = 0;  ///< if timeouts > 0; when the first of them was armed
    std::uint32_t handover = 0;  ///< the how-manyeth its listener's grant gave to the channel

    Seq snd_una() const { return Seq(info.snd_una); }
    Seq snd_nxt() const { return Seq(info.snd_nxt); }
    Seq snd_end() const { return Seq(info.snd_end); }
    Seq rcv_nxt() const { return Seq(info.rcv_nxt); }

    bool has(std::uint32_t flag) const { return (info.flags & flag) != 0; }
    void set(std::uint32_t flag) { info.flags |= flag; }
    void clear(std::uint32_t flag) { info.flags &= ~flag; }
    bool negotiated(shm::NegotiatedOption option) const { return (info.negotiated & option) != 0; }

    /// Open before its handshake is complete (RFC 7413)?
    bool early() const { return (info.fast_open & shm::kFastOpenEarly) != 0; }

    shm::RecoveryState recovery() const {
        return static_cast<shm::RecoveryState>(info.recovery);
    }
    void enter(shm::RecoveryState state) { info.recovery = static_cast<std::uint8_t>(state); }
    /// Is text thought lost, or was it a moment ago?
    bool recovering() const {
        return recovery() == shm::RecoveryState::Fast ||
               recovery() == shm::RecoveryState::AfterTimeout;
    }
    /// Does the window shrink by what is delivered? (RFC 9937)
    bool reducing() const {
        return recovery() == shm::RecoveryState::Fast ||
               recovery() == shm::RecoveryState::Reduced;
    }
    bool has_ecn(std::uint8_t flag) const { return (info.ecn & flag) != 0; }
    void set_ecn(std::uint8_t flag) { info.ecn |= flag; }
    void clear_ecn(std::uint8_t flag) { info.ecn &= static_cast<std::uint8_t>(~flag); }

    /// IP's and TCP's headers without options.
    std::uint32_t fixed_header_bytes() const { return info.remote_address.is_v4() ? 40 : 60; }
    /// The same, with the options of every segment.
    std::uint32_t header_bytes() const {
        return fixed_header_bytes() + (negotiated(shm::kNegotiatedTimestamps) ? 12u : 0u);
    }
    /// Of a full segment.
    std::uint32_t packet_bytes() const { return info.mss + header_bytes(); }

    std::uint32_t outstanding_bytes() const { return info.snd_nxt - info.snd_una; }
    /// Queued and never sent.
    std::uint32_t unsent_bytes() const {
        return has(kFinSent) ? 0 : info.snd_end - info.snd_nxt;
    }
    /// The RFC's pipe: what is thought to be in the network (RFC 6675 §2).
    std::uint32_t pipe_bytes() const;
    Instant earliest() const {
        return std::min(std::min(retransmit_at, ack_at), std::min(reorder_at, life_at));
    }
};
static_assert(sizeof(Connection) == 512);
static_assert(std::is_trivially_copyable_v<Connection>);
static_assert(offsetof(Connection, retransmit_at) == 256);

inline std::uint32_t Connection::pipe_bytes() const {
    const std::uint32_t gone = sacked_bytes + lost_bytes;
    std::uint32_t pipe = outstanding_bytes() > gone ? outstanding_bytes() - gone : 0;
    if (negotiated(shm::kNegotiatedSack)) return pipe;
    // Without SACK each duplicate ACK tells that some segment left the network (RFC 6582 §3.2).
    const std::uint32_t left = info.dup_acks * info.mss;
    return pipe > left ? pipe - left : 0;
}

/// The clock as records keep it.
inline std::uint32_t low_us(Instant now) {
    return static_cast<std::uint32_t>(now.time_since_epoch().count());
}

constexpr bool may_send(TcpState s) {
    return s == TcpState::Established || s == TcpState::CloseWait;
}

/// RFC 9293 §3.10.2: what is sent before the handshake is complete is queued.
constexpr bool may_queue(TcpState s) {
    return may_send(s) || s == TcpState::SynSent || s == TcpState::SynReceived;
}

/// Is the connection past its handshake and able to carry text?
constexpr bool synchronized(TcpState s) {
    return s >= TcpState::Established && s <= TcpState::TimeWait;
}
constexpr bool may_receive(TcpState s) {
    return s == TcpState::Established || s == TcpState::FinWait1 || s == TcpState::FinWait2;
}

}  // namespace chiru::tcp
