// SPDX-License-Identifier: Apache-2.0
//
// Payload in both directions: what is received is read in place and released slot by slot; what is
// sent lies in the TX arena until the shard has returned it.
#include "libclient/channel.hpp"
#include "libclient/lane.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace chiru::client {

// ---- sending -------------------------------------------------------------------------------

/// Why nothing can be sent now or ever; 0 if it can.
int Channel::send_refusal(Socket& socket) {
    if (socket.error != 0) return take_error(socket);
    if ((socket.flags & kSendDone) != 0) return EPIPE;
    switch (socket.state) {
        case SocketState::Connected: return 0;
        case SocketState::Connecting: return socket.syn_room != 0 ? 0 : EAGAIN;
        default: return EPIPE;  // as Linux has it, also for a socket that never connected
    }
}

Result<std::size_t, int> Channel::send(Socket& socket, std::span<const std::byte> bytes,
                                       bool more) {
    if (const int error = send_refusal(socket); error != 0) return std::unexpected(error);
    Lane& lane = *lanes_[socket.shard];
    if (socket.state == SocketState::Connecting) {
        bytes = bytes.first(std::min<std::size_t>(bytes.size(), socket.syn_room));
        if (bytes.empty()) begin_empty(lane, socket);
    }
    std::size_t sent = 0;
    while (sent < bytes.size()) {
        const std::size_t part = send_some(lane, socket, bytes.subspan(sent), more);
        if (part == 0) break;
        sent += part;
    }
    if (sent == 0 && !bytes.empty()) return std::unexpected(EAGAIN);
    socket.syn_room = 0;  // the SYN goes; the next comes after the handshake
    return sent;
}

/// The SYN waits no longer, though there is no text for it.
void Channel::begin_empty(Lane& lane, Socket& socket) {
    shm::Submission submission;
    submission.op = shm::SubmissionOp::Send;
    submission.connection = socket.connection;
    submission.count = 1;
    submission.slices[0] = {.offset = 0, .length = 0, .arena = shm::kTxArena, .reserved = 0};
    submit_surely(lane, submission);
}

/// How much the socket's own limits let it queue. 0: none, and a kWritable edge will follow.
std::size_t Channel::room_of(Socket& socket) {
    if (socket.tx_bytes >= socket.tx_limit || !socket.few_unsent()) {
        socket.flags |= kWantsRoom;
        return 0;
    }
    const std::uint32_t room = socket.tx_limit - socket.tx_bytes;
    if (socket.unsent_low_water == 0) return room;
    return std::min(room, std::max(socket.unsent_low_water - socket.unsent, kLeastQueued));
}

/// Once the socket is at a limit it is not writable, and an edge is owed when that has changed.
void Channel::note_queued(Socket& socket, std::uint32_t bytes) {
    socket.tx_bytes += bytes;
    if (socket.unsent_low_water != 0) socket.unsent += bytes;
    if (socket.tx_bytes >= socket.tx_limit || !socket.few_unsent(2)) socket.flags |= kWantsRoom;
}

/// One submission's worth. 0: no room, and a kWritable edge will follow.
std::size_t Channel::send_some(Lane& lane, Socket& socket, std::span<const std::byte> bytes,
                               bool more) {
    const std::size_t room = room_of(socket);
    if (room == 0) return 0;
    if (!lane.has_room()) {
        wait_for_room(socket);
        return 0;
    }
    const std::span<const std::byte> offered = bytes.first(std::min(room, bytes.size()));
    std::span<const std::byte> rest = offered;
    shm::Submission submission;
    submission.op = shm::SubmissionOp::Send;
    submission.connection = socket.connection;
    while (submission.count < shm::kSlicesPerDescriptor && !rest.empty()) {
        TxExtent* extent = extent_for(socket, rest.size());
        if (extent == nullptr) break;
        const std::size_t part =
            std::min<std::size_t>(extent->capacity - extent->filled, rest.size());
        const std::uint64_t offset = extent->offset + extent->filled;
        std::memcpy(arena_.data(offset), rest.data(), part);
        const auto length = static_cast<std::uint32_t>(part);
        submission.slices[submission.count++] = {
            .offset = offset, .length = length, .arena = shm::kTxArena, .reserved = 0};
        extent->filled += length;
        note_queued(socket, length);
        rest = rest.subspan(part);
    }
    const std::size_t taken = offered.size() - rest.size();
    if (taken == 0) {
        wait_for_room(socket);
        return 0;
    }
    if (more) submission.flags = shm::kMoreToCome;
    submit_surely(lane, submission);
    return taken;
}

std::size_t Channel::send_room(Socket& socket) {
    if (socket.state != SocketState::Connected) return 0;
    const std::size_t room = room_of(socket);
    if (room == 0 || (arena_.has_room() && lanes_[socket.shard]->has_room())) return room;
    wait_for_room(socket);
    return 0;
}

/// Where the socket's next bytes go: the room left in its last run, so that small writes share
/// one, or a new run. nullptr: no memory.
TxExtent* Channel::extent_for(Socket& socket, std::size_t bytes) {
    if (socket.tx_last != kNone) {
        TxExtent& last = extents_[socket.tx_last];
        if (last.filled < last.capacity) return &last;
    }
    const TxRun run = arena_.allocate(bytes);
    if (run.bytes == 0) return nullptr;
    TxExtent* extent = append_extent(socket, {.offset = run.offset, .capacity = run.bytes});
    if (extent == nullptr) arena_.free(run);
    return extent;
}

TxExtent* Channel::append_extent(Socket& socket, const TxExtent& extent) {
    const std::uint32_t index = extents_.take();
    if (index == kNone) return nullptr;
    extents_[index] = extent;
    if (socket.tx_last == kNone) socket.tx_first = index;
    else extents_[socket.tx_last].next = index;
    socket.tx_last = index;
    return &extents_[index];
}

void Channel::pop_extent(Socket& socket) {
    const std::uint32_t index = socket.tx_first;
    const TxExtent& extent = extents_[index];
    socket.tx_first = extent.next;
    if (socket.tx_first == kNone) socket.tx_last = kNone;
    if (extent.buffer != kNone) unuse(extent.buffer);
    else arena_.free({.offset = extent.offset, .bytes = extent.capacity});
    extents_.put(index);
}

void Channel::drop_sent(Socket& socket) {
    while (socket.tx_first != kNone) pop_extent(socket);
    socket.tx_bytes = 0;
}

// ---- sending from the program's own buffers ------------------------------------------------

Result<Room, int> Channel::allocate(std::size_t bytes) {
    if (bytes == 0 || bytes > kTxBlockBytes) return std::unexpected(EMSGSIZE);
    const TxRun run = arena_.allocate_whole(bytes);
    if (run.bytes == 0) return std::unexpected(ENOBUFS);
    const std::uint32_t index = buffers_.take();
    if (index == kNone) {
        arena_.free(run);
        return std::unexpected(ENOBUFS);
    }
    TxBuffer& buffer = buffers_[index];
    buffer.run = run;
    buffer.uses = 1;
    buffer.held = 1;
    return Room{.bytes = {arena_.data(run.offset), run.bytes},
                .token = {.index = index, .generation = buffer.generation}};
}

TxBuffer* Channel::find_buffer(Token token) {
    if (!buffers_.knows(token.index)) return nullptr;
    TxBuffer& buffer = buffers_[token.index];
    return buffer.held != 0 && buffer.generation == token.generation ? &buffer : nullptr;
}

Result<void, int> Channel::send_buffer(Socket& socket, Token token, std::size_t offset,
                                       std::size_t length, bool more) {
    if (const int error = send_refusal(socket); error != 0) return std::unexpected(error);
    TxBuffer* buffer = find_buffer(token);
    if (buffer == nullptr || offset > buffer->run.bytes || length > buffer->run.bytes - offset)
        return std::unexpected(EINVAL);
    if (length == 0) return {};
    Lane& lane = *lanes_[socket.shard];
    if (room_of(socket) == 0) return std::unexpected(EAGAIN);
    if (!lane.has_room()) {
        wait_for_room(socket);
        return std::unexpected(EAGAIN);
    }
    const std::uint64_t from = buffer->run.offset + offset;
    const auto bytes = static_cast<std::uint32_t>(length);
    if (append_extent(socket, {.offset = from, .filled = bytes, .buffer = token.index}) == nullptr)
        return std::unexpected(ENOBUFS);
    ++buffer->uses;
    note_queued(socket, bytes);
    shm::Submission submission;
    submission.op = shm::SubmissionOp::Send;
    submission.connection = socket.connection;
    submission.count = 1;
    submission.slices[0] = {.offset = from, .length = bytes, .arena = shm::kTxArena, .reserved = 0};
    if (more) submission.flags = shm::kMoreToCome;
    submit_surely(lane, submission);
    socket.syn_room = 0;
    return {};
}

Result<void, int> Channel::free_buffer(Token token) {
    TxBuffer* buffer = find_buffer(token);
    if (buffer == nullptr) return std::unexpected(EINVAL);
    buffer->held = 0;
    ++buffer->generation;
    unuse(token.index);
    return {};
}

void Channel::unuse(std::uint32_t index) {
    TxBuffer& buffer = buffers_[index];
    if (--buffer.uses != 0) return;
    arena_.free(buffer.run);
    buffers_.put(index);
}

// ---- receiving -----------------------------------------------------------------------------

namespace {

/// Is there text to read? Datagrams are read by calls of their own.
bool has_stream(const Socket& socket) {
    return socket.rx_first != kNone && socket.state != SocketState::Datagrams;
}

}  // namespace

/// What receive() says when nothing is queued.
Result<std::size_t, int> Channel::nothing_received(Socket& socket) {
    if (socket.error != 0) return std::unexpected(take_error(socket));
    if ((socket.flags & (kPeerDone | kReceiveDone)) != 0) return 0;
    switch (socket.state) {
        case SocketState::Connecting:
        case SocketState::Connected: return std::unexpected(EAGAIN);
        case SocketState::Over: return 0;
        default: return std::unexpected(ENOTCONN);
    }
}

Result<std::size_t, int> Channel::receive(Socket& socket, std::span<std::byte> bytes) {
    if (bytes.empty()) return 0;
    if (!has_stream(socket)) return nothing_received(socket);
    std::size_t copied = 0;
    while (copied < bytes.size() && socket.rx_first != kNone) {
        RxChunk& chunk = chunks_[socket.rx_first];
        const std::size_t part = std::min<std::size_t>(chunk.length, bytes.size() - copied);
        std::memcpy(bytes.data() + copied, at(chunk), part);
        copied += part;
        chunk.offset += part;
        chunk.length -= static_cast<std::uint32_t>(part);
        if (chunk.length == 0) pop_chunk(socket);
    }
    socket.rx_bytes -= static_cast<std::uint32_t>(copied);
    return copied;
}

Result<std::size_t, int> Channel::peek(Socket& socket, std::span<std::byte> bytes,
                                       std::size_t skip) {
    if (bytes.empty()) return 0;
    if (!has_stream(socket) || socket.rx_bytes <= skip) return nothing_received(socket);
    std::size_t copied = 0;
    for (std::uint32_t i = socket.rx_first; i != kNone && copied < bytes.size();
         i = chunks_[i].next) {
        const RxChunk& chunk = chunks_[i];
        const std::size_t skipped = std::min<std::size_t>(skip, chunk.length);
        skip -= skipped;
        const std::size_t part =
            std::min<std::size_t>(chunk.length - skipped, bytes.size() - copied);
        std::memcpy(bytes.data() + copied, at(chunk) + skipped, part);
        copied += part;
    }
    return copied;
}

Result<std::size_t, int> Channel::discard(Socket& socket, std::size_t bytes) {
    if (bytes == 0) return 0;
    if (!has_stream(socket)) return nothing_received(socket);
    std::size_t dropped = 0;
    while (dropped < bytes && socket.rx_first != kNone) {
        RxChunk& chunk = chunks_[socket.rx_first];
        const std::size_t part = std::min<std::size_t>(chunk.length, bytes - dropped);
        dropped += part;
        chunk.offset += part;
        chunk.length -= static_cast<std::uint32_t>(part);
        if (chunk.length == 0) pop_chunk(socket);
    }
    socket.rx_bytes -= static_cast<std::uint32_t>(dropped);
    return dropped;
}

Result<std::size_t, int> Channel::borrow(Socket& socket, std::span<Lent> pieces) {
    if (pieces.empty()) return 0;
    if (!has_stream(socket)) return nothing_received(socket);
    std::size_t count = 0;
    for (; count < pieces.size() && socket.rx_first != kNone; ++count) {
        const std::uint32_t index = socket.rx_first;
        RxChunk& chunk = chunks_[index];
        socket.rx_first = chunk.next;
        if (socket.rx_first == kNone) socket.rx_last = kNone;
        socket.rx_bytes -= chunk.length;
        chunk.lent = 1;
        pieces[count] = {.bytes = {at(chunk), chunk.length},
                         .token = {.index = index, .generation = chunk.generation}};
    }
    return count;
}

Result<void, int> Channel::give_back(Token token) {
    if (!chunks_.knows(token.index)) return std::unexpected(EINVAL);
    RxChunk& chunk = chunks_[token.index];
    if (chunk.lent == 0 || chunk.generation != token.generation) return std::unexpected(EINVAL);
    release_chunk(token.index);
    return {};
}

const std::byte* Channel::at(const RxChunk& chunk) const {
    return session_->rx_arena(chunk.arena).data() + chunk.offset;
}

void Channel::pop_chunk(Socket& socket) {
    const std::uint32_t index = socket.rx_first;
    socket.rx_first = chunks_[index].next;
    if (socket.rx_first == kNone) socket.rx_last = kNone;
    release_chunk(index);
}

void Channel::drop_received(Socket& socket) {
    if (socket.state == SocketState::Datagrams) return drop_datagrams(socket);
    while (socket.rx_first != kNone) pop_chunk(socket);
    socket.rx_bytes = 0;
}

/// Its slots are another's.
void Channel::forget_received(Socket& socket) {
    while (socket.rx_first != kNone) {
        RxChunk& chunk = chunks_[socket.rx_first];
        chunks_.put(std::exchange(socket.rx_first, chunk.next));
    }
    socket.rx_last = kNone;
    socket.rx_bytes = 0;
}

void Channel::release_chunk(std::uint32_t index) {
    RxChunk& chunk = chunks_[index];
    release_slot(*lanes_[chunk.shard], chunk.arena, chunk.slot, chunk.of_datagram != 0);
    chunk.lent = 0;
    ++chunk.generation;
    chunks_.put(index);
}

void Channel::release_slot(Lane& lane, shm::ArenaId arena, std::uint32_t slot,
                           bool of_datagram) {
    if (failed_) return;
    using enum shm::SubmissionOp;
    shm::Submission& batch = lane.releases;
    const shm::SubmissionOp op = of_datagram ? ReleaseDatagrams : Release;
    if (batch.count != 0 && (batch.release.arena != arena || batch.op != op)) push_releases(lane);
    batch.op = op;
    batch.release.arena = arena;
    batch.release.slots[batch.count++] = slot;
    if (batch.count == shm::kReleasesPerDescriptor) push_releases(lane);
}

void Channel::push_releases(Lane& lane) {
    shm::Submission batch = lane.releases;
    lane.releases.count = 0;  // first: submit() pushes what is gathered
    submit_surely(lane, batch);
}

}  // namespace chiru::client
