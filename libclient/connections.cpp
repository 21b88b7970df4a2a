// SPDX-License-Identifier: Apache-2.0
//
// The life of sockets: from create() to the last word of the shard.
#include "libclient/channel.hpp"
#include "libclient/lane.hpp"

#include <algorithm>
#include <cerrno>
#include <new>
#include <optional>
#include <utility>

namespace chiru::client {
namespace {

struct OptionRange {
    std::uint64_t least;
    std::uint64_t most;
};

/// The values that make sense, and that Linux takes; nothing for an unknown option.
std::optional<OptionRange> range_of(shm::ConnectionOption option) {
    using enum shm::ConnectionOption;
    switch (option) {
        case NoDelay:
        case Cork:
        case KeepAlive:
        case QuickAck:
        case LingerZero: return OptionRange{0, 1};
        case KeepIdle:
        case KeepInterval: return OptionRange{1, 32'767};
        case KeepCount: return OptionRange{1, 127};
        case UserTimeout: return OptionRange{0, 0x7fff'ffff};
        case ReceiveBuffer: return OptionRange{0, 1u << 30};
        case SendBuffer: return OptionRange{0, 1u << 30};
        case CongestionControl: return OptionRange{0, shm::kCongestionAlgorithms - 1};
        case MaxSegment: return OptionRange{88, 32'767};
        case TypeOfService: return OptionRange{0, 255};
        case TimeToLive: return OptionRange{1, 255};
        case DeferAccept: return OptionRange{0, 3600};
        case MaxPacingRate: return OptionRange{0, UINT64_MAX};
        case UnsentLowWater: return OptionRange{0, 0xffff'ffff};
        case FastOpen: return OptionRange{0, 65'535};
    }
    return std::nullopt;
}

}  // namespace

Socket* Channel::create(std::uint64_t user) {
    const std::uint32_t index = sockets_.take();
    if (index == kNone) return nullptr;
    Socket& socket = sockets_[index];
    const std::uint32_t generation = std::max(socket.name.generation, 1u);
    socket = Socket{};
    socket.name = {.index = index, .generation = generation};
    socket.user = user;
    socket.state = SocketState::Open;
    socket.tx_limit = kFirstRoom;
    return &socket;
}

Socket* Channel::find(SocketName name) {
    if (!sockets_.knows(name.index)) return nullptr;
    Socket& socket = sockets_[name.index];
    const bool live = socket.state != SocketState::Free &&
                      socket.state != SocketState::Lingering &&
                      socket.name.generation == name.generation;
    return live ? &socket : nullptr;
}

void Channel::free_socket(Socket& socket) {
    drop_received(socket);
    forget_connection(socket);
    free_options(socket);
    socket.state = SocketState::Free;
    if (++socket.name.generation == 0) socket.name.generation = 1;
    // A listed socket is put back when it leaves its lists: they hold indexes.
    if ((socket.flags & (kInChanged | kInWaiting)) == 0) sockets_.put(socket.name.index);
}

void Channel::submit_op(Socket& socket, shm::SubmissionOp op) {
    shm::Submission submission;
    submission.op = op;
    submission.connection = socket.connection;
    submit_surely(*lanes_[socket.shard], submission);
}

// ---- active open ---------------------------------------------------------------------------

Result<void, int> Channel::connect(Socket& socket, const Endpoint& remote, const Endpoint& local) {
    if (failed_) return std::unexpected(ECONNRESET);
    switch (socket.state) {
        case SocketState::Open: break;
        case SocketState::Connecting: return std::unexpected(EALREADY);
        case SocketState::Connected: return std::unexpected(EISCONN);
        case SocketState::Over:  // a failed socket may try again, once the error was told
            if (socket.error != 0) return std::unexpected(take_error(socket));
            if (socket.connection != shm::kNoConnection) return std::unexpected(EISCONN);
            drop_received(socket);
            socket.flags &= kInChanged | kInWaiting;
            break;
        default: return std::unexpected(EINVAL);
    }
    socket.remote = remote;
    socket.local = local;
    socket.redirects = 0;
    socket.syn_room = 0;
    socket.flags &= static_cast<std::uint16_t>(~kAnswered);
    socket.shard = static_cast<std::uint8_t>(next_shard_++ % lanes_.size());
    socket.state = SocketState::Connecting;
    submit_connect(socket);
    return {};
}

void Channel::submit_connect(Socket& socket) {
    shm::Submission submission;
    submission.op = shm::SubmissionOp::Connect;
    submission.user = std::uint64_t{socket.name.generation} << 32 | socket.name.index;
    submission.max_segment =
        static_cast<std::uint32_t>(early_option(socket, shm::ConnectionOption::MaxSegment));
    submission.connect = {.remote = socket.remote, .local = socket.local, .options = 0};
    // Needed with the SYN, which asks for ECN or does not; the others are in time afterwards.
    for (std::uint32_t i = socket.options; i != kNone; i = options_[i].next)
        if (options_[i].body.option == shm::ConnectionOption::CongestionControl)
            submission.connect.options =
                static_cast<std::uint32_t>(options_[i].body.value + 1)
                << shm::kConnectCongestionShift;
    if (early_option(socket, shm::ConnectionOption::FastOpen) != 0)
        submission.connect.options |=
            1u << static_cast<unsigned>(shm::ConnectionOption::FastOpen);
    submit_surely(*lanes_[socket.shard], submission);
}

// ---- passive open --------------------------------------------------------------------------

Result<void, int> Channel::listen(Socket& socket, const shm::BindReply& bound,
                                  std::uint32_t at_once) try {
    if (failed_) return std::unexpected(ECONNRESET);
    if (socket.state != SocketState::Open || at_once == 0) return std::unexpected(EINVAL);
    const auto id = static_cast<std::uint32_t>(bound.listener);
    if (listener_by_id_.contains(id)) return std::unexpected(EADDRINUSE);
    auto free = std::ranges::find(listeners_, kNone, &Listener::socket);
    if (free == listeners_.end()) free = listeners_.insert(free, Listener{});
    const auto index = static_cast<std::uint32_t>(free - listeners_.begin());
    listener_by_id_.emplace(id, index);
    *free = Listener{};
    free->id = id;
    free->socket = socket.name.index;
    free->replenish = std::max(1u, at_once / 2);
    socket.listener = index;
    socket.local = bound.endpoint;
    socket.state = SocketState::Listening;
    for (const std::unique_ptr<Lane>& lane : lanes_) give_credit(id, *lane, at_once, 0);
    return {};
} catch (const std::bad_alloc&) {
    return std::unexpected(ENOMEM);
}

void Channel::give_credit(std::uint32_t listener, Lane& lane, std::uint32_t count,
                          std::uint32_t taken) {
    shm::Submission submission;
    submission.op = shm::SubmissionOp::AcceptCredit;
    submission.credit = {
        .listener = shm::ListenerId{listener}, .count = count, .taken = taken};
    submit_surely(lane, submission);
}

Result<Socket*, int> Channel::accept(Socket& socket) {
    if (socket.error != 0) return std::unexpected(take_error(socket));
    if (socket.state != SocketState::Listening) return std::unexpected(EINVAL);
    Listener& listener = listeners_[socket.listener];
    if (listener.first == kNone) return std::unexpected(EAGAIN);
    Socket& accepted = sockets_[listener.first];
    listener.first = std::exchange(accepted.next, kNone);
    if (listener.first == kNone) {
        listener.last = kNone;
        socket.flags &= static_cast<std::uint16_t>(~kAcceptWaiting);
    }
    accepted.flags &= static_cast<std::uint16_t>(~kUnaccepted);
    mark(accepted, accepted.edges);
    // At once, for what was not taken goes to others if we die; but that wakes no shard.
    Lane& lane = *lanes_[accepted.shard];
    const bool dirty = lane.dirty;
    give_credit(listener.id, lane, 1, 1);
    std::uint32_t& owed = listener.owed[accepted.shard];
    if (++owed >= listener.replenish) owed = 0;
    else lane.dirty = dirty;
    return &accepted;
}

/// What nobody accepted goes to others who share the listener; if nobody does, it is reset.
void Channel::leave_listener(Socket& socket) {
    if (socket.listener == kNone) return;
    Listener& listener = listeners_[socket.listener];
    std::uint32_t waiting = listener.first;
    listener_by_id_.erase(listener.id);
    listener = Listener{};
    socket.listener = kNone;
    while (waiting != kNone) {
        Socket& accepted = sockets_[waiting];
        waiting = std::exchange(accepted.next, kNone);
        accepted.flags &= static_cast<std::uint16_t>(~kUnaccepted);
        return_unaccepted(accepted);
    }
}

void Channel::return_unaccepted(Socket& socket) {
    if (socket.state != SocketState::Connected) return abort(socket);
    submit_op(socket, shm::SubmissionOp::Return);
    socket.state = SocketState::Lingering;
    socket.flags |= kReturned;
}

// ---- the end -------------------------------------------------------------------------------

Result<void, int> Channel::shutdown_send(Socket& socket) {
    if (socket.state != SocketState::Connected) return std::unexpected(ENOTCONN);
    if ((socket.flags & kSendDone) != 0) return {};
    socket.flags |= kSendDone;
    submit_op(socket, shm::SubmissionOp::Shutdown);
    mark(socket, kWritable);  // send() now answers EPIPE
    return {};
}

void Channel::shutdown_receive(Socket& socket) {
    socket.flags |= kReceiveDone;
    mark(socket, kReadable | kPeerClosed);
}

void Channel::close(Socket& socket) {
    // RFC 2525 §2.17: closing with unread data resets, so that the peer learns of the loss. Data
    // that lies on the ring is unread as well.
    if (socket.state == SocketState::Connected) process();
    const bool unread = socket.state == SocketState::Connected && socket.rx_first != kNone;
    end(socket, unread ? shm::SubmissionOp::Abort : shm::SubmissionOp::Close);
}

void Channel::abort(Socket& socket) { end(socket, shm::SubmissionOp::Abort); }

void Channel::end(Socket& socket, shm::SubmissionOp how) {
    leave_listener(socket);
    drop_received(socket);
    switch (socket.state) {
        case SocketState::Connected:
            submit_op(socket, how);
            socket.state = SocketState::Lingering;  // until Closed; it may still return payload
            return;
        case SocketState::Connecting:  // without a name until it is answered
            if (socket.connection != shm::kNoConnection)
                submit_op(socket, shm::SubmissionOp::Abort);
            socket.state = SocketState::Lingering;
            return;
        case SocketState::Over:
            if (socket.connection == shm::kNoConnection || failed_) return free_socket(socket);
            socket.state = SocketState::Lingering;  // aborted before; its Closed is under way
            return;
        case SocketState::Datagrams: return close_datagrams(socket);
        case SocketState::Open:
        case SocketState::Listening: return free_socket(socket);
        case SocketState::Free:
        case SocketState::Lingering: return;
    }
}

// ---- options -------------------------------------------------------------------------------

Result<void, int> Channel::set_option(Socket& socket, shm::ConnectionOption option,
                                      std::uint64_t value) {
    // A shard ends the session of whoever sends it nonsense; so none leaves here.
    const std::optional<OptionRange> range = range_of(option);
    if (!range || value < range->least || value > range->most) return std::unexpected(EINVAL);
    if (option == shm::ConnectionOption::SendBuffer)
        set_send_limit(socket, static_cast<std::uint32_t>(value));
    const shm::OptionBody body{.option = option, .reserved = 0, .value = value};
    if (socket.state == SocketState::Over) return {};  // nothing left that it could change
    if (socket.state == SocketState::Connected) {
        submit_option(socket, body);
        return {};
    }
    for (std::uint32_t i = socket.options; i != kNone; i = options_[i].next) {
        if (options_[i].body.option != option) continue;
        options_[i].body = body;
        return {};
    }
    const std::uint32_t index = options_.take();
    if (index == kNone) return std::unexpected(ENOMEM);
    options_[index] = {.body = body, .next = socket.options};
    socket.options = index;
    return {};
}

void Channel::submit_option(Socket& socket, const shm::OptionBody& body) {
    if (body.option == shm::ConnectionOption::UnsentLowWater) {
        // Set once, the shard tells what it sends, from what is queued now on.
        if (socket.unsent_low_water == 0) socket.unsent = 0;
        socket.unsent_low_water =
            body.value == 0 ? 0xffff'ffffu : static_cast<std::uint32_t>(body.value);
        if (!socket.few_unsent(2)) socket.flags |= kWantsRoom;
        else offer_room(socket);
    }
    shm::Submission submission;
    submission.op = shm::SubmissionOp::SetOption;
    submission.connection = socket.connection;
    submission.option = body;
    submit_surely(*lanes_[socket.shard], submission);
}

void Channel::apply_options(Socket& socket, std::uint32_t options) {
    for (std::uint32_t i = options; i != kNone; i = options_[i].next)
        submit_option(socket, options_[i].body);
}

void Channel::free_options(Socket& socket) {
    std::uint32_t index = std::exchange(socket.options, kNone);
    while (index != kNone) {
        const std::uint32_t next = options_[index].next;
        options_.put(index);
        index = next;
    }
}

std::uint64_t Channel::early_option(const Socket& socket, shm::ConnectionOption option) {
    for (std::uint32_t i = socket.options; i != kNone; i = options_[i].next)
        if (options_[i].body.option == option) return options_[i].body.value;
    return 0;
}

void Channel::set_send_limit(Socket& socket, std::uint32_t bytes) {
    socket.flags |= kFixedRoom;
    socket.tx_limit = std::max(bytes, kMinSendLimit);
    offer_room(socket);
}

int Channel::take_error(Socket& socket) { return std::exchange(socket.error, std::uint16_t{0}); }

Result<shm::ConnectionInfo, int> Channel::info(const Socket& socket) {
    if (socket.connection == shm::kNoConnection) return std::unexpected(ENOTCONN);
    return session_->connection_info(socket.shard, socket.connection);
}

}  // namespace chiru::client
