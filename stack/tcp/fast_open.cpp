// SPDX-License-Identifier: Apache-2.0
//
// TCP Fast Open (RFC 7413): text in a SYN.
//
//   passive   a SYN with a cookie of ours opens its connection at once: it waits to be accepted,
//             its text can be read and text can go back, while the state is SYN-RECEIVED and the
//             SYN-ACK under way. What it lacks until then is a proof that the peer is who it says.
//   active    with a cookie for the destination, the SYN waits for the client's first Send and
//             takes its beginning along. Whatever the peer does not take goes again after the
//             handshake; a SYN that gets lost goes again without text and option.
#include "stack/tcp/machine.hpp"

#include "stack/tcp/fast_open_cookie.hpp"
#include "stack/wire/tcp.hpp"

#include <algorithm>

namespace chiru::tcp {

using shm::Counter;
using shm::FastOpenFail;

namespace {

bool has(const Connection& c, unsigned state) { return (c.info.fast_open & state) != 0; }
void set(Connection& c, unsigned state) {
    c.info.fast_open = static_cast<std::uint8_t>(c.info.fast_open | state);
}
void clear(Connection& c, unsigned state) {
    c.info.fast_open = static_cast<std::uint8_t>(c.info.fast_open & ~state);
}

void note_fail(Connection& c, FastOpenFail why) {
    clear(c, 3u << shm::kFastOpenFailShift);
    set(c, static_cast<unsigned>(why) << shm::kFastOpenFailShift);
}

}  // namespace

// ---- passive -------------------------------------------------------------------------------

// RFC 7413 §4.2.2. Returns whether the connection is open now; its text has been taken then, and
// a.seg holds what was not. Else the handshake is an ordinary one, which acknowledges the SYN only.
bool Machine::opens_early(Connection& c, Arrival& a, Listener& listener) {
    const Segment& seg = a.seg;
    if (!seg.has_fast_open || listener.early.most == 0 ||
        !includes(config_.tcp.fast_open, FastOpenPolicy::Server))
        return false;
    if (listener.early.full(a.now)) {  // nor is a cookie of use to it
        count(Counter::TcpFastOpenFull);
        return false;
    }
    if (seg.cookie.empty()) {
        count(Counter::TcpFastOpenRequests);
        set(c, shm::kFastOpenOption);
        return false;
    }
    const CookieVerdict verdict =
        check_fast_open_cookie(config_.secret, c.info.local_address, c.info.remote_address,
                               seg.cookie, a.now);
    if (verdict != CookieVerdict::Good) set(c, shm::kFastOpenOption);
    if (verdict == CookieVerdict::Bad) {
        count(Counter::TcpFastOpenBadCookie);
        return false;
    }
    if (!take_syn_text(c, a)) {
        count(Counter::TcpFastOpenFull);
        return false;
    }
    // The SYN-ACK and what follows it say the same, one unscaled and the other scaled.
    c.info.rcv_wnd = c.info.rcv_wnd >> c.info.rcv_shift << c.info.rcv_shift;
    need_extra(c, kForEarly)->early_listener = listener.info.listener;
    set(c, shm::kFastOpenEarly);
    ++listener.early.open;
    count(Counter::TcpFastOpenPassive);
    return true;
}

/// False without room for it: then there is no use in being early.
bool Machine::take_syn_text(Connection& c, Arrival& a) {
    if (need_extra(c, kForEarly) == nullptr) return false;
    Segment& seg = a.seg;
    seg.flags = static_cast<std::uint8_t>(seg.flags & ~wire::kSyn);
    seg.seq += 1;
    seg.keep_front(c.info.rcv_wnd);
    if (seg.text.empty()) return true;
    if (take_in_order(c, a)) return false;
    set(c, shm::kFastOpenTaken);
    return true;
}

/// The peer has proven its address, or the connection is over.
void Machine::leave_early(Connection& c) {
    clear(c, shm::kFastOpenEarly);
    Listener& listener = listeners_[c.listener];
    const Extra* const record = extra(c);
    // It may have been closed meanwhile, and the place be another's.
    if (record->early_listener == listener.info.listener) --listener.early.open;
    give_extra(c, kForEarly);
}

/// RFC 7413 §5.1: somebody else's address was in that SYN, it seems.
void Machine::refuse_early(const Connection& c, Instant now) {
    Listener& listener = listeners_[c.listener];
    if (extras_[c.extra].early_listener == listener.info.listener) listener.early.refuse(now);
}

// ---- active --------------------------------------------------------------------------------

/// A Connect that may use it. Without a cookie the SYN asks for one; to a destination where that
/// went wrong lately it is a plain one.
void Machine::begin_fast_open(Connection& c, Index self, Instant now) {
    tell(c, self, kEventOpening);
    if (!includes(config_.tcp.fast_open, FastOpenPolicy::Client)) return;
    const CookieEntry* known = cookies_.find(c.info.local_address, c.info.remote_address);
    if (known != nullptr && CookieCache::is_shunned(*known, now)) {
        note_fail(c, FastOpenFail::NoCookie);
        return;
    }
    set(c, shm::kFastOpenOption);
    if (syn_room(c) > 0) set(c, shm::kFastOpenDeferred);
    else note_fail(c, FastOpenFail::NoCookie);
}

/// How much text a SYN may carry: what the destination takes in a segment, without the options,
/// counted as the most there can be (RFC 7413 §4.2.2).
std::uint32_t Machine::syn_room(const Connection& c) const {
    if (c.info.state != TcpState::SynSent || !has(c, shm::kFastOpenOption)) return 0;
    const CookieEntry* known = cookies_.find(c.info.local_address, c.info.remote_address);
    if (known == nullptr || known->cookie_bytes == 0) return 0;
    const std::uint32_t segment = std::min<std::uint32_t>(known->peer_mss, c.info.mss);
    return segment > kMaxOptionBytes ? segment - static_cast<std::uint32_t>(kMaxOptionBytes) : 0;
}

/// The client has sent something: the SYN goes.
void Machine::end_deferral(Connection& c, Index self) {
    if (!has(c, shm::kFastOpenDeferred)) return;
    clear(c, shm::kFastOpenDeferred);
    c.set(kOweSyn);
    mark_output(c, self);
}

/// A SYN has left.
void Machine::note_syn_sent(Connection& c, std::uint32_t text_bytes, Instant now) {
    if (c.info.state == TcpState::SynReceived) {
        clear(c, shm::kFastOpenOption);  // "SHOULD retransmit [...] with neither data nor" it
        return;
    }
    if (!has(c, shm::kFastOpenOption)) return;
    if (!has(c, shm::kFastOpenAsked) && syn_room(c) == 0) count(Counter::TcpFastOpenAsked);
    set(c, shm::kFastOpenAsked);
    if (text_bytes == 0) return;
    set(c, shm::kFastOpenText);
    send_.launch(c, text_bytes, false, low_us(now));
}

/// The option of the SYN that is about to leave; nothing if it has none.
std::optional<FastOpenCookie> Machine::fast_open_option(const Connection& c, Instant now) const {
    if (!has(c, shm::kFastOpenOption)) return std::nullopt;
    if (c.has(kPassive))
        return make_fast_open_cookie(config_.secret, c.info.local_address, c.info.remote_address,
                                     now);
    if (c.info.state != TcpState::SynSent) return std::nullopt;
    FastOpenCookie cookie;
    const CookieEntry* known = cookies_.find(c.info.local_address, c.info.remote_address);
    if (known != nullptr) cookie.assign(std::span(known->cookie).first(known->cookie_bytes));
    return cookie;
}

/// No answer in time. Somebody on the path may drop such SYNs, so it goes again as a plain one.
void Machine::fast_open_timeout(Connection& c) {
    clear(c, shm::kFastOpenOption);
    if (has(c, shm::kFastOpenAsked)) note_fail(c, FastOpenFail::SynLost);
}

// The SYN-ACK tells whether the text was taken, and brings a cookie, or neither (RFC 7413 §4.1.3.1,
// §4.2.2).
void Machine::fast_open_answered(Connection& c, const Segment& seg, Instant now) {
    if (!has(c, shm::kFastOpenAsked)) return;
    clear(c, shm::kFastOpenOption);
    const IpAddress &local = c.info.local_address, &remote = c.info.remote_address;
    const std::span<const std::byte> cookie =
        seg.has_fast_open ? seg.cookie : std::span<const std::byte>();
    const bool text = has(c, shm::kFastOpenText);
    const bool taken = text && seg.ack > Seq(c.info.iss) + 1;
    cookies_.learn(local, remote, cookie, c.info.peer_mss, now);
    if (!cookie.empty() && config_.shard_count > 1 && learnt_cookie_count_ < kLearntCookies) {
        LearntCookie& news = learnt_cookies_[learnt_cookie_count_++];
        news = {local, remote, {}, c.info.peer_mss};
        news.cookie.assign(cookie);
    }
    if (taken) {
        set(c, shm::kFastOpenTaken);
        note_fail(c, FastOpenFail::None);
        count(Counter::TcpFastOpenActive);
        cookies_.praise(local, remote, now);
        return;
    }
    const bool lost = c.info.timeouts > 0;
    if (lost) count(Counter::TcpFastOpenSynLost);
    else if (text) count(Counter::TcpFastOpenNotTaken);
    if (text && !lost) note_fail(c, FastOpenFail::NotTaken);
    if (cookie.empty() && (text || lost)) cookies_.shun(local, remote, now);
}

bool Machine::take_learnt_cookie(LearntCookie& learnt) {
    if (learnt_cookie_count_ == 0) return false;
    learnt = learnt_cookies_[--learnt_cookie_count_];
    return true;
}

void Machine::learn_cookie(const LearntCookie& learnt, Instant now) {
    cookies_.learn(learnt.local, learnt.remote, learnt.cookie.span(), learnt.peer_mss, now);
}

/// What the SYN's answer acknowledges of its text has arrived. It measures nothing: the SYN may
/// have gone twice, and its round trip was measured already.
void Machine::land_syn_text(Connection& c, Index self, Seq ack) {
    const auto taken = static_cast<std::uint32_t>(ack - Seq(c.info.iss)) - 1;
    c.info.tx_bytes += taken;
    if (taken > 0 && sessions_[c.session].config.counters != nullptr)
        sessions_[c.session].config.counters->tx_bytes.add(taken);
    while (c.flight_head != kNil && send_.flights()[c.flight_head].first < ack) {
        const Flight& f = send_.flights()[c.flight_head];
        if (f.end() > ack)
            send_.trim(c, c.flight_head, static_cast<std::uint32_t>(ack - f.first));
        else send_.land(c, c.flight_head);
    }
    c.info.snd_una = ack.raw();
    reclaim(c, self);
}

/// The rest was for nothing. It goes as if it had never gone: the window, of which the SYN knew
/// nothing, need not have room for it.
void Machine::take_back_syn_text(Connection& c) {
    if (c.flight_head == kNil) return;
    send_.land_all(c);
    c.info.snd_nxt = c.info.snd_una;
    Index i = c.send_head;
    while (send_.records()[i].end() <= c.snd_una()) i = send_.records()[i].next;
    c.send_cursor = i;
    c.send_cursor_offset = static_cast<std::uint32_t>(c.snd_una() - send_.records()[i].first);
}

}  // namespace chiru::tcp
