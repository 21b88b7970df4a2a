// SPDX-License-Identifier: Apache-2.0
//
// Blocks and the lists they are in: how a connection comes to be, and the one way it ends.
#include "stack/tcp/machine.hpp"

#include "base/check.hpp"
#include "stack/tcp/isn.hpp"

#include <bit>

namespace chiru::tcp {

using shm::Counter;

namespace {

/// The hash table's key must not tell anything about the secret of sequence numbers.
SipKey derive(const SipKey& secret, std::uint64_t purpose) {
    const std::array<std::uint64_t, 2> first{purpose, 1}, second{purpose, 2};
    return {siphash(secret, std::as_bytes(std::span(first))),
            siphash(secret, std::as_bytes(std::span(second)))};
}

}  // namespace

Machine::Tables::Tables(const StackConfig& config, std::span<std::byte> region) {
    TableLayout layout(region);
    connections = layout.take<Connection>(config.connections);
    listeners = layout.take<Listener>(config.listeners);
    demux_entries = Demux::entries(config.connections);
    demux = layout.take<Demux::Entry>(demux_entries);
    records = layout.take<SendEntry>(config.send_records);
    flights = layout.take<Flight>(config.send_records);
    extras = layout.take<Extra>(config.connections);
    slots = layout.take<RxSlot>(config.rx_slots);
    grants = layout.take<Grant>(std::size_t{4} * config.listeners);
    refusals = layout.take<Refusal>(shm::kMaxChannels * kChannelRefusals);
    cookies = layout.take<CookieEntry>(kCookieEntries);
    ports = layout.take<Index>(65'536);
    bytes = layout.bytes();
    fits = layout.fits();
}

Machine::Machine(const StackConfig& config, std::span<std::byte> region,
                 shm::ShardTables& published, ArenaView rx_arena, Lower& lower, BufferPool& pool,
                 shm::CounterBlock& counters, Instant now)
    : config_(config),
      hash_key_(derive(config.secret, 0x6465'6d75'78)),
      tables_(config, region),
      connections_(tables_.connections, config.connections),
      demux_(tables_.demux, tables_.demux_entries, tables_.connections),
      wheel_(tables_.connections, now),
      send_({tables_.records, config.send_records}, {tables_.flights, config.send_records}),
      extras_(tables_.extras, config.connections),
      rx_(tables_.slots, config.rx_slots, rx_arena),
      cookies_(tables_.cookies, derive(config.secret, 0x636f'6f6b'6965)),
      listeners_(tables_.listeners, config.listeners),
      grants_(tables_.grants, 4 * config.listeners),
      refusals_(tables_.refusals, shm::kMaxChannels * kChannelRefusals),
      published_(published),
      rx_arena_(rx_arena),
      lower_(lower),
      pool_(pool),
      counters_(counters),
      sessions_(shm::kMaxSessions),
      channels_(shm::kMaxChannels),
      challenges_(kChallengesPerSecond),
      resets_(config.tcp.resets_per_second),
      now_(now) {
    CHECK(tables_.fits);
    std::fill_n(tables_.ports, 65'536, kNil);
    listener_ids_.fill(kNil);
    ending_.reserve(shm::kMaxSessions);
    for (const InterfaceConfig& interface : config.interfaces)
        choices_.push_back({interface.congestion.value_or(config.tcp.congestion),
                            interface.ecn.value_or(config.tcp.ecn),
                            interface.pacing.value_or(config.tcp.pacing)});
    slot_limit_ = config.text_slots();
    const auto* base = reinterpret_cast<const std::byte*>(&published);
    const auto offset = [base](const void* table) {
        return static_cast<std::uint64_t>(static_cast<const std::byte*>(table) - base);
    };
    published.connections = {offset(tables_.connections), sizeof(Connection), config.connections};
    published.listeners = {offset(tables_.listeners), sizeof(Listener), config.listeners};
}

bool Machine::may_open(const Session& session) const {
    const std::uint32_t fair = std::max(reserved_blocks() / std::max(attached_, 1u), 1u);
    return spare_blocks() > reserved_blocks() || session.connection_count < fair;
}

Index Machine::open_block(const Tuple& tuple, Instant now) {
    if (connections_.available() == 0 && !recycle_time_wait()) return kNil;
    const Index self = connections_.take();
    if (self == kNil) return kNil;
    Connection& c = connections_[self];
    const std::uint32_t generation = c.info.generation + 1;
    c = Connection{};
    c.info.generation = generation == 0 ? 1 : generation;
    c.info.local_address = tuple.local;
    c.info.remote_address = tuple.remote;
    c.info.local_port = tuple.local_port;
    c.info.remote_port = tuple.remote_port;
    c.info.channel = kNobody;
    c.info.opened_us = c.info.last_received_us = now.time_since_epoch().count();
    demux_.insert(self, hash_of(tuple));
    published_.connections_high = connections_.high();
    published_.connections_live = connections_.used();
    return self;
}

void Machine::end(Connection& c, Index self, int error) {
    if (c.info.state == TcpState::Closed || c.info.state == TcpState::Free) return;
    if (c.has(kPending)) leave_pending(c, self);
    if (c.early()) leave_early(c);
    if (is_orphan(c)) --orphans_;
    if (c.info.state == TcpState::TimeWait && c.session == kNobody)
        leave_time_wait(self);
    unpark(c, self);
    demux_.remove(self, hash_of(tuple_of(c)));
    wheel_.cancel(self);
    c.retransmit_at = c.ack_at = c.reorder_at = c.life_at = kNever;
    c.clear(kOweAck | kOweSyn | kOweProbe | kOweKeepAlive | kOweTail);
    while (c.reassembly_head != kNil) free_slot(rx_.drop_reassembly(c));
    c.info.state = TcpState::Closed;
    send_.abandon(c);
    give_extra(c);
    reclaim(c, self);
    tell_closed(c, self, error);
    free_if_done(c, self);
}

Extra* Machine::need_extra(Connection& c, std::uint8_t use) {
    if (c.extra == kNil) {
        c.extra = extras_.take();
        if (c.extra != kNil) extras_[c.extra] = Extra{};
    }
    if (c.extra != kNil) extras_[c.extra].uses |= use;
    return extra(c);
}

void Machine::give_extra(Connection& c, std::uint8_t use) {
    if (c.extra == kNil) return;
    Extra& e = extras_[c.extra];
    if ((e.uses & use & kForWindow) != 0) growing_.remove(extras_.data(), c.extra);
    e.uses &= static_cast<std::uint8_t>(~use);
    if (e.uses != 0) return;
    extras_.give(c.extra);
    c.extra = kNil;
    c.info.pacing_kbps = 0;
}

void Machine::reset(Connection& c, Index self, int error) {
    const TcpState state = c.info.state;
    if (state == TcpState::SynReceived || (synchronized(state) && state != TcpState::TimeWait)) {
        c.set(kOweReset);
    }
    end(c, self, error);
    if (c.has(kOweReset)) mark_output(c, self);  // now that it waits for no neighbour
}

void Machine::free_if_done(Connection& c, Index self) {
    if (c.info.state != TcpState::Closed || c.has(kOweReset) || c.send_head != kNil) return;
    const bool listening = alive(c.session) && c.info.channel != kNobody;
    if (listening) return;
    if (c.session != kNobody) {
        release_client(c, self);  // comes back here
        return;
    }
    drop_text(c);
    if (c.has(kInOutput)) output_.remove(connections_.data(), self);
    c.info.flags = 0;
    c.info.state = TcpState::Free;
    connections_.give(self);
    published_.connections_live = connections_.used();
}

void Machine::release_client(Connection& c, Index self) {
    if (c.session == kNobody) return;
    unmark_event(c, self);
    drop_text(c);
    give_extra(c, kForWindow | kForUnsent);
    Session& session = sessions_[c.session];
    session.connections.remove(connections_.data(), self);
    --session.connection_count;
    if (session.config.counters != nullptr) {
        session.config.counters->connections.set(session.connection_count);
        session.config.counters->closed.add();
    }
    send_.change_hands(c, kNobody);
    c.info.session = 0;
    c.info.channel = kNobody;
    c.events = 0;
    if (c.info.state == TcpState::TimeWait) join_time_wait(self);
    if (is_orphan(c) && ++orphans_ > connections_.capacity() / kOrphanShare) {
        count(Counter::TcpOrphansReset);
        reset(c, self, 0);
        return;
    }
    free_if_done(c, self);
}

void Machine::adopt(Connection& c, Index self, SessionIndex session, ChannelIndex channel) {
    Session& owner = sessions_[session];
    send_.change_hands(c, session);
    c.info.session = owner.config.id;
    c.info.channel = channel;
    owner.connections.push_back(connections_.data(), self);
    ++owner.connection_count;
    if (owner.config.counters != nullptr) {
        owner.config.counters->connections.set(owner.connection_count);
        owner.config.counters->opened.add();
    }
    const auto move = [&](Index first) {
        for (Index i = first; i != kNil; i = rx_[i].next) {
            rx_[i].session = session;
            --unowned_slots_;
            charge_slot(c);
        }
    };
    move(c.receive_head);
    move(c.reassembly_head);
}

void Machine::enter_time_wait(Connection& c, Index self, Instant now) {
    if (is_orphan(c)) --orphans_;
    c.info.state = TcpState::TimeWait;
    c.retransmit_at = c.reorder_at = kNever;
    c.life_at = now + config_.tcp.time_wait;
    count(Counter::TcpClosed);
    if (c.session == kNobody) join_time_wait(self);
    tell_closed(c, self, 0);
}

/// The oldest makes room when too many rest.
void Machine::join_time_wait(Index self) {
    time_wait_.push_back(connections_.data(), self);
    if (++time_waiting_ > connections_.capacity() / kTimeWaitShare) recycle_time_wait();
}

void Machine::leave_time_wait(Index self) {
    time_wait_.remove(connections_.data(), self);
    --time_waiting_;
}

/// Does it finish by itself what a client left?
bool Machine::is_orphan(const Connection& c) const {
    return c.session == kNobody && c.has(kClientGone) && c.info.state != TcpState::TimeWait &&
           c.info.state != TcpState::Closed && c.info.state != TcpState::Free;
}

bool Machine::recycle_time_wait() {
    const Index oldest = time_wait_.head;
    if (oldest == kNil) return false;
    count(Counter::TcpTimeWaitRecycled);
    end(connections_[oldest], oldest, 0);
    return connections_.available() > 0;
}

void Machine::tell(Connection& c, Index self, std::uint8_t event) {
    if (!alive(c.session) || c.info.channel == kNobody) return;
    if (c.has(kClientGone) && event != kEventClosed) return;
    c.events |= event;
    mark_event(c, self);
}

void Machine::tell_closed(Connection& c, Index self, int error) {
    if (c.has(kClosedTold)) return;
    c.set(kClosedTold);
    c.info.error = static_cast<std::uint16_t>(error);
    tell(c, self, kEventClosed);
}

void Machine::mark_event(Connection& c, Index self) {
    if (c.has(kInEvents) || c.info.channel == kNobody || !alive(c.session)) return;
    c.set(kInEvents);
    channels_[c.info.channel].events.push_back(connections_.data(), self);
    channel_ready(c.info.channel);
}

void Machine::unmark_event(Connection& c, Index self) {
    if (!c.has(kInEvents)) return;
    c.clear(kInEvents);
    if (c.has(kBlocked)) {
        c.clear(kBlocked);
        sessions_[c.session].blocked.remove(connections_.data(), self);
        return;
    }
    channels_[c.info.channel].events.remove(connections_.data(), self);
    channel_idle_if_empty(c.info.channel);
}

void Machine::mark_output(Connection& c, Index self) {
    if (c.has(kInOutput | kParked)) return;
    c.set(kInOutput);
    output_.push_back(connections_.data(), self);
}

void Machine::schedule(Connection& c, Index self) {
    const Instant at = std::min(c.earliest(), pace_deadline(c));
    if (at != kNever) wheel_.schedule(self, at);
}

void Machine::reclaim(Connection& c, Index self) {
    const std::uint32_t records = send_.reclaim(c);
    if (records == 0) return;
    if (c.session != kNobody) sessions_[c.session].records -= records;
    mark_event(c, self);
    // A client that is gone has nothing left here: the connection finishes without it.
    const bool last = c.send_head == kNil && c.session != kNobody && !alive(c.session);
    if (last && c.has(kClientGone) && c.info.state != TcpState::Closed) release_client(c, self);
}

void Machine::drop_text(Connection& c) {
    while (c.receive_head != kNil) {
        const Index i = rx_.drop_queued(c);
        c.info.unread_bytes -= rx_[i].length;
        free_slot(i);
    }
}

void Machine::free_slot(Index slot) {
    RxSlot& s = rx_[slot];
    if (s.session == kNobody) --unowned_slots_;
    else {
        Session& session = sessions_[s.session];
        --session.slots_held;
        if (session.config.counters != nullptr)
            session.config.counters->rx_slots_held.set(session.slots_held);
    }
    drop_hold(s.connection, s.generation);
    rx_.free(slot);
    if (free_slot_count_ == kSlotBatch) flush_slots();
    free_slots_[free_slot_count_++] = {rx_.divider().offset(slot), 0, shm::kRxArena, 0};
}

/// A slot's text is no longer that connection's.
void Machine::drop_hold(Index connection, std::uint32_t generation) {
    shm::ConnectionInfo& info = connections_[connection].info;
    if (info.generation == generation && info.rx_slots > 0) --info.rx_slots;
}

void Machine::flush_slots() {
    if (free_slot_count_ == 0) return;
    pool_.release(std::span(free_slots_).first(free_slot_count_));
    free_slot_count_ = 0;
}

std::uint32_t Machine::timestamp(const Connection& c, Instant now) const {
    const auto ms = static_cast<std::uint32_t>(now.time_since_epoch().count() / 1000);
    return ms + c.ts_offset;
}

bool Machine::connection_info(SessionIndex session, shm::ConnectionId name,
                              shm::ConnectionInfo& info) const {
    if (name.index >= connections_.high()) return false;
    const Connection& c = connections_[name.index];
    if (c.info.state == TcpState::Free || c.info.generation != name.generation ||
        c.session != session)
        return false;
    info = c.info;
    return true;
}

}  // namespace chiru::tcp
