// SPDX-License-Identifier: Apache-2.0
//
// What was lost: RACK-TLP with SACK (RFC 8985, 6675), NewReno without (RFC 6582).
//
// The window is kept by counting the pipe, so limited transmit (RFC 3042) needs no code of its
// own: every segment known to have arrived lets one go.
#include "stack/tcp/machine.hpp"

#include "stack/tcp/rtt.hpp"

#include <algorithm>

namespace chiru::tcp {

using shm::RecoveryState;

namespace {

constexpr std::uint32_t kDupThresh = 3;
/// Frames of one burst may change places in less time than a quarter of a short round trip.
constexpr std::uint32_t kMinReorderUs = 250;
/// How long a peer may sit on the ACK of a single segment (RFC 8985 §7.2, TLP.max_ack_delay).
constexpr std::int64_t kPeerAckDelayUs = 25'000;

/// Was the first sent after the second? Of two sent at one instant the one with the higher end.
bool sent_after(std::uint32_t us1, Seq end1, std::uint32_t us2, Seq end2) {
    const auto later = static_cast<std::int32_t>(us1 - us2);
    return later > 0 || (later == 0 && end1 > end2);
}

/// FlightSize when the network was found congested: what the ACK that tells of it acknowledges was
/// in flight as well. With one ACK a burst that may be most of a window.
std::uint32_t flight_before(const Connection& c, const AckReport& report) {
    return c.outstanding_bytes() + report.acked_bytes;
}

}  // namespace

/// RFC 8985 §6.2, steps 1 to 3: the newest transmission known to have arrived.
void Machine::note_rack(Connection& c, const Flight& f, Instant now) {
    const std::uint32_t rtt = low_us(now) - f.sent_us;
    // An ACK too early for the repeat is for the original, whose time we no longer know.
    if (f.has(kRepeated) && rtt < c.info.min_rtt_us) return;
    // Overtaken by what an earlier ACK told; of one ACK's segments none came before another.
    if (rack_end_before_ != Seq() && !f.has(kRepeated) && f.end() < rack_end_before_ &&
        !sent_after(f.sent_us, f.end(), c.rack_sent_us, c.rack_end) && c.sacked_bytes > 0)
        c.set(kReorderSeen);
    if (c.rack_end == Seq() || sent_after(f.sent_us, f.end(), c.rack_sent_us, c.rack_end)) {
        c.rack_sent_us = f.sent_us;
        c.rack_end = f.end();
    }
}

/// RFC 8985 §6.2, steps 4 and 5. Returns whether anything was newly found lost.
bool Machine::detect_by_time(Connection& c, Instant now) {
    c.reorder_at = kNever;
    if (c.sacked_bytes == 0 && !c.recovering()) return false;
    std::uint32_t sacked = 0;
    for (Index i = c.flight_head; i != kNil && sacked < kDupThresh; i = send_.flights()[i].next)
        if (send_.flights()[i].has(kSacked)) ++sacked;
    const bool enough = sacked >= kDupThresh || c.sacked_bytes >= kDupThresh * c.info.mss;
    std::uint32_t window = std::max(std::min(c.info.min_rtt_us / 4, c.info.srtt_us), kMinReorderUs);
    if (!c.has(kReorderSeen) && (c.recovering() || enough)) window = 0;

    const std::uint32_t patience = std::max(c.info.srtt_us, c.info.min_rtt_us) + window;
    const std::uint32_t before = c.lost_bytes;
    std::int32_t longest = 0;
    for (Index i = c.flight_head; i != kNil; i = send_.flights()[i].next) {
        Flight& f = send_.flights()[i];
        if (f.has(kSacked | kLost)) continue;
        if (!sent_after(c.rack_sent_us, c.rack_end, f.sent_us, f.end())) continue;
        // Something sent later has arrived: with no window for reordering that is enough.
        const auto left = static_cast<std::int32_t>(f.sent_us + patience - low_us(now));
        if (window == 0 || left <= 0) send_.mark_lost(c, i);
        else longest = std::max(longest, left);
    }
    if (longest > 0) c.reorder_at = now + Micros(longest);
    return c.lost_bytes > before;
}

/// RFC 6582: three duplicates, and in recovery each ACK that leaves a hole.
bool Machine::detect_by_duplicates(Connection& c, bool duplicate) {
    if (duplicate) ++c.info.dup_acks;
    const bool partial = c.recovery() == RecoveryState::Fast && !duplicate;
    if (c.flight_head == kNil || (!partial && c.info.dup_acks != kDupThresh)) return false;
    // §3.2, step 1: they may be about what was sent again, until more than that is acknowledged.
    if (!c.recovering() && c.snd_una() == c.recover) return false;
    if (partial) c.info.dup_acks = 0;
    const std::uint32_t before = c.lost_bytes;
    // One segment is lost, though the port may have cut more from the flight.
    const Flight& head = send_.flights()[c.flight_head];
    if (head.text_bytes() > c.info.mss) send_.split(c, c.flight_head, c.info.mss);
    send_.mark_lost(c, c.flight_head);
    return c.lost_bytes > before;
}

void Machine::recover(Connection& c, const AckReport& report, bool duplicate, const Segment& seg) {
    try_undo(c, report, seg);
    if (report.needless_repeat && !c.recovering() && c.has(kTailProbed)) learn_patience(c);
    // The peer echoes a mark until CWR has reached it, which is with the text behind RECOVER.
    const bool held = c.recovery() == RecoveryState::Reduced && c.snd_una() == c.recover;
    if (report.acked_bytes > 0 && c.snd_una() >= c.recover && !held) leave_recovery(c);
    if (report.acked_bytes > 0 && !c.recovering()) c.info.dup_acks = 0;

    const bool sack = c.negotiated(shm::kNegotiatedSack);
    const bool lost = sack ? detect_by_time(c, report.now) : detect_by_duplicates(c, duplicate);
    if (lost && !c.recovering()) {
        recover_fast(c, report);
    } else if (report.echoed && c.recovery() == RecoveryState::Open) {
        count(shm::Counter::TcpReductions);
        enter_recovery(c, RecoveryState::Reduced,
                       {.now = report.now, .in_flight_bytes = flight_before(c, report),
                        .marked = true},
                       report.delivered_bytes);
    }
    congestion_ack(c, report, lost);
}

/// Losses were found before the timer had to. One reduction a round trip is enough: when marks
/// have told of the congestion already, the losses are only repaired (RFC 3168 §6.1.2).
void Machine::recover_fast(Connection& c, const AckReport& report) {
    if (excuse_probe(c, report.now)) return;
    if (c.recovery() == RecoveryState::Open) {
        enter_recovery(c, RecoveryState::Fast,
                       {.now = report.now, .in_flight_bytes = flight_before(c, report)},
                       report.delivered_bytes);
    } else {
        c.enter(RecoveryState::Fast);
        c.recover = c.snd_nxt();
    }
    c.set(kForceOne);  // the first repeat does not wait for the pipe (RFC 6675 §5, 4.3)
}

void Machine::enter_recovery(Connection& c, RecoveryState state, const LossReport& report,
                             std::uint32_t just_delivered) {
    // Not again when a time-out comes on top: an echo of the first repeat would prove it needless
    // (RFC 3522 §3.2).
    if (!report.marked && c.undo_cwnd == 0) {
        c.undo_cwnd = c.info.cwnd_bytes;
        c.undo_stamp = timestamp(c, report.now);
    }
    forget_probe(c);
    c.enter(state);
    c.recover = c.snd_nxt();
    c.clear(kTailProbed);
    // Else the probe's time would be taken for the time-out's (RFC 8985 §7.3).
    if (c.has(kTailArmed)) arm_retransmit(c, report.now);
    if (c.negotiated(shm::kNegotiatedEcn)) c.set_ecn(kEcnOweCwr);
    congestion_loss(c, report);
    const std::uint32_t flight = c.outstanding_bytes() - c.sacked_bytes + just_delivered;
    if (state == RecoveryState::AfterTimeout) c.delivery.round = {};
    else c.delivery.reduction = {std::max(flight, 1u), 0, 0};
}

/// All that was sent before the trouble showed is acknowledged; or, outside of a recovery, all
/// before the tail loss probe.
void Machine::leave_recovery(Connection& c) {
    c.clear(kTailProbed);
    if (c.recovery() == RecoveryState::Open) return;
    if (c.recovery() == RecoveryState::AfterTimeout) {
        if (c.info.rto_patience > 0) --c.info.rto_patience;  // this one was no false alarm
    } else {
        c.info.cwnd_bytes = c.info.ssthresh_bytes;
    }
    c.enter(RecoveryState::Open);
    c.spurious = kNoTest;
    c.undo_cwnd = 0;
    c.info.dup_acks = 0;
    c.delivery.round = {};
}

/// RFC 6298 §5.1 to 5.3, with the probe of RFC 8985 §7.2 in front where it may be sent.
void Machine::arm_retransmit(Connection& c, Instant now) {
    c.clear(kTailArmed);
    if (c.flight_head == kNil) {
        c.retransmit_at = kNever;
        return;
    }
    c.retransmit_at = now + Micros(c.info.rto_us);
    arm_tail_probe(c, now);
}

/// The probe comes in place of the time-out where that is later. A second segment may bring it
/// forward: with two, the peer has no reason to delay its ACK.
void Machine::arm_tail_probe(Connection& c, Instant now) {
    const bool allowed = c.negotiated(shm::kNegotiatedSack) && !c.recovering() &&
                         c.sacked_bytes == 0 && c.info.srtt_us != 0 && !c.has(kTailProbed);
    if (!allowed) return;
    // Half the floor: sooner, it would only measure how punctual the peer's threads are.
    const std::int64_t floor = rto_floor(c.info, config_.tcp);
    std::int64_t wait = std::max<std::int64_t>(2 * std::int64_t{c.info.srtt_us}, floor / 2);
    const bool single = c.flight_head == c.flight_tail &&
                        send_.flights()[c.flight_head].text_bytes() <= c.info.mss;
    if (single) wait += std::max(kPeerAckDelayUs, floor);
    if (now + Micros(wait) >= c.retransmit_at) return;
    c.retransmit_at = now + Micros(wait);
    c.set(kTailArmed);
}

}  // namespace chiru::tcp
