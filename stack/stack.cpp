// SPDX-License-Identifier: Apache-2.0
//
// Puts the parts together: IP below, TCP and UDP above, one region of tables under all.
#include "stack/stack.hpp"

#include "base/cache.hpp"
#include "stack/ip/network.hpp"
#include "stack/tcp/engine.hpp"
#include "stack/udp/engine.hpp"

#include <algorithm>
#include <new>

namespace chiru {
namespace {

constexpr std::size_t rounded(std::size_t bytes) {
    return (bytes + kNoSharing - 1) / kNoSharing * kNoSharing;
}

/// Of the receive buffers that a session may hold on this shard, datagrams may take one in so many.
/// Of a private arena that part is set apart; of the shared one it comes on top of TCP's.
constexpr std::uint32_t kDatagramPart = 4;

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
              tables.subspan(kHeaderBytes + rounded(ip::Network::tables_bytes(config)),
                             rounded(tcp::Engine::tables_bytes(config))),
              published, rx_arena, network, pool, counters, now),
          udp(config,
              tables.subspan(kHeaderBytes + rounded(ip::Network::tables_bytes(config)) +
                             rounded(tcp::Engine::tables_bytes(config))),
              published, rx_arena, network, pool, counters, now) {
        network.attach(tcp);
        network.attach(udp);
    }

    shm::ShardTables& published;
    ip::Network network;
    tcp::Engine tcp;
    udp::Engine udp;
};

std::size_t Stack::tables_bytes(const StackConfig& config) {
    return kHeaderBytes + rounded(ip::Network::tables_bytes(config)) +
           rounded(tcp::Engine::tables_bytes(config)) + rounded(udp::Engine::tables_bytes(config));
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
    // Datagrams first, but only half of the frames: neither of the two can starve the other.
    count += state_->udp.transmit(frames.subspan(count, (frames.size() - count) / 2), now);
    count += state_->tcp.transmit(frames.subspan(count), now);
    count += state_->udp.transmit(frames.subspan(count), now);
    // What they found unresolved asks for its neighbours in the same burst.
    return count + state_->network.transmit(frames.subspan(count), now);
}

void Stack::hold(SendRecord record) { state_->tcp.hold(record); }  // UDP's are never cut

void Stack::sent(SendRecord record) {
    if (udp::Engine::is_ours(record)) state_->udp.sent(record);
    else state_->tcp.sent(record);
}

Instant Stack::next_deadline() const {
    return std::min(state_->network.next_deadline(), state_->tcp.next_deadline());
}

void Stack::link_up(PortIndex port, Instant now) { state_->network.link_up(port, now); }

void Stack::attach_session(SessionIndex session, const SessionConfig& config) {
    SessionConfig streams = config, datagrams = config;
    datagrams.max_rx_slots = config.max_rx_slots / kDatagramPart;
    datagrams.private_slots = config.private_slots / kDatagramPart;
    streams.private_slots = config.private_slots - datagrams.private_slots;
    datagrams.private_first_slot = config.private_first_slot + streams.private_slots;
    state_->tcp.attach_session(session, streams);
    state_->udp.attach_session(session, datagrams);
}

void Stack::detach_session(SessionIndex session, Instant now, Parting parting) {
    state_->tcp.detach_session(session, now, parting);
    state_->udp.detach_session(session, parting);
}

bool Stack::session_gone(SessionIndex session) const {
    return state_->tcp.session_gone(session) && state_->udp.session_gone(session);
}

void Stack::attach_channel(ChannelIndex channel, SessionIndex session) {
    state_->tcp.attach_channel(channel, session);
    state_->udp.attach_channel(channel, session);
}

void Stack::detach_channel(ChannelIndex channel, Instant now) {
    state_->tcp.detach_channel(channel, now);
    state_->udp.detach_channel(channel, now);
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

void Stack::open_datagram(const udp::SocketConfig& config, Instant now) {
    state_->udp.open(config, now);
}

Result<DatagramLower::DatagramRoute, int> Stack::connect_datagram(shm::DatagramId socket,
                                                                  const Endpoint& remote,
                                                                  std::uint16_t interface,
                                                                  Instant now) {
    return state_->udp.connect(socket, remote, interface, now);
}

void Stack::close_datagram(shm::DatagramId socket) { state_->udp.close(socket); }

Result<std::uint16_t, int> Stack::join_group(const IpAddress& group, std::uint16_t interface,
                                             Instant now) {
    return state_->network.join(group, interface, now);
}

void Stack::leave_group(const IpAddress& group, std::uint16_t interface, Instant now) {
    state_->network.leave(group, interface, now);
}

std::size_t Stack::take_path_mtus(std::span<PathMtu> news) {
    return state_->network.take_path_mtus(news);
}

void Stack::learn_path_mtu(const PathMtu& path, Instant now) {
    state_->network.learn_path_mtu(path, now);
}

bool Stack::connection_info(SessionIndex session, shm::ConnectionId connection,
                            shm::ConnectionInfo& info) const {
    return state_->tcp.connection_info(session, connection, info);
}

bool Stack::take_learnt_cookie(tcp::LearntCookie& learnt) {
    return state_->tcp.take_learnt_cookie(learnt);
}

void Stack::learn_cookie(const tcp::LearntCookie& learnt, Instant now) {
    state_->tcp.learn_cookie(learnt, now);
}

shm::InterfaceInfo Stack::interface_info(std::uint16_t interface) const {
    return state_->network.interface_info(interface);
}

std::uint32_t Stack::interfaces_version() const {
    return state_->network.interfaces_version();
}

std::size_t Stack::submission_room(ChannelIndex channel) const {
    return std::min(state_->tcp.submission_room(channel), state_->udp.submission_room(channel));
}

Violation Stack::submit(ChannelIndex channel, std::span<const shm::Submission> submissions,
                        Instant now) {
    const auto is_datagrams = [](const shm::Submission& submission) {
        return udp::Engine::takes(submission.op);
    };
    Violation violation = Violation::None;
    while (!submissions.empty() && violation == Violation::None) {
        const auto first = std::find_if(submissions.begin(), submissions.end(), is_datagrams);
        const auto streams = static_cast<std::size_t>(first - submissions.begin());
        if (streams != 0) {
            violation = state_->tcp.submit(channel, submissions.first(streams), now);
            submissions = submissions.subspan(streams);
        } else {
            violation = state_->udp.submit(channel, submissions.front(), now);
            submissions = submissions.subspan(1);
        }
    }
    state_->udp.flush();
    return violation;
}

std::size_t Stack::ready_channels(std::span<ChannelIndex> channels) const {
    return state_->udp.ready_channels(channels, state_->tcp.ready_channels(channels));
}

std::size_t Stack::complete(ChannelIndex channel, std::span<shm::Completion> completions) {
    const std::size_t count = state_->tcp.complete(channel, completions);
    return count + state_->udp.complete(channel, completions.subspan(count));
}

}  // namespace chiru
