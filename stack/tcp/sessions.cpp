// SPDX-License-Identifier: Apache-2.0
//
// Clients come and go. When one goes, everything it had comes back: connections are reset, or
// closed if it said farewell, and slots released; a part at each turn, so that the end of a large
// client delays nobody.
#include "stack/tcp/machine.hpp"

#include "base/check.hpp"

#include <algorithm>
#include <cerrno>

namespace chiru::tcp {

using shm::Counter;

namespace {

/// Connections reset and slots released at one turn.
constexpr std::size_t kDetachBatch = 256;
/// How long the memory of a client that is gone is kept for what it sent last, without any of it
/// being acknowledged; and how often that time may begin anew.
constexpr Micros kFarewell = std::chrono::seconds(10);
constexpr std::uint32_t kFarewells = 30;

}  // namespace

void Machine::attach_session(SessionIndex index, const SessionConfig& config) {
    CHECK(index < sessions_.size());
    Session& session = sessions_[index];
    session = Session{};
    session.config = config;
    session.attached = true;
    ++attached_;
    if (config.private_rx_arena.base == nullptr) return;
    session.private_slots.resize(config.private_slots);
    session.private_free.reserve(config.private_slots);
    for (std::uint32_t i = config.private_slots; i > 0; --i) session.private_free.push_back(i - 1);
}

void Machine::detach_session(SessionIndex index, Instant now, Parting parting) {
    now_ = now;
    if (!alive(index)) return;
    Session& session = sessions_[index];
    session.attached = false;  // so that it is offered nothing
    for (Index i = 0; i < listeners_.high(); ++i) {
        if (listeners_[i].info.in_use == 0) continue;
        if (is_shared(listeners_[i], index)) take_back(i, index, kNobody, now);
        drop_grants(listeners_[i], index, kNobody);
    }
    for (std::size_t i = 0; i < channels_.size(); ++i)
        if (channels_[i].session == index) drop_channel(static_cast<ChannelIndex>(i));
    session.orderly = parting == Parting::Orderly;
    --attached_;
    for (PrivateSlot& slot : session.private_slots) {  // nobody will release them
        if (slot.connection == kNil) continue;
        slot.connection = kNil;
        --session.slots_held;
    }
    if (session.config.counters != nullptr)
        session.config.counters->rx_slots_held.set(session.slots_held);
    session.unvisited = session.connection_count;
    ending_.push_back(index);
    detach_some(now);
    flush_slots();
}

void Machine::detach_some(Instant now) {
    std::size_t budget = kDetachBatch;
    for (std::size_t i = 0; i < ending_.size() && budget > 0;) {
        Session& session = sessions_[ending_[i]];
        // One that was visited waits at the list's end, for its reset to go out or for devices.
        for (; budget > 0 && session.unvisited > 0 && !session.connections.empty(); --budget) {
            --session.unvisited;
            const Index self = session.connections.pop_front(connections_.data());
            session.connections.push_back(connections_.data(), self);
            lose_client(connections_[self], self, now);
        }
        for (; budget > 0 && !session.delivered.empty(); --budget)
            free_slot(session.delivered.pop_front(rx_.records()));
        const bool visited = session.unvisited == 0 || session.connections.empty();
        if (visited && session.delivered.empty()) {
            ending_[i] = ending_.back();
            ending_.pop_back();
        } else {
            ++i;
        }
    }
}

// What the client had closed is finished for it, if that does not take long; the rest is reset.
// With one that said farewell, the rest is closed first, as the kernel does for every process.
void Machine::lose_client(Connection& c, Index self, Instant now) {
    if (c.session != kNobody && sessions_[c.session].orderly && !c.has(kClientGone))
        return close_for_client(c, self, now);
    const bool closing = c.has(kClientGone);
    c.set(kClientGone);
    drop_text(c);
    const TcpState state = c.info.state;
    if (state == TcpState::Closed) {
        free_if_done(c, self);
    } else if (closing && c.send_head != kNil) {
        c.info.user = c.info.snd_una;  // the client's word has no reader any longer
        c.life_at = now + kFarewell;
        schedule(c, self);
    } else if (closing || (state == TcpState::TimeWait && c.send_head == kNil)) {
        release_client(c, self);
    } else {
        count(Counter::TcpOrphansReset);
        reset(c, self, ECONNABORTED);
    }
}

// RFC 2525 §2.17: what the client had not read is lost, and the peer shall know.
void Machine::close_for_client(Connection& c, Index self, Instant now) {
    const TcpState state = c.info.state;
    const bool unread = c.info.unread_bytes > 0 && (synchronized(state) || c.early());
    if (unread && state != TcpState::TimeWait && state != TcpState::Closed) {
        c.set(kClientGone);
        drop_text(c);
        count(Counter::TcpOrphansReset);
        reset(c, self, ECONNABORTED);
        return;
    }
    user_close(c, self, now);
    if (c.info.state == TcpState::Free || c.session == kNobody) return;
    lose_client(c, self, now);
    if (c.info.state != TcpState::Closed && c.info.state != TcpState::Free) schedule(c, self);
}

/// The peer still takes what the client left: it may have another while. `user` holds SND.UNA as
/// it was when this while began, and above it how many there were.
bool Machine::extend_farewell(Connection& c, Instant now) {
    const auto before = static_cast<std::uint32_t>(c.info.user);
    const auto times = static_cast<std::uint32_t>(c.info.user >> 32);
    if (c.info.snd_una == before || times >= kFarewells) return false;
    c.info.user = std::uint64_t{times + 1} << 32 | c.info.snd_una;
    c.life_at = now + kFarewell;
    return true;
}

bool Machine::session_gone(SessionIndex index) const {
    const Session& session = sessions_[index];
    return !session.attached && session.connection_count == 0 && session.delivered.empty() &&
           session.records == 0;
}

void Machine::attach_channel(ChannelIndex channel, SessionIndex session) {
    CHECK(channel < channels_.size());
    channels_[channel] = ChannelState{};
    channels_[channel].session = session;
}

// Nobody listens there any longer.
void Machine::drop_channel(ChannelIndex index) {
    ChannelState& channel = channels_[index];
    for (Index i = 0; i < listeners_.high(); ++i)
        if (listeners_[i].info.in_use != 0) drop_grants(listeners_[i], channel.session, index);
    while (channel.refusals != kNil) {
        const Index i = channel.refusals;
        channel.refusals = refusals_[i].next;
        refusals_.give(i);
    }
    while (!channel.events.empty())
        unmark_event(connections_[channel.events.head], channel.events.head);
    channel_idle_if_empty(index);
    channel.session = kNobody;
}

void Machine::detach_channel(ChannelIndex index, Instant now) {
    now_ = now;
    const SessionIndex owner = channels_[index].session;
    if (owner == kNobody) return;
    for (Index i = 0; i < listeners_.high(); ++i)
        if (listeners_[i].info.in_use != 0) take_back(i, owner, index, now);
    drop_channel(index);
    for (Index self = sessions_[owner].connections.head; self != kNil;) {
        Connection& c = connections_[self];
        const Index next = c.session_next;
        if (c.info.channel == index) {
            unmark_event(c, self);
            c.info.channel = kNobody;
            lose_client(c, self, now);
        }
        self = next;
    }
    flush_slots();
}

}  // namespace chiru::tcp
