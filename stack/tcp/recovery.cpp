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
/// How long a peer may sit on the ACK of a single segment (RFC 8985 §7.2, TLP.max_ack_delay), and
/// how much longer one may that did.
constexpr std::int64_t kPeerAckDelayUs = 25'000;
constexpr std::int64_t kMostPeerAckDelayUs = 50'000;
/// Of so many that may still have been overtaken the timer waits for all, of more for these first.
constexpr std::uint32_t kMostWaiting = 32;
constexpr std::uint8_t kReorderPersist = 16;  // §6.2, step 4
constexpr std::uint8_t kMostReorderSteps = 255;

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

/// RFC 8985 §6.2, step 4: how long a segment may be overtaken before it counts as lost.
std::uint32_t Machine::reordering_window(const Connection& c) const {
    if (!c.has(kReorderSeen)) {
        if (c.recovering() || c.sacked_bytes >= kDupThresh * c.info.mss ||
            c.sacked_segments >= kDupThresh)
            return 0;
    }
    const Extra* known = extra(c);
    const std::uint32_t steps = known != nullptr ? known->reordering.steps : 1;
    return std::max(std::min(steps * (c.info.min_rtt_us / 4), c.info.srtt_us), kMinReorderUs);
}

/// What was sent again had arrived: the next time wait longer, by one step a round trip.
void Machine::widen_reordering(Connection& c) {
    Extra* known = need_extra(c);
    if (known == nullptr) return;
    Reordering& r = known->reordering;
    if (r.in_round && c.snd_una() < r.round_end) return;
    r.in_round = true;
    r.round_end = c.snd_nxt();
    r.persist = kReorderPersist;
    if (r.steps < kMostReorderSteps) ++r.steps;
}

/// RFC 8985 §6.2, step 5. Returns whether anything was newly found lost.
bool Machine::detect_by_time(Connection& c, Instant now) {
    c.reorder_at = kNever;
    if (c.sacked_bytes == 0 && !c.recovering()) return false;
    const std::uint32_t window = reordering_window(c);
    const std::uint32_t patience = std::max(c.info.srtt_us, c.info.min_rtt_us) + window;
    const std::uint32_t before = c.lost_bytes;
    std::int32_t longest = 0;
    std::uint32_t waiting = 0;
    for (Index i = c.flight_oldest, next; i != kNil && waiting < kMostWaiting; i = next) {
        const Flight& f = send_.flights()[i];
        next = f.sent_next;
        if (!sent_after(c.rack_sent_us, c.rack_end, f.sent_us, f.end())) break;
        // Something sent later has arrived: with no window for reordering that is enough.
        const auto left = static_cast<std::int32_t>(f.sent_us + patience - low_us(now));
        if (window == 0 || left <= 0) {
            send_.mark_lost(c, i);
        } else {
            longest = left;
            ++waiting;
        }
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
    const bool undoable = c.undo_cwnd != 0;
    try_undo(c, report, seg);
    // Then the window is what it had been, and this ACK adds nothing to it (RFC 4015 §3.2).
    AckReport told = report;
    told.reducing = report.reducing || (undoable && c.undo_cwnd == 0);
    if (report.needless_repeat && !c.recovering() && c.has(kTailProbed)) learn_patience(c);
    if (c.has(kTailProbed) && c.snd_una() >= c.recover) judge_tail_probe(c, report, duplicate);
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
    congestion_ack(c, told, lost);
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
    if (!report.marked) remember_for_undo(c, report.now);
    forget_probe(c);
    c.enter(state);
    c.recover = c.snd_nxt();
    c.clear(kTailProbed | kTailWasRepeat);
    // Else the probe's time would be taken for the time-out's (RFC 8985 §7.3).
    if (c.has(kTailArmed)) arm_retransmit(c, report.now);
    if (c.negotiated(shm::kNegotiatedEcn)) c.set_ecn(kEcnOweCwr);
    congestion_loss(c, report);
    const std::uint32_t flight = c.outstanding_bytes() - c.sacked_bytes + just_delivered;
    if (state == RecoveryState::AfterTimeout) c.delivery.round = {};
    else c.delivery.reduction = {std::max(flight, 1u), 0, 0};
}

/// All that was sent before the trouble showed is acknowledged; and a round trip after it, what
/// might still have taken the recovery back.
void Machine::leave_recovery(Connection& c) {
    if (c.recovery() == RecoveryState::Open) {
        if (!c.has(kTailProbed)) c.undo_cwnd = 0;  // who had got a repeat twice has said so by now
        return;
    }
    c.clear(kTailProbed | kTailWasRepeat);
    Extra* known = extra(c);
    if (known != nullptr && c.recovering() && known->reordering.persist > 0 &&
        --known->reordering.persist == 0)
        known->reordering = {};
    if (c.recovery() == RecoveryState::AfterTimeout) {
        if (c.info.rto_patience > 0) --c.info.rto_patience;  // this one was no false alarm
    } else if (bbr_of(c) == nullptr) {
        c.info.cwnd_bytes = c.info.ssthresh_bytes;
    }
    if (c.recovery() != RecoveryState::Fast) c.undo_cwnd = 0;
    c.recover = c.snd_nxt();
    c.enter(RecoveryState::Open);
    c.spurious = kNoTest;
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

/// The probe comes before the time-out, at the latest in its place: should it be answered, the
/// window need not begin anew. A second segment may bring it forward: with two, the peer has no
/// reason to delay its ACK.
void Machine::arm_tail_probe(Connection& c, Instant now) {
    const bool allowed = c.negotiated(shm::kNegotiatedSack) && !c.recovering() &&
                         c.sacked_bytes == 0 && c.info.srtt_us != 0 && c.info.timeouts == 0 &&
                         !c.has(kTailProbed);
    if (!allowed) return;
    // Half the floor: sooner, it would only measure how punctual the peer's threads are. What was
    // learnt of peers that delay ACKs is for the time-out; a probe costs no more than a segment.
    const std::int64_t floor = rto_floor(c.info, config_.tcp);
    const std::int64_t least = std::min<std::int64_t>(floor / 2, config_.tcp.min_rto.count());
    std::int64_t wait = std::max(2 * std::int64_t{c.info.srtt_us}, least);
    const Flight& head = send_.flights()[c.flight_head];
    const bool single = head.next == kNil && head.text_bytes() <= c.info.mss;
    if (single) wait += std::clamp(floor, kPeerAckDelayUs, kMostPeerAckDelayUs);
    c.retransmit_at = std::min(c.retransmit_at, now + Micros(wait));
    c.set(kTailArmed);
}

/// RFC 8985 §7.3: there was no new text that the peer's window takes, so the last segment again.
Machine::Outcome Machine::emit_tail_probe(Connection& c, Index self, Sink& out) {
    if (out.full()) return Outcome::NoFrame;
    Index last = send_.last_flight(c);
    if (last != kNil && send_.flights()[last].has(kSacked)) last = send_.flight_before(c, last);
    if (last != kNil) {
        // The last segment of a flight that was cut into several behind the stack.
        const std::uint32_t text = send_.flights()[last].text_bytes();
        if (text > c.info.mss && send_.split(c, last, text - ((text - 1) % c.info.mss + 1)))
            last = send_.flights()[last].next;
        const Outcome o = repeat(c, self, last, out);
        if (o != Outcome::Done) return o;
    }
    tail_probed(c, true);
    arm_retransmit(c, out.now);
    return Outcome::Done;
}

/// A probe is out: until all up to it is acknowledged there is no second one.
void Machine::tail_probed(Connection& c, bool repeat) {
    c.clear(kOweTail | kTailWasRepeat);
    c.set(kTailProbed);
    if (repeat) c.set(kTailWasRepeat);
    c.recover = c.snd_nxt();
}

/// RFC 8985 §7.4.2, when all up to the probe is acknowledged. One with new text found nothing. Of
/// one with old text the peer says that it had that; or it goes on without saying so, and then the
/// probe repaired a loss that nobody else saw: the network was congested all the same.
void Machine::judge_tail_probe(Connection& c, const AckReport& report, bool duplicate) {
    const bool needless = !c.has(kTailWasRepeat) || report.needless_repeat;
    const bool further = c.snd_una() > c.recover;
    if (!needless && !further && !duplicate) return;
    c.clear(kTailProbed | kTailWasRepeat);
    if (needless || !further || c.recovery() != RecoveryState::Open) return;
    count(shm::Counter::TcpTailRepairs);
    if (c.negotiated(shm::kNegotiatedEcn)) c.set_ecn(kEcnOweCwr);
    congestion_loss(c, {.now = report.now, .in_flight_bytes = report.in_flight_bytes});
}

}  // namespace chiru::tcp
