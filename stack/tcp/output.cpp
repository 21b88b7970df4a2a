// SPDX-License-Identifier: Apache-2.0
//
// What may be sent, and how much of it (RFC 9293 §3.7, §3.8.6.2.1; RFC 896). frames.cpp makes the
// frames.
//
// transmit() asks the connections that owe something, in turn, a few frames each.
#include "stack/tcp/machine.hpp"

#include "base/check.hpp"
#include "stack/tcp/rtt.hpp"
#include "stack/wire/tcp.hpp"

#include <algorithm>
#include <cerrno>

namespace chiru::tcp {

using shm::Counter;
using wire::kAck;
using wire::kFin;
using wire::kPsh;
using wire::kRst;
using wire::kSyn;

namespace {

/// Frames of one connection before it is another's turn, and bytes: some are many segments.
constexpr std::size_t kTurnFrames = 16;
constexpr std::size_t kTurnBytes = 65'536;
/// When to look again for a free flight record.
constexpr Micros kStarvedPatience = std::chrono::milliseconds(1);
constexpr Micros kHoldPatience = std::chrono::milliseconds(200);

}  // namespace

std::size_t Machine::transmit(std::span<TxFrame> frames, Instant now) {
    now_ = now;
    Sink out{frames, 0, now};
    while (reply_count_ > 0 && !out.full()) {
        emit_reply(replies_[reply_first_], out);
        reply_first_ = (reply_first_ + 1) % kReplies;
        --reply_count_;
    }
    emit_edges(out);
    while (!output_.empty() && !out.full()) {
        const Index self = output_.head;
        Connection& c = connections_[self];
        output_.remove(connections_.data(), self);
        c.clear(kInOutput);
        const Outcome outcome = emit(c, self, out);
        if (outcome == Outcome::Gone) continue;
        if (outcome == Outcome::More || outcome == Outcome::NoFrame) mark_output(c, self);
        schedule(c, self);
    }
    flush_slots();
    return out.used;
}

Machine::Outcome Machine::emit(Connection& c, Index self, Sink& out) {
    if (c.has(kOweReset)) return emit_reset(c, self, out);
    if (c.info.state == TcpState::Closed) return Outcome::Gone;
    if (c.has(kOweSyn)) return emit_syn(c, self, out);
    if (c.info.state == TcpState::SynReceived && !c.early())
        return c.has(kOweAck) ? emit_ack(c, self, out, c.snd_nxt()) : Outcome::Done;
    if (!synchronized(c.info.state) && !c.early()) return Outcome::Done;

    // Beside text there is no room for SACK blocks, and a gap must be told.
    if (c.has(kOweAck) && (c.sack_count > 0 || c.has(kDsackOwed)))
        if (const Outcome o = emit_ack(c, self, out, c.snd_nxt()); o != Outcome::Done) return o;

    std::size_t bytes = 0;
    for (std::size_t turn = 0; turn < kTurnFrames && bytes < kTurnBytes; ++turn) {
        bool sent = false;
        Outcome o = Outcome::Done;
        if (!waits_for_pace(c, out.now)) {
            o = emit_lost(c, self, out, sent);
            if (o == Outcome::Done && !sent) o = emit_new(c, self, out, sent);
        }
        if (o == Outcome::Waiting && c.has(kOweAck)) return emit_ack(c, self, out, c.snd_nxt());
        if (o != Outcome::Done) return o;
        if (!sent) {
            if (c.has(kOweTail)) o = emit_tail_probe(c, self, out);
            else if (c.has(kOweProbe | kOweKeepAlive)) o = emit_probe(c, self, out);
            else if (c.has(kOweAck)) o = emit_ack(c, self, out, c.snd_nxt());
            return o;
        }
        if (out.full()) return Outcome::NoFrame;
        bytes += out.frames[out.used - 1].length();
    }
    return Outcome::More;
}

Machine::Outcome Machine::emit_syn(Connection& c, Index self, Sink& out) {
    if (out.full()) return Outcome::NoFrame;
    const bool answer = c.info.state == TcpState::SynReceived;
    std::uint8_t flags = answer ? kSyn | kAck : kSyn;
    if (answer ? c.negotiated(shm::kNegotiatedEcn) : c.has_ecn(kEcnAsk))
        flags |= answer ? wire::kEce : wire::kEce | wire::kCwr;
    Payload text{c.send_cursor, c.send_cursor_offset, 0};
    if (send_.may_launch(c)) text.length = std::min(syn_room(c), c.unsent_bytes());
    text.length = fit_slices(text, c.info.mss);
    const Outcome o = build(c, self, out, Seq(c.info.iss), flags, text);
    if (o != Outcome::Done) return o;
    note_syn_sent(c, text.length, out.now);
    c.clear(kOweSyn | kOweAck);
    c.retransmit_at = out.now + Micros(c.info.rto_us);
    return c.early() ? Outcome::More : Outcome::Done;
}

Machine::Outcome Machine::emit_reset(Connection& c, Index self, Sink& out) {
    if (out.full()) return Outcome::NoFrame;
    const Outcome o = build(c, self, out, c.snd_nxt(), kRst | kAck, {});
    if (o == Outcome::Parked || o == Outcome::Gone) unpark(c, self);  // sent once, or not at all
    else count(Counter::TcpResetsSent);
    c.clear(kOweReset);
    free_if_done(c, self);
    return Outcome::Gone;
}

Machine::Outcome Machine::emit_lost(Connection& c, Index self, Sink& out, bool& sent) {
    if (c.lost_bytes == 0 || c.spurious == kAwaitNext) return Outcome::Done;
    if (c.pipe_bytes() >= c.info.cwnd_bytes && !c.has(kForceOne)) {
        c.set(kCwndLimited);
        return Outcome::Done;
    }
    Index i = c.retransmit_hint == kNil ? c.flight_head : c.retransmit_hint;
    while (i != kNil && !send_.flights()[i].has(kLost)) i = send_.flights()[i].next;
    DCHECK(i != kNil);
    c.retransmit_hint = i;
    if (i == kNil) return Outcome::Done;
    const Outcome o = repeat(c, self, i, out);
    if (o != Outcome::Done) return o;
    if (c.recovery() == shm::RecoveryState::Fast) count(Counter::TcpFastRetransmits);
    c.clear(kForceOne);
    if (c.retransmit_at == kNever || c.has(kTailArmed)) arm_retransmit(c, out.now);
    sent = true;
    return Outcome::Done;
}

// Sends a flight again: as it is, or its first segment if it was larger than one.
Machine::Outcome Machine::repeat(Connection& c, Index self, Index flight, Sink& out) {
    if (out.full()) return Outcome::NoFrame;
    if (send_.flights()[flight].text_bytes() > c.info.mss &&
        !send_.split(c, flight, c.info.mss)) {
        if (c.retransmit_at == kNever) c.retransmit_at = out.now + kStarvedPatience;
        return Outcome::Waiting;
    }
    Flight& f = send_.flights()[flight];
    std::uint8_t flags = kAck;
    if (f.text_bytes() > 0) flags |= kPsh;
    if (f.has(kFlightFin)) flags |= kFin;
    const Payload payload{.record = f.record, .offset = f.offset, .length = f.text_bytes()};
    const Outcome o = build(c, self, out, f.first, flags, payload);
    if (o != Outcome::Done) return o;
    stamp_flight(c, f, c.pipe_bytes(), out.now);
    use_pace(c, f.text_bytes(), out.now);
    send_.relaunch(c, flight, low_us(out.now));
    ++c.info.retransmitted_segments;
    c.info.retransmitted_bytes += f.text_bytes();
    if (c.reducing()) c.delivery.reduction.sent += f.length;
    if (Extra* known = extra(c); known != nullptr && c.undo_cwnd != 0)
        known->undo.repeated_bytes += f.length;
    count(Counter::TcpRetransmits);
    return Outcome::Done;
}

// How much new text may go out now; 0 if none. The sender's half of silly window avoidance
// (§3.8.6.2.1) and Nagle's rule in Minshall's form: only a short segment waits for a short one.
std::uint32_t Machine::next_length(Connection& c, Instant now) {
    const std::uint32_t unsent = c.unsent_bytes();
    if (unsent == 0) return 0;
    const std::uint32_t in_flight = c.outstanding_bytes();
    const std::uint32_t window = c.info.snd_wnd > in_flight ? c.info.snd_wnd - in_flight : 0;
    const std::uint32_t pipe = c.pipe_bytes();
    const std::uint32_t mss = c.info.mss;
    std::uint32_t room = c.info.cwnd_bytes > pipe ? c.info.cwnd_bytes - pipe : 0;
    if (c.has(kOweTail)) room = std::max(room, mss);  // a probe goes whatever the window
    std::uint32_t length = std::min({unsent, window, room});
    if (length < std::min(unsent, mss) && room < window) {
        c.set(kCwndLimited);
        return 0;  // the congestion window grows by whole segments, so wait for one
    }
    if (room - length < mss) c.set(kCwndLimited);
    else c.clear(kCwndLimited);

    if (length >= mss) {
        // A port that cuts segments would set CWR on each of them.
        const bool single = c.has_ecn(kEcnOweCwr);
        const std::uint32_t cut = std::min({std::uint32_t{c.path.tso_bytes}, paced_burst(c),
                                            static_cast<std::uint32_t>(kMaxTxSegments) * mss});
        const std::uint32_t most = single ? mss : std::max(cut, mss);
        if (length >= most) return most / mss * mss;
        const bool tail = length == unsent && !c.has(kCork | kMoreToCome);
        if (length % mss != 0 && tail && (c.has(kNoDelay | kFinQueued))) return length;
        return length / mss * mss;
    }
    if (length == 0) return 0;
    const bool override_ended = c.has(kOverride);
    if (override_ended) return length;
    if (length == unsent) {
        if (c.has(kFinQueued)) return length;
        if (c.has(kCork | kMoreToCome)) {
            if (c.retransmit_at == kNever) c.retransmit_at = now + kHoldPatience;
            return 0;
        }
        // Both bounds: a mark of long ago, or none yet, lies anywhere in the sequence space.
        const bool short_in_flight = c.snd_una() < c.small_end && c.small_end <= c.snd_nxt();
        return c.has(kNoDelay) || !short_in_flight ? length : 0;
    }
    return length >= c.info.max_snd_wnd / 2 ? length : 0;
}

Machine::Outcome Machine::emit_new(Connection& c, Index self, Sink& out, bool& sent) {
    const bool fin_next = c.has(kFinQueued) && !c.has(kFinSent);
    if (c.unsent_bytes() == 0 && !fin_next) return Outcome::Done;
    if (c.outstanding_bytes() == 0) restart_after_idle(c, out.now);
    const ProbeChoice probe = c.extra == kNil ? ProbeChoice{} : choose_probe(c, out.now);
    if (probe.hold) return Outcome::Done;
    const std::uint32_t length = probe.text != 0 ? probe.text : next_length(c, out.now);
    const bool fin = fin_next && length == c.unsent_bytes() &&
                     (length > 0 || c.info.snd_wnd > c.outstanding_bytes() || c.has(kOverride));
    if (length == 0 && !fin) {
        arm_persist(c, out.now);
        return Outcome::Done;
    }
    if (out.full()) return Outcome::NoFrame;
    if (!send_.may_launch(c)) {  // ACKs will bring some
        if (c.retransmit_at == kNever) c.retransmit_at = out.now + kStarvedPatience;
        return Outcome::Waiting;
    }

    Payload payload{c.send_cursor, c.send_cursor_offset, length, probe.text != 0};
    payload.length = fit_slices(payload, std::max(c.info.mss, probe.text));
    const bool all = payload.length == c.unsent_bytes();
    std::uint8_t flags = kAck;
    if (all && payload.length > 0) flags |= kPsh;
    if (fin && all) flags |= kFin;
    const Outcome o = build(c, self, out, c.snd_nxt(), flags, payload);
    if (o != Outcome::Done) return o;
    const bool with_fin = (flags & kFin) != 0;
    if (c.reducing()) c.delivery.reduction.sent += payload.length;
    else if (c.flight_head == kNil)
        c.delivery.round = {c.info.snd_nxt, c.info.snd_nxt + payload.length, low_us(out.now) | 1};
    const std::uint32_t pipe = c.pipe_bytes();
    const Index flight =
        send_.launch(c, payload.length + (with_fin ? 1u : 0u), with_fin, low_us(out.now));
    stamp_flight(c, send_.flights()[flight], pipe, out.now);
    use_pace(c, payload.length, out.now);
    if (with_fin) c.set(kFinSent);
    if (probe.text != 0) probe_sent(c, c.snd_nxt() - payload.length, payload.length);
    else if (payload.length % c.info.mss != 0) c.small_end = c.snd_nxt();
    if (c.has(kOweTail)) tail_probed(c, false);
    c.clear(kOverride);
    c.info.tx_bytes += payload.length;
    tell_launched(c, self);
    if (c.session != kNobody && sessions_[c.session].config.counters != nullptr)
        sessions_[c.session].config.counters->tx_bytes.add(payload.length);
    if (c.retransmit_at == kNever || c.has(kTailArmed) || c.flight_head == flight)
        arm_retransmit(c, out.now);
    else arm_tail_probe(c, out.now);
    sent = true;
    return Outcome::Done;
}

// A segment the peer must refuse, and so answer: one number below its window. Zero-window probes
// and keep-alives (RFC 9293 §3.8.4, §3.8.6.1) carry no octet of text, for some peers would keep it.
Machine::Outcome Machine::emit_probe(Connection& c, Index self, Sink& out) {
    const Outcome o = emit_ack(c, self, out, c.snd_una() - 1);
    if (o != Outcome::Done) return o;
    if (c.has(kOweProbe)) count(Counter::TcpZeroWindowProbes);
    else count(Counter::TcpKeepAlives);
    c.clear(kOweProbe | kOweKeepAlive);
    return Outcome::Done;
}

Machine::Outcome Machine::emit_ack(Connection& c, Index self, Sink& out, Seq seq) {
    if (out.full()) return Outcome::NoFrame;
    return build(c, self, out, seq, kAck, {});
}

void Machine::wake_replies(std::uint32_t neighbor, bool reachable) {
    for (WaitingReply& waiting : waiting_replies_) {
        if (waiting.neighbor != neighbor) continue;
        waiting.neighbor = kNil;
        if (reachable) reply(waiting.reply);
    }
}

Machine::Outcome Machine::undeliverable(Connection& c, Index self, BeginResult result,
                                        Instant now) {
    if (result == BeginResult::Unresolved) {
        park(c, self);
        return Outcome::Parked;
    }
    const TcpState state = c.info.state;
    if (state == TcpState::SynSent || state == TcpState::SynReceived) {
        count(Counter::TcpOpenFailed);
        end(c, self, EHOSTUNREACH);
        return Outcome::Gone;
    }
    // An outage is no reason to give up: the timers try again, and they know when to end it.
    c.info.error = EHOSTUNREACH;
    c.clear(kOweAck | kOweProbe | kOweKeepAlive | kOweTail);
    if (c.retransmit_at != kNever) return Outcome::Parked;
    if (c.flight_head == kNil) {
        if (c.unsent_bytes() == 0 && !(c.has(kFinQueued) && !c.has(kFinSent)))
            return Outcome::Parked;
        // Nothing left yet, so nothing counts how often it should have.
        count_timeout(c, now);
        if (gave_up(c, now, config_.tcp.retries)) {
            count(Counter::TcpTimedOut);
            end(c, self, EHOSTUNREACH);
            return Outcome::Gone;
        }
        back_off(c.info, config_.tcp);
    }
    c.retransmit_at = now + Micros(c.info.rto_us);
    return Outcome::Parked;
}

void Machine::park(Connection& c, Index self) {
    if (c.has(kInOutput)) {
        output_.remove(connections_.data(), self);
        c.clear(kInOutput);
    }
    if (c.has(kParked)) return;
    c.set(kParked);
    parked_.push_back(connections_.data(), self);
}

void Machine::unpark(Connection& c, Index self) {
    if (!c.has(kParked)) return;
    c.clear(kParked);
    parked_.remove(connections_.data(), self);
}

void Machine::path_ready(std::uint32_t neighbor, bool reachable, Instant now) {
    now_ = now;
    wake_replies(neighbor, reachable);
    for (Index i = parked_.head; i != kNil;) {
        const Index self = i;
        Connection& c = connections_[self];
        i = c.output_next;
        if (c.path.neighbor != neighbor) continue;
        unpark(c, self);
        if (reachable) {
            mark_output(c, self);
            continue;
        }
        undeliverable(c, self, BeginResult::Unreachable, now);
        if (c.info.state != TcpState::Closed && c.info.state != TcpState::Free) schedule(c, self);
    }
}

void Machine::hold(SendRecord record) {
    const auto i = static_cast<Index>(record);
    DCHECK(i < send_.records().high() && send_.records()[i].device_refs > 0);
    ++send_.records()[i].device_refs;
}

void Machine::sent(SendRecord record) {
    const auto i = static_cast<Index>(record);
    if (i >= send_.records().high()) return;
    SendEntry& entry = send_.records()[i];
    DCHECK(entry.device_refs > 0);
    if (entry.device_refs == 0 || --entry.device_refs > 0) return;
    const Index self = entry.connection;
    Connection& c = connections_[self];
    if (c.send_head != i) return;
    reclaim(c, self);
    free_if_done(c, self);
}

}  // namespace chiru::tcp
