// SPDX-License-Identifier: Apache-2.0
//
// What shards say. The daemon is trusted with our data, not with our memory: whatever a completion
// holds, nothing outside our tables and the arenas is touched, and nonsense ends the session.
#include "libclient/channel.hpp"
#include "libclient/lane.hpp"

#include <algorithm>
#include <cerrno>

namespace chiru::client {
namespace {

/// A sender is woken for so much room at the latest: the shard must not run dry meanwhile.
constexpr std::uint32_t kRoomBytes = 128u << 10;

}  // namespace

void Channel::handle(Lane& lane, const shm::Completion& completion) {
    using enum shm::CompletionOp;
    if (completion.op == Accepted) return on_accepted(lane, completion);
    if (completion.op == Opening) return on_opening(lane, completion);
    if (completion.op == Connected) return on_connected(lane, completion);
    switch (completion.op) {
        case Destination:
            lane.telling.destination = completion.endpoints.local.address;
            lane.telling.has_destination = true;
            return;
        case Datagram: return on_datagram(lane, completion);
        case DatagramMore: return on_datagram_more(lane, completion);
        case DatagramError: return on_datagram_error(completion);
        case DatagramsSent: return on_datagrams_sent(lane, completion);
        default: break;
    }
    Socket* socket = socket_of(lane, completion);
    if (socket != nullptr && completion.sent_bytes != 0) on_sent(*socket, completion.sent_bytes);
    switch (completion.op) {
        case Received: return on_received(lane, socket, completion);
        case Sent:
            if (socket != nullptr) on_launched(*socket, completion.sent);
            return;
        case PeerClosed:
            if (socket == nullptr || socket->state == SocketState::Lingering) return;
            socket->flags |= kPeerDone;
            return mark(*socket, kReadable | kPeerClosed);
        case Closed:
            if (socket == nullptr) socket = connecting(lane, completion.user);
            if (socket != nullptr) on_closed(*socket, completion);
            return;
        default: return session_->give_up();
    }
}

/// nullptr: a completion that crossed with our Close, or about a connection we never took.
Socket* Channel::socket_of(Lane& lane, const shm::Completion& completion) {
    if (completion.connection == shm::kNoConnection) return nullptr;
    const std::uint32_t index = lane.names.find(completion.connection.index);
    if (index == kNone) return nullptr;
    Socket& socket = sockets_[index];
    return socket.connection == completion.connection ? &socket : nullptr;
}

/// The socket that waits for the answer to this Connect, whether or not it was closed meanwhile.
Socket* Channel::connecting(const Lane& lane, std::uint64_t cookie) {
    const auto index = static_cast<std::uint32_t>(cookie);
    if (!sockets_.knows(index)) return nullptr;
    Socket& socket = sockets_[index];
    const bool waits = (socket.state == SocketState::Connecting ||
                        socket.state == SocketState::Lingering) &&
                       socket.connection == shm::kNoConnection && socket.shard == lane.shard &&
                       socket.name.generation == cookie >> 32;
    return waits ? &socket : nullptr;
}

/// From now on completions find the socket.
bool Channel::name(Lane& lane, Socket& socket, const shm::Completion& completion) {
    const std::uint32_t before = lane.names.find(completion.connection.index);
    if (completion.connection.generation == 0 || before != kNone) {
        session_->give_up();  // the old connection of this index never got its Closed
        return false;
    }
    if (!lane.names.set(completion.connection.index, socket.name.index)) return false;
    socket.connection = completion.connection;
    socket.unsent_low_water = 0;  // until the options are applied
    socket.local = completion.endpoints.local;
    socket.remote = completion.endpoints.remote;
    return true;
}

void Channel::on_accepted(Lane& lane, const shm::Completion& completion) {
    const auto refuse = [&] {
        shm::Submission refusal;
        refusal.op = shm::SubmissionOp::Abort;
        refusal.connection = completion.connection;
        submit_surely(lane, refusal);
        give_credit(static_cast<std::uint32_t>(completion.user), lane, 1, 1);
    };
    Socket* socket = create(0);
    if (socket == nullptr) return refuse();
    socket->shard = lane.shard;
    if (!name(lane, *socket, completion)) {
        free_socket(*socket);
        return refuse();
    }
    socket->state = SocketState::Connected;
    const auto found = listener_by_id_.find(static_cast<std::uint32_t>(completion.user));
    if (found == listener_by_id_.end()) return return_unaccepted(*socket);
    socket->flags |= kUnaccepted;
    socket->edges = kWritable;
    Listener& listener = listeners_[found->second];
    Socket& parent = sockets_[listener.socket];
    socket->tx_limit = parent.tx_limit;
    socket->flags |= parent.flags & kFixedRoom;
    apply_options(*socket, parent.options);
    if (listener.last == kNone) listener.first = socket->name.index;
    else sockets_[listener.last].next = socket->name.index;
    listener.last = socket->name.index;
    parent.flags |= kAcceptWaiting;
    mark(parent, kReadable);
}

/// The socket whose Connect this answers, with its name; nullptr: nothing is left to do.
Socket* Channel::answered(Lane& lane, const shm::Completion& completion) {
    Socket* socket = connecting(lane, completion.user);
    if (socket == nullptr) {  // each Connect is answered once
        session_->give_up();
        return nullptr;
    }
    if (!name(lane, *socket, completion)) {
        shm::Submission refuse;
        refuse.op = shm::SubmissionOp::Abort;
        refuse.connection = completion.connection;
        submit_surely(lane, refuse);
        if (socket->state == SocketState::Lingering) free_socket(*socket);
        else fail(*socket, ENOBUFS);
        return nullptr;
    }
    if (socket->state != SocketState::Lingering) return socket;
    submit_op(*socket, shm::SubmissionOp::Abort);  // closed while it connected
    return nullptr;
}

void Channel::on_opening(Lane& lane, const shm::Completion& completion) {
    Socket* socket = answered(lane, completion);
    if (socket == nullptr) return;
    socket->syn_room =
        static_cast<std::uint16_t>(std::min(completion.endpoints.syn_room, 65'535u));
    socket->flags |= kAnswered;
    if (socket->syn_room != 0) mark(*socket, kWritable);
}

void Channel::on_connected(Lane& lane, const shm::Completion& completion) {
    Socket* socket = socket_of(lane, completion);  // if there was an Opening, it is named
    if (socket == nullptr) socket = answered(lane, completion);
    if (socket == nullptr) return;
    if (completion.sent_bytes != 0) on_sent(*socket, completion.sent_bytes);  // with the SYN
    if (socket->state == SocketState::Lingering) return;
    if (socket->state != SocketState::Connecting) return session_->give_up();
    socket->syn_room = 0;
    socket->flags &= static_cast<std::uint16_t>(~kAnswered);
    socket->state = SocketState::Connected;
    apply_options(*socket, socket->options);
    free_options(*socket);
    mark(*socket, kWritable);
}

void Channel::on_received(Lane& lane, Socket* socket, const shm::Completion& completion) {
    if (completion.count > shm::kSlicesPerDescriptor) return session_->give_up();
    const bool returned = socket != nullptr && (socket->flags & kReturned) != 0;
    const bool wanted = returned || (socket != nullptr && socket->state == SocketState::Connected &&
                                     (socket->flags & kReceiveDone) == 0);
    for (std::size_t i = 0; i < completion.count; ++i) {
        const shm::Slice& slice = completion.slices[i];
        const std::uint64_t arena_bytes = session_->rx_arena(slice.arena).size();
        if (slice.length > arena_bytes || slice.offset > arena_bytes - slice.length)
            return session_->give_up();
        const std::uint32_t slot_bytes = session_->terms().rx_slot_bytes;
        const auto slot = static_cast<std::uint32_t>(slice.offset / slot_bytes);
        const std::uint32_t index = wanted ? chunks_.take() : kNone;
        if (index == kNone) {
            if (returned) return session_->give_up();  // whose the slot is we could not remember
            release_slot(lane, slice.arena, slot, false);
            if (!wanted || socket->state != SocketState::Connected) continue;
            submit_op(*socket, shm::SubmissionOp::Abort);  // no memory: a hole must not go unseen
            end_with(*socket, ENOBUFS);
            continue;
        }
        chunks_[index].hold(slice, slot, lane.shard, false);
        if (socket->rx_last == kNone) socket->rx_first = index;
        else chunks_[socket->rx_last].next = index;
        socket->rx_last = index;
        socket->rx_bytes += slice.length;
    }
    if (wanted && socket->state == SocketState::Connected) mark(*socket, kReadable);
}

void Channel::on_sent(Socket& socket, std::uint32_t bytes) {
    if (bytes > socket.tx_bytes) return session_->give_up();
    socket.tx_bytes -= bytes;
    while (bytes != 0) {
        TxExtent& extent = extents_[socket.tx_first];
        const std::uint32_t part = std::min(bytes, extent.filled - extent.returned);
        extent.returned += part;
        bytes -= part;
        if (extent.returned == extent.filled) pop_extent(socket);
    }
    // Not for every byte: a sender at its limit is woken when a quarter of it is free again, or as
    // much as is worth it in any case.
    const std::uint32_t free = std::min(socket.tx_limit / 4, kRoomBytes);
    if (socket.tx_bytes <= socket.tx_limit - free) offer_room(socket);
}

/// The send buffer grows with what the network carries, unless the program has fixed it; and the
/// shard tells what it has sent, if the program wants to queue little that is not.
void Channel::on_launched(Socket& socket, const shm::SentBody& sent) {
    if (socket.unsent_low_water != 0) {
        socket.unsent -= static_cast<std::uint32_t>(sent.left_bytes);
        if (sent.left_bytes > 0) offer_room(socket);
    }
    const std::uint32_t room = std::min(sent.room_bytes, most_room_);
    if ((socket.flags & kFixedRoom) != 0 || room <= socket.tx_limit) return;
    socket.tx_limit = room;
    offer_room(socket);
}

/// A sender that was at one of its limits can go on.
void Channel::offer_room(Socket& socket) {
    if ((socket.flags & (kWantsRoom | kInWaiting)) != kWantsRoom) return;
    if (socket.tx_bytes >= socket.tx_limit || !socket.few_unsent(2)) return;
    socket.flags &= static_cast<std::uint16_t>(~kWantsRoom);
    if (socket.state == SocketState::Connected) mark(socket, kWritable);
}

void Channel::on_closed(Socket& socket, const shm::Completion& completion) {
    if ((socket.flags & kReturned) != 0 && completion.count == 1) forget_received(socket);
    if (socket.state == SocketState::Lingering) return free_socket(socket);
    if (socket.state == SocketState::Over) return forget_connection(socket);
    if (socket.state == SocketState::Connecting && completion.error == EXDEV) {
        // The answer to our bound port comes to another shard: connect from there.
        if (completion.count >= lanes_.size() || ++socket.redirects > lanes_.size())
            return fail(socket, EADDRNOTAVAIL);
        socket.shard = completion.count;
        return submit_connect(socket);
    }
    int error = completion.error;
    if (socket.state == SocketState::Connecting && error == 0) error = ECONNREFUSED;
    fail(socket, error);
}

/// The connection is over, for the shard too. Unread data stays readable.
void Channel::fail(Socket& socket, int error) {
    forget_connection(socket);
    end_with(socket, error);
}

/// The program sees the end of the connection; `error` 0: in order.
void Channel::end_with(Socket& socket, int error) {
    socket.error = static_cast<std::uint16_t>(error);
    socket.state = SocketState::Over;
    socket.flags |= kPeerDone;
    socket.flags &= static_cast<std::uint16_t>(~kWantsRoom);
    const std::uint8_t edges = kReadable | kWritable | kPeerClosed | kHangup;
    mark(socket, error == 0 ? edges : static_cast<std::uint8_t>(edges | kError));
}

/// The shard holds nothing of it any longer.
void Channel::forget_connection(Socket& socket) {
    drop_sent(socket);
    if (socket.connection == shm::kNoConnection) return;
    lanes_[socket.shard]->names.set(socket.connection.index, kNone);
    socket.connection = shm::kNoConnection;
}

}  // namespace chiru::client
