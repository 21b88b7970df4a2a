// SPDX-License-Identifier: Apache-2.0
//
// The C interface: names resolved, arguments checked, results turned into negative errno values.
// No exception leaves this file.
#include "libclient/api.hpp"
#include "libclient/sockaddr.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

using namespace chiru;
using namespace chiru::client;

namespace {

static_assert(CHIRU_READABLE == kReadable && CHIRU_WRITABLE == kWritable &&
              CHIRU_PEER_CLOSED == kPeerClosed && CHIRU_HANGUP == kHangup &&
              CHIRU_ERROR == kError);
static_assert(CHIRU_REUSE_ADDRESS == shm::kBindReuseAddress &&
              CHIRU_REUSE_PORT == shm::kBindReusePort && CHIRU_V6_ONLY == shm::kBindV6Only);
static_assert(CHIRU_TIME_TO_LIVE == static_cast<int>(shm::ConnectionOption::TimeToLive));
static_assert(CHIRU_MAX_PACING_RATE == static_cast<int>(shm::ConnectionOption::MaxPacingRate));
static_assert(CHIRU_BBR == static_cast<int>(shm::CongestionAlgorithm::Bbr));
static_assert(CHIRU_UNSENT_LOW_WATER == static_cast<int>(shm::ConnectionOption::UnsentLowWater));
static_assert(CHIRU_FAST_OPEN == static_cast<int>(shm::ConnectionOption::FastOpen));
static_assert(CHIRU_BUFFER_MAX == kTxBlockBytes);

void unbind(chiru_channel& channel, std::uint32_t index) {
    const auto found = channel.bound.find(index);
    if (found == channel.bound.end()) return;
    channel.listeners->leave(found->second.listener);
    channel.bound.erase(found);
}

int collect(Channel& channel, chiru_event* events, int count) {
    int used = 0;
    while (used < count) {
        Socket* socket = channel.next_changed();
        if (socket == nullptr) break;
        const std::uint32_t now = Channel::take_edges(*socket) & socket->readiness();
        if (now == 0) continue;  // read or written meanwhile
        events[used++] = {.socket = public_name(*socket),
                          .user = reinterpret_cast<void*>(socket->user),
                          .events = now,
                          .reserved = 0};
    }
    return used;
}

int give_address(const Endpoint& endpoint, sockaddr* address, socklen_t* bytes) {
    if (address == nullptr || bytes == nullptr) return -EINVAL;
    to_sockaddr(endpoint, address, bytes);
    return 0;
}

}  // namespace

// ---- sessions and channels -----------------------------------------------------------------

int chiru_api_version(void) { return CHIRU_API_VERSION; }
const char* chiru_release_name(void) { return CHIRU_RELEASE; }

int chiru_attach(const char* path, const char* program, chiru_session** session) {
    if (session == nullptr) return -EINVAL;
    return guarded([&] {
        auto attached = Session::attach(path == nullptr ? "" : path,
                                        program == nullptr ? "" : program);
        if (!attached) return -attached.error();
        auto listeners = std::make_shared<Listeners>(*attached);
        *session = new chiru_session{std::move(*attached), std::move(listeners)};
        return 0;
    });
}

void chiru_detach(chiru_session* session) { delete session; }

int chiru_daemon_pid(chiru_session* session) {
    return session == nullptr ? -EINVAL : session->session->directory().daemon_pid;
}

int chiru_channel_create(chiru_session* session, chiru_channel** channel) {
    if (session == nullptr || channel == nullptr) return -EINVAL;
    return guarded([&] {
        auto opened = Channel::open(session->session);
        if (!opened) return -opened.error();
        *channel = new chiru_channel{session->session, session->listeners, std::move(*opened),
                                     {}, false};
        return 0;
    });
}

void chiru_channel_destroy(chiru_channel* channel) {
    if (channel == nullptr) return;
    guarded([&] {
        while (!channel->bound.empty()) unbind(*channel, channel->bound.begin()->first);
        return 0;
    });
    delete channel;
}

// ---- events --------------------------------------------------------------------------------

int chiru_poll(chiru_channel* channel, chiru_event* events, int count, int64_t timeout_us) {
    if (channel == nullptr || events == nullptr || count <= 0) return -EINVAL;
    Channel& rings = *channel->channel;
    if (std::exchange(channel->armed, false)) {
        rings.disarm();
        rings.settle_poll_fd();
    }
    rings.process();
    using Clock = std::chrono::steady_clock;
    std::optional<Clock::time_point> end;
    while (true) {
        const int used = collect(rings, events, count);
        if (used > 0) return used;
        if (rings.lost()) return -EPIPE;
        if (timeout_us == 0) return 0;
        Micros left{-1};
        if (timeout_us > 0) {
            const Clock::time_point now = Clock::now();
            // Far enough to be for ever, near enough not to overflow the clock.
            const Micros limit{std::min<std::int64_t>(timeout_us, std::int64_t{1} << 50)};
            if (!end) end = now + limit;
            if (now >= *end) return 0;
            left = std::chrono::ceil<Micros>(*end - now);
        }
        if (const auto waited = rings.wait(left); !waited && waited.error() != EPIPE)
            return -waited.error();
    }
}

int chiru_flush(chiru_channel* channel) {
    if (channel == nullptr) return -EINVAL;
    channel->channel->flush();
    return channel->session->lost() ? -EPIPE : 0;
}

int chiru_set_spin(chiru_channel* channel, uint32_t microseconds) {
    if (channel == nullptr) return -EINVAL;
    channel->channel->set_spin(Micros(microseconds));
    return 0;
}

int chiru_channel_fd(chiru_channel* channel) {
    return channel == nullptr ? -EINVAL : channel->channel->poll_fd();
}

int chiru_arm(chiru_channel* channel, int64_t* limit_us) {
    if (channel == nullptr || limit_us == nullptr) return -EINVAL;
    Channel& rings = *channel->channel;
    if (std::exchange(channel->armed, false)) rings.disarm();
    *limit_us = 0;
    if (rings.has_changed()) return 0;
    if (rings.lost()) return -EPIPE;
    if (!rings.arm()) return 0;
    channel->armed = true;
    const Micros limit = rings.sleep_limit();
    *limit_us = limit == Channel::kForever ? CHIRU_FOREVER : limit.count();
    return 1;
}

// ---- sockets -------------------------------------------------------------------------------

int chiru_socket_create(chiru_channel* channel, void* user, chiru_socket* socket) {
    if (channel == nullptr || socket == nullptr) return -EINVAL;
    Socket* made = channel->channel->create(reinterpret_cast<std::uintptr_t>(user));
    if (made == nullptr) return -ENOMEM;
    *socket = public_name(*made);
    return 0;
}

int chiru_set_user(chiru_channel* channel, chiru_socket socket, void* user) {
    return with_socket(channel, socket, [user](Channel&, Socket& found) {
        found.user = reinterpret_cast<std::uintptr_t>(user);
        return 0;
    });
}

int chiru_bind(chiru_channel* channel, chiru_socket socket, const sockaddr* address,
               socklen_t address_bytes, uint32_t flags) {
    return with_socket(channel, socket, [&](Channel&, Socket& found) {
        const std::optional<Endpoint> local = from_sockaddr(address, address_bytes);
        if (!local) return -EAFNOSUPPORT;
        if (found.state != SocketState::Open || channel->bound.contains(found.name.index) ||
            (flags & ~(CHIRU_REUSE_ADDRESS | CHIRU_REUSE_PORT | CHIRU_V6_ONLY)) != 0)
            return -EINVAL;
        const auto bound = channel->listeners->bind(*local, flags);
        if (!bound) return -bound.error();
        channel->bound.emplace(found.name.index, *bound);
        found.local = bound->endpoint;
        return 0;
    });
}

int chiru_connect(chiru_channel* channel, chiru_socket socket, const sockaddr* address,
                  socklen_t address_bytes) {
    return with_socket(channel, socket, [&](Channel& rings, Socket& found) {
        const std::optional<Endpoint> remote = from_sockaddr(address, address_bytes);
        if (!remote) return -EAFNOSUPPORT;
        const auto bound = channel->bound.find(found.name.index);
        const Endpoint local =
            bound == channel->bound.end() ? Endpoint{} : bound->second.endpoint;
        return answer(rings.connect(found, *remote, local));
    });
}

int chiru_listen(chiru_channel* channel, chiru_socket socket, int backlog) {
    return with_socket(channel, socket, [&](Channel& rings, Socket& found) {
        const auto bound = channel->bound.find(found.name.index);
        if (bound == channel->bound.end()) return -EDESTADDRREQ;
        const auto early = [&](shm::ConnectionOption option) {
            return rings.early_option(found, option);
        };
        const auto told = channel->session->listen(
            bound->second.listener,
            {.backlog = static_cast<std::uint32_t>(std::max(backlog, 1)),
             .defer_s = static_cast<std::uint32_t>(early(shm::ConnectionOption::DeferAccept)),
             .max_segment =
                 static_cast<std::uint16_t>(early(shm::ConnectionOption::MaxSegment)),
             .fast_open = static_cast<std::uint16_t>(early(shm::ConnectionOption::FastOpen))});
        if (!told) return -told.error();
        if (found.state == SocketState::Listening) return 0;  // a new backlog
        return answer(rings.listen(found, bound->second));
    });
}

int chiru_listener_ticket(chiru_channel* channel, chiru_socket listener, chiru_ticket* ticket) {
    return with_socket(channel, listener, [&](Channel&, Socket& found) {
        const auto bound = channel->bound.find(found.name.index);
        if (ticket == nullptr || bound == channel->bound.end()) return -EINVAL;
        const shm::BindReply& reply = bound->second;
        *ticket = {{static_cast<std::uint64_t>(reply.listener), reply.token[0], reply.token[1]}};
        return 0;
    });
}

int chiru_listen_by_ticket(chiru_channel* channel, chiru_socket socket,
                           const chiru_ticket* ticket) {
    return with_socket(channel, socket, [&](Channel& rings, Socket& found) {
        if (ticket == nullptr || channel->bound.contains(found.name.index)) return -EINVAL;
        const shm::ListenerId id{static_cast<std::uint32_t>(ticket->words[0])};
        const auto bound = channel->listeners->join(id, {ticket->words[1], ticket->words[2]});
        if (!bound) return -bound.error();
        channel->bound.emplace(found.name.index, *bound);
        const int result = answer(rings.listen(found, *bound));
        if (result != 0) unbind(*channel, found.name.index);
        return result;
    });
}

int chiru_accept(chiru_channel* channel, chiru_socket listener, void* user,
                 chiru_socket* socket) {
    return with_socket(channel, listener, [&](Channel& rings, Socket& found) {
        if (socket == nullptr) return -EINVAL;
        const Result<Socket*, int> accepted = rings.accept(found);
        if (!accepted) return -accepted.error();
        (*accepted)->user = reinterpret_cast<std::uintptr_t>(user);
        *socket = public_name(**accepted);
        return 0;
    });
}

int chiru_shutdown(chiru_channel* channel, chiru_socket socket, uint32_t how) {
    return with_socket(channel, socket, [how](Channel& rings, Socket& found) {
        if (how == 0 || (how & ~(CHIRU_SHUT_SEND | CHIRU_SHUT_RECEIVE)) != 0) return -EINVAL;
        if (found.state != SocketState::Connected) return -ENOTCONN;
        if ((how & CHIRU_SHUT_RECEIVE) != 0) rings.shutdown_receive(found);
        return (how & CHIRU_SHUT_SEND) != 0 ? answer(rings.shutdown_send(found)) : 0;
    });
}

int chiru_close(chiru_channel* channel, chiru_socket socket) {
    return with_socket(channel, socket, [channel](Channel& rings, Socket& found) {
        rings.close(found);
        unbind(*channel, found.name.index);
        return 0;
    });
}

int chiru_abort(chiru_channel* channel, chiru_socket socket) {
    return with_socket(channel, socket, [channel](Channel& rings, Socket& found) {
        rings.abort(found);
        unbind(*channel, found.name.index);
        return 0;
    });
}

int chiru_socket_error(chiru_channel* channel, chiru_socket socket) {
    return with_socket(channel, socket,
                       [](Channel& rings, Socket& found) { return rings.take_error(found); });
}

int chiru_getsockname(chiru_channel* channel, chiru_socket socket, sockaddr* address,
                      socklen_t* address_bytes) {
    return with_socket(channel, socket, [&](Channel&, Socket& found) {
        return give_address(found.local, address, address_bytes);
    });
}

int chiru_getpeername(chiru_channel* channel, chiru_socket socket, sockaddr* address,
                      socklen_t* address_bytes) {
    return with_socket(channel, socket, [&](Channel&, Socket& found) {
        const bool has_peer = found.state == SocketState::Connected ||
                              found.state == SocketState::Over || (found.flags & kHasPeer) != 0;
        if (!has_peer) return -ENOTCONN;
        return give_address(found.remote, address, address_bytes);
    });
}

// ---- data ----------------------------------------------------------------------------------

ssize_t chiru_send(chiru_channel* channel, chiru_socket socket, const void* data, size_t bytes,
                   uint32_t flags) {
    return with_socket(channel, socket, [&](Channel& rings, Socket& found) -> ssize_t {
        if ((data == nullptr && bytes != 0) || (flags & ~CHIRU_MORE) != 0) return -EINVAL;
        return count_of(rings.send(found, {static_cast<const std::byte*>(data), bytes},
                                   (flags & CHIRU_MORE) != 0));
    });
}

ssize_t chiru_recv(chiru_channel* channel, chiru_socket socket, void* data, size_t bytes,
                   uint32_t flags) {
    return with_socket(channel, socket, [&](Channel& rings, Socket& found) -> ssize_t {
        if ((data == nullptr && bytes != 0) || (flags & ~CHIRU_PEEK) != 0) return -EINVAL;
        const std::span<std::byte> room(static_cast<std::byte*>(data), bytes);
        return count_of((flags & CHIRU_PEEK) != 0 ? rings.peek(found, room)
                                                  : rings.receive(found, room));
    });
}

int chiru_recv_slices(chiru_channel* channel, chiru_socket socket, chiru_slice* slices,
                      int count) {
    return with_socket(channel, socket, [&](Channel& rings, Socket& found) {
        if (slices == nullptr || count <= 0) return -EINVAL;
        int used = 0;
        while (used < count) {
            Lent piece;
            const Result<std::size_t, int> lent = rings.borrow(found, {&piece, 1});
            if (!lent && used == 0) return -lent.error();
            if (!lent || *lent == 0) break;
            slices[used++] = {piece.bytes.data(), piece.bytes.size(), public_token(piece.token)};
            if (found.rx_bytes == 0) break;  // what comes after, end or error, is for the next call
        }
        return used;
    });
}

int chiru_release(chiru_channel* channel, const uint64_t* tokens, int count) {
    if (channel == nullptr || (tokens == nullptr && count != 0) || count < 0) return -EINVAL;
    int result = 0;
    for (int i = 0; i < count; ++i)
        if (!channel->channel->give_back(private_token(tokens[i]))) result = -EINVAL;
    return result;
}

int chiru_buffer_alloc(chiru_channel* channel, size_t bytes, chiru_buffer* buffer) {
    if (channel == nullptr || buffer == nullptr) return -EINVAL;
    const Result<Room, int> room = channel->channel->allocate(bytes);
    if (!room) return -room.error();
    *buffer = {room->bytes.data(), room->bytes.size(), public_token(room->token)};
    return 0;
}

int chiru_send_buffer(chiru_channel* channel, chiru_socket socket, uint64_t token, size_t offset,
                      size_t bytes, uint32_t flags) {
    return with_socket(channel, socket, [&](Channel& rings, Socket& found) {
        if ((flags & ~CHIRU_MORE) != 0) return -EINVAL;
        return answer(rings.send_buffer(found, private_token(token), offset, bytes,
                                        (flags & CHIRU_MORE) != 0));
    });
}

int chiru_buffer_free(chiru_channel* channel, uint64_t token) {
    return channel == nullptr ? -EINVAL
                              : answer(channel->channel->free_buffer(private_token(token)));
}

ssize_t chiru_unread(chiru_channel* channel, chiru_socket socket) {
    return with_socket(channel, socket, [](Channel&, Socket& found) -> ssize_t {
        return found.unread_bytes();
    });
}

ssize_t chiru_unacknowledged(chiru_channel* channel, chiru_socket socket) {
    return with_socket(channel, socket, [](Channel&, Socket& found) -> ssize_t {
        return found.unsent_bytes();
    });
}

// ---- options and information ---------------------------------------------------------------

int chiru_set_option(chiru_channel* channel, chiru_socket socket, chiru_option option,
                     uint64_t value) {
    return with_socket(channel, socket, [&](Channel& rings, Socket& found) {
        return answer(rings.set_option(found, static_cast<shm::ConnectionOption>(option), value));
    });
}

int chiru_socket_info(chiru_channel* channel, chiru_socket socket, chiru_info* info) {
    return with_socket(channel, socket, [&](Channel& rings, Socket& found) {
        if (info == nullptr) return -EINVAL;
        const Result<shm::ConnectionInfo, int> asked = rings.info(found);
        if (!asked) return -asked.error();
        *info = {.rx_bytes = asked->rx_bytes,
                 .tx_bytes = asked->tx_bytes,
                 .rx_segments = asked->rx_segments,
                 .tx_segments = asked->tx_segments,
                 .retransmitted_segments = asked->retransmitted_segments,
                 .out_of_order_segments = asked->out_of_order_segments,
                 .srtt_us = asked->srtt_us,
                 .rttvar_us = asked->rttvar_us,
                 .min_rtt_us = asked->min_rtt_us,
                 .rto_us = asked->rto_us,
                 .cwnd_bytes = asked->cwnd_bytes,
                 .ssthresh_bytes = asked->ssthresh_bytes,
                 .mss_bytes = asked->mss,
                 .snd_wnd_bytes = asked->snd_wnd,
                 .rcv_wnd_bytes = asked->rcv_wnd,
                 .shard = found.shard,
                 .delivery_rate = asked->delivery_kbps * std::uint64_t{1000},
                 .pacing_rate = asked->pacing_kbps * std::uint64_t{1000},
                 .congestion = asked->congestion,
                 .ecn = (asked->negotiated & shm::kNegotiatedEcn) != 0 ? 1u : 0u,
                 .reserved = {}};
        return 0;
    });
}
