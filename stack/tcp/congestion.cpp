// SPDX-License-Identifier: Apache-2.0
//
// How fast to go: what congestion control is told and answers, and how the window gets from where
// it was to where it shall be (RFC 9937, proportional rate reduction).
#include "stack/tcp/machine.hpp"

#include <algorithm>

namespace chiru::tcp {

using shm::CongestionAlgorithm;

namespace {

/// As long as Linux's shortest RTO: ours would forget a window between two requests.
constexpr std::uint32_t kIdlePeriodUs = 200'000;

}  // namespace

void Machine::choose_congestion(Connection& c, CongestionAlgorithm algorithm) {
    c.info.congestion = static_cast<std::uint8_t>(algorithm);
    c.undo_cwnd = 0;  // another's state is not to come back
    if (Extra* known = extra(c); known != nullptr) known->bbr_runs = false;
    update_pacing(c);
    const CongestionWindow window{c.info.cwnd_bytes, c.info.ssthresh_bytes, c.info.mss};
    switch (algorithm) {
        case CongestionAlgorithm::Cubic: c.congestion = Cubic{window, c.snd_nxt()}; return;
        case CongestionAlgorithm::Reno: c.congestion = Reno{}; return;
        case CongestionAlgorithm::Dctcp: c.congestion = Dctcp{c.snd_nxt()}; return;
        case CongestionAlgorithm::Bbr: return;  // its record is made with the first transmission
    }
}

/// What BBR knows, if it is the connection's and has begun.
Bbr* Machine::bbr_of(const Connection& c) {
    Extra* known = extra(c);
    return known != nullptr && known->bbr_runs ? &known->bbr : nullptr;
}

void Machine::start_bbr(Connection& c, Instant now) {
    Extra* known = need_extra(c);
    if (known == nullptr) return choose_congestion(c, CongestionAlgorithm::Cubic);
    const CongestionWindow window{c.info.cwnd_bytes, c.info.ssthresh_bytes, c.info.mss};
    known->bbr = Bbr(window, Micros(c.info.srtt_us), c.info.retransmitted_bytes, now);
    known->bbr_runs = true;
    update_pacing(c);
}

/// `in_flight`: before this transmission.
void Machine::stamp_flight(Connection& c, Flight& f, std::uint32_t in_flight, Instant now) {
    const bool chosen =
        c.info.congestion == static_cast<std::uint8_t>(CongestionAlgorithm::Bbr);
    if (chosen && bbr_of(c) == nullptr) start_bbr(c, now);
    if (Bbr* bbr = bbr_of(c); bbr != nullptr)
        f.stamp(bbr->rate().stamp(low_us(now), in_flight));
}

/// Text comes, and there was none: was it the program that let the network run empty?
void Machine::note_application(Connection& c, Instant now) {
    Bbr* bbr = bbr_of(c);
    if (bbr == nullptr || c.unsent_bytes() > 0 || c.lost_bytes > 0) return;
    const std::uint32_t pipe = c.pipe_bytes();
    if (pipe >= c.info.cwnd_bytes || pace_runs_ahead(c, now)) return;
    bbr->rate().run_dry(pipe);
    if (pipe == 0) bbr->on_restart();
}

void Machine::congestion_ack(Connection& c, const AckReport& report, bool more_lost) {
    Bbr* bbr = bbr_of(c);
    if (c.reducing() && bbr == nullptr) {
        // Without SACK nobody knows how much arrived: the window was cut at once.
        const bool known = c.negotiated(shm::kNegotiatedSack) ||
                           c.recovery() == shm::RecoveryState::Reduced;
        if (known && report.delivered_bytes > 0) pay_out(c, report, more_lost);
    } else if (report.acked_bytes > 0 && bbr == nullptr) {
        measure_delivery(c, report);
    }
    if (report.acked_bytes == 0 && bbr == nullptr) return;
    AckReport told = report;
    // What ends a recovery acknowledges a window at once; it only leaves the threshold (RFC 5681
    // §3.2, step 6).
    told.reducing = report.reducing || c.reducing();
    told.recovering = c.recovering();
    told.lost_bytes = c.info.retransmitted_bytes + c.lost_bytes;
    told.una = c.snd_una();
    told.nxt = c.snd_nxt();
    CongestionWindow window{c.info.cwnd_bytes, c.info.ssthresh_bytes, c.info.mss};
    if (bbr != nullptr) bbr->on_ack(window, told);
    else std::visit([&](auto& cc) { cc.on_ack(window, told); }, c.congestion);
    // No larger than what can ever be outstanding.
    c.info.cwnd_bytes = std::min(window.cwnd_bytes, 1u << 30);
    c.info.ssthresh_bytes = window.ssthresh_bytes;
    if (bbr != nullptr) c.info.delivery_kbps = bbr->bandwidth_kbps();
    update_pacing(c);
}

/// How much of the window the path is known to carry: what it delivered in a round trip (RFC 7661
/// §4.2, pipeACK). FlightSize alone says nothing of it at the end of a request, when little is left
/// in flight.
std::uint32_t Machine::proven_window(const Connection& c) {
    const std::uint64_t delivered = std::uint64_t{c.info.delivery_kbps} * c.info.srtt_us / 1000;
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(delivered, c.info.cwnd_bytes));
}

void Machine::congestion_loss(Connection& c, const LossReport& report) {
    CongestionWindow window{c.info.cwnd_bytes, c.info.ssthresh_bytes, c.info.mss};
    if (Bbr* bbr = bbr_of(c); bbr != nullptr) {
        bbr->on_loss(window, report);
    } else {
        LossReport told = report;
        told.in_flight_bytes = std::max(report.in_flight_bytes, proven_window(c));
        std::visit([&](auto& cc) { cc.on_loss(window, told); }, c.congestion);
    }
    c.info.cwnd_bytes = window.cwnd_bytes;
    c.info.ssthresh_bytes = window.ssthresh_bytes;
}

/// RFC 2861 §3.1: what was known about the path is worth half after each RTO of a pause, and after
/// a long one nothing. What the window had been is remembered in ssthresh.
void Machine::restart_after_idle(Connection& c, Instant now) {
    const std::int64_t idle = now.time_since_epoch().count() - c.info.last_sent_us;
    const std::int64_t period = std::max(c.info.rto_us, kIdlePeriodUs);
    if (idle < period || bbr_of(c) != nullptr) return;  // BBR's rate spreads a window by itself
    const std::uint32_t before = c.info.cwnd_bytes;
    const std::uint32_t least = std::min(before, initial_window(c.info.mss));
    c.info.cwnd_bytes = std::max(before >> std::min<std::int64_t>(idle / period, 31), least);
    c.info.ssthresh_bytes = std::max(c.info.ssthresh_bytes, before / 4 * 3);
}

/// RFC 9937 §6.2: while more is in flight than shall be, the share that shall stay of what is
/// delivered is sent again; below that, as much as is delivered, and a segment more while nothing
/// else is found lost.
void Machine::pay_out(Connection& c, const AckReport& report, bool more_lost) {
    auto& r = c.delivery.reduction;
    r.delivered += report.delivered_bytes;
    const std::uint32_t pipe = c.pipe_bytes();
    const std::uint32_t target = c.info.ssthresh_bytes;
    std::uint32_t owed = 0;
    if (pipe > target) {
        const std::uint64_t share =
            (std::uint64_t{r.delivered} * target + r.flight - 1) / r.flight;
        owed = share > r.sent ? static_cast<std::uint32_t>(share - r.sent) : 0;
    } else {
        owed = std::max(r.delivered > r.sent ? r.delivered - r.sent : 0, report.delivered_bytes);
        if (report.acked_bytes > 0 && !more_lost) owed += c.info.mss;
        owed = std::min(owed, target - pipe);
    }
    if (r.sent == 0) owed = std::max(owed, c.info.mss);
    c.info.cwnd_bytes = pipe + owed;
}

/// A round trip's bytes by its time. One in which the program had nothing to send tells only how
/// fast the path is at least.
void Machine::measure_delivery(Connection& c, const AckReport& report) {
    auto& round = c.delivery.round;
    if (round.began_us != 0 && c.snd_una() < Seq(round.end)) return;
    const std::uint32_t now_us = low_us(report.now);
    if (round.began_us != 0) {
        const std::uint32_t took = std::max(now_us - round.began_us, 1u);
        const std::uint64_t bytes = c.info.snd_una - round.first;
        const auto kbps = static_cast<std::uint32_t>(bytes * 1000 / took);
        if (report.cwnd_limited || kbps > c.info.delivery_kbps) c.info.delivery_kbps = kbps;
    }
    round = {};
    if (c.outstanding_bytes() > 0) round = {c.info.snd_una, c.info.snd_nxt, now_us | 1};
}

}  // namespace chiru::tcp
