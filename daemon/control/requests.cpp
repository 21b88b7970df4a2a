// SPDX-License-Identifier: Apache-2.0
//
// What clients ask over the control socket. Nothing in a request is believed: names are looked up
// among what the session holds, counts are bounded by its quota, and who it is the kernel has told.
#include "daemon/control/clock.hpp"
#include "daemon/control/server.hpp"
#include "daemon/telemetry/log.hpp"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <system_error>
#include <utility>

namespace chiru::daemon {

constexpr std::size_t kFewSessions = 4;

shm::Message answer_to(const shm::Message& request) {
    shm::Message message;
    message.type = request.type;
    message.sequence = request.sequence;
    return message;
}

void Server::reply(Session& session, const shm::Message& message, const std::vector<int>& fds) {
    if (!session.socket) return;
    const int error = shm::send_message(session.socket.get(), message, fds);
    if (error == EAGAIN) return end(session, "it does not read its answers");
    if (error != 0) end(session, std::generic_category().message(error));
}

void Server::refuse(Session& session, const shm::Message& request, int error) {
    shm::Message message = answer_to(request);
    message.error = error;
    reply(session, message);
}

std::uint64_t Server::expect(Session& session, std::size_t answers, Then then) {
    set_busy(session, true);
    const auto resume = [this, number = session.number, then = std::move(then)](
                            const Report& last) {
        const auto found = sessions_.find(number);
        if (found == sessions_.end() || !found->second->socket) return;  // it ended meanwhile
        set_busy(*found->second, false);
        then(*found->second, last);
    };
    return pending_.expect(answers, resume);
}

void Server::order(Session& session, const Orders& orders, const shm::Message& answer) {
    if (orders.empty()) return reply(session, answer);
    const std::uint64_t tag =
        expect(session, orders.size() * plane_.shard_count(),
               [this, answer](Session& owner, const Report&) { reply(owner, answer); });
    for (const Order& what : orders) plane_.post_to_all({.tag = tag, .what = what});
}

void Server::publish(const Session& session) {
    page_.publish(session, listeners_.held_by(session.index));
}

bool Server::is_operator(const Session& session) const {
    if (session.peer.uid == 0 || session.peer.uid == daemon_uid_) return true;
    if (config_.control.group.empty()) return false;
    return operators_ && session.peer.in_group(*operators_);
}

void Server::answer(Session& session, const shm::Parcel& request) {
    const shm::Message& message = request.message;
    using enum shm::MessageType;
    if (message.type == Attach) return attach(session, message);
    if (message.type == Observe) return observe(session, message);
    if (session.state != Session::State::Client) return refuse(session, message, ENOTCONN);
    switch (message.type) {
        case CreateChannel: return create_channel(session, message);
        case DestroyChannel: return destroy_channel(session, message);
        case Bind: return bind(session, message);
        case Listen: return listen(session, message);
        case Adopt: return adopt(session, message);
        case Unbind: return unbind(session, message);
        case ConnectionInfo: return connection_info(session, message);
        case Farewell: session.said_farewell = true; return;  // it does not wait for an answer
        case OpenDatagram: return open_datagram(session, message);
        case ConnectDatagram: return connect_datagram(session, message);
        case CloseDatagram: return close_datagram(session, message);
        case Membership: return membership(session, message);
        default: return refuse(session, message, EOPNOTSUPP);
    }
}

/// One user cannot take all places: the last ones are for those who have fewer than four.
bool Server::may_attach(const Session& session) const {
    if (session_slots_.left() > config_.sessions.max_sessions / 8) return true;
    return count_of_user(session.peer.uid, true) < kFewSessions;
}

std::size_t Server::count_of_user(std::uint32_t uid, bool attached) const {
    return static_cast<std::size_t>(
        std::count_if(sessions_.begin(), sessions_.end(), [&](const auto& entry) {
            return entry.second->peer.uid == uid && entry.second->holds_slot() == attached;
        }));
}

void Server::attach(Session& session, const shm::Message& request) {
    if (session.state != Session::State::Visitor) return refuse(session, request, EISCONN);
    const std::optional<SessionIndex> index =
        may_attach(session) ? session_slots_.take() : std::nullopt;
    if (!index) {
        log_client(LogLevel::Warning, "no more than " +
                                          std::to_string(config_.sessions.max_sessions) +
                                          " sessions may be attached (sessions.max_sessions), the "
                                          "last eighth of them by users who have few");
        return refuse(session, request, EUSERS);
    }
    session.index = *index;
    session.observed = false;  // a client, from now on, and to be seen as one
    session.program = request.attach.program.view();
    session.isolation = isolation_of(config_.sessions.isolation, session.peer.uid, daemon_uid_);
    session.quota = quota_of(
        config_, static_cast<std::uint32_t>(plane_.rx_arena().bytes().size() /
                                            plane_.rx_slot_bytes()),
        plane_.shard_count());
    session.quota.first_port = listeners_.first_port_for(session.peer.uid);
    Result<void, int> made = session.make_memory(plane_.rx_slot_bytes());
    if (made) made = plane_.map_for_devices(session.tx_arena.bytes());
    if (!made) {
        log_client(LogLevel::Warning, session.to_string() + " was refused: no memory (" +
                                          std::generic_category().message(made.error()) + ")");
        session_slots_.give_back(session.index);
        return refuse(session, request, made.error());
    }
    session.state = Session::State::Attaching;
    session.since = monotonic_now();
    number_of_[session.index] = session.number;
    page_.clear_counters(session.index, plane_.shard_count());

    // Each shard is told something of its own.
    const std::uint64_t tag = expect(session, plane_.shard_count(),
                                     [this, request](Session& attached, const Report&) {
                                         reply_attached(attached, request);
                                     });
    for (std::uint32_t shard = 0; shard < plane_.shard_count(); ++shard) {
        shm::SessionCounters& counters =
            page_.directory().session_counters[shard][session.index];
        const SessionConfig config = session.config_for(shard, plane_.shard_count(),
                                                        plane_.rx_slot_bytes(), &counters);
        plane_.post(shard, {.tag = tag,
                            .what = AttachSession{.session = session.index, .config = config}});
    }
}

void Server::reply_attached(Session& session, const shm::Message& request) {
    session.state = Session::State::Client;
    publish(session);
    const bool isolated = session.isolation == shm::Isolation::Private;
    shm::Message message = answer_to(request);
    message.attached = {};
    message.attached.session = session.id();
    message.attached.shard_count = plane_.shard_count();
    message.attached.directory_bytes = sizeof(shm::Directory);
    message.attached.tx_arena_bytes = session.quota.tx_arena_bytes;
    message.attached.rx_slot_bytes = plane_.rx_slot_bytes();
    message.attached.max_connections = session.quota.max_connections;
    message.attached.isolation = session.isolation;
    // An isolated session is not given the shared arena: the directory stands in its place.
    std::vector<int> fds{page_.region().fd(),
                         isolated ? page_.region().fd() : plane_.rx_arena().fd(),
                         session.tx_arena.fd()};
    if (isolated) {
        message.attached.private_rx_arena_bytes =
            std::uint64_t{session.quota.max_rx_slots} * plane_.rx_slot_bytes();
        fds.push_back(session.private_rx_arena.fd());
    } else {
        message.attached.rx_arena_bytes = plane_.rx_arena().bytes().size();
    }
    log_client(LogLevel::Info, session.to_string() + " attached" +
                                   (isolated ? ", isolated" : ""));
    reply(session, message, fds);
}

void Server::observe(Session& session, const shm::Message& request) {
    session.observed = true;
    shm::Message message = answer_to(request);
    message.observed = {};
    message.observed.shard_count = plane_.shard_count();
    message.observed.directory_bytes = sizeof(shm::Directory);
    std::vector<int> fds{page_.region().fd()};
    if (is_operator(session)) {
        message.observed.tables_allowed = 1;
        for (std::uint32_t shard = 0; shard < plane_.shard_count(); ++shard) {
            message.observed.tables_bytes[shard] = plane_.tables(shard).bytes().size();
            fds.push_back(plane_.tables(shard).fd());
        }
    }
    reply(session, message, fds);
}

void Server::create_channel(Session& session, const shm::Message& request) {
    if (session.channels.size() >= session.quota.max_channels)
        return refuse(session, request, EMFILE);
    const std::optional<ChannelIndex> slot = channel_slots_.take();
    if (!slot) return refuse(session, request, ENFILE);
    Result<ChannelMemory, int> made = ChannelMemory::make(*slot, plane_.shard_count());
    if (!made) {
        channel_slots_.give_back(*slot);
        return refuse(session, request, made.error());
    }
    const ChannelIndex channel = *slot;
    const ChannelMemory& memory = session.channels.emplace(channel, std::move(*made)).first->second;
    const auto attached = [this, channel, request](Session& owner, const Report&) {
        page_.publish_channel(channel, owner.id());
        publish(owner);
        shm::Message message = answer_to(request);
        message.channel = {.channel = channel,
                           .shard_count = plane_.shard_count(),
                           .channel_bytes = shm::Channel::bytes(plane_.shard_count())};
        reply(owner, message, owner.channels.at(channel).fds_for_client());
    };
    const std::uint64_t tag = expect(session, plane_.shard_count(), attached);
    for (std::uint32_t shard = 0; shard < plane_.shard_count(); ++shard) {
        AttachChannel what;
        what.channel = channel;
        what.session = session.index;
        what.lane = &memory.layout().lane(shard);
        what.client_doorbell = &memory.layout().client_doorbell;
        what.client_event_fd = memory.doorbell.ring.get();
        what.shard_event_fd = memory.shard_doorbells[shard].get();
        plane_.post(shard, {.tag = tag, .what = what});
    }
}

void Server::destroy_channel(Session& session, const shm::Message& request) {
    const std::uint32_t asked = request.destroy_channel.channel;
    const auto channel = static_cast<ChannelIndex>(asked);
    if (asked >= shm::kMaxChannels || !session.channels.contains(channel))
        return refuse(session, request, EBADF);
    const auto detached = [this, channel, request](Session& owner, const Report&) {
        owner.channels.erase(channel);
        channel_slots_.give_back(channel);
        page_.clear_channel(channel);
        publish(owner);
        reply(owner, answer_to(request));
    };
    const std::uint64_t tag = expect(session, plane_.shard_count(), detached);
    plane_.post_to_all({.tag = tag, .what = DetachChannel{.channel = channel}});
}

void Server::bind(Session& session, const shm::Message& request) {
    const Result<shm::BindReply, int> bound =
        listeners_.bind(session.index, session.peer.uid, request.bind);
    if (!bound) return refuse(session, request, bound.error());
    publish(session);
    shm::Message message = answer_to(request);
    message.bound = *bound;
    reply(session, message);
}

void Server::listen(Session& session, const shm::Message& request) {
    const Result<Orders, int> orders = listeners_.listen(session.index, request.listen);
    if (!orders) return refuse(session, request, orders.error());
    order(session, *orders, answer_to(request));
}

void Server::adopt(Session& session, const shm::Message& request) {
    const Result<Listeners::Adopted, int> adopted =
        listeners_.adopt(session.index, session.peer.uid, request.adopt);
    if (!adopted) return refuse(session, request, adopted.error());
    publish(session);
    shm::Message message = answer_to(request);
    message.bound = adopted->reply;
    order(session, adopted->orders, message);
}

void Server::unbind(Session& session, const shm::Message& request) {
    const Result<Orders, int> orders = listeners_.unbind(session.index, request.unbind.listener);
    if (!orders) return refuse(session, request, orders.error());
    publish(session);
    order(session, *orders, answer_to(request));
}

void Server::connection_info(Session& session, const shm::Message& request) {
    if (request.query.shard >= plane_.shard_count()) return refuse(session, request, EBADF);
    const auto found_out = [this, request](Session& owner, const Report& report) {
        const auto* snapshot = std::get_if<ConnectionSnapshot>(&report.what);
        if (snapshot == nullptr || !snapshot->found) return refuse(owner, request, ENOTCONN);
        shm::Message message = answer_to(request);
        message.connection = snapshot->info;
        reply(owner, message);
    };
    const std::uint64_t tag = expect(session, 1, found_out);
    plane_.post(request.query.shard,
                {.tag = tag,
                 .what = QueryConnection{.session = session.index,
                                         .connection = request.query.connection}});
}

}  // namespace chiru::daemon
