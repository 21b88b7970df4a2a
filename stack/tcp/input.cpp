// SPDX-License-Identifier: Apache-2.0
//
// SEGMENT ARRIVES, for SYN-RECEIVED and the synchronized states (RFC 9293 §3.10.7.4, as hardened
// by RFC 5961). LISTEN and SYN-SENT are in handshake.cpp; a CLOSED port answers in arrival.cpp.
#include "stack/tcp/machine.hpp"

#include "stack/wire/tcp.hpp"

#include <cerrno>

namespace chiru::tcp {

using shm::Counter;
using wire::kAck;
using wire::kFin;
using wire::kRst;
using wire::kSyn;

namespace {

/// The table of §3.10.7.4, first check. `len` is SEG.LEN: SYN and FIN count as one each.
bool acceptable(const Connection& c, Seq seq, std::uint32_t len) {
    const Seq nxt = c.rcv_nxt();
    const std::uint32_t wnd = c.info.rcv_wnd;
    if (len == 0 && wnd == 0) return seq == nxt;
    if (len == 0) return seq.in_window(nxt, wnd);
    if (wnd == 0) return false;
    return seq.in_window(nxt, wnd) || (seq + (len - 1)).in_window(nxt, wnd) ||
           (seq < nxt && nxt < seq + len);
}

}  // namespace

// The RFC's eight steps, in its order and under its names. A step says why the segment goes no
// further, or kContinue.
Counter Machine::segment_arrives(Connection& c, Arrival& a) {
    if (is_predicted(c, a.seg)) return take_predicted(c, a);
    if (auto v = check_sequence(c, a)) return *v;  // first
    if (auto v = check_reset(c, a)) return *v;     // second
    // third, security compartments: not supported
    if (auto v = check_syn(c, a)) return *v;       // fourth
    if (auto v = check_ack(c, a)) return *v;       // fifth
    // sixth, URG: the pointer is ignored and the data stays in line (RFC 6093)
    const Verdict text = take_text(c, a);          // seventh
    check_fin(c, a);                               // eighth
    return text.value_or(Counter::InAccepted);
}

/// Most segments of a stream are what was to come next, and tell nothing else: text at RCV.NXT,
/// with the ACK and the window of the one before. The eight steps would let such a one through to
/// take_in_order(), and change nothing besides what take_predicted() does (header prediction).
bool Machine::is_predicted(const Connection& c, const Segment& seg) {
    constexpr std::uint8_t kOrdinary = kAck | wire::kPsh;
    constexpr std::uint32_t kSpecial = kClientGone | kPeerFinKnown | kFinQueued;
    return c.info.state == TcpState::Established && (seg.flags | wire::kPsh) == kOrdinary &&
           seg.seq == c.rcv_nxt() && seg.ack == c.snd_una() && !seg.text.empty() &&
           seg.text.size() <= c.info.rcv_wnd && seg.wnd << c.info.snd_shift == c.info.snd_wnd &&
           seg.sack_count == 0 && c.reassembly_head == kNil && !c.has(kSpecial) &&
           !c.negotiated(shm::kNegotiatedEcn) && c.unsent_bytes() == 0 && c.lost_bytes == 0 &&
           seg.has_timestamps == c.negotiated(shm::kNegotiatedTimestamps) &&
           (!seg.has_timestamps ||
            static_cast<std::int32_t>(seg.ts_value - c.info.ts_recent) >= 0);
}

Counter Machine::take_predicted(Connection& c, Arrival& a) {
    if (a.seg.has_timestamps && a.seg.seq <= c.last_ack_sent) c.info.ts_recent = a.seg.ts_value;
    c.info.snd_wl1 = a.seg.seq.raw();
    return take_in_order(c, a).value_or(Counter::InAccepted);
}

Verdict Machine::check_sequence(Connection& c, Arrival& a) {
    Segment& seg = a.seg;
    if (c.negotiated(shm::kNegotiatedTimestamps) && seg.has_timestamps && !seg.has(kRst)) {
        const auto newer = static_cast<std::int32_t>(seg.ts_value - c.info.ts_recent);
        if (newer < 0 && !a.long_idle) {  // RFC 7323 §5.3, R1
            answer_refused(c, a);
            return Counter::InPaws;
        }
    }
    // The SYN again, perhaps with text that lies in the window: our answer got lost.
    if (c.info.state == TcpState::SynReceived && seg.has(kSyn) && !seg.has(kAck | kRst) &&
        seg.seq == Seq(c.info.irs)) {
        if (c.negotiated(shm::kNegotiatedTimestamps) && seg.has_timestamps)
            c.info.ts_recent = seg.ts_value;
        c.set(kOweSyn);
        mark_output(c, a.self);
        return Counter::InDuplicate;
    }
    // Both ends opened at once (§3.5, figure 8): the peer's SYN comes again, with the ACK of ours.
    if (c.info.state == TcpState::SynReceived && !c.has(kPassive) && seg.has(kSyn) &&
        seg.has(kAck) && seg.seq == Seq(c.info.irs)) {
        seg.flags = static_cast<std::uint8_t>(seg.flags & ~kSyn);
        seg.seq += 1;
        owe_ack(c, a.self);
    }
    if (seg.has(kRst)) seg.keep_front(0);  // judged by where it begins; its text is for people
    if (acceptable(c, seg.seq, seg.length())) return kContinue;

    // A refusal is answered, except a reset: the answer tells a peer whose ACK was lost, or who
    // probes a closed window, where we stand.
    if (seg.has(kRst)) return Counter::InOutsideWindow;
    answer_refused(c, a);
    // With the window closed, "special allowance should be made to accept valid ACKs".
    if (c.info.rcv_wnd == 0 && seg.seq == c.rcv_nxt()) {
        seg.text = {};
        seg.flags = static_cast<std::uint8_t>(seg.flags & ~kFin);
        return kContinue;
    }
    // The peer repeats its FIN because our last ACK was lost: stay for another 2 MSL.
    if (c.info.state == TcpState::TimeWait && seg.has(kFin))
        c.life_at = a.now + config_.tcp.time_wait;
    const bool old = seg.length() > 0 && seg.end() <= c.rcv_nxt();
    if (old && !seg.text.empty())
        owe_dsack(c, {seg.seq, seg.seq + static_cast<std::uint32_t>(seg.text.size())});
    return old ? Counter::InDuplicate : Counter::InOutsideWindow;
}

// RFC 5961 §3.2: only a reset that names RCV.NXT exactly is believed. Any other one in the window
// may be a guess, so the peer is asked to confirm it.
Verdict Machine::check_reset(Connection& c, Arrival& a) {
    if (!a.seg.has(kRst)) return kContinue;
    if (a.seg.seq != c.rcv_nxt()) {
        challenge_ack(c, a.self, a.now);
        return Counter::InChallenged;
    }
    count(Counter::TcpResetsReceived);
    // "If this connection was initiated with a passive OPEN, then return to the LISTEN state": the
    // listener is there all the time, the half-open block goes.
    const bool opening = c.info.state == TcpState::SynReceived && !c.early();
    if (c.early()) refuse_early(c, a.now);
    if (opening) count(Counter::TcpOpenFailed);
    end(c, a.self, opening ? ECONNREFUSED : ECONNRESET);
    return Counter::InReset;
}

// RFC 5961 §4.2: a SYN in the window is never believed.
Verdict Machine::check_syn(Connection& c, Arrival& a) {
    if (!a.seg.has(kSyn)) return kContinue;
    challenge_ack(c, a.self, a.now);
    return Counter::InChallenged;
}

Verdict Machine::check_ack(Connection& c, Arrival& a) {
    const Segment& seg = a.seg;
    if (!seg.has(kAck)) return Counter::InBadAck;
    if (c.info.state == TcpState::SynReceived)
        if (auto v = syn_received_ack(c, a)) return v;

    // RFC 5961 §5.2: neither what was not sent yet, nor older than a window.
    if (seg.ack > c.snd_nxt() || seg.ack < c.snd_una() - c.info.max_snd_wnd) {
        challenge_ack(c, a.self, a.now);
        return Counter::InBadAck;
    }
    // RFC 7323 §5.3, R3, and not before: what may be forged must tell no time, or PAWS would lock
    // out the peer. That it is no older one was seen, or is of no account (§5.5).
    if (c.negotiated(shm::kNegotiatedTimestamps) && seg.has_timestamps &&
        seg.seq <= c.last_ack_sent)
        c.info.ts_recent = seg.ts_value;
    process_ack(c, a);
    if (c.info.state == TcpState::Closed || c.info.state == TcpState::Free)
        return Counter::InAccepted;
    return kContinue;
}

}  // namespace chiru::tcp
