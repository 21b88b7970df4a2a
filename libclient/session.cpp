// SPDX-License-Identifier: Apache-2.0
#include "libclient/session.hpp"

#include "libclient/no_cancel.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <new>
#include <utility>

namespace chiru::client {
namespace {

/// A daemon that takes longer is as good as gone for the caller; the answer is dropped when it
/// comes after all.
constexpr timeval kAnswerLimit{.tv_sec = 5, .tv_usec = 0};

bool plausible(const shm::AttachReply& terms) {
    return terms.shard_count > 0 && terms.shard_count <= shm::kMaxShards &&
           terms.directory_bytes >= sizeof(shm::Directory) && terms.rx_slot_bytes > 0;
}

}  // namespace

Result<std::shared_ptr<Session>, int> Session::attach(const std::string& socket_path,
                                                      std::string_view program) {
    Result<shm::UniqueFd, int> control =
        shm::connect_control(shm::control_socket_path(socket_path));
    if (!control) return std::unexpected(control.error());
    return attach(std::move(*control), program);
}

Result<std::shared_ptr<Session>, int> Session::attach(shm::UniqueFd control,
                                                      std::string_view program) {
    std::shared_ptr<Session> session(new Session);
    session->control_ = std::move(control);
    setsockopt(session->control_.get(), SOL_SOCKET, SO_RCVTIMEO, &kAnswerLimit,
               sizeof kAnswerLimit);
    shm::Message message;
    message.type = shm::MessageType::Attach;
    message.attach = {};
    message.attach.program.set(program);
    Result<shm::Parcel, int> reply = session->request(message);
    if (!reply) return std::unexpected(reply.error());
    if (const Result<void, int> taken = session->take_memory(*reply); !taken)
        return std::unexpected(taken.error());
    return session;
}

Result<void, int> Session::take_memory(shm::Parcel& reply) {
    terms_ = reply.message.attached;
    const bool is_private = terms_.private_rx_arena_bytes != 0;
    if (reply.fds_lost) return std::unexpected(EMFILE);
    if (!plausible(terms_) || reply.fds.size() != (is_private ? 4u : 3u))
        return std::unexpected(EPROTO);
    const auto map = [&reply](std::size_t which, std::uint64_t bytes, shm::MapAccess access,
                              shm::Region& region) {
        Result<shm::Region, int> mapped =
            shm::Region::map(std::move(reply.fds[which]), bytes, access);
        if (!mapped) return mapped.error();
        region = std::move(*mapped);
        region.close_fd();
        return 0;
    };
    using enum shm::MapAccess;
    int error = map(0, terms_.directory_bytes, ReadOnly, directory_region_);
    // An isolated session may be denied the shared arena: then its size is 0.
    if (error == 0 && terms_.rx_arena_bytes != 0)
        error = map(1, terms_.rx_arena_bytes, ReadOnly, rx_region_);
    if (error == 0) error = map(2, terms_.tx_arena_bytes, ReadWrite, tx_region_);
    if (error == 0 && is_private)
        error = map(3, terms_.private_rx_arena_bytes, ReadOnly, private_rx_region_);
    if (error != 0) return std::unexpected(error);
    directory_ = reinterpret_cast<const shm::Directory*>(directory_region_.bytes().data());
    if (directory_->magic.load(std::memory_order_acquire) != shm::kDirectoryMagic ||
        directory_->version != shm::kDirectoryVersion)
        return std::unexpected(EPROTO);
    tx_blocks_ = std::make_unique<TxBlocks>(tx_region_.bytes());
    return {};
}

std::span<const std::byte> Session::rx_arena(shm::ArenaId arena) const {
    if (arena == shm::kRxArena && rx_region_) return rx_region_.bytes();
    if (arena == shm::kPrivateRxArena && private_rx_region_) return private_rx_region_.bytes();
    return {};
}

Result<shm::Parcel, int> Session::request(shm::Message& message) {
    const NoCancel no_cancel;
    const std::lock_guard lock(mutex_);
    if (lost()) return std::unexpected(EPIPE);
    message.sequence = ++sequence_;
    if (const int error = shm::send_message(control_.get(), message); error != 0) {
        if (error == EPIPE || error == ECONNRESET) give_up();
        return std::unexpected(error);
    }
    while (true) {
        Result<shm::Parcel, int> reply = shm::receive_message(control_.get());
        if (!reply) {
            if (reply.error() == EAGAIN) return std::unexpected(ETIMEDOUT);
            give_up();
            return reply;
        }
        const shm::Message& answer = reply->message;
        if (answer.sequence != message.sequence) continue;  // to a request that was given up
        if (answer.error != 0) return std::unexpected(answer.error);
        if (answer.type != message.type) {
            give_up();
            return std::unexpected(EPROTO);
        }
        return reply;
    }
}

Result<shm::BindReply, int> Session::bind(const Endpoint& local, std::uint32_t bind_flags) {
    shm::Message message;
    message.type = shm::MessageType::Bind;
    message.bind = {.endpoint = local, .flags = bind_flags};
    const Result<shm::Parcel, int> reply = request(message);
    if (!reply) return std::unexpected(reply.error());
    return reply->message.bound;
}

Result<void, int> Session::listen(shm::ListenerId listener, const ListenTerms& terms) {
    shm::Message message;
    message.type = shm::MessageType::Listen;
    message.listen = {.listener = listener,
                      .backlog = terms.backlog,
                      .defer_s = terms.defer_s,
                      .max_segment = terms.max_segment,
                      .fast_open = terms.fast_open};
    if (const auto reply = request(message); !reply) return std::unexpected(reply.error());
    return {};
}

Result<shm::BindReply, int> Session::adopt(shm::ListenerId listener,
                                           const shm::ListenerToken& token) {
    shm::Message message;
    message.type = shm::MessageType::Adopt;
    message.adopt = {};
    message.adopt.listener = listener;
    message.adopt.token = token;
    const Result<shm::Parcel, int> reply = request(message);
    if (!reply) return std::unexpected(reply.error());
    return reply->message.bound;
}

Result<void, int> Session::unbind(shm::ListenerId listener) {
    shm::Message message;
    message.type = shm::MessageType::Unbind;
    message.unbind = {.listener = listener};
    if (const auto reply = request(message); !reply) return std::unexpected(reply.error());
    return {};
}

Result<shm::ConnectionInfo, int> Session::connection_info(std::uint32_t shard,
                                                          shm::ConnectionId connection) {
    shm::Message message;
    message.type = shm::MessageType::ConnectionInfo;
    message.query = {.shard = shard, .connection = connection};
    const Result<shm::Parcel, int> reply = request(message);
    if (!reply) return std::unexpected(reply.error());
    return reply->message.connection;
}

Result<shm::DatagramReply, int> Session::open_datagram(const shm::OpenDatagramRequest& wanted) {
    shm::Message message;
    message.type = shm::MessageType::OpenDatagram;
    message.open_datagram = wanted;
    const Result<shm::Parcel, int> reply = request(message);
    if (!reply) return std::unexpected(reply.error());
    return reply->message.datagram;
}

Result<shm::DatagramReply, int> Session::connect_datagram(
    const shm::ConnectDatagramRequest& wanted) {
    shm::Message message;
    message.type = shm::MessageType::ConnectDatagram;
    message.connect_datagram = wanted;
    const Result<shm::Parcel, int> reply = request(message);
    if (!reply) return std::unexpected(reply.error());
    return reply->message.datagram;
}

Result<void, int> Session::close_datagram(shm::DatagramId socket) {
    shm::Message message;
    message.type = shm::MessageType::CloseDatagram;
    message.close_datagram = {.socket = socket};
    if (const auto reply = request(message); !reply) return std::unexpected(reply.error());
    return {};
}

Result<void, int> Session::set_membership(const shm::MembershipRequest& wanted) {
    shm::Message message;
    message.type = shm::MessageType::Membership;
    message.membership = wanted;
    if (const auto reply = request(message); !reply) return std::unexpected(reply.error());
    return {};
}

Result<ChannelParts, int> Session::create_channel() {
    shm::Message message;
    message.type = shm::MessageType::CreateChannel;
    Result<shm::Parcel, int> reply = request(message);
    if (!reply) return std::unexpected(reply.error());
    const shm::ChannelReply& made = reply->message.channel;
    if (reply->fds_lost) {
        static_cast<void>(destroy_channel(made.channel));
        return std::unexpected(EMFILE);
    }
    if (made.shard_count != shard_count() || reply->fds.size() != 2 + made.shard_count)
        return std::unexpected(EPROTO);
    Result<shm::Region, int> region = shm::Region::map(
        std::move(reply->fds[0]), made.channel_bytes, shm::MapAccess::ReadWrite);
    if (!region) return std::unexpected(region.error());
    region->close_fd();
    ChannelParts parts{.channel = made.channel,
                       .shard_count = made.shard_count,
                       .region = std::move(*region),
                       .client_doorbell = std::move(reply->fds[1]),
                       .shard_doorbells = {}};
    for (std::size_t i = 2; i < reply->fds.size(); ++i)
        parts.shard_doorbells.push_back(std::move(reply->fds[i]));
    return parts;
}

Result<void, int> Session::destroy_channel(std::uint32_t channel) {
    shm::Message message;
    message.type = shm::MessageType::DestroyChannel;
    message.destroy_channel = {.channel = channel};
    if (const auto reply = request(message); !reply) return std::unexpected(reply.error());
    return {};
}

void Session::give_up() {
    disown();
    shutdown(control_.get(), SHUT_RDWR);  // wakes whoever sleeps on it, and the daemon cleans up
}

void Session::say_farewell() {
    if (lost()) return;
    const NoCancel no_cancel;
    shm::Message message;
    message.type = shm::MessageType::Farewell;
    static_cast<void>(shm::send_message(control_.get(), message));
}

bool Session::check_alive() {
    if (lost()) return false;
    const NoCancel no_cancel;
    pollfd watched{.fd = control_.get(), .events = POLLRDHUP, .revents = 0};
    if (poll(&watched, 1, 0) > 0 && (watched.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0)
        give_up();
    return !lost();
}

}  // namespace chiru::client
