// SPDX-License-Identifier: Apache-2.0
//
// What was lost, and how fast to go on: RACK-TLP with SACK (RFC 8985, 6675), NewReno without
// (RFC 6582), and what congestion control has to say (RFC 5681, 9438).
//
// The window is kept by counting the pipe: after a loss cwnd falls to ssthresh at once, and new
// segments or repeats go out as the pipe drains below it. Limited transmit (RFC 3042) needs no
// code of its own then: every segment known to have arrived lets one go.
#include "stack/tcp/machine.hpp"

#include "stack/tcp/rtt.hpp"

#include <algorithm>

namespace chiru::tcp {

using shm::Counter;

namespace {

constexpr std::uint32_t kDupThresh = 3;
/// How long all connections go by what one learnt about early time-outs.
constexpr Micros kEarlyMemory = std::chrono::seconds(1);
/// An echo that claims to be older is a peer's mistake, or its lie.
constexpr std::uint32_t kLongestEchoMs = 60'000;
/// Frames of one burst may change places in less time than a quarter of a short round trip.
constexpr std::uint32_t kMinReorderUs = 250;
/// How long a peer may sit on the ACK of a single segment (RFC 8985 §7.2, TLP.max_ack_delay).
constexpr std::int64_t kPeerAckDelayUs = 25'000;

enum Recovery : std::uint8_t { kOpen = 0, kFast = 1, kAfterTimeout = 2 };

std::uint32_t low_us(Instant now) {
    return static_cast<std::uint32_t>(now.time_since_epoch().count());
}

/// Was the first sent after the second? Of two sent at one instant the one with the higher end.
bool sent_after(std::uint32_t us1, Seq end1, std::uint32_t us2, Seq end2) {
    const auto later = static_cast<std::int32_t>(us1 - us2);
    return later > 0 || (later == 0 && end1 > end2);
}

}  // namespace

/// RFC 8985 §6.2, steps 1 to 3: the newest transmission known to have arrived.
void Machine::note_rack(Connection& c, const Flight& f, Instant now) {
    const std::uint32_t rtt = low_us(now) - f.sent_us;
    // An ACK too early for the repeat is for the original, whose time we no longer know.
    if (f.has(kRepeated) && rtt < c.info.min_rtt_us) return;
    if (c.rack_end != Seq() && !f.has(kRepeated) && f.end() < c.rack_end &&
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
    if (c.sacked_bytes == 0 && c.info.recovery == kOpen) return false;
    std::uint32_t sacked = 0;
    for (Index i = c.flight_head; i != kNil && sacked < kDupThresh; i = send_.flights()[i].next)
        if (send_.flights()[i].has(kSacked)) ++sacked;
    const bool enough = sacked >= kDupThresh || c.sacked_bytes >= kDupThresh * c.info.mss;
    std::uint32_t window = std::max(std::min(c.info.min_rtt_us / 4, c.info.srtt_us), kMinReorderUs);
    if (!c.has(kReorderSeen) && (c.info.recovery != kOpen || enough)) window = 0;

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
    const bool partial = c.info.recovery == kFast && !duplicate;
    if (c.flight_head == kNil || (!partial && c.info.dup_acks != kDupThresh)) return false;
    if (partial) c.info.dup_acks = 0;
    const std::uint32_t before = c.lost_bytes;
    send_.mark_lost(c, c.flight_head);
    return c.lost_bytes > before;
}

void Machine::recover(Connection& c, const AckReport& report, bool duplicate, const Segment& seg) {
    const bool sack = c.negotiated(shm::kNegotiatedSack);
    try_undo(c, report, seg);
    if (report.needless_repeat && c.info.recovery == kOpen && c.has(kTailProbed)) learn_patience(c);
    if (report.acked_bytes > 0) {
        if (c.info.recovery != kOpen && c.snd_una() >= c.recover) {
            if (c.info.recovery == kAfterTimeout && c.info.rto_patience > 0)
                --c.info.rto_patience;  // this one was no false alarm
            c.info.recovery = kOpen;
            c.undo_cwnd = 0;
            c.info.dup_acks = 0;
        } else if (c.info.recovery == kOpen) {
            c.info.dup_acks = 0;
            if (c.snd_una() >= c.recover) c.clear(kTailProbed);
        }
    }
    const bool lost = sack ? detect_by_time(c, report.now) : detect_by_duplicates(c, duplicate);
    if (lost && c.info.recovery == kOpen) {
        enter_recovery(c, report.now, c.outstanding_bytes(), false);
        c.set(kForceOne);  // the first repeat does not wait for the pipe (RFC 6675 §5, 4.3)
    }
    if (c.info.recovery != kFast && report.acked_bytes > 0) congestion_ack(c, report);
}

void Machine::enter_recovery(Connection& c, Instant now, std::uint32_t in_flight, bool timeout) {
    if (c.undo_cwnd == 0) c.undo_cwnd = c.info.cwnd_bytes;
    c.undo_stamp = timestamp(c, now);
    c.info.recovery = timeout ? kAfterTimeout : kFast;
    c.recover = c.snd_nxt();
    c.clear(kTailProbed | kTailArmed);
    congestion_loss(c, {now, in_flight, timeout});
}

/// Two proofs that nothing had been lost: an ACK that echoes a timestamp from before the first
/// repeat (Eifel, RFC 3522 §3.2), and after a time-out the peer's word that it got the repeat
/// twice (RFC 3708 §3).
void Machine::try_undo(Connection& c, const AckReport& report, const Segment& seg) {
    if (c.undo_cwnd == 0 || c.info.recovery == kOpen) return;
    const bool echoed = seg.has_timestamps && c.negotiated(shm::kNegotiatedTimestamps) &&
                        static_cast<std::int32_t>(seg.ts_echo - c.undo_stamp) < 0;
    const bool told = report.needless_repeat && c.info.recovery == kAfterTimeout;
    if (echoed && report.acked_bytes > 0) {
        // The echo measures where Karn's rule forbids the flight to (RFC 7323 §4.1): without it
        // the estimate would never learn of a round trip longer than the timer.
        const std::uint32_t ms = timestamp(c, report.now) - seg.ts_echo;
        if (ms <= kLongestEchoMs) sample_rtt(c.info, ms * 1000, config_.tcp);
        undo(c);
    } else if (told) {
        undo(c);
    }
}

/// The window goes back to what it was (RFC 4015 §3.2), and the timer learns.
void Machine::undo(Connection& c) {
    if (c.info.recovery == kAfterTimeout) learn_patience(c);
    for (Index i = c.flight_head; i != kNil; i = send_.flights()[i].next)
        send_.mark_found(c, i);
    c.info.cwnd_bytes = std::max(c.info.cwnd_bytes, c.undo_cwnd);
    c.info.ssthresh_bytes = std::max(c.info.ssthresh_bytes, c.undo_cwnd);
    c.info.recovery = kOpen;
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

void Machine::congestion_ack(Connection& c, const AckReport& report) {
    CongestionWindow window{c.info.cwnd_bytes, c.info.ssthresh_bytes, c.info.mss};
    std::visit([&](auto& cc) { cc.on_ack(window, report); }, c.congestion);
    // No larger than what can ever be outstanding.
    c.info.cwnd_bytes = std::min(window.cwnd_bytes, 1u << 30);
    c.info.ssthresh_bytes = window.ssthresh_bytes;
}

void Machine::congestion_loss(Connection& c, const LossReport& report) {
    CongestionWindow window{c.info.cwnd_bytes, c.info.ssthresh_bytes, c.info.mss};
    std::visit([&](auto& cc) { cc.on_loss(window, report); }, c.congestion);
    c.info.cwnd_bytes = window.cwnd_bytes;
    c.info.ssthresh_bytes = window.ssthresh_bytes;
}

/// RFC 6298 §5.1 to 5.3, with the probe of RFC 8985 §7.2 in front where it may be sent.
void Machine::arm_retransmit(Connection& c, Instant now) {
    c.clear(kTailArmed);
    if (c.flight_head == kNil) {
        c.retransmit_at = kNever;
        return;
    }
    std::int64_t wait = c.info.rto_us;
    const bool probe = c.negotiated(shm::kNegotiatedSack) && c.info.recovery == kOpen &&
                       c.sacked_bytes == 0 && c.info.srtt_us != 0 && !c.has(kTailProbed);
    if (probe) {
        // Half the floor: sooner, it would only measure how punctual the peer's threads are.
        const std::int64_t floor = rto_floor(c.info, config_.tcp);
        std::int64_t tail = std::max<std::int64_t>(2 * std::int64_t{c.info.srtt_us}, floor / 2);
        if (c.flight_head == c.flight_tail) tail += std::max(kPeerAckDelayUs, floor);
        if (tail < wait) {
            wait = tail;
            c.set(kTailArmed);
        }
    }
    c.retransmit_at = now + Micros(wait);
}

}  // namespace chiru::tcp
