// SPDX-License-Identifier: Apache-2.0
//
// The engine's face: every call goes to the machine behind it, so that whoever includes engine.hpp
// need not know what a connection block looks like.
#include "stack/tcp/engine.hpp"

#include "stack/tcp/machine.hpp"

namespace chiru::tcp {

struct Engine::State {
    Machine machine;
};

std::size_t Engine::tables_bytes(const StackConfig& config) {
    return Machine::Tables(config, {}).bytes;
}

Engine::Engine(const StackConfig& config, std::span<std::byte> tables,
               shm::ShardTables& published, ArenaView rx_arena, Lower& lower, BufferPool& pool,
               shm::CounterBlock& counters, Instant now)
    : state_(new State{Machine(config, tables, published, rx_arena, lower, pool, counters, now)}) {}

Engine::~Engine() = default;

void Engine::prefetch(std::span<Incoming> burst) const { state_->machine.prefetch(burst); }

Fate Engine::receive(const Incoming& incoming, Instant now) {
    return state_->machine.receive(incoming, now);
}

bool Engine::icmp_error(const IcmpError& error, Instant now) {
    return state_->machine.icmp_error(error, now);
}

void Engine::path_ready(std::uint32_t neighbor, bool reachable, Instant now) {
    state_->machine.path_ready(neighbor, reachable, now);
}

void Engine::advance(Instant now) { state_->machine.advance(now); }

std::size_t Engine::transmit(std::span<TxFrame> frames, Instant now) {
    return state_->machine.transmit(frames, now);
}

void Engine::hold(SendRecord record) { state_->machine.hold(record); }

void Engine::sent(SendRecord record) { state_->machine.sent(record); }

Instant Engine::next_deadline() const { return state_->machine.next_deadline(); }

void Engine::attach_session(SessionIndex session, const SessionConfig& config) {
    state_->machine.attach_session(session, config);
}

void Engine::detach_session(SessionIndex session, Instant now, Parting parting) {
    state_->machine.detach_session(session, now, parting);
}

bool Engine::session_gone(SessionIndex session) const {
    return state_->machine.session_gone(session);
}

void Engine::attach_channel(ChannelIndex channel, SessionIndex session) {
    state_->machine.attach_channel(channel, session);
}

void Engine::detach_channel(ChannelIndex channel, Instant now) {
    state_->machine.detach_channel(channel, now);
}

void Engine::listen(shm::ListenerId listener, const Endpoint& local, std::uint32_t bind_flags,
                    const ListenTerms& terms) {
    state_->machine.listen(listener, local, bind_flags, terms);
}

void Engine::share_listener(shm::ListenerId listener, SessionIndex session) {
    state_->machine.share_listener(listener, session);
}

void Engine::leave_listener(shm::ListenerId listener, SessionIndex session, Instant now) {
    state_->machine.leave_listener(listener, session, now);
}

void Engine::unlisten(shm::ListenerId listener, Instant now) {
    state_->machine.unlisten(listener, now);
}

bool Engine::connection_info(SessionIndex session, shm::ConnectionId connection,
                             shm::ConnectionInfo& info) const {
    return state_->machine.connection_info(session, connection, info);
}

bool Engine::take_learnt_cookie(LearntCookie& learnt) {
    return state_->machine.take_learnt_cookie(learnt);
}

void Engine::learn_cookie(const LearntCookie& learnt, Instant now) {
    state_->machine.learn_cookie(learnt, now);
}

std::size_t Engine::submission_room(ChannelIndex channel) const {
    return state_->machine.submission_room(channel);
}

Violation Engine::submit(ChannelIndex channel, std::span<const shm::Submission> submissions,
                         Instant now) {
    return state_->machine.submit(channel, submissions, now);
}

std::size_t Engine::ready_channels(std::span<ChannelIndex> channels) const {
    return state_->machine.ready_channels(channels);
}

std::size_t Engine::complete(ChannelIndex channel, std::span<shm::Completion> completions) {
    return state_->machine.complete(channel, completions);
}

}  // namespace chiru::tcp
