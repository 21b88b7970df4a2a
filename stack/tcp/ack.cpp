// SPDX-License-Identifier: Apache-2.0
//
// The fifth step for an ACK that may be believed (RFC 9293 §3.10.7.4; RFC 7323, 2018): what it
// says is digested once, into an AckReport that recovery and congestion control read.
#include "stack/tcp/machine.hpp"

#include "stack/tcp/rtt.hpp"
#include "stack/wire/tcp.hpp"

namespace chiru::tcp {

using shm::Counter;

namespace {

/// What an ACK may cost in search of the flights that its blocks name. A peer whose newest blocks
/// jump further than that tells of them again with its next ACKs.
constexpr std::uint32_t kSackSteps = 1024;

}  // namespace

void Machine::process_ack(Connection& c, Arrival& a) {
    const Segment& seg = a.seg;
    AckReport report;
    report.now = a.now;
    report.in_flight_bytes = c.pipe_bytes();
    report.cwnd_limited = c.has(kCwndLimited);
    report.reducing = c.reducing();
    report.echoed = seg.has(wire::kEce) && c.negotiated(shm::kNegotiatedEcn);
    if (report.echoed) count(Counter::TcpEchoesReceived);

    const std::uint32_t sacked_before = c.sacked_bytes;
    const std::uint32_t window_before = c.info.snd_wnd;
    const Seq una_before = c.snd_una();
    rack_end_before_ = c.rack_end;
    update_window(c, seg, a.self);
    if (seg.sack_count > 0 && c.negotiated(shm::kNegotiatedSack))
        read_sack(c, seg, report);

    if (seg.ack > una_before) {
        report.acked_bytes = static_cast<std::uint32_t>(seg.ack - una_before);
        land_acknowledged(c, seg, report);
        c.info.snd_una = seg.ack.raw();
        c.info.timeouts = 0;
        if (c.extra != kNil) check_probe(c, a.now);
        reclaim(c, a.self);
        lower_.confirm(c.path, a.now);
    }
    report.delivered_bytes = report.acked_bytes + c.sacked_bytes - sacked_before;
    // RFC 5681 §2: a duplicate ACK says the same again, while something is outstanding.
    const bool duplicate = seg.ack == una_before && c.outstanding_bytes() > 0 && seg.text.empty() &&
                           !seg.has(wire::kFin) && window_before == c.info.snd_wnd;
    report.smoothed_rtt = Micros(c.info.srtt_us);
    if (report.acked_bytes > 0 || report.sacked_bytes > 0 || report.needless_repeat ||
        report.echoed || duplicate)
        recover(c, report, duplicate, seg);
    if (report.acked_bytes > 0) {
        arm_retransmit(c, a.now);
        if (c.has(kFinSent) && c.snd_una() == c.snd_end() + 1) fin_acknowledged(c, a.self, a.now);
        if (c.info.state == TcpState::Closed || c.info.state == TcpState::Free) return;
    }
    if (c.unsent_bytes() > 0 || c.lost_bytes > 0 || (c.has(kFinQueued) && !c.has(kFinSent)))
        mark_output(c, a.self);
}

// The segment with the newest text, or of equal text the newest ACK, tells the window; an older
// one that was overtaken does not. One that acknowledges more than any before is never old, though
// its text may be a repeat: without its window the old one would count from the new SND.UNA on, and
// reach further than the peer ever said.
void Machine::update_window(Connection& c, const Segment& seg, Index self) {
    if (seg.ack < c.snd_una()) return;
    // No SND.WL2: it never lies above SND.UNA, which seg.ack has passed by now.
    if (seg.ack == c.snd_una() && Seq(c.info.snd_wl1) > seg.seq) return;
    const std::uint32_t wnd = seg.wnd << c.info.snd_shift;
    const bool opened = wnd > c.info.snd_wnd;
    const bool was_closed = c.info.timeouts > 0 && closed_to_repeats(c);
    c.info.snd_wnd = wnd;
    c.info.max_snd_wnd = std::max(c.info.max_snd_wnd, wnd);
    c.info.snd_wl1 = seg.seq.raw();
    // A persist timer that runs is no longer needed, or belongs to the new window.
    if (opened && c.flight_head == kNil) {
        c.retransmit_at = kNever;
        c.info.timeouts = 0;
        c.clear(kOweProbe);
        mark_output(c, self);
    }
    if (was_closed && seg.ack == c.snd_una() && !closed_to_repeats(c)) repeat_refused(c, self);
}

// What was sent again into a closed window was not kept by the peer, and is not in the network.
// Now there is room: it goes at once, not when a timer ends that was backed off meanwhile.
void Machine::repeat_refused(Connection& c, Index self) {
    c.info.timeouts = 0;
    c.info.rto_us = estimated_rto(c.info, config_.tcp);
    c.spurious = kNoTest;
    send_.mark_lost(c, c.flight_head);
    c.set(kForceOne);
    arm_retransmit(c, now_);
    mark_output(c, self);
}

// Each flight that lies in a block whole is with the peer. A large one, which the port cut into
// segments by itself, is cut here where one of these ends; a block that ends elsewhere counts as
// far as it covers whole ones. A peer that told of single bytes could else make thousands of
// flights of one window, and every ACK walks over them (as in CVE-2019-11478).
void Machine::read_sack(Connection& c, const Segment& seg, AckReport& report) {
    const std::uint32_t before = c.sacked_bytes;
    std::uint32_t steps = kSackSteps;
    for (std::size_t b = 0; b < seg.sack_count; ++b) {
        const SackBlock block = seg.sack[b];
        // RFC 2883 §4: a first block below the ACK, or within the second, reports a duplicate.
        const bool dsack = block.end <= seg.ack ||
                           (b == 0 && seg.sack_count > 1 && seg.sack[1].first <= block.first &&
                            block.end <= seg.sack[1].end);
        if (dsack && b == 0) note_needless(c, block, report);
        if (dsack || block.first >= block.end || block.end > c.snd_nxt()) continue;
        const Seq from = block.first < c.snd_una() ? c.snd_una() : block.first;
        for (Index i = send_.find_flight(c, from, steps); i != kNil; i = send_.flights()[i].next) {
            const Flight& f = send_.flights()[i];
            if (f.first >= block.end) break;
            if (f.has(kSacked)) continue;
            const std::uint32_t mss = c.info.mss;
            if (f.first < block.first) {
                const auto head = static_cast<std::uint32_t>(block.first - f.first);
                const std::uint32_t cut = (head + mss - 1) / mss * mss;
                if (cut < f.length) send_.split(c, i, cut);
                continue;  // the rest comes next
            }
            if (f.end() > block.end) {
                const auto covered = static_cast<std::uint32_t>(block.end - f.first);
                // All of its text: the FIN behind it is not told by every receiver.
                const bool text = covered == f.text_bytes();
                const std::uint32_t cut = text ? covered : covered / mss * mss;
                if (cut == 0 || !send_.split(c, i, cut)) break;
            }
            note_rack(c, f, report.now);
            note_arrival(c, f, report);
            i = send_.mark_sacked(c, i);
            c.sack_hint = i;
        }
    }
    report.sacked_bytes = c.sacked_bytes - before;
}

/// A DSACK: was it for something that this recovery sent again?
void Machine::note_needless(const Connection& c, const SackBlock& block, AckReport& report) {
    report.needless_repeat = true;
    const Extra* known = extra(c);
    if (known != nullptr && c.undo_cwnd != 0 && block.first >= known->undo.una &&
        block.end > block.first && block.end <= c.snd_nxt())
        report.needless_bytes = static_cast<std::uint32_t>(block.end - block.first);
}

/// What congestion control and the test of time-outs want to know of text that is with the peer.
void Machine::note_arrival(const Connection& c, const Flight& f, AckReport& report) {
    if (f.has(kSacked)) return;
    if (f.has(kStamped)) {
        const bool later = !report.newest.known ||
                           static_cast<std::int32_t>(f.sent_us - report.newest.sent_us) >= 0;
        if (later) report.newest = {f.stamp(), f.sent_us, true};
    }
    if (f.has(kRepeated)) return;
    report.rtt = Micros(std::max(low_us(report.now) - f.sent_us, 1u));
    if (f.has(kLost) && f.end() <= c.recover) report.original = true;
}

/// Does the segment's echo prove that it was caused by what we sent at `sent`, or later?
bool Machine::answers(const Connection& c, const Segment& seg, Instant sent) const {
    return seg.has_timestamps && c.negotiated(shm::kNegotiatedTimestamps) &&
           static_cast<std::int32_t>(seg.ts_echo - timestamp(c, sent)) >= 0;
}

void Machine::land_acknowledged(Connection& c, const Segment& seg, AckReport& report) {
    const Seq ack = seg.ack;
    const Instant now = report.now;
    bool sampled = false;
    while (c.flight_head != kNil) {
        const Index i = c.flight_head;
        Flight& f = send_.flights()[i];
        if (f.first >= ack) break;
        if (f.end() > ack) {
            send_.trim(c, i, static_cast<std::uint32_t>(ack - f.first));
            break;
        }
        // The first one measures, which includes the peer's delay of its ACK (RFC 7323 §4.1 does
        // likewise). One that was sent twice measures nothing (Karn, RFC 6298 §3), unless the echo
        // tells which of the two was answered: else a timer once backed off would stay so for as
        // long as there are losses.
        const std::uint32_t rtt_us = low_us(now) - f.sent_us;
        const bool known = !f.has(kRepeated) || (rtt_us >= c.info.min_rtt_us &&
                                                 answers(c, seg, now - Micros(rtt_us)));
        if (!sampled && known && !f.has(kSacked)) {
            sample_rtt(c.info, rtt_us, config_.tcp);
            sampled = true;
        }
        if (!f.has(kSacked)) note_rack(c, f, now);
        note_arrival(c, f, report);
        send_.land(c, i);
    }
}

void Machine::fin_acknowledged(Connection& c, Index self, Instant now) {
    switch (c.info.state) {
        case TcpState::FinWait1:
            c.info.state = TcpState::FinWait2;
            if (c.has(kClientGone)) {
                c.life_at = now + config_.tcp.fin_wait2;
                tell_closed(c, self, 0);
            }
            return;
        case TcpState::Closing: enter_time_wait(c, self, now); return;
        case TcpState::LastAck:
            count(Counter::TcpClosed);
            end(c, self, 0);
            return;
        default: return;
    }
}

}  // namespace chiru::tcp
