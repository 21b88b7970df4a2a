// SPDX-License-Identifier: Apache-2.0
//
// What window to offer (RFC 9293 §3.8.6, §3.8.6.2.2), and how far it grows.
//
// The buffer of a connection begins small. While text streams in, it follows what the reader takes:
// after each round trip it is twice that, so that the sender and not the window is the limit; up to
// tcp.receive_buffer, unless the program has fixed it. No memory belongs to it: text lies in the
// slots it came in, of which a session has a quota and each of its connections no more than is left
// to the others. So a window also counts slots. What was offered once is never taken back.
#include "stack/tcp/machine.hpp"

#include <algorithm>
#include <limits>

namespace chiru::tcp {

namespace {

/// Fewer slots tell little of how full they are.
constexpr std::uint32_t kFewSlots = 8;
/// A connection that got nothing for so long rests. Longer than a round trip.
constexpr Micros kRest = std::chrono::seconds(1);
/// How many of them are looked at in one turn.
constexpr int kRestBatch = 256;
/// The clock of timestamps counts milliseconds.
constexpr std::uint32_t kStampUs = 1000;
/// An older echo is of a connection that had nothing to say.
constexpr std::uint32_t kOldEchoMs = 10'000;

}  // namespace

/// How many slots more it may fill if nobody else takes any: each that it takes is one less of
/// those that are left. One who holds none may have one.
std::uint32_t Machine::slot_room(const Connection& c) const {
    const Session& session = sessions_[c.session];
    const auto half_of = [](std::uint32_t left, std::uint32_t held) {
        return left > held ? (left - held + 1) / 2 : 0;
    };
    const std::uint32_t quota = session.config.max_rx_slots;
    const std::uint32_t own = quota > session.slots_held ? quota - session.slots_held : 0;
    const std::uint32_t shared = slot_limit_ > rx_.held() ? slot_limit_ - rx_.held() : 0;
    const std::uint32_t room = std::min(half_of(own, c.info.rx_slots),
                                        half_of(shared, session.shared_slots()));
    return c.info.rx_slots == 0 ? std::max(room, 1u) : room;
}

/// What those can hold: as much in each as in the ones it has, or full segments.
std::uint32_t Machine::window_by_slots(const Connection& c) const {
    if (c.session == kNobody)
        return kMaxUnownedBytes - std::min(c.info.unread_bytes, kMaxUnownedBytes);
    const std::uint32_t held = c.info.unread_bytes + c.info.out_of_order_bytes;
    const std::uint32_t each =
        c.info.rx_slots < kFewSlots ? c.info.mss : std::max(held / c.info.rx_slots, 1u);
    const std::uint64_t bytes = std::uint64_t{slot_room(c)} * each + c.info.out_of_order_bytes;
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(bytes, 1u << 30));
}

std::uint32_t Machine::wanted_window(const Connection& c) const {
    const std::uint32_t unread = c.info.unread_bytes;
    const std::uint32_t most = 65'535u << c.info.rcv_shift;  // what the field can say
    if (c.info.rcv_buffer_bytes <= unread) return 0;
    return std::min({c.info.rcv_buffer_bytes - unread, most, window_by_slots(c)});
}

// What goes into the window field, and with that becomes a promise. The right edge never moves
// back (RFC 9293 §3.8.6), and moves on in steps worth a segment (§3.8.6.2.2).
// `ack` is RCV.NXT, or below it when an older state has to be told: the edge is the same.
std::uint16_t Machine::window_to_send(Connection& c, Seq ack) {
    const auto behind = static_cast<std::uint32_t>(c.rcv_nxt() - ack);
    const std::uint32_t wanted = wanted_window(c);
    const std::uint32_t step = std::min(c.info.rcv_buffer_bytes / 2, c.info.mss);
    // A SYN-ACK that has to be repeated cannot say more than the first one.
    if (wanted >= c.info.rcv_wnd + step && !c.early()) c.info.rcv_wnd = wanted;
    const std::uint32_t unit = 1u << c.info.rcv_shift;
    const std::uint32_t told = c.info.rcv_wnd + behind;
    const std::uint32_t scaled = std::min((told + unit - 1) >> c.info.rcv_shift, 65'535u);
    // What is rounded up is promised too; what the field cannot say is not.
    if (scaled << c.info.rcv_shift > told || (scaled == 65'535 && behind == 0))
        c.info.rcv_wnd = (scaled << c.info.rcv_shift) - behind;
    return static_cast<std::uint16_t>(scaled);
}

// The client has read. Worth a segment of its own only if the peer may send twice as much now.
void Machine::window_opened(Connection& c, Index self) {
    if (!may_receive(c.info.state)) return;
    const std::uint32_t step = std::min(c.info.rcv_buffer_bytes / 2, c.info.mss);
    const std::uint32_t wanted = wanted_window(c);
    if (wanted >= 2 * c.info.rcv_wnd && wanted >= c.info.rcv_wnd + step) owe_ack(c, self);
}

/// The program's wish; 0: as the stack finds right.
void Machine::choose_receive_buffer(Connection& c, std::uint64_t wish) {
    const std::uint32_t most = config_.tcp.receive_buffer_bytes;
    c.info.rcv_fixed = wish != 0 ? 1 : 0;
    // Bounded by what the window scale, which is agreed already, can say.
    c.info.rcv_buffer_bytes =
        wish == 0 ? std::min(kFirstReceiveBuffer, most)
                  : static_cast<std::uint32_t>(
                        std::clamp<std::uint64_t>(wish, 4096, 65'535ull << c.info.rcv_shift));
    if (wish != 0) give_extra(c, kForWindow);
}

/// How far it may grow: as far as half of the session's quota holds, which is what one alone gets.
std::uint32_t Machine::most_receive_buffer(const Connection& c) const {
    if (c.session == kNobody) return c.info.rcv_buffer_bytes;
    const std::uint64_t share =
        std::uint64_t{sessions_[c.session].config.max_rx_slots} / 2 * c.info.mss;
    const std::uint64_t sayable = 65'535ull << c.info.rcv_shift;
    return static_cast<std::uint32_t>(
        std::min({std::uint64_t{config_.tcp.receive_buffer_bytes}, share, sayable}));
}

// Full segments arrive, one behind the other: from now on the reader is watched.
void Machine::follow_reader(Connection& c, Index self, const Arrival& a) {
    if (c.info.rcv_fixed != 0) return;
    if (c.info.rcv_buffer_bytes >= most_receive_buffer(c)) return;
    Extra* e = extra(c);
    if (e != nullptr && (e->uses & kForWindow) != 0) {
        sample_receive_rtt(c, e->window, a);
        return;
    }
    e = need_extra(c, kForWindow);
    if (e == nullptr) return;
    WindowGrowth& w = e->window;
    w = WindowGrowth{};
    w.began_us = w.edge_us = low_us(a.now);
    w.edge = c.rcv_nxt() + c.info.rcv_wnd;
    // The handshake's, or our own text's; with neither the first sample has to come.
    w.rtt_us = c.info.srtt_us != 0 ? c.info.srtt_us : std::numeric_limits<std::uint32_t>::max();
    w.connection = self;
    w.look_at = a.now + kRest;
    growing_.push_back(extras_.data(), c.extra);
}

// By the echo of our timestamp, or by the time until text comes that an ACK of ours has allowed
// (which takes longer if the window is not what holds the sender back).
void Machine::sample_receive_rtt(Connection& c, WindowGrowth& w, const Arrival& a) {
    const Segment& seg = a.seg;
    std::uint32_t sample = 0;
    if (seg.has_timestamps && c.negotiated(shm::kNegotiatedTimestamps)) {
        const std::uint32_t age_ms = timestamp(c, a.now) - seg.ts_echo;
        if (age_ms > kOldEchoMs) return;
        const std::uint32_t finer = c.info.srtt_us != 0 ? c.info.srtt_us : kStampUs;
        sample = age_ms < 2 ? std::min(finer, 2 * kStampUs) : age_ms * kStampUs;
    } else {
        if (c.rcv_nxt() < w.edge) return;
        sample = std::max(low_us(a.now) - w.edge_us, 1u);
        if (c.info.srtt_us != 0) sample = std::min(sample, c.info.srtt_us);
        w.edge = c.rcv_nxt() + c.info.rcv_wnd;
        w.edge_us = low_us(a.now);
    }
    if (w.rtt_us == std::numeric_limits<std::uint32_t>::max()) w.rtt_us = sample;
    w.least_us = w.least_us == 0 ? sample : std::min(w.least_us, sample);
}

// The reader took so much. At the end of a round trip the buffer is twice what it took in that;
// four times while that still grows, for a sender in slow start is twice as fast by then. A wider
// window that brought no more does not widen again: it would fill queues on the way, whose wait
// looks like a longer round trip, and caches.
void Machine::reader_took(Connection& c, std::uint32_t bytes) {
    Extra* e = extra(c);
    if (e == nullptr || (e->uses & kForWindow) == 0) return;
    WindowGrowth& w = e->window;
    w.taken += bytes;
    const std::uint32_t now_us = low_us(now_);
    if (now_us - w.began_us < w.rtt_us) return;
    const bool faster = w.taken > w.most + w.most / 2;
    // No more than a window comes in a round trip: where it seems so, the round was a long one.
    const std::uint64_t took = std::min(w.taken, c.info.rcv_buffer_bytes);
    const std::uint64_t wanted = took * (faster ? 4 : 2);
    const std::uint32_t most = most_receive_buffer(c);
    const std::uint64_t rate = std::uint64_t{w.taken} * 1000 / (now_us - w.began_us);
    if (wanted > c.info.rcv_buffer_bytes && most > c.info.rcv_buffer_bytes &&
        rate > w.rate + w.rate / 4) {
        c.info.rcv_buffer_bytes =
            static_cast<std::uint32_t>(std::min<std::uint64_t>(wanted, most));
        w.rate = rate;
    }
    w.most = std::max(w.most, w.taken);
    w.taken = 0;
    w.began_us = now_us;
    if (w.least_us != 0) w.rtt_us = w.least_us;
    w.least_us = 0;
}

// Connections that rest, or have grown as far as they may, need no record.
void Machine::rest_windows(Instant now) {
    for (int looked = 0; looked < kRestBatch && !growing_.empty(); ++looked) {
        const Index i = growing_.head;
        WindowGrowth& w = extras_[i].window;
        if (w.look_at > now) return;
        Connection& c = connections_[w.connection];
        if (Instant(Micros(c.info.last_received_us)) + kRest <= now ||
            c.info.rcv_buffer_bytes >= most_receive_buffer(c)) {
            give_extra(c, kForWindow);
            continue;
        }
        w.look_at = now + kRest;
        growing_.remove(extras_.data(), i);
        growing_.push_back(extras_.data(), i);
    }
}

}  // namespace chiru::tcp
