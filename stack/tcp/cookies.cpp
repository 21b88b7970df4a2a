// SPDX-License-Identifier: Apache-2.0
//
// SYNs beyond what a listener remembers (RFC 4987 §3.6): answered by a cookie, forgotten, and made
// a connection when the cookie comes back. syn_cookie.hpp has the format.
//
// What a cookie connection lacks: its SYN-ACK is not repeated (the peer's SYN is), and without
// timestamps it has neither window scaling nor SACK.
#include "stack/tcp/machine.hpp"

#include "stack/tcp/isn.hpp"
#include "stack/tcp/syn_cookie.hpp"
#include "stack/wire/tcp.hpp"

#include <algorithm>

namespace chiru::tcp {

using shm::Counter;

bool Machine::wants_cookies(const Listener& listener) const {
    const std::uint32_t most = std::clamp(listener.info.backlog, kMinHalfOpen, kMaxHalfOpen);
    return listener.info.syn_received >= most || spare_blocks() <= reserved_blocks();
}

Counter Machine::answer_with_cookie(Arrival& a, const Tuple& tuple, Listener& listener) {
    const Segment& seg = a.seg;
    if (!config_.tcp.syn_cookies) {
        ++listener.info.refused;
        return Counter::InNoListenerRoom;
    }
    const auto route = lower_.route(tuple.remote, tuple.local, a.in.interface);
    if (!route) return Counter::InNoConnectionRoom;
    SynOptions options;
    options.mss = offered_mss(route->path, tuple.remote, listener.max_segment);
    if (seg.has_timestamps) {
        CookieOptions told;
        if (seg.has_shift) {
            told.shift = seg.shift;
            options.shift = shift_for(config_.tcp.receive_buffer_bytes);
        }
        told.sack = seg.sack_permitted;
        const auto ms = static_cast<std::uint32_t>(a.now.time_since_epoch().count() / 1000);
        const std::uint32_t offset = initials(config_.secret, tuple, a.now).ts_offset;
        options.stamp = stamp_with(ms, told) + offset;
        options.sack = told.sack;
        options.timestamps = true;
        options.echo = seg.ts_value;
    }
    const std::uint16_t mss = seg.has_mss ? seg.mss : (tuple.remote.is_v4() ? 536 : 1220);
    Reply answer{.tuple = tuple,
                 .link = a.in.interface,
                 .seq = make_cookie(config_.secret, tuple, seg.seq, mss, a.now),
                 .ack = seg.seq + 1,
                 .flags = wire::kSyn | wire::kAck};
    answer.window = static_cast<std::uint16_t>(
        std::min(kFirstWindow, config_.tcp.receive_buffer_bytes));
    OptionWriter writer(answer.options.data());
    write_syn_options(writer, options);
    answer.option_bytes = static_cast<std::uint8_t>(writer.size());
    reply(answer);
    listener.cookies_until = a.now + kCookieLife;
    count(Counter::TcpSynCookiesSent);
    return Counter::InAccepted;
}

// The block is made as if the SYN came now; then the ACK, with the text it may carry, finds it.
Counter Machine::cookie_arrives(Arrival& a, const Tuple& tuple, Listener& listener) {
    const Segment& seg = a.seg;
    // No word to anybody while nobody accepts: the peer sends again what it sent.
    const bool scarce = spare_blocks() <= reserved_blocks();
    if (listener.info.waiting >= std::max(listener.info.backlog, 1u) ||
        (scarce && !has_taker(listener))) {
        ++listener.info.refused;
        return Counter::InNoListenerRoom;
    }
    const Seq cookie = seg.ack - 1, peer_iss = seg.seq - 1;
    const auto mss = check_cookie(config_.secret, tuple, peer_iss, cookie, a.now);
    if (!mss) {
        count(Counter::TcpSynCookiesBad);
        answer_nobody(a, tuple);
        return Counter::InBadAck;
    }
    const auto route = lower_.route(tuple.remote, tuple.local, a.in.interface);
    if (!route) return Counter::InNoConnectionRoom;
    a.self = open_block(tuple, a.now);
    if (a.self == kNil) return Counter::InNoConnectionRoom;

    Segment syn;
    syn.seq = peer_iss;
    syn.ack = cookie;
    syn.has_mss = true;
    syn.mss = *mss;
    syn.wnd = seg.wnd;
    if (seg.has_timestamps) {
        const std::uint32_t offset = initials(config_.secret, tuple, a.now).ts_offset;
        const CookieOptions told = options_of_stamp(seg.ts_echo - offset);
        syn.has_timestamps = true;
        syn.ts_value = seg.ts_value;
        syn.has_shift = told.shift.has_value();
        syn.shift = told.shift.value_or(0);
        syn.sack_permitted = told.sack;
    }
    Connection& c = connections_[a.self];
    c.info.state = TcpState::SynReceived;
    c.set(kPassive);
    begin_send_space(c, route->path, listener.max_segment, a.now);
    c.info.iss = c.info.snd_una = cookie.raw();
    c.info.snd_nxt = c.info.snd_end = c.info.iss + 1;
    negotiate(c, syn, a.now);
    join_half_open(c, a.self, static_cast<Index>(&listener - listeners_.data()));
    count(Counter::TcpSynCookiesGood);
    const Counter counter = segment_arrives(c, a);
    if (c.info.state != TcpState::Closed && c.info.state != TcpState::Free) schedule(c, a.self);
    return counter;
}

}  // namespace chiru::tcp
