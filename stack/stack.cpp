// SPDX-License-Identifier: Apache-2.0
//
// Puts the two halves together: IP below, TCP above, one region of tables under both.
#include "stack/stack.hpp"

#include "base/cache.hpp"
#include "stack/ip/network.hpp"
#include "stack/tcp/engine.hpp"

#include <algorithm>
#include <new>

namespace chiru {
namespace {

constexpr std::size_t rounded(std::size_t bytes) {
    return (bytes + kNoSharing - 1) / kNoSharing * kNoSharing;
}

constexpr std::size_t kHeaderBytes = rounded(sizeof(shm::ShardTables));

shm::ShardTables& begin_tables(const StackConfig& config, std::span<std::byte> tables) {
    CHECK(tables.size() >= Stack::tables_bytes(config));
    auto* published = new (tables.data()) shm::ShardTables;
    published->shard = config.shard;
    published->bytes = tables.size();
    return *published;
}

}  // namespace

struct Stack::State {
    State(const StackConfig& config, std::span<std::byte> tables, ArenaView rx_arena,
          BufferPool& pool, shm::CounterBlock& counters, Instant now)
        : published(begin_tables(config, tables)),
          network(config,
                  tables.subspan(kHeaderBytes, rounded(ip::Network::tables_bytes(config))),
                  tables.data(), published, rx_arena, pool, counters, now),
          tcp(config,
              tables.subspan(kHeaderBytes + rounded(ip::Network::tables_bytes(config))),
              published, rx_arena, network, pool, counters, now) {
        network.attach(tcp);
    }

    shm::ShardTables& published;
    ip::Network network;
    tcp::Engine tcp;
};

std::size_t Stack::tables_bytes(const StackConfig& config) {
    return kHeaderBytes + rounded(ip::Network::tables_bytes(config)) +
           rounded(tcp::Engine::tables_bytes(config));
}

Stack::Stack(const StackConfig& config, std::span<std::byte> tables, ArenaView rx_arena,
             BufferPool& pool, shm::CounterBlock& counters, Instant now)
    : state_(std::make_unique<State>(config, tables, rx_arena, pool, counters, now)) {}

Stack::~Stack() = default;

void Stack::receive(std::span<const RxFrame> frames, Instant now) {
    state_->network.receive(frames, now);
}

void Stack::advance(Instant now) {
    state_->published.now_us = now.time_since_epoch().count();
    state_->network.advance(now);
    state_->tcp.advance(now);
}

std::size_t Stack::transmit(std::span<TxFrame> frames, Instant now) {
    std::size_t count = state_->network.transmit(frames, now);
    count += state_->tcp.transmit(frames.subspan(count), now);
    // What TCP found unresolved asks for its neighbours in the same burst.
    return count + state_->network.transmit(frames.subspan(count), now);
}

void Stack::sent(SendRecord record) { state_->tcp.sent(record); }

Instant Stack::next_deadline() const {
    return std::min(state_->network.next_deadline(), state_->tcp.next_deadline());
}

void Stack::link_up(PortIndex port, Instant now) { state_->network.link_up(port, now); }

void Stack::attach_session(SessionIndex session, const SessionConfig& config) {
    state_->tcp.attach_session(session, config);
}

void Stack::detach_session(SessionIndex session, Instant now, Parting parting) {
    state_->tcp.detach_session(session, now, parting);
}

bool Stack::session_gone(SessionIndex session) const {
    return state_->tcp.session_gone(session);
}

void Stack::attach_channel(ChannelIndex channel, SessionIndex session) {
    state_->tcp.attach_channel(channel, session);
}

void Stack::detach_channel(ChannelIndex channel, Instant now) {
    state_->tcp.detach_channel(channel, now);
}

void Stack::listen(shm::ListenerId listener, const Endpoint& local, std::uint32_t bind_flags,
                   const ListenTerms& terms) {
    state_->tcp.listen(listener, local, bind_flags, terms);
}

void Stack::share_listener(shm::ListenerId listener, SessionIndex session) {
    state_->tcp.share_listener(listener, session);
}

void Stack::leave_listener(shm::ListenerId listener, SessionIndex session, Instant now) {
    state_->tcp.leave_listener(listener, session, now);
}

void Stack::unlisten(shm::ListenerId listener, Instant now) {
    state_->tcp.unlisten(listener, now);
}

bool Stack::connection_info(SessionIndex session, shm::ConnectionId connection,
                            shm::ConnectionInfo& info) const {
    return state_->tcp.connection_info(session, connection, info);
}

shm::InterfaceInfo Stack::interface_info(std::uint16_t interface) const {
    return state_->network.interface_info(interface);
}

std::uint32_t Stack::interfaces_version() const {
    return state_->network.interfaces_version();
}

std::size_t Stack::submission_room(ChannelIndex channel) const {
    return state_->tcp.submission_room(channel);
}

Violation Stack::submit(ChannelIndex channel, std::span<const shm::Submission> submissions,
                        Instant now) {
    return state_->tcp.submit(channel, submissions, now);
}

std::size_t Stack::ready_channels(std::span<ChannelIndex> channels) const {
    return state_->tcp.ready_channels(channels);
}

std::size_t Stack::complete(ChannelIndex channel, std::span<shm::Completion> completions) {
    return state_->tcp.complete(channel, completions);
}

}  // namespace chiru
