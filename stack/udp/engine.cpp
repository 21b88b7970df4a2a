// SPDX-License-Identifier: Apache-2.0
#include "stack/udp/engine.hpp"

#include "base/check.hpp"
#include "shm/control.hpp"

#include <algorithm>
#include <cerrno>

namespace chiru::udp {

using shm::Completion;
using shm::CompletionOp;
using shm::Counter;

namespace {

/// Records for sending that are set apart for each session: whatever the others do, it can send.
constexpr std::uint32_t kOwnRecords = 4;
/// Datagrams of a session that ended orderly which still go out: more than one socket's send buffer
/// holds, and no more than delays the return of its memory by fractions of a second.
constexpr std::uint32_t kLastRecords = 1024;

std::uint32_t record_count(const StackConfig& config) {
    return config.datagram_records + kOwnRecords * shm::kMaxSessions;
}

SipKey derive(const SipKey& secret) {
    const std::array<std::uint64_t, 2> first{0x7564'70, 1}, second{0x7564'70, 2};
    return {siphash(secret, std::as_bytes(std::span(first))),
            siphash(secret, std::as_bytes(std::span(second)))};
}

std::uint32_t share_of(const StackConfig& config) {
    return std::max(config.datagram_slots(), 16u);
}

}  // namespace

Engine::Tables::Tables(const StackConfig& config, std::span<std::byte> region)
    : layout(region),
      sockets(layout),
      holdings(layout, config.rx_slots, share_of(config)),
      records(layout.take<Outgoing>(record_count(config))),
      note_count(2 * share_of(config) + 1024) {
    notes = layout.take<Note>(note_count);
}

std::size_t Engine::tables_bytes(const StackConfig& config) {
    return Tables(config, {}).layout.bytes();
}

Engine::Engine(const StackConfig& config, std::span<std::byte> tables,
               shm::ShardTables& published, ArenaView rx_arena, DatagramLower& lower,
               BufferPool& pool, shm::CounterBlock& counters, Instant)
    : tables_(config, tables),
      sockets_(tables_.sockets, derive(config.secret)),
      holdings_(tables_.holdings, rx_arena, pool),
      records_(tables_.records, record_count(config)),
      notes_(tables_.notes, tables_.note_count),
      lower_(lower),
      counters_(counters),
      channels_(shm::kMaxChannels),
      sessions_(shm::kMaxSessions),
      destinations_(kDestinations),
      destination_key_(derive(config.secret)),
      shared_records_(config.datagram_records) {
    CHECK(tables_.layout.fits());
    const auto* base = reinterpret_cast<const std::byte*>(&published);
    published.datagrams = {
        static_cast<std::uint64_t>(reinterpret_cast<const std::byte*>(tables_.sockets.sockets) -
                                   base),
        sizeof(Socket), shm::kMaxDatagramSockets};
}

// ---- sockets -------------------------------------------------------------------------------

void Engine::open(const SocketConfig& config, Instant now) {
    if (!alive(config.session) || config.channel >= channels_.size() ||
        channels_[config.channel].session != config.session)
        return;
    Socket socket;
    socket.info.id = static_cast<std::uint32_t>(config.id);
    socket.info.local_address = config.local.address;
    socket.info.local_port = config.local.port;
    socket.info.v6_only = (config.flags & shm::kBindV6Only) != 0 ? 1 : 0;
    socket.info.session = sessions_[config.session].id;
    socket.info.user = config.user;
    socket.info.opened_us = now.time_since_epoch().count();
    socket.info.receive_buffer =
        config.receive_buffer == 0
            ? kDefaultReceiveBuffer
            : std::clamp(config.receive_buffer, kMinReceiveBuffer, kMaxReceiveBuffer);
    socket.reuse_port = (config.flags & shm::kBindReusePort) != 0 ? 1 : 0;
    socket.session = config.session;
    socket.channel = config.channel;
    channels_[config.channel].had_sockets = true;
    sockets_.open(socket);
}

Result<DatagramLower::DatagramRoute, int> Engine::connect(shm::DatagramId id,
                                                          const Endpoint& remote,
                                                          std::uint16_t interface, Instant) {
    Socket* socket = sockets_.find(id);
    if (socket == nullptr) return std::unexpected(EBADF);
    socket->route = {};
    drop_error(*socket);
    if (remote == Endpoint{}) {
        sockets_.disconnect(*socket);
        return DatagramLower::DatagramRoute{{}, socket->info.local_address, 0};
    }
    const IpAddress& bound = socket->bound;
    const bool any = bound.is_unspecified() || bound.is_multicast();
    auto route = lower_.datagram_route(remote.address, any ? IpAddress() : bound, interface);
    if (!route) return route;
    sockets_.connect(*socket, {route->local, socket->info.local_port}, remote);
    return route;
}

void Engine::close(shm::DatagramId id) {
    if (Socket* socket = sockets_.find(id)) close(*socket);
}

void Engine::close(Socket& socket) {
    drop_error(socket);
    sockets_.close(socket);
}

// ---- sessions ------------------------------------------------------------------------------

void Engine::attach_session(SessionIndex index, const SessionConfig& config) {
    CHECK(index < sessions_.size());
    Session& session = sessions_[index];
    session = Session{};
    session.attached = true;
    session.id = config.id;
    session.tx_arena = config.tx_arena;
    session.counters = config.counters;
    holdings_.attach(index, config);
}

/// What a process that is gone had queued is dropped, so that its memory comes back as soon as the
/// devices are done with it; one that said farewell may have its last words sent.
void Engine::detach_session(SessionIndex index, Parting parting) {
    if (!alive(index)) return;
    for (std::size_t i = 0; i < channels_.size(); ++i)
        if (channels_[i].session == index) drop_channel(static_cast<ChannelIndex>(i));
    sessions_[index].attached = false;
    drop_queued(index, parting == Parting::Orderly ? kLastRecords : 0);
    holdings_.detach(index);
}

bool Engine::session_gone(SessionIndex index) const {
    return !sessions_[index].attached && sessions_[index].records == 0;
}

void Engine::attach_channel(ChannelIndex channel, SessionIndex session) {
    CHECK(channel < channels_.size());
    channels_[channel] = Channel{};
    channels_[channel].session = session;
}

void Engine::detach_channel(ChannelIndex channel, Instant) {
    if (channels_[channel].session != kNobody) drop_channel(channel);
}

/// Its sockets end. What it was to be told of slots stays held by the session, which is told by
/// nobody any longer: so those come back as well.
void Engine::drop_channel(ChannelIndex index) {
    Channel& channel = channels_[index];
    for (Index i = 0; i < sockets_.high(); ++i)
        if (sockets_[i].info.in_use != 0 && sockets_[i].channel == index) close(sockets_[i]);
    while (channel.first_note != kNil) {
        const Index i = channel.first_note;
        channel.first_note = notes_[i].next;
        const Completion& told = notes_[i].completion;
        const auto untake = [&](const shm::Slice& slice) {
            static_cast<void>(holdings_.release(channel.session, slice.arena,
                                                holdings_.slot_of(channel.session, slice)));
        };
        if (told.op == CompletionOp::Datagram) untake(told.arrived.slice);
        if (told.op == CompletionOp::DatagramMore)
            for (std::size_t k = 0; k < told.count; ++k) untake(told.slices[k]);
        notes_.give(i);
        --sessions_[channel.session].notes;
    }
    channel.last_note = kNil;
    // Records still under way find no channel and are freed as they finish.
    while (channel.first_sent != kNil) {
        const Index i = channel.first_sent;
        channel.first_sent = records_[i].next;
        free_record(i);
    }
    channel.last_sent = kNil;
    channel_idle_if_empty(index);
    channel.session = kNobody;
    holdings_.flush();
}

// ---- what clients submit -------------------------------------------------------------------

/// A session has its own records, and of the shared ones as many as are left to the others. A
/// channel that never had a socket does not wait for any: TCP's submissions come the same way.
std::size_t Engine::submission_room(ChannelIndex channel) const {
    if (channel >= channels_.size() || !alive(channels_[channel].session)) return 0;
    if (!channels_[channel].had_sockets) return shm::SubmissionRing::kSlots;
    const std::uint32_t used = sessions_[channels_[channel].session].records;
    const std::uint32_t shared = used > kOwnRecords ? used - kOwnRecords : 0;
    const std::uint32_t left = shared_records_ - shared_records_used_;
    const std::uint32_t own = kOwnRecords - std::min(used, kOwnRecords);
    return own + (left > shared ? (left - shared + 1) / 2 : 0);  // what it takes is not left then
}

/// kNil only beyond submission_room().
Index Engine::take_record(Session& session) {
    const bool shared = session.records >= kOwnRecords;
    const std::uint32_t left = shared_records_ - shared_records_used_;
    if (shared && left <= session.records - kOwnRecords) return kNil;
    const Index i = records_.take();
    CHECK(i != kNil);  // there are as many as are set apart and shared together
    if (shared) ++shared_records_used_;
    ++session.records;
    return i;
}

void Engine::free_record(Index index) {
    Session& session = sessions_[records_[index].session];
    if (session.records > kOwnRecords) --shared_records_used_;
    --session.records;
    records_.give(index);
}

Violation Engine::submit(ChannelIndex channel, const shm::Submission& submission, Instant) {
    if (channel >= channels_.size() || !alive(channels_[channel].session)) return Violation::None;
    switch (submission.op) {
        case shm::SubmissionOp::SendDatagram: return send(channel, submission);
        case shm::SubmissionOp::ReleaseDatagrams: return release(channel, submission);
        default: return set_option(channel, submission);
    }
}

Violation Engine::release(ChannelIndex channel, const shm::Submission& submission) {
    const shm::ReleaseBody& body = submission.release;
    if (submission.count == 0 || submission.count > body.slots.size()) return Violation::BadCount;
    for (std::size_t i = 0; i < submission.count; ++i) {
        const auto released =
            holdings_.release(channels_[channel].session, body.arena, body.slots[i]);
        if (!released) return Violation::NotItsSlot;
        uncharge(*released);
    }
    return Violation::None;
}

void Engine::uncharge(const Released& released) {
    Socket* socket = sockets_.find(shm::DatagramId{released.socket});
    if (socket == nullptr) return;  // closed meanwhile
    socket->info.waiting_bytes -= std::min(released.charge, socket->info.waiting_bytes);
}

Violation Engine::set_option(ChannelIndex channel, const shm::Submission& submission) {
    const shm::DatagramOptionBody& body = submission.datagram_option;
    Socket* socket = sockets_.find(shm::DatagramId{submission.connection.index});
    if (socket == nullptr) {
        count(Counter::StaleNames);
        return Violation::None;
    }
    if (socket->session != channels_[channel].session) return Violation::NotItsConnection;
    switch (body.option) {
        case shm::DatagramOption::ReceiveBuffer:
            socket->info.receive_buffer = static_cast<std::uint32_t>(
                std::clamp<std::uint64_t>(body.value, kMinReceiveBuffer, kMaxReceiveBuffer));
            return Violation::None;
        case shm::DatagramOption::WantDestination:
            if (body.value > 1) return Violation::BadOption;
            socket->want_destination = static_cast<std::uint8_t>(body.value);
            return Violation::None;
    }
    return Violation::BadOption;
}

// ---- what clients are told -----------------------------------------------------------------

void Engine::channel_ready(ChannelIndex index) {
    Channel& channel = channels_[index];
    if (channel.ready || channel.session == kNobody) return;
    channel.ready = true;
    ready_.push_back(channels_.data(), index);
}

void Engine::channel_idle_if_empty(ChannelIndex index) {
    Channel& channel = channels_[index];
    if (!channel.ready || channel.first_note != kNil || channel.first_error != kNil ||
        channel.first_sent != kNil)
        return;
    channel.ready = false;
    ready_.remove(channels_.data(), index);
}

std::size_t Engine::ready_channels(std::span<ChannelIndex> channels, std::size_t count) const {
    for (Index i = ready_.head; i != kNil && count < channels.size(); i = channels_[i].next)
        channels[count++] = static_cast<ChannelIndex>(i);
    return count;
}

void Engine::tell_error(Socket& socket, int error, const Endpoint& remote, std::uint32_t mtu) {
    Channel& channel = channels_[socket.channel];
    if (channel.session == kNobody) return;
    if (socket.error == 0) {
        socket.error_next = channel.first_error;
        channel.first_error = sockets_.index_of(socket);
    }
    socket.error = static_cast<std::uint16_t>(error);
    socket.error_remote = remote;
    socket.error_mtu = mtu;
    channel_ready(socket.channel);
}

/// An error nobody was told of yet.
void Engine::drop_error(Socket& socket) {
    if (socket.error == 0) return;
    Index* at = &channels_[socket.channel].first_error;
    while (*at != sockets_.index_of(socket)) at = &sockets_[*at].error_next;
    *at = socket.error_next;
    socket.error = 0;
    channel_idle_if_empty(socket.channel);
}

bool Engine::tell_errors(Channel& channel, std::span<Completion> out, std::size_t& used) {
    for (; channel.first_error != kNil; ++used) {
        if (used == out.size()) return false;
        Socket& socket = sockets_[channel.first_error];
        Completion& told = out[used] = Completion{};
        told.op = CompletionOp::DatagramError;
        told.error = socket.error;
        told.connection = {socket.info.id, 0};
        told.user = socket.info.user;
        told.endpoints = {};
        told.endpoints.remote = socket.error_remote;
        told.endpoints.path_mtu = socket.error_mtu;
        channel.first_error = socket.error_next;
        socket.error = 0;
    }
    return true;
}

void Engine::tell_sent(Channel& channel, std::span<Completion> out, std::size_t& used) {
    for (; channel.first_sent != kNil && used < out.size(); ++used) {
        Completion& told = out[used] = Completion{};
        told.op = CompletionOp::DatagramsSent;
        while (channel.first_sent != kNil && told.count < told.cookies.size()) {
            const Index i = channel.first_sent;
            channel.first_sent = records_[i].next;
            told.cookies[told.count++] = records_[i].cookie;
            free_record(i);
        }
    }
    if (channel.first_sent == kNil) channel.last_sent = kNil;
}

std::size_t Engine::complete(ChannelIndex index, std::span<Completion> completions) {
    if (index >= channels_.size() || !channels_[index].ready) return 0;
    Channel& channel = channels_[index];
    std::size_t used = 0;
    while (channel.first_note != kNil && used < completions.size()) {
        const Index i = channel.first_note;
        channel.first_note = notes_[i].next;
        completions[used++] = notes_[i].completion;
        notes_.give(i);
        --sessions_[channel.session].notes;
    }
    if (channel.first_note == kNil) channel.last_note = kNil;
    if (tell_errors(channel, completions, used)) tell_sent(channel, completions, used);
    channel_idle_if_empty(index);
    return used;
}

}  // namespace chiru::udp
