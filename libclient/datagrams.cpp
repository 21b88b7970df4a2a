// SPDX-License-Identifier: Apache-2.0
//
// UDP sockets on the rings. Names, peers and memberships go over the control socket; datagrams over
// any shard's ring, always the same one for the same destination, so that they keep their order.
// What shards say is checked as in completions.cpp.
#include "libclient/channel.hpp"
#include "libclient/lane.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace chiru::client {
namespace {

std::uint64_t word_of(const Socket& socket) {
    return std::uint64_t{socket.name.generation} << 32 | socket.name.index;
}

/// Which shard sends there. Not the receive hash: any shard may.
std::size_t spread(const Endpoint& remote, std::size_t shards) {
    if (shards == 1) return 0;
    std::uint64_t words[2];
    std::memcpy(words, remote.address.bytes().data(), sizeof words);
    const std::uint64_t mixed =
        (words[0] ^ words[1] ^ std::uint64_t{remote.port} << 17) * 0x9e37'79b9'7f4a'7c15;
    return static_cast<std::size_t>(mixed >> 32) % shards;
}

}  // namespace

// ---- names ---------------------------------------------------------------------------------

Result<void, int> Channel::open_datagrams(Socket& socket, const Endpoint& local,
                                          std::uint32_t flags, std::uint32_t receive_buffer) {
    if (failed_) return std::unexpected(ECONNRESET);
    if (socket.state != SocketState::Open) return std::unexpected(EINVAL);
    const auto opened = session_->open_datagram({.endpoint = local,
                                                 .reserved = 0,
                                                 .flags = flags,
                                                 .channel = number_,
                                                 .receive_buffer = receive_buffer,
                                                 .user = word_of(socket)});
    if (!opened) return std::unexpected(opened.error());
    socket.datagram = opened->socket;
    socket.local = opened->local;
    socket.state = SocketState::Datagrams;
    socket.tx_limit = std::min(socket.tx_limit, kDatagramSendLimit);
    mark(socket, kWritable);
    return {};
}

Result<void, int> Channel::connect_datagrams(Socket& socket, const Endpoint& remote,
                                             std::uint16_t interface) {
    if (socket.state != SocketState::Datagrams) return std::unexpected(EINVAL);
    const auto connected = session_->connect_datagram(
        {.socket = socket.datagram, .remote = remote, .interface = interface});
    if (!connected) return std::unexpected(connected.error());
    socket.local = connected->local;
    socket.remote = remote;
    socket.path_mtu = connected->path_mtu;
    socket.error = 0;
    if (remote == Endpoint{}) socket.flags &= static_cast<std::uint16_t>(~kHasPeer);
    else socket.flags |= kHasPeer;
    return {};
}

Result<void, int> Channel::set_membership(Socket& socket, const IpAddress& group,
                                          std::uint16_t interface, bool join) {
    if (socket.state != SocketState::Datagrams) return std::unexpected(EINVAL);
    return session_->set_membership({.socket = socket.datagram,
                                     .group = group,
                                     .interface = interface,
                                     .join = static_cast<std::uint16_t>(join ? 1 : 0)});
}

void Channel::set_datagram_option(Socket& socket, shm::DatagramOption option,
                                  std::uint64_t value) {
    if (socket.state != SocketState::Datagrams) return;
    shm::Submission submission;
    submission.op = shm::SubmissionOp::SetDatagramOption;
    submission.connection = {static_cast<std::uint32_t>(socket.datagram), 0};
    submission.datagram_option = {.option = option, .reserved = 0, .value = value};
    for (const std::unique_ptr<Lane>& lane : lanes_) submit_surely(*lane, submission);
}

/// What was sent still goes out: shards take it from their rings before they close the socket.
void Channel::close_datagrams(Socket& socket) {
    if (!failed_) static_cast<void>(session_->close_datagram(socket.datagram));
    free_socket(socket);
}

// ---- sending -------------------------------------------------------------------------------

/// 0, or why not; EAGAIN is followed by a kWritable edge.
int Channel::may_send_datagram(Socket& socket, std::size_t bytes, const DatagramTarget& target,
                               Lane*& lane) {
    if (socket.error != 0) return take_error(socket);
    if (socket.state != SocketState::Datagrams) return failed_ ? ENETDOWN : EINVAL;
    if (target.remote.port == 0) return EINVAL;
    const std::size_t most = target.remote.address.is_v4() ? shm::kMaxDatagramBytesV4
                                                           : shm::kMaxDatagramBytesV6;
    if (bytes > most) return EMSGSIZE;
    if (target.segment_bytes != 0 && bytes > shm::kMaxDatagramSegments * target.segment_bytes)
        return EINVAL;
    lane = lanes_[spread(target.remote, lanes_.size())].get();
    socket.shard = lane->shard;
    if (socket.tx_bytes >= socket.tx_limit) {
        socket.flags |= kWantsRoom;
        return EAGAIN;
    }
    if (lane->has_room()) return 0;
    wait_for_room(socket);
    return EAGAIN;
}

void Channel::submit_datagram(Lane& lane, Socket& socket, std::uint32_t cookie,
                              std::uint64_t offset, std::size_t bytes,
                              const DatagramTarget& target) {
    TxDatagram& under_way = tx_datagrams_[cookie];
    under_way.socket = socket.name;
    under_way.charge = static_cast<std::uint32_t>(std::max(bytes, kTxPieceBytes));
    under_way.shard = lane.shard;
    under_way.under_way = true;
    socket.tx_bytes += under_way.charge;
    shm::Submission submission;
    submission.op = shm::SubmissionOp::SendDatagram;
    submission.flags = target.flags;
    submission.hints = {
        .tos = target.tos, .ttl = target.ttl, .segment_bytes = target.segment_bytes};
    submission.connection = {static_cast<std::uint32_t>(socket.datagram), cookie};
    submission.user = offset;
    submission.datagram = {.remote = target.remote.address,
                           .source = target.source,
                           .port = target.remote.port,
                           .interface = target.interface,
                           .length = static_cast<std::uint32_t>(bytes)};
    submit_surely(lane, submission);
}

Result<std::size_t, int> Channel::send_datagram(
    Socket& socket, std::span<const std::span<const std::byte>> pieces,
    const DatagramTarget& target) {
    std::size_t bytes = 0;
    for (const auto& piece : pieces) bytes += std::min<std::size_t>(piece.size(), 1u << 20);
    Lane* lane = nullptr;
    if (const int error = may_send_datagram(socket, bytes, target, lane); error != 0)
        return std::unexpected(error);
    const TxRun run = bytes == 0 ? TxRun{} : arena_.allocate_whole(bytes);
    const std::uint32_t cookie =
        bytes != 0 && run.bytes == 0 ? kNone : tx_datagrams_.take();
    if (cookie == kNone) {
        if (run.bytes != 0) arena_.free(run);
        wait_for_room(socket);
        return std::unexpected(EAGAIN);
    }
    tx_datagrams_[cookie].run = run;
    tx_datagrams_[cookie].buffer = kNone;
    std::byte* to = run.bytes == 0 ? nullptr : arena_.data(run.offset);
    for (const auto& piece : pieces) {
        if (!piece.empty()) std::memcpy(to, piece.data(), piece.size());
        to += piece.size();
    }
    submit_datagram(*lane, socket, cookie, run.offset, bytes, target);
    return bytes;
}

Result<std::size_t, int> Channel::send_datagram_buffer(Socket& socket, Token token,
                                                       std::size_t offset, std::size_t length,
                                                       const DatagramTarget& target) {
    TxBuffer* buffer = find_buffer(token);
    if (buffer == nullptr || offset > buffer->run.bytes || length > buffer->run.bytes - offset)
        return std::unexpected(EINVAL);
    Lane* lane = nullptr;
    if (const int error = may_send_datagram(socket, length, target, lane); error != 0)
        return std::unexpected(error);
    const std::uint32_t cookie = tx_datagrams_.take();
    if (cookie == kNone) return std::unexpected(ENOBUFS);
    ++buffer->uses;
    tx_datagrams_[cookie].run = {};
    tx_datagrams_[cookie].buffer = token.index;
    submit_datagram(*lane, socket, cookie, buffer->run.offset + offset, length, target);
    return length;
}

void Channel::on_datagrams_sent(Lane& lane, const shm::Completion& completion) {
    if (completion.count > completion.cookies.size()) return session_->give_up();
    for (std::size_t i = 0; i < completion.count; ++i) {
        const std::uint32_t cookie = completion.cookies[i];
        if (!tx_datagrams_.knows(cookie) || !tx_datagrams_[cookie].under_way ||
            tx_datagrams_[cookie].shard != lane.shard)
            return session_->give_up();
        TxDatagram& sent = tx_datagrams_[cookie];
        sent.under_way = false;
        if (sent.run.bytes != 0) arena_.free(sent.run);
        if (sent.buffer != kNone) unuse(sent.buffer);
        Socket* socket = find(sent.socket);
        const std::uint32_t charge = sent.charge;
        tx_datagrams_.put(cookie);
        if (socket == nullptr || socket->state != SocketState::Datagrams) continue;
        socket->tx_bytes -= charge;
        const bool at_limit = (socket->flags & (kWantsRoom | kInWaiting)) == kWantsRoom;
        if (!at_limit || socket->tx_bytes > socket->tx_limit - socket->tx_limit / 4) continue;
        socket->flags &= static_cast<std::uint16_t>(~kWantsRoom);
        mark(*socket, kWritable);
    }
}

// ---- receiving -----------------------------------------------------------------------------

/// nullptr: closed meanwhile.
Socket* Channel::datagrams_of(const shm::Completion& completion) {
    Socket* socket = find({.index = static_cast<std::uint32_t>(completion.user),
                           .generation = static_cast<std::uint32_t>(completion.user >> 32)});
    const bool meant = socket != nullptr && socket->state == SocketState::Datagrams &&
                       static_cast<std::uint32_t>(socket->datagram) == completion.connection.index;
    return meant ? socket : nullptr;
}

void Channel::on_datagram(Lane& lane, const shm::Completion& completion) {
    Lane::Telling& telling = lane.telling;
    if (telling.more != 0) return session_->give_up();
    const shm::ArrivedBody& arrived = completion.arrived;
    Socket* socket = datagrams_of(completion);
    telling.datagram = socket == nullptr ? kNone : rx_datagrams_.take();
    telling.more = arrived.more;
    if (telling.datagram != kNone)
        rx_datagrams_[telling.datagram] = {.remote = {arrived.remote, arrived.port},
                                           .local = telling.destination,
                                           .interface = arrived.interface,
                                           .socket = socket->name,
                                           .ttl = arrived.ttl,
                                           .tos = arrived.tos,
                                           .has_local = telling.has_destination};
    telling.has_destination = false;
    add_slice(lane, arrived.slice);
    if (telling.more == 0) end_of_datagram(lane);
}

void Channel::on_datagram_more(Lane& lane, const shm::Completion& completion) {
    if (lane.telling.more == 0 || completion.count > shm::kSlicesPerDescriptor)
        return session_->give_up();
    for (std::size_t i = 0; i < completion.count; ++i) add_slice(lane, completion.slices[i]);
    if (--lane.telling.more == 0) end_of_datagram(lane);
}

void Channel::add_slice(Lane& lane, const shm::Slice& slice) {
    const std::uint64_t arena_bytes = session_->rx_arena(slice.arena).size();
    if (slice.length > arena_bytes || slice.offset > arena_bytes - slice.length)
        return session_->give_up();
    const auto slot =
        static_cast<std::uint32_t>(slice.offset / session_->terms().rx_slot_bytes);
    std::uint32_t& datagram = lane.telling.datagram;
    const std::uint32_t index = datagram == kNone ? kNone : chunks_.take();
    if (index == kNone) {
        release_slot(lane, slice.arena, slot, true);
        if (datagram != kNone) free_datagram(datagram);  // not with a hole: as if it were lost
        datagram = kNone;
        return;
    }
    chunks_[index].hold(slice, slot, lane.shard, true);
    RxDatagram& told = rx_datagrams_[datagram];
    if (told.last == kNone) told.first = index;
    else chunks_[told.last].next = index;
    told.last = index;
    told.bytes += slice.length;
}

void Channel::end_of_datagram(Lane& lane) {
    const std::uint32_t index = lane.telling.datagram;
    if (index == kNone) return;
    lane.telling.datagram = kNone;
    RxDatagram& told = rx_datagrams_[index];
    Socket* const receiver = find(told.socket);
    if (receiver == nullptr || receiver->state != SocketState::Datagrams)
        return free_datagram(index);
    Socket& socket = *receiver;
    told.next = kNone;
    if (socket.rx_last == kNone) socket.rx_first = index;
    else rx_datagrams_[socket.rx_last].next = index;
    socket.rx_last = index;
    socket.rx_bytes += told.bytes;
    mark(socket, kReadable);
}

void Channel::on_datagram_error(const shm::Completion& completion) {
    Socket* socket = datagrams_of(completion);
    if (socket == nullptr) return;
    if (completion.error == EMSGSIZE && (socket->flags & kHasPeer) != 0 &&
        completion.endpoints.path_mtu < socket->path_mtu)
        socket->path_mtu = static_cast<std::uint16_t>(completion.endpoints.path_mtu);
    socket->error = completion.error;
    mark(*socket, kError | kReadable | kWritable);
}

Result<const RxDatagram*, int> Channel::next_datagram(Socket& socket) {
    if (socket.error != 0) return std::unexpected(take_error(socket));
    if (socket.state != SocketState::Datagrams) return std::unexpected(failed_ ? ENETDOWN : EINVAL);
    if (socket.rx_first == kNone) return std::unexpected(EAGAIN);
    return &rx_datagrams_[socket.rx_first];
}

std::size_t Channel::copy_datagram(const RxDatagram& datagram,
                                   std::span<const std::span<std::byte>> room) const {
    std::size_t copied = 0;
    std::size_t place = 0;   // which room
    std::size_t within = 0;  // of it
    for (std::uint32_t i = datagram.first; i != kNone; i = chunks_[i].next) {
        const RxChunk& chunk = chunks_[i];
        for (std::size_t done = 0; done < chunk.length;) {
            while (place < room.size() && within == room[place].size()) {
                ++place;
                within = 0;
            }
            if (place == room.size()) return copied;
            const std::size_t part =
                std::min<std::size_t>(chunk.length - done, room[place].size() - within);
            std::memcpy(room[place].data() + within, at(chunk) + done, part);
            done += part;
            within += part;
            copied += part;
        }
    }
    return copied;
}

void Channel::drop_datagram(Socket& socket) {
    const std::uint32_t index = socket.rx_first;
    if (index == kNone) return;
    const RxDatagram& oldest = rx_datagrams_[index];
    socket.rx_first = oldest.next;
    if (socket.rx_first == kNone) socket.rx_last = kNone;
    socket.rx_bytes -= oldest.bytes;
    free_datagram(index);
}

void Channel::drop_datagrams(Socket& socket) {
    while (socket.rx_first != kNone) drop_datagram(socket);
}

void Channel::free_datagram(std::uint32_t index) {
    for (std::uint32_t i = rx_datagrams_[index].first; i != kNone;) {
        const std::uint32_t next = chunks_[i].next;
        release_chunk(i);
        i = next;
    }
    rx_datagrams_.put(index);
}

Result<std::size_t, int> Channel::borrow_datagram(Socket& socket, std::span<Lent> pieces) {
    const auto oldest = next_datagram(socket);
    if (!oldest) return std::unexpected(oldest.error());
    std::size_t count = 0;
    for (std::uint32_t i = (*oldest)->first; i != kNone; i = chunks_[i].next) ++count;
    if (count > pieces.size()) return std::unexpected(EMSGSIZE);
    count = 0;
    const std::uint32_t index = socket.rx_first;
    RxDatagram& taken = rx_datagrams_[index];
    for (std::uint32_t i = taken.first; i != kNone; i = chunks_[i].next) {
        RxChunk& chunk = chunks_[i];
        chunk.lent = 1;
        pieces[count++] = {.bytes = {at(chunk), chunk.length},
                           .token = {.index = i, .generation = chunk.generation}};
    }
    taken.first = taken.last = kNone;  // the program's now
    drop_datagram(socket);
    return count;
}

}  // namespace chiru::client
