// SPDX-License-Identifier: Apache-2.0
//
// Listeners, and handing over what they accepted.
#include "stack/tcp/listener.hpp"

#include "shm/control.hpp"
#include "stack/tcp/machine.hpp"

#include <algorithm>
#include <cerrno>

namespace chiru::tcp {

using shm::Counter;

namespace {

std::size_t bucket(shm::ListenerId id) {
    return static_cast<std::size_t>(id) % kListenerBuckets;
}

}  // namespace

// An exact address comes before "any of this family", that before "any".
Index Machine::find_listener(const Tuple& tuple) const {
    Index best = kNil;
    int rank = 0;
    for (Index i = tables_.ports[tuple.local_port]; i != kNil; i = listeners_[i].next_of_port) {
        const shm::ListenerInfo& info = listeners_[i].info;
        int fits = 0;
        if (info.address == tuple.local) fits = 3;
        else if (!info.address.is_unspecified()) fits = 0;
        else if (info.address.is_v4() == tuple.local.is_v4()) fits = 2;
        else if (info.address.is_v6() && info.v6_only == 0) fits = 1;
        if (fits > rank) {
            rank = fits;
            best = i;
        }
    }
    return best;
}

Index Machine::find_listener(shm::ListenerId id) const {
    Index i = listener_ids_[bucket(id)];
    while (i != kNil && listeners_[i].info.listener != static_cast<std::uint32_t>(id))
        i = listeners_[i].next_of_id;
    return i;
}

void Machine::listen(shm::ListenerId id, const Endpoint& local, std::uint32_t bind_flags,
                     const ListenTerms& terms) {
    const std::uint32_t bounded = std::min(terms.backlog, kMaxBacklog);
    if (const Index known = find_listener(id); known != kNil) {
        listeners_[known].info.backlog = bounded;
        listeners_[known].defer_s = terms.defer_s;
        listeners_[known].max_segment = terms.max_segment;
        listeners_[known].early.most = terms.fast_open;
        return;
    }
    const Index i = listeners_.take();
    if (i == kNil) return;  // control hands out no more ids than there are records
    Listener& l = listeners_[i];
    l = Listener{};
    l.info.address = local.address;
    l.info.port = local.port;
    l.info.in_use = 1;
    l.info.v6_only = (bind_flags & shm::kBindV6Only) != 0;
    l.info.listener = static_cast<std::uint32_t>(id);
    l.info.backlog = bounded;
    l.defer_s = terms.defer_s;
    l.max_segment = terms.max_segment;
    l.early.most = terms.fast_open;
    l.next_of_port = tables_.ports[local.port];
    tables_.ports[local.port] = i;
    l.next_of_id = listener_ids_[bucket(id)];
    listener_ids_[bucket(id)] = i;
}

void Machine::unlisten(shm::ListenerId id, Instant now) {
    now_ = now;
    const Index i = find_listener(id);
    if (i == kNil) return;
    Listener& l = listeners_[i];
    const auto unlink = [this, i](Index& head, Index Listener::*next) {
        Index* at = &head;
        while (*at != i) at = &(listeners_[*at].*next);
        *at = listeners_[i].*next;
    };
    unlink(tables_.ports[l.info.port], &Listener::next_of_port);
    unlink(listener_ids_[bucket(id)], &Listener::next_of_id);
    for (EventList* list : {&l.half_open, &l.waiting})
        while (!list->empty()) reset(connections_[list->head], list->head, ECONNABORTED);
    while (l.grants != kNil) drop_grants(l, grants_[l.grants].session, grants_[l.grants].channel);
    l.info = {};
    listeners_.give(i);
    flush_slots();
}

void Machine::share_listener(shm::ListenerId id, SessionIndex session) {
    const Index i = find_listener(id);
    if (i == kNil) return;
    Listener& l = listeners_[i];
    if (find_grant(l, session, kNobody) != kNil) return;
    const Index g = grants_.take();
    if (g == kNil) return;
    grants_[g] = {kNil, kNil, 0, session, kNobody, 0, 0};
    GrantList list{l.grants, l.last_grant};
    list.push_back(grants_.data(), g);
    l.grants = list.head;
    l.last_grant = list.tail;
    if (l.info.session == 0) l.info.session = sessions_[session].config.id;
}

Index Machine::find_grant(const Listener& l, SessionIndex session, ChannelIndex channel) const {
    Index g = l.grants;
    while (g != kNil && !(grants_[g].session == session && grants_[g].channel == channel))
        g = grants_[g].next;
    return g;
}

/// All of a session's grants, or with a channel only that one's. `but_untaken`: those stay, without
/// credit, that tell which connections are on their way to a client that leaves.
void Machine::drop_grants(Listener& l, SessionIndex session, ChannelIndex channel,
                          bool but_untaken) {
    GrantList list{l.grants, l.last_grant};
    for (Index g = list.head; g != kNil;) {
        const Index next = grants_[g].next;
        Grant& grant = grants_[g];
        if (grant.session == session && (channel == kNobody || grant.channel == channel)) {
            grant.credit = 0;
            if (!but_untaken || grant.channel == kNobody || grant.handed == grant.taken) {
                list.remove(grants_.data(), g);
                grants_.give(g);
            }
        }
        g = next;
    }
    l.grants = list.head;
    l.last_grant = list.tail;
    if (session == kNobody || l.info.session != sessions_[session].config.id) return;
    if (find_grant(l, session, kNobody) != kNil) return;
    l.info.session = l.grants == kNil ? 0 : sessions_[grants_[l.grants].session].config.id;
}

// Connections that went to a channel and were not told to it yet go back, and to the others. What
// was told it returns, or is taken back from it when it ends.
void Machine::leave_listener(shm::ListenerId id, SessionIndex session, Instant now) {
    now_ = now;
    const Index i = find_listener(id);
    if (i == kNil) return;
    Listener& l = listeners_[i];
    drop_grants(l, session, kNobody, true);
    const auto& mine = sessions_[session].connections;
    for (Index self = mine.head; self != kNil;) {
        Connection& c = connections_[self];
        const Index next = c.session_next;
        if (c.listener == i && (c.events & kEventAccepted) != 0) {
            if (may_go_back(c)) give_back(c, self, l);
            else user_abort(c, self);
        }
        self = next;
    }
    offer(l, now);
}

/// With another session? What waits at a listener that nobody holds would wait for ever.
bool Machine::is_shared(const Listener& l, SessionIndex session) const {
    Index g = l.grants;
    while (g != kNil && grants_[g].session == session) g = grants_[g].next;
    return g != kNil;
}

/// Is it as it came from the listener: has no client said anything on it, or read of it?
bool Machine::may_go_back(const Connection& c) const {
    const bool open = c.info.state == TcpState::Established ||
                      c.info.state == TcpState::CloseWait || c.early();
    if (!open) return false;
    if (c.has(kClientGone | kFinQueued)) return false;
    if (c.send_head != kNil || c.info.snd_end != c.info.iss + 1) return false;
    const std::uint32_t fin = c.info.state == TcpState::CloseWait ? 1 : 0;
    const std::uint32_t text = c.info.rcv_nxt - c.info.irs - 1 - fin;
    if (c.info.unread_bytes != text) return false;
    if (sessions_[c.session].private_slots.empty()) return true;
    // What an isolated session was told lies in its own arena, where no other can read it.
    std::uint32_t queued = 0;
    for (Index s = c.receive_head; s != kNil; s = rx_.at(s).next) queued += rx_.at(s).length;
    return queued == text;
}

/// Connections that a channel of the session's (kNobody: any) was given at the listener and its
/// program did not take wait there again.
void Machine::take_back(Index listener, SessionIndex session, ChannelIndex channel, Instant now) {
    Listener& l = listeners_[listener];
    const auto concerned = [&](const Grant& grant) {
        return grant.session == session && grant.channel != kNobody &&
               (channel == kNobody || grant.channel == channel);
    };
    std::uint32_t untaken = 0;
    for (Index g = l.grants; g != kNil; g = grants_[g].next) {
        if (!concerned(grants_[g])) continue;
        untaken += grants_[g].handed - grants_[g].taken;
        grants_[g].credit = 0;
    }
    // They are among the session's youngest.
    for (Index self = sessions_[session].connections.tail; self != kNil && untaken != 0;) {
        Connection& c = connections_[self];
        const Index before = c.session_prev;
        // A client that gave it a word of its own has taken it.
        const bool of_this = c.listener == listener && c.info.user == l.info.listener;
        const Index g = of_this ? find_grant(l, session, c.info.channel) : kNil;
        if (g != kNil && concerned(grants_[g]) && Seq(c.handover) > Seq(grants_[g].taken)) {
            --untaken;
            if (may_go_back(c)) give_back(c, self, l);
        }
        self = before;
    }
    offer(l, now);
}

void Machine::give_back(Connection& c, Index self, Listener& l) {
    c.events = 0;
    c.info.sent_bytes = 0;
    unmark_event(c, self);
    Session& session = sessions_[c.session];
    rx_.recall(c, self, session.delivered);
    session.connections.remove(connections_.data(), self);
    --session.connection_count;
    if (session.config.counters != nullptr)
        session.config.counters->connections.set(session.connection_count);
    const auto move = [this](Index first) {
        for (Index s = first; s != kNil; s = rx_[s].next) {
            --sessions_[rx_[s].session].slots_held;
            rx_[s].session = kNobody;
            ++unowned_slots_;
        }
    };
    move(c.receive_head);
    move(c.reassembly_head);
    if (session.config.counters != nullptr)
        session.config.counters->rx_slots_held.set(session.slots_held);
    send_.change_hands(c, kNobody);
    c.info.session = 0;
    c.info.channel = kNobody;
    c.set(kPending);
    l.waiting.push_front(connections_.data(), self);
    ++l.info.waiting;
}

void Machine::join_half_open(Connection& c, Index self, Index listener) {
    Listener& l = listeners_[listener];
    c.listener = static_cast<std::uint16_t>(listener);
    c.set(kPending);
    l.half_open.push_back(connections_.data(), self);
    ++l.info.syn_received;
}

void Machine::join_waiting(Connection& c, Index self, Instant now) {
    Listener& l = listeners_[c.listener];
    l.half_open.remove(connections_.data(), self);
    --l.info.syn_received;
    l.waiting.push_back(connections_.data(), self);
    ++l.info.waiting;
    offer(l, now);
    if (c.has(kPending)) count(Counter::TcpAcceptQueueFull);
}

void Machine::leave_pending(Connection& c, Index self) {
    Listener& l = listeners_[c.listener];
    c.clear(kPending);
    if (c.info.state == TcpState::SynReceived && !c.early()) {
        l.half_open.remove(connections_.data(), self);
        --l.info.syn_received;
    } else {
        l.waiting.remove(connections_.data(), self);
        --l.info.waiting;
    }
}

/// Is there a session that would take one more connection at once, and may have it when blocks are
/// scarce?
bool Machine::has_taker(const Listener& l) const {
    for (Index g = l.grants; g != kNil; g = grants_[g].next) {
        const Grant& grant = grants_[g];
        if (grant.credit == 0 || !alive(grant.session)) continue;
        const Session& session = sessions_[grant.session];
        if (session.connection_count < session.config.max_connections && may_open(session))
            return true;
    }
    return false;
}

// Each waiting connection goes to the first grant with credit, which then goes to the end of the
// line.
void Machine::offer(Listener& l, Instant) {
    GrantList line{l.grants, l.last_grant};
    Index g = line.head;
    while (!l.waiting.empty() && g != kNil) {
        Grant& grant = grants_[g];
        const Index next = grant.next;
        Session& session = sessions_[grant.session];
        if (grant.credit == 0 || !alive(grant.session) ||
            session.connection_count >= session.config.max_connections) {
            g = next;
            continue;
        }
        const Index self = l.waiting.head;
        Connection& c = connections_[self];
        leave_pending(c, self);
        --grant.credit;
        c.handover = ++grant.handed;
        ++l.info.accepted;
        adopt(c, self, grant.session, grant.channel);
        c.info.user = l.info.listener;
        tell(c, self, kEventAccepted);
        if (c.has(kPeerFinKnown) && c.info.state >= TcpState::CloseWait)
            tell(c, self, kEventPeerClosed);
        line.remove(grants_.data(), g);
        line.push_back(grants_.data(), g);
        g = line.head;
    }
    l.grants = line.head;
    l.last_grant = line.tail;
}

Violation Machine::user_credit(ChannelIndex channel, const shm::CreditBody& credit, Instant now) {
    const SessionIndex session = channels_[channel].session;
    const Index i = find_listener(credit.listener);
    if (i == kNil || find_grant(listeners_[i], session, kNobody) == kNil) {
        count(Counter::StaleNames);  // it may have left the listener a moment ago
        return Violation::None;
    }
    Listener& l = listeners_[i];
    Index g = find_grant(l, session, channel);
    if (g == kNil) {
        g = grants_.take();
        if (g == kNil) return Violation::None;
        grants_[g] = {kNil, kNil, 0, session, channel, 0, 0};
        GrantList list{l.grants, l.last_grant};
        list.push_back(grants_.data(), g);
        l.grants = list.head;
        l.last_grant = list.tail;
    }
    const std::uint32_t room = kMaxBacklog - grants_[g].credit;
    grants_[g].credit += std::min(credit.count, room);
    grants_[g].taken += std::min(credit.taken, grants_[g].handed - grants_[g].taken);
    offer(l, now);
    return Violation::None;
}

// A channel that returns one takes no more of that listener, and has taken none of the others.
void Machine::user_return(ChannelIndex channel, Connection& c, Index self, Instant now) {
    Listener* l = c.listener == kNobody ? nullptr : &listeners_[c.listener];
    if (l != nullptr && c.info.user != l->info.listener) l = nullptr;  // it is no more
    if (l != nullptr) {
        const Index g = find_grant(*l, c.session, channel);
        if (g != kNil) {
            grants_[g].credit = 0;
            grants_[g].taken = grants_[g].handed;
        }
    }
    if (l == nullptr || !may_go_back(c)) return user_abort(c, self);
    const shm::ConnectionId name{self, c.info.generation};
    give_back(c, self, *l);
    answer(channel, {.returned = name});
    offer(*l, now);
}

}  // namespace chiru::tcp
