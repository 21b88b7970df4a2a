// SPDX-License-Identifier: Apache-2.0
//
// What was thought lost and was not: proofs of it, the window's way back (RFC 4015), and timers
// that learn to wait longer.
#include "stack/tcp/machine.hpp"

#include "stack/tcp/rtt.hpp"

#include <algorithm>

namespace chiru::tcp {

using shm::RecoveryState;

namespace {

/// How long all connections go by what one learnt about early time-outs.
constexpr Micros kEarlyMemory = std::chrono::seconds(1);
/// An echo may be older than the round trip: the ACK it first came with was lost. So it counts for
/// no more than this.
constexpr std::uint32_t kLongestEchoMs = 1000;

}  // namespace

/// What a recovery changes first, so that it can be taken back. Without a record that is the
/// window alone.
void Machine::remember_for_undo(Connection& c, Instant now) {
    // Not again when a time-out comes on top: an echo of the first repeat would prove it needless
    // (RFC 3522 §3.2).
    if (c.undo_cwnd != 0 && c.recovering()) return;
    c.undo_cwnd = c.info.cwnd_bytes;
    if (Extra* known = need_extra(c); known != nullptr)
        known->undo = {c.congestion, c.info.ssthresh_bytes, c.snd_una(), 0, 0};
    c.undo_stamp = timestamp(c, now);
}

/// In a recovery that ACKs began, one hole may have been an overtaken segment and others losses:
/// while a repeat is on its way nothing is proven of its segment.
bool Machine::repeat_outstanding(const Connection& c) const {
    if (c.recovery() != RecoveryState::Fast) return false;
    for (Index i = c.flight_head; i != kNil; i = send_.flights()[i].next) {
        const Flight& f = send_.flights()[i];
        if (f.has(kRepeated) && !f.has(kSacked)) return true;
    }
    return false;
}

/// Proofs that nothing had been lost: an ACK that echoes a timestamp from before the first repeat
/// (Eifel, RFC 3522 §3.2), and the peer's word (RFC 3708 §3): after a time-out that it got the
/// repeat twice, else that it got twice all that was repeated. The last of these words may come
/// when the recovery is over.
void Machine::try_undo(Connection& c, const AckReport& report, const Segment& seg) {
    if (c.undo_cwnd == 0) return;
    const bool open = c.recovery() == RecoveryState::Open;
    if (report.echoed && !open) {  // there was congestion all the same (RFC 4015 §3.4)
        c.spurious = kNoTest;
        return;
    }
    const bool echoed = !open && seg.has_timestamps && c.negotiated(shm::kNegotiatedTimestamps) &&
                        static_cast<std::int32_t>(seg.ts_echo - c.undo_stamp) < 0;
    // A duplicate from below this recovery was an earlier one's, or the network's.
    Extra* known = extra(c);
    const bool ours = known == nullptr ? report.needless_repeat : report.needless_bytes > 0;
    bool told = ours && c.recovery() == RecoveryState::AfterTimeout;
    if (known != nullptr && report.needless_bytes > 0) {
        if (open || c.recovery() == RecoveryState::Fast) widen_reordering(c);
        known->undo.needless_bytes += report.needless_bytes;
        const bool all = known->undo.needless_bytes >= known->undo.repeated_bytes;
        told = told || (all && known->undo.repeated_bytes > 0);
    }
    if (echoed && report.acked_bytes > 0 && !repeat_outstanding(c)) {
        // The echo measures where Karn's rule forbids the flight to (RFC 7323 §4.1): without it
        // the estimate would never learn of a round trip longer than the timer.
        const std::uint32_t ms = timestamp(c, report.now) - seg.ts_echo;
        sample_rtt(c.info, std::min(ms, kLongestEchoMs) * 1000, config_.tcp);
        undo(c);
    } else if (told || proven_spurious(c, report)) {
        undo(c);
    }
}

/// Timestamps tell by themselves; without them the time-out is put to the test, unless losses were
/// known before.
void Machine::begin_spurious_test(Connection& c) {
    const bool worth = c.info.timeouts == 1 && !c.recovering() &&
                       !c.negotiated(shm::kNegotiatedTimestamps);
    c.spurious = worth ? kAwaitAck : kNoTest;
}

/// F-RTO (RFC 5682 §2.1, §3.1): when the ACK of what was sent again is followed by one of text that
/// was not, that text had been on its way all along. It asks for new text to send in between.
bool Machine::proven_spurious(Connection& c, const AckReport& report) {
    if (c.spurious == kNoTest) return false;
    const bool proven = c.spurious == kAwaitNext && report.original;
    const bool goes_on = c.spurious == kAwaitAck && report.acked_bytes > 0 &&
                         c.snd_una() < c.recover && c.unsent_bytes() > 0 &&
                         c.info.snd_wnd > c.outstanding_bytes();
    c.spurious = goes_on ? kAwaitNext : kNoTest;
    return proven;
}

/// The window goes back to what it was (RFC 4015 §3.2), and the timer learns.
void Machine::undo(Connection& c) {
    if (c.recovery() == RecoveryState::AfterTimeout) {
        count(shm::Counter::TcpSpuriousTimeouts);
        learn_patience(c);
    } else {
        count(shm::Counter::TcpSpuriousRecoveries);
        c.set(kReorderSeen);
    }
    send_.mark_found(c);
    c.info.cwnd_bytes = std::max(c.info.cwnd_bytes, c.undo_cwnd);
    if (const Extra* known = extra(c); known != nullptr) {
        c.congestion = known->undo.congestion;
        c.info.ssthresh_bytes = known->undo.ssthresh_bytes;
    } else {
        c.info.ssthresh_bytes = std::max(c.info.ssthresh_bytes, c.undo_cwnd);
    }
    if (Bbr* bbr = bbr_of(c); bbr != nullptr) bbr->on_undo();
    update_pacing(c);
    c.enter(RecoveryState::Open);
    c.spurious = kNoTest;
    c.delivery.round = {};
    c.info.dup_acks = 0;
    c.undo_cwnd = 0;
}

void Machine::learn_patience(Connection& c) {
    if (c.info.rto_patience < kMaxPatience) ++c.info.rto_patience;
    if (now_ >= early_until_ || c.info.rto_patience > early_patience_)
        early_patience_ = c.info.rto_patience;
    early_until_ = now_ + kEarlyMemory;
    if (c.info.srtt_us != 0) c.info.rto_us = estimated_rto(c.info, config_.tcp);
}

/// A time-out is due, but others have just proved to be early: when peers are overloaded, each of
/// thousands of connections need not find that out for itself. Returns whether to wait longer.
bool Machine::wait_as_others(Connection& c, Instant now) {
    if (c.info.timeouts != 0 || now >= early_until_ || c.info.rto_patience >= early_patience_)
        return false;
    c.info.rto_patience = early_patience_;
    if (c.info.srtt_us == 0) return false;
    c.info.rto_us = estimated_rto(c.info, config_.tcp);
    const std::uint32_t waited = low_us(now) - send_.flights()[c.flight_head].sent_us;
    if (waited >= c.info.rto_us) return false;
    c.retransmit_at = now + Micros(c.info.rto_us - waited);
    return true;
}

}  // namespace chiru::tcp
