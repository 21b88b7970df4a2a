// SPDX-License-Identifier: Apache-2.0
//
// The user's calls (RFC 9293 §3.10.1 to 3.10.6), as submissions of clients. Nothing in them is
// believed: names, ranges and owners are checked before anything changes.
#include "stack/tcp/machine.hpp"

#include "stack/ip/flow_hash.hpp"

#include <algorithm>
#include <cerrno>

namespace chiru::tcp {

using shm::ConnectionOption;
using shm::Counter;
using shm::Submission;
using shm::SubmissionOp;

namespace {

/// A search through all ports found none: how long its result is believed.
constexpr Micros kDrought = std::chrono::milliseconds(20);

}  // namespace

// A session may have as many send records as are left to the others: one alone half of all, with n
// that want all they can get each the (n+1)th part.
std::size_t Machine::submission_room(ChannelIndex channel) const {
    if (channel >= channels_.size() || !alive(channels_[channel].session)) return 0;
    const ChannelState& state = channels_[channel];
    const Session& session = sessions_[state.session];
    const std::uint32_t left = send_.records().available();
    const std::uint32_t records = left > session.records ? left - session.records : 0;
    return std::min<std::size_t>(records / shm::kSlicesPerDescriptor,
                                 kChannelRefusals - state.refusal_count);
}

Violation Machine::submit(ChannelIndex channel, std::span<const Submission> submissions,
                          Instant now) {
    now_ = now;
    Violation violation = Violation::None;
    if (channel >= channels_.size() || !alive(channels_[channel].session)) return violation;
    for (const Submission& submission : submissions) {
        violation = submit_one(channel, submission, now);
        if (violation != Violation::None) break;
    }
    flush_slots();
    return violation;
}

Violation Machine::submit_one(ChannelIndex channel, const Submission& s, Instant now) {
    const SessionIndex session = channels_[channel].session;
    switch (s.op) {
        case SubmissionOp::None: return Violation::UnknownOperation;
        case SubmissionOp::Connect: user_connect(channel, s, now); return Violation::None;
        case SubmissionOp::Release: return user_release(session, s, now);
        case SubmissionOp::AcceptCredit: return user_credit(channel, s.credit, now);
        default: break;
    }
    if (s.op > SubmissionOp::Return) return Violation::UnknownOperation;
    // The others name a connection. One that is over is no offence: the news may be on its way.
    const Index self = s.connection.index;
    if (self >= connections_.high()) return Violation::NotItsConnection;
    Connection& c = connections_[self];
    const bool stale = c.info.generation != s.connection.generation ||
                       c.info.state == TcpState::Free || c.session == kNobody;
    if (!stale && c.session != session) return Violation::NotItsConnection;
    if (stale || c.has(kClientGone)) {
        count(Counter::StaleNames);
        return Violation::None;
    }
    Violation violation = Violation::None;
    switch (s.op) {
        case SubmissionOp::Send: violation = user_send(c, self, s); break;
        case SubmissionOp::Shutdown: user_shutdown(c, self); break;
        case SubmissionOp::Close: user_close(c, self, now); break;
        case SubmissionOp::Abort: user_abort(c, self); break;
        case SubmissionOp::Return: user_return(channel, c, self, now); break;
        case SubmissionOp::SetOption: violation = user_option(c, self, s.option, now); break;
        default: c.info.user = s.user; break;
    }
    if (c.info.state != TcpState::Closed && c.info.state != TcpState::Free) schedule(c, self);
    return violation;
}

void Machine::refuse(ChannelIndex channel, std::uint64_t user, int error, std::uint32_t shard) {
    Session& session = sessions_[channels_[channel].session];
    if (session.config.counters != nullptr && (error == ENOBUFS || error == EMFILE))
        session.config.counters->refused.add();
    answer(channel, {.error = static_cast<std::uint16_t>(error),
                     .shard = static_cast<std::uint16_t>(shard),
                     .user = user});
}

void Machine::answer(ChannelIndex channel, const Refusal& refusal) {
    ChannelState& state = channels_[channel];
    if (state.refusal_count == kChannelRefusals) return;  // only beyond submission_room()
    ++state.refusal_count;
    const Index i = refusals_.take();
    refusals_[i] = refusal;
    if (state.refusals == kNil) state.refusals = i;
    else refusals_[state.last_refusal].next = i;
    state.last_refusal = i;
    channel_ready(channel);
}

void Machine::user_connect(ChannelIndex channel, const Submission& s, Instant now) {
    count(Counter::TcpActiveOpens);
    std::uint32_t shard = 0;
    const int error = open(channel, s, now, shard);
    if (error == 0) return;
    if (error != EXDEV) count(Counter::TcpOpenFailed);
    refuse(channel, s.user, error, shard);
}

int Machine::open(ChannelIndex channel, const Submission& s, Instant now, std::uint32_t& shard) {
    const SessionIndex session = channels_[channel].session;
    Session& owner = sessions_[session];
    if (owner.connection_count >= owner.config.max_connections) return EMFILE;
    const Endpoint remote = s.connect.remote;
    if (remote.port == 0) return EADDRNOTAVAIL;
    if (remote.address.is_multicast() || remote.address.is_broadcast() ||
        remote.address.is_unspecified())
        return ENETUNREACH;
    const auto route = lower_.route(remote.address, s.connect.local.address);
    if (!route) return route.error();

    Tuple tuple{route->local, remote.address, s.connect.local.port, remote.port};
    if (!may_open(owner)) return ENOBUFS;
    if (const int error = choose_port(tuple, owner, now, shard); error != 0) return error;
    const Index self = open_block(tuple, now);
    if (self == kNil) return ENOBUFS;
    Connection& c = connections_[self];
    c.info.state = TcpState::SynSent;
    c.info.user = s.user;
    begin_send_space(c, route->path, s.max_segment, now);
    if (const std::uint32_t wish = s.connect.options >> shm::kConnectCongestionShift;
        wish > 0 && wish <= shm::kCongestionAlgorithms)
        choose_congestion(c, static_cast<shm::CongestionAlgorithm>(wish - 1));
    ask_ecn(c);
    adopt(c, self, session, channel);
    const auto wants = [&](ConnectionOption o) {
        return (s.connect.options >> static_cast<unsigned>(o) & 1) != 0;
    };
    if (wants(ConnectionOption::NoDelay)) c.set(kNoDelay);
    if (wants(ConnectionOption::KeepAlive)) c.set(kKeepAlive);
    if (wants(ConnectionOption::QuickAck)) c.set(kQuickAck);
    if (wants(ConnectionOption::FastOpen)) begin_fast_open(c, self, now);
    if ((c.info.fast_open & shm::kFastOpenDeferred) != 0) return 0;
    c.set(kOweSyn);
    mark_output(c, self);
    return 0;
}

bool Machine::is_listened_by_others(const Tuple& tuple, const Session& session) const {
    const Index i = find_listener(tuple);
    if (i == kNil) return false;
    return find_grant(listeners_[i], static_cast<SessionIndex>(&session - sessions_.data()),
                      kNobody) == kNil;
}

// RFC 6056 §3.3.3: from a start that a peer cannot guess, the first port that is free and whose
// answers come to this shard.
int Machine::choose_port(Tuple& tuple, Session& session, Instant now, std::uint32_t& shard) {
    const auto owner = [&](std::uint16_t port) {
        const std::uint32_t hash = ip::flow_hash(Endpoint{tuple.remote, tuple.remote_port},
                                                 Endpoint{tuple.local, port});
        return std::uint32_t{config_.flow_map[ip::flow_group(hash)]};
    };
    if (tuple.local_port != 0) {
        shard = owner(tuple.local_port);
        if (tuple.local_port < session.config.first_port) return EACCES;
        if (shard != config_.shard) return EXDEV;
        if (is_listened_by_others(tuple, session)) return EADDRINUSE;
        return demux_.find(tuple, hash_of(tuple)) == kNil ? 0 : EADDRINUSE;
    }
    const std::uint32_t first = config_.tcp.first_port;
    const std::uint32_t range = std::uint32_t{config_.tcp.last_port} - first + 1;
    const std::uint64_t start = siphash(config_.secret, std::as_bytes(std::span(&tuple, 1)));
    if (now < session.drought_until && session.drought == start) return EADDRNOTAVAIL;
    std::uint32_t offset =
        static_cast<std::uint32_t>(((start & 0xffff'ffff) + next_port_) % range);
    for (std::uint32_t tried = 0; tried < range; ++tried) {
        const auto port = static_cast<std::uint16_t>(first + offset);
        offset = offset + 1 == range ? 0 : offset + 1;
        if (tables_.ports[port] != kNil || owner(port) != config_.shard) continue;
        tuple.local_port = port;
        if (demux_.find(tuple, hash_of(tuple)) != kNil) continue;
        next_port_ += tried + 1;
        return 0;
    }
    session.drought = start;
    session.drought_until = now + kDrought;
    return EADDRNOTAVAIL;
}

Violation Machine::user_send(Connection& c, Index self, const Submission& s) {
    if (s.count == 0 || s.count > shm::kSlicesPerDescriptor) return Violation::BadCount;
    Session& session = sessions_[c.session];
    for (std::size_t i = 0; i < s.count; ++i)
        if (s.slices[i].arena != shm::kTxArena || !session.config.tx_arena.holds(s.slices[i]))
            return Violation::SliceOutsideArena;
    // Nothing may be sent any more: its bytes are the client's again with Closed.
    if (c.has(kFinQueued) || !may_queue(c.info.state)) return Violation::None;
    note_application(c, now_);
    for (std::size_t i = 0; i < s.count; ++i) {
        if (s.slices[i].length == 0) continue;
        const std::uint32_t before = send_.records().used();
        // Sequence numbers are compared within 2^31: queue no more than half of that.
        const bool room = c.info.snd_end - c.info.snd_una + std::uint64_t{s.slices[i].length} <
                          (1u << 30);
        if (!room || !send_.append(c, self, s.slices[i])) {
            if (session.config.counters != nullptr) session.config.counters->refused.add();
            reset(c, self, ENOBUFS);
            return Violation::None;
        }
        session.records += send_.records().used() - before;
    }
    if ((s.flags & shm::kMoreToCome) != 0) c.set(kMoreToCome);
    else c.clear(kMoreToCome);
    tell_launched(c, self);
    end_deferral(c, self);
    mark_output(c, self);
    return Violation::None;
}

Violation Machine::user_release(SessionIndex session, const Submission& s, Instant) {
    const shm::ReleaseBody& body = s.release;
    if (s.count == 0 || s.count > body.slots.size()) return Violation::BadCount;
    Session& owner = sessions_[session];
    for (std::size_t i = 0; i < s.count; ++i) {
        if (body.arena == shm::kRxArena) {
            const Index slot = body.slots[i];
            if (slot >= rx_.count()) return Violation::NotItsSlot;
            RxSlot& r = rx_[slot];
            if (r.state != SlotState::Delivered || r.session != session)
                return Violation::NotItsSlot;
            owner.delivered.remove(rx_.records(), slot);
            free_slot(slot);
            released(r.connection, r.generation, r.length);
        } else if (body.arena == shm::kPrivateRxArena) {
            const std::uint32_t slot = body.slots[i] - owner.config.private_first_slot;
            if (slot >= owner.private_slots.size() ||
                owner.private_slots[slot].connection == kNil)
                return Violation::NotItsSlot;
            PrivateSlot& p = owner.private_slots[slot];
            owner.private_free.push_back(slot);
            --owner.slots_held;
            if (owner.config.counters != nullptr)
                owner.config.counters->rx_slots_held.set(owner.slots_held);
            drop_hold(p.connection, p.generation);
            released(p.connection, p.generation, p.length);
            p.connection = kNil;
        } else {
            return Violation::NotItsSlot;
        }
    }
    // Those who waited for a private slot can go on.
    while (!owner.private_free.empty() && !owner.blocked.empty()) {
        const Index self = owner.blocked.head;
        Connection& c = connections_[self];
        unmark_event(c, self);
        mark_event(c, self);
        if (owner.private_free.size() < 4) break;
    }
    return Violation::None;
}

// The window of the connection opens, if it is still the one that the slot's text was for.
void Machine::released(Index connection, std::uint32_t generation, std::uint32_t bytes) {
    Connection& c = connections_[connection];
    if (c.info.generation != generation || c.info.state == TcpState::Free) return;
    c.info.unread_bytes -= std::min(bytes, c.info.unread_bytes);
    reader_took(c, bytes);
    window_opened(c, connection);
}

void Machine::user_abort(Connection& c, Index self) {
    c.set(kClientGone);
    drop_text(c);
    c.events &= kEventClosed;
    reset(c, self, 0);
}

void Machine::user_shutdown(Connection& c, Index self) {
    if (c.has(kFinQueued)) return;
    switch (c.info.state) {
        case TcpState::SynReceived: break;  // the state follows with the handshake's end
        case TcpState::Established: c.info.state = TcpState::FinWait1; break;
        case TcpState::CloseWait: c.info.state = TcpState::LastAck; break;
        default: return;
    }
    c.set(kFinQueued);
    c.clear(kCork | kMoreToCome);
    mark_output(c, self);
}

void Machine::user_close(Connection& c, Index self, Instant now) {
    const bool unread = c.receive_head != kNil || c.reassembly_head != kNil;
    c.set(kClientGone);
    drop_text(c);
    c.events &= kEventClosed;
    if (c.info.state == TcpState::Closed || c.info.state == TcpState::TimeWait) {
        tell_closed(c, self, 0);
        return;
    }
    if (c.info.state == TcpState::SynSent) {
        end(c, self, 0);
        return;
    }
    // RFC 2525 §2.17: text that nobody will read is answered by a reset, so that the peer does not
    // take it for delivered.
    if (c.has(kLingerZero) || (unread && (may_receive(c.info.state) || c.early()))) {
        reset(c, self, 0);
        return;
    }
    user_shutdown(c, self);
    if (c.info.state == TcpState::FinWait2) {
        c.life_at = now + config_.tcp.fin_wait2;
        tell_closed(c, self, 0);
    } else {
        c.life_at = kNever;  // keep-alive; what is queued has the retransmission timer
    }
}

Violation Machine::user_option(Connection& c, Index self, const shm::OptionBody& option,
                               Instant now) {
    const std::uint64_t value = option.value;
    const auto flag = [&](ConnectionFlag bit) {
        if (value != 0) c.set(bit);
        else c.clear(bit);
        return value <= 1 ? Violation::None : Violation::BadOption;
    };
    const auto seconds = static_cast<std::uint16_t>(std::clamp<std::uint64_t>(value, 1, 32'767));
    switch (option.option) {
        case ConnectionOption::NoDelay: mark_output(c, self); return flag(kNoDelay);
        case ConnectionOption::Cork: mark_output(c, self); return flag(kCork);
        case ConnectionOption::QuickAck: return flag(kQuickAck);
        case ConnectionOption::LingerZero: return flag(kLingerZero);
        case ConnectionOption::KeepAlive: {
            const Violation violation = flag(kKeepAlive);
            c.keep_probes = 0;
            arm_keep_alive(c, now);
            return violation;
        }
        case ConnectionOption::KeepIdle:
            c.info.keep_idle_s = seconds;
            arm_keep_alive(c, now);
            return Violation::None;
        case ConnectionOption::KeepInterval:
            c.info.keep_interval_s = seconds;
            return Violation::None;
        case ConnectionOption::KeepCount:
            c.info.keep_count = static_cast<std::uint8_t>(std::clamp<std::uint64_t>(value, 1, 127));
            return Violation::None;
        case ConnectionOption::UserTimeout:
            c.info.user_timeout_ms =
                static_cast<std::uint32_t>(std::min<std::uint64_t>(value, 0xffff'ffff));
            return Violation::None;
        case ConnectionOption::ReceiveBuffer:
            choose_receive_buffer(c, value);
            return Violation::None;
        case ConnectionOption::SendBuffer: return Violation::None;  // the client's own bound
        case ConnectionOption::CongestionControl:
            if (value >= shm::kCongestionAlgorithms) return Violation::BadOption;
            if (value != c.info.congestion)
                choose_congestion(c, static_cast<shm::CongestionAlgorithm>(value));
            return Violation::None;
        case ConnectionOption::MaxSegment:
            if (value < 64) return Violation::BadOption;
            // It may be narrowed only: what was offered to the peer stands.
            c.info.peer_mss = static_cast<std::uint16_t>(
                std::min<std::uint64_t>(c.info.peer_mss == 0 ? 0xffffu : c.info.peer_mss, value));
            c.info.mss = mss_for(c, c.packet_bytes());
            return Violation::None;
        case ConnectionOption::TypeOfService:
            if (value > 255) return Violation::BadOption;
            c.ip.tos = static_cast<std::uint8_t>(value & 0xfc);  // ECN's two bits are TCP's
            return Violation::None;
        case ConnectionOption::TimeToLive:
            if (value == 0 || value > 255) return Violation::BadOption;
            c.ip.ttl = static_cast<std::uint8_t>(value);
            return Violation::None;
        case ConnectionOption::MaxPacingRate: {
            if (value == 0 && c.extra == kNil) return Violation::None;
            Extra* known = need_extra(c);
            if (known == nullptr) return Violation::None;
            known->pace.most_kbps = static_cast<std::uint32_t>(
                std::min<std::uint64_t>((value + 999) / 1000, 0xffff'ffff));
            update_pacing(c);
            mark_output(c, self);
            return Violation::None;
        }
        case ConnectionOption::DeferAccept:
        case ConnectionOption::FastOpen: return Violation::None;
        case ConnectionOption::UnsentLowWater: watch_unsent(c, self, value); return Violation::None;
    }
    return Violation::BadOption;
}

}  // namespace chiru::tcp
