// SPDX-License-Identifier: Apache-2.0
//
// LISTEN, SYN-SENT and SYN-RECEIVED (RFC 9293 §3.10.7.2, §3.10.7.3), and what the two ends agree
// on there (RFC 6691, 7323, 2018).
#include "stack/tcp/machine.hpp"

#include "stack/tcp/isn.hpp"
#include "stack/tcp/rtt.hpp"
#include "stack/wire/tcp.hpp"

#include <algorithm>
#include <cerrno>

namespace chiru::tcp {

using shm::Counter;
using wire::kAck;
using wire::kRst;
using wire::kSyn;

namespace {

constexpr std::uint32_t kRtoAfterSynUs = 3'000'000;
/// How long a peer has to end what it had of before.
constexpr Micros kHalfOpenPatience = std::chrono::milliseconds(2);
/// A peer that announces less would make us send mostly headers.
constexpr std::uint32_t kMinMss = 64;

}  // namespace

/// `max_segment` is TCP_MAXSEG, in either direction; 0: the path's.
void Machine::begin_send_space(Connection& c, const Path& path, std::uint32_t max_segment,
                               Instant now) {
    const Initials first = initials(config_.secret, tuple_of(c), now);
    c.path = path;
    c.info.interface = path.interface;
    c.info.iss = first.iss.raw();
    c.ts_offset = first.ts_offset;
    c.info.snd_una = c.info.iss;
    c.info.snd_nxt = c.info.snd_end = c.info.iss + 1;
    c.info.rto_us = static_cast<std::uint32_t>(config_.tcp.initial_rto.count());
    c.info.ssthresh_bytes = CongestionWindow{}.ssthresh_bytes;
    c.info.rcv_shift = shift_for(config_.tcp.receive_buffer_bytes);
    choose_receive_buffer(c, 0);
    c.info.rcv_wnd = std::min(kFirstWindow, c.info.rcv_buffer_bytes);
    if (max_segment != 0)
        c.info.peer_mss = static_cast<std::uint16_t>(std::clamp(max_segment, kMinMss, 65'535u));
    c.info.mss = mss_for(c, path.mtu);
    choose_congestion(c, choice(path.interface).congestion);
}

// Takes the peer's SYN: its sequence number and its options.
void Machine::negotiate(Connection& c, const Segment& seg, Instant now) {
    c.info.irs = seg.seq.raw();
    c.info.rcv_nxt = c.info.irs + 1;
    c.last_ack_sent = c.rcv_nxt();
    const std::uint32_t absent = c.info.remote_address.is_v4() ? 536 : 1220;  // RFC 9293 §3.7.1
    std::uint32_t peer_mss = std::max(seg.has_mss ? seg.mss : absent, kMinMss);
    if (c.info.peer_mss != 0) peer_mss = std::min<std::uint32_t>(peer_mss, c.info.peer_mss);
    c.info.peer_mss = static_cast<std::uint16_t>(peer_mss);
    std::uint8_t agreed = 0;
    if (seg.has_timestamps) {
        agreed |= shm::kNegotiatedTimestamps;
        c.info.ts_recent = seg.ts_value;
    }
    if (seg.sack_permitted) agreed |= shm::kNegotiatedSack;
    if (seg.has_shift) {
        agreed |= shm::kNegotiatedWindowScale;
        c.info.snd_shift = seg.shift;
    } else {
        c.info.rcv_shift = 0;
    }
    c.info.negotiated = agreed;
    negotiate_ecn(c, seg);
    c.info.mss = mss_for(c, c.path.mtu);
    c.info.cwnd_bytes = initial_window(c.info.mss);
    c.info.snd_wnd = c.info.max_snd_wnd = seg.wnd;  // never scaled in a SYN
    c.info.snd_wl1 = seg.seq.raw();
    c.info.last_received_us = now.time_since_epoch().count();
}

Counter Machine::listen_arrives(Arrival& a, const Tuple& tuple, Listener& listener) {
    const Segment& seg = a.seg;
    if (seg.has(kRst)) return Counter::InNoSocket;  // first
    if (seg.has(kAck)) {                            // second
        if (a.now < listener.cookies_until && !seg.has(kSyn))
            return cookie_arrives(a, tuple, listener);
        answer_nobody(a, tuple);
        return Counter::InNoSocket;
    }
    if (!seg.has(kSyn) || seg.has(wire::kFin)) return Counter::InImpossible;  // third, fourth

    if (listener.info.waiting >= std::max(listener.info.backlog, 1u)) {
        ++listener.info.refused;
        return Counter::InNoListenerRoom;
    }
    if (wants_cookies(listener)) return answer_with_cookie(a, tuple, listener);
    const auto route = lower_.route(tuple.remote, tuple.local, a.in.interface);
    if (!route) return Counter::InNoConnectionRoom;
    const Index self = open_block(tuple, a.now);
    if (self == kNil) return Counter::InNoConnectionRoom;

    Connection& c = connections_[self];
    c.info.state = TcpState::SynReceived;
    c.set(kPassive | kOweSyn);
    begin_send_space(c, route->path, listener.max_segment, a.now);
    negotiate(c, seg, a.now);
    join_half_open(c, self, static_cast<Index>(&listener - listeners_.data()));
    mark_output(c, self);
    a.self = self;
    if (opens_early(c, a, listener)) join_waiting(c, self, a.now);
    return Counter::InAccepted;  // other text that came with the SYN comes again
}

Counter Machine::syn_sent_arrives(Connection& c, Arrival& a) {
    Segment& seg = a.seg;
    if (seg.has(kAck) && (seg.ack <= Seq(c.info.iss) || seg.ack > c.snd_nxt())) {  // first
        if (seg.has(kRst)) return Counter::InBadAck;
        reply_reset(a, tuple_of(c), seg.ack, Seq(0), kRst);
        // A connection of before, it seems (§3.5.1), which that reset ends: ask again, once.
        if (c.info.timeouts == 0 && c.retransmit_at != kNever)
            c.retransmit_at = std::min(c.retransmit_at, a.now + kHalfOpenPatience);
        return Counter::InBadAck;
    }
    if (seg.has(kRst)) {  // second
        if (!seg.has(kAck)) return Counter::InBadAck;
        count(Counter::TcpOpenFailed);
        end(c, a.self, ECONNREFUSED);
        return Counter::InReset;
    }
    if (!seg.has(kSyn)) return Counter::InImpossible;  // fourth, fifth

    const bool answered_first = c.info.timeouts == 0;
    negotiate(c, seg, a.now);
    if (!seg.has(kAck)) {  // both ends open at once
        c.info.state = TcpState::SynReceived;
        c.set(kOweSyn);
        mark_output(c, a.self);
        return Counter::InAccepted;
    }
    measure_handshake(c, seg, answered_first, a.now);
    fast_open_answered(c, seg, a.now);
    land_syn_text(c, a.self, seg.ack);
    established(c, a.self, a.now);
    owe_ack(c, a.self);
    // "If there are other controls or text in the segment [...] continue processing".
    seg.seq += 1;
    seg.flags = static_cast<std::uint8_t>(seg.flags & ~kSyn);
    return take_text(c, a).value_or(Counter::InAccepted);
}

// TCP_DEFER_ACCEPT: an ACK that brings no text is not worth waking a server for. The handshake
// stays open until text comes, or for as long as the listener says.
bool Machine::deferred(const Connection& c, const Segment& seg, Instant now) const {
    const std::uint32_t defer_s = listeners_[c.listener].defer_s;
    if (defer_s == 0 || !seg.text.empty() || seg.has(wire::kFin)) return false;
    return now < Instant(Micros(c.info.opened_us)) + std::chrono::seconds(defer_s);
}

/// The SYN's round trip. If none is known because it was repeated, data begins with the timer of
/// RFC 6298 §5.7, not with what the handshake had backed off to.
void Machine::measure_handshake(Connection& c, const Segment& seg, bool answered_first,
                                Instant now) {
    // Behind an early SYN-ACK text may have gone already.
    const Instant sent{Micros(c.early() ? c.info.opened_us : c.info.last_sent_us)};
    if (answered_first || answers(c, seg, sent))
        sample_rtt(c.info, static_cast<std::uint32_t>((now - sent).count()), config_.tcp);
    else
        c.info.rto_us = kRtoAfterSynUs;
}

Verdict Machine::syn_received_ack(Connection& c, Arrival& a) {
    const Segment& seg = a.seg;
    if (seg.ack <= c.snd_una() || seg.ack > c.snd_nxt()) {
        reply_reset(a, tuple_of(c), seg.ack, Seq(0), kRst);
        return Counter::InBadAck;
    }
    if (c.info.last_sent_us != 0 && c.info.srtt_us == 0)
        measure_handshake(c, seg, c.info.timeouts == 0, a.now);
    if (c.has(kPassive) && !c.early() && deferred(c, seg, a.now)) return Counter::InAccepted;
    // An early connection has sent as others do, and the next step sees to it.
    if (!c.early()) land_syn_text(c, a.self, seg.ack);
    c.info.snd_wl1 = seg.seq.raw();
    c.info.snd_wnd = c.info.max_snd_wnd = seg.wnd << c.info.snd_shift;
    established(c, a.self, a.now);
    return kContinue;
}

void Machine::established(Connection& c, Index self, Instant now) {
    c.info.state = TcpState::Established;
    // One repeat may have been a timer that was too short for the path, two are congestion
    // (RFC 6928 §2, RFC 5681 §3.1).
    if (c.info.timeouts > 1) c.info.cwnd_bytes = std::min(c.info.cwnd_bytes, c.info.mss);
    c.info.timeouts = 0;
    c.retransmit_at = kNever;
    c.clear(kOweSyn);
    begin_small(c);
    lower_.confirm(c.path, now);
    arm_keep_alive(c, now);
    if (c.early()) arm_retransmit(c, now);
    else take_back_syn_text(c);
    if (c.has(kPassive)) {
        count(Counter::TcpPassiveOpens);
        if (c.early()) leave_early(c);
        else join_waiting(c, self, now);
    } else {
        tell(c, self, kEventConnected);
    }
    if (c.has(kFinQueued)) c.info.state = TcpState::FinWait1;
}

// A SYN may open a new connection where the old one still rests, if it is clearly a newer one
// (RFC 9293 §3.10.7.4, fourth; RFC 6191 §2).
bool Machine::recycles(const Connection& c, const Segment& seg) const {
    if (c.info.state != TcpState::TimeWait || !seg.has(kSyn) || seg.has(kAck | kRst)) return false;
    if (seg.has_timestamps && c.negotiated(shm::kNegotiatedTimestamps)) {
        const auto newer = static_cast<std::int32_t>(seg.ts_value - c.info.ts_recent);
        if (newer != 0) return newer > 0;
    }
    return seg.seq > c.rcv_nxt();
}

}  // namespace chiru::tcp
