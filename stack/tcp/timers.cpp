// SPDX-License-Identifier: Apache-2.0
//
// Time-outs (RFC 9293 §3.8.1, §3.8.4, §3.8.6.1, §3.10.8).
#include "stack/tcp/machine.hpp"

#include "stack/tcp/rtt.hpp"

#include <algorithm>
#include <cerrno>

namespace chiru::tcp {

using shm::Counter;

namespace {

/// Time-outs at one turn; the others come with the next.
constexpr int kTimeoutBatch = 1024;
constexpr std::uint32_t kSynAckRetries = 5;
constexpr std::uint32_t kMinPersistUs = 200'000;
/// Probes and repeats for a client that is gone: with the interval doubling, a minute or three.
constexpr std::uint32_t kOrphanProbes = 7;

Micros seconds_or(std::uint16_t wish_s, Micros otherwise) {
    return wish_s == 0 ? otherwise : Micros(std::chrono::seconds(wish_s));
}

/// Wraps after 49 days, longer than a user time-out can be.
std::uint32_t low_ms(Instant now) {
    return static_cast<std::uint32_t>(now.time_since_epoch().count() / 1000);
}

}  // namespace

void Machine::advance(Instant now) {
    now_ = now;
    published_.now_us = now.time_since_epoch().count();
    for (int fired = 0; fired < kTimeoutBatch; ++fired) {
        const Index self = wheel_.pop_due(now);
        if (self == kNil) break;
        Connection& c = connections_[self];
        fire(c, self, now);
        if (c.info.state != TcpState::Closed && c.info.state != TcpState::Free) schedule(c, self);
    }
    rest_windows(now);
    detach_some(now);
    flush_slots();
}

Instant Machine::next_deadline() const {
    if (!ending_.empty()) return Instant{};
    if (growing_.empty()) return wheel_.next();
    return std::min(wheel_.next(), extras_[growing_.head].window.look_at);
}

// The wheel knows one deadline that was true once: see which timers are due by now.
void Machine::fire(Connection& c, Index self, Instant now) {
    if (c.ack_at <= now) {
        c.ack_at = kNever;
        count(Counter::TcpDelayedAcks);
        owe_ack(c, self);
    }
    if (c.reorder_at <= now) {
        if (detect_by_time(c, now)) {
            AckReport nothing_new;
            nothing_new.now = now;
            if (!c.recovering()) recover_fast(c, nothing_new);
            c.set(kForceOne);
            mark_output(c, self);
        }
    }
    if (c.retransmit_at <= now) {
        c.retransmit_at = kNever;
        if (c.info.state == TcpState::SynSent || c.info.state == TcpState::SynReceived) {
            handshake_timeout(c, self, now);
        } else if (c.has(kTailArmed) && c.flight_head != kNil) {
            c.clear(kTailArmed);
            c.set(kOweTail);
            c.retransmit_at = now + Micros(c.info.rto_us);
            mark_output(c, self);
        } else if (c.flight_head != kNil) {
            if (!wait_for_repeat(c, now) && !wait_as_others(c, now))
                retransmit_timeout(c, self, now);
        } else {
            persist_timeout(c, self, now);
        }
        if (c.info.state == TcpState::Closed || c.info.state == TcpState::Free) return;
    }
    if (pace_deadline(c) <= now) mark_output(c, self);
    if (c.life_at <= now) life_timeout(c, self, now);
}

/// The timer runs since the last progress; what went again since then, or could not yet for its
/// pace, has a round trip of its own to be answered in. Returns whether to wait for it.
bool Machine::wait_for_repeat(Connection& c, Instant now) {
    if (c.info.timeouts != 0) return false;  // that timer began with the repeat itself
    const std::uint32_t waited = low_us(now) - send_.flights()[c.flight_head].sent_us;
    if (nothing_left_yet(c)) c.retransmit_at = now + Micros(c.info.rto_us);
    else if (waited < c.info.rto_us) c.retransmit_at = now + Micros(c.info.rto_us - waited);
    else return false;
    return true;
}

bool Machine::gave_up(Connection& c, Instant now, std::uint32_t limit) const {
    if (c.info.user_timeout_ms == 0) return c.info.timeouts > limit;
    if (c.info.timeouts == 0) return false;
    // Not since the peer was last heard: a connection may rest before it sends.
    return low_ms(now) - c.unanswered_since_ms >= c.info.user_timeout_ms;
}

/// Does the peer's window no longer take what must be sent again?
bool Machine::closed_to_repeats(const Connection& c) const {
    if (c.flight_head == kNil) return false;
    return c.info.snd_wnd < std::min(send_.flights()[c.flight_head].length, c.info.mss);
}

// One more question to a closed window, by a probe or by a repeat that it will not take. However
// many there were, a peer that answers lives (§3.8.6, §3.8.6.1; RFC 1122 §4.2.2.17). The user's
// time-out ends also what is answered: such answers are no progress.
bool Machine::probed_in_vain(Connection& c, Instant now) {
    if (c.info.user_timeout_ms != 0) return gave_up(c, now, config_.tcp.retries);
    if (c.keep_probes > config_.tcp.retries) return true;
    ++c.keep_probes;
    return false;
}

/// A pause, cut where the user's time-out ends it.
Micros Machine::within_user_timeout(const Connection& c, Micros pause, Instant now) const {
    if (c.info.user_timeout_ms == 0 || c.info.timeouts == 0) return pause;
    const std::uint32_t waited = low_ms(now) - c.unanswered_since_ms;
    const std::uint32_t left = c.info.user_timeout_ms - std::min(waited, c.info.user_timeout_ms);
    return std::min(pause, Micros(std::chrono::milliseconds(std::max(left, 1u))));
}

void Machine::count_timeout(Connection& c, Instant now) {
    if (c.info.timeouts == 0) c.unanswered_since_ms = low_ms(now - Micros(c.info.rto_us));
    if (c.info.timeouts < 0xff) ++c.info.timeouts;
}

// RFC 6298 §5.4 to 5.7: the oldest goes again, the timer is backed off; all that is not known to
// have arrived is thought lost, and goes again as the window grows.
void Machine::retransmit_timeout(Connection& c, Index self, Instant now) {
    count_timeout(c, now);
    count(Counter::TcpTimeouts);
    const bool orphan = is_orphan(c);
    const std::uint32_t limit =
        orphan ? std::min(config_.tcp.retries, kOrphanProbes) : config_.tcp.retries;
    if (!orphan && closed_to_repeats(c) ? probed_in_vain(c, now) : gave_up(c, now, limit)) {
        count(Counter::TcpTimedOut);
        reset(c, self, c.info.error != 0 ? c.info.error : ETIMEDOUT);
        return;
    }
    probe_timed_out(c, now);
    suspect_black_hole(c);
    // A peer may take back what it told by SACK (RFC 2018 §8): one that does not acknowledge the
    // first hole's successor has.
    if (send_.flights()[c.flight_head].has(kSacked)) send_.forget_sack(c);
    begin_spurious_test(c);
    if (c.info.timeouts == 1)
        enter_recovery(c, shm::RecoveryState::AfterTimeout,
                       {.now = now, .in_flight_bytes = c.outstanding_bytes(), .timeout = true}, 0);
    c.recover = c.snd_nxt();
    for (Index i = c.flight_head; i != kNil; i = send_.flights()[i].next) send_.mark_lost(c, i);
    c.info.dup_acks = 0;
    c.reorder_at = kNever;
    c.clear(kOweTail);
    c.set(kForceOne);
    back_off(c.info, config_.tcp);
    c.retransmit_at = now + within_user_timeout(c, Micros(c.info.rto_us), now);
    mark_output(c, self);
}

void Machine::handshake_timeout(Connection& c, Index self, Instant now) {
    // The peer has the SYN-ACK, as its ACK told, and it is our wish to wait for its text.
    if (c.has(kPassive) && c.info.srtt_us != 0 && listeners_[c.listener].defer_s != 0) {
        const Instant end = Instant(Micros(c.info.opened_us)) +
                            std::chrono::seconds(listeners_[c.listener].defer_s);
        if (now < end) {
            c.retransmit_at = end;
            return;
        }
    }
    count_timeout(c, now);
    const std::uint32_t limit = c.has(kPassive) ? kSynAckRetries : config_.tcp.syn_retries;
    if (gave_up(c, now, limit)) {
        count(Counter::TcpTimedOut);
        count(Counter::TcpOpenFailed);
        end(c, self, ETIMEDOUT);
        return;
    }
    count(Counter::TcpTimeouts);
    count(Counter::TcpRetransmits);
    ++c.info.retransmitted_segments;
    back_off(c.info, config_.tcp);
    fast_open_timeout(c);
    c.clear_ecn(kEcnAsk);  // somebody on the path may drop such SYNs (RFC 3168 §6.1.1.1)
    c.set(kOweSyn);
    c.retransmit_at = now + Micros(c.info.rto_us);
    mark_output(c, self);
}

// Nothing is in flight, and something waits: for the peer's window, for a full segment, or for the
// client to go on. A window that stays closed is probed for as long as the peer answers
// (§3.8.6.1).
void Machine::persist_timeout(Connection& c, Index self, Instant now) {
    if (c.unsent_bytes() == 0 && !(c.has(kFinQueued) && !c.has(kFinSent))) return;
    mark_output(c, self);
    if (c.info.snd_wnd > 0) {
        c.set(kOverride);
        c.clear(kMoreToCome);
        return;
    }
    if ((c.has(kClientGone) && c.info.timeouts >= kOrphanProbes) || probed_in_vain(c, now)) {
        count(Counter::TcpTimedOut);
        reset(c, self, ETIMEDOUT);
        return;
    }
    count_timeout(c, now);
    c.info.timeouts = std::min<std::uint8_t>(c.info.timeouts, 16);
    c.set(kOweProbe);
    arm_persist(c, now);
}

void Machine::arm_persist(Connection& c, Instant now) {
    if (c.flight_head != kNil || c.retransmit_at != kNever) return;
    if (c.unsent_bytes() == 0 && !(c.has(kFinQueued) && !c.has(kFinSent))) return;
    const std::uint64_t wait = std::uint64_t{std::max(c.info.rto_us, kMinPersistUs)}
                               << std::min<unsigned>(c.info.timeouts, 16u);
    const Micros pause = std::min(Micros(static_cast<std::int64_t>(wait)), config_.tcp.max_rto);
    c.retransmit_at = now + within_user_timeout(c, pause, now);
}

void Machine::arm_keep_alive(Connection& c, Instant now) {
    if (!c.has(kKeepAlive)) {
        if (c.info.state != TcpState::TimeWait && c.info.state != TcpState::FinWait2)
            c.life_at = kNever;
        return;
    }
    c.life_at = now + seconds_or(c.info.keep_idle_s, config_.tcp.keep_idle);
}

// Keep-alive, or the end: of TIME-WAIT, of an orphan in FIN-WAIT-2, of a farewell.
void Machine::life_timeout(Connection& c, Index self, Instant now) {
    c.life_at = kNever;
    const bool orphan = c.info.state == TcpState::FinWait2 && c.has(kClientGone);
    if (c.info.state == TcpState::TimeWait || orphan) {
        end(c, self, 0);
        return;
    }
    if (c.has(kClientGone)) {
        if (extend_farewell(c, now)) return;
        count(Counter::TcpOrphansReset);
        reset(c, self, ETIMEDOUT);
        return;
    }
    if (!c.has(kKeepAlive)) return;
    const Micros idle_limit = seconds_or(c.info.keep_idle_s, config_.tcp.keep_idle);
    const Instant heard{Micros(c.info.last_received_us)};
    if (c.keep_probes == 0 && heard + idle_limit > now) {
        c.life_at = heard + idle_limit;
        return;
    }
    const std::uint32_t most = c.info.keep_count != 0 ? c.info.keep_count : config_.tcp.keep_count;
    if (c.keep_probes >= most) {
        count(Counter::TcpTimedOut);
        reset(c, self, ETIMEDOUT);
        return;
    }
    c.life_at = now + seconds_or(c.info.keep_interval_s, config_.tcp.keep_interval);
    if (c.flight_head != kNil) return;  // the retransmission timer asks already
    ++c.keep_probes;
    c.set(kOweKeepAlive);
    mark_output(c, self);
}

}  // namespace chiru::tcp
