// SPDX-License-Identifier: Apache-2.0
//
// How fast to go: what congestion control is told and answers, and how the window gets from where
// it was to where it shall be (RFC 9937, proportional rate reduction).
#include "stack/tcp/machine.hpp"

#include <algorithm>

namespace chiru::tcp {

using shm::CongestionAlgorithm;

void Machine::choose_congestion(Connection& c, CongestionAlgorithm algorithm) {
    c.info.congestion = static_cast<std::uint8_t>(algorithm);
    c.undo_cwnd = 0;  // another's state is not to come back
    const CongestionWindow window{c.info.cwnd_bytes, c.info.ssthresh_bytes, c.info.mss};
    switch (algorithm) {
        case CongestionAlgorithm::Cubic: c.congestion = Cubic{window, c.snd_nxt()}; return;
        case CongestionAlgorithm::Reno: c.congestion = Reno{}; return;
        case CongestionAlgorithm::Dctcp: c.congestion = Dctcp{c.snd_nxt()}; return;
    }
}

void Machine::congestion_ack(Connection& c, const AckReport& report, bool more_lost) {
    if (c.reducing()) {
        // Without SACK nobody knows how much arrived: the window was cut at once.
        const bool known = c.negotiated(shm::kNegotiatedSack) ||
                           c.recovery() == shm::RecoveryState::Reduced;
        if (known && report.delivered_bytes > 0) pay_out(c, report, more_lost);
    } else if (report.acked_bytes > 0) {
        measure_delivery(c, report);
    }
    if (report.acked_bytes == 0) return;
    AckReport told = report;
    told.reducing = c.reducing();
    told.una = c.snd_una();
    told.nxt = c.snd_nxt();
    CongestionWindow window{c.info.cwnd_bytes, c.info.ssthresh_bytes, c.info.mss};
    std::visit([&](auto& cc) { cc.on_ack(window, told); }, c.congestion);
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
