// SPDX-License-Identifier: Apache-2.0
//
// A datagram meets its sockets. It is delivered where it lies, or, to a session that is isolated,
// copied into that session's own slots; nothing is put off, so nothing waits here but completions.
#include "stack/udp/engine.hpp"

#include "base/check.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace chiru::udp {

using shm::Completion;
using shm::CompletionOp;
using shm::Counter;

namespace {

/// Of a largest datagram in the smallest fragments that reassembly keeps, or in private slots.
constexpr std::size_t kMaxParts = 128;

/// How many completions tell of it: the first slice, two in each of the others, the destination.
std::uint32_t notes_for(std::size_t slices, bool destination) {
    return static_cast<std::uint32_t>(1 + slices / 2 + (destination ? 1 : 0));
}

}  // namespace

Fate Engine::receive(const Incoming& in) {
    DCHECK(!in.parts.empty() && in.parts.size() <= kMaxParts);
    bool found = false;
    bool delivered = false;
    bool kept = false;
    const auto offer = [&](Socket& socket) {
        found = true;
        if (!deliver(socket, in)) return;
        delivered = true;
        kept |= !holdings_.is_private(socket.session);
    };
    if (in.to_group) sockets_.for_each_member(in.remote, in.local, offer);
    else if (Socket* socket = sockets_.match(in.remote, in.local)) offer(*socket);
    holdings_.flush();
    if (!found) return Fate::NoSocket;
    if (!delivered) return Fate::NoRoom;
    return kept ? Fate::Kept : Fate::Copied;
}

bool Engine::has_room(Socket& socket, const Incoming& in, std::uint32_t charge) {
    const bool isolated = holdings_.is_private(socket.session);
    std::uint32_t slots = static_cast<std::uint32_t>(in.parts.size());
    if (isolated) {
        const std::uint32_t bytes = holdings_.private_slot_bytes(socket.session);
        slots = std::max(1u, (in.bytes + bytes - 1) / bytes);
    }
    // As Linux: what is there already decides, so that one of any size finds room in an empty one.
    const std::uint64_t limit = socket.info.receive_buffer;
    if (socket.info.waiting_bytes + std::uint64_t{charge} > limit &&
        socket.info.waiting_bytes != 0) {
        count(Counter::UdpSocketFull);
        return false;
    }
    if (!holdings_.session_has_room(socket.session, slots)) {
        count(Counter::UdpSessionFull);
        return false;
    }
    const std::uint32_t notes = notes_for(slots, socket.want_destination != 0);
    if (!notes_have_room(socket.session, notes) ||
        (!isolated && !holdings_.stack_has_room(socket.session, slots))) {
        count(Counter::UdpPoolShare);
        return false;
    }
    return true;
}

/// As with slots, a session gets no more of them than is left to the others.
bool Engine::notes_have_room(SessionIndex session, std::uint32_t notes) const {
    return sessions_[session].notes + notes <= notes_.available();
}

bool Engine::deliver(Socket& socket, const Incoming& in) {
    const bool isolated = holdings_.is_private(socket.session);
    const std::uint32_t charge =
        in.bytes + static_cast<std::uint32_t>(in.parts.size()) * kSlotOverhead;
    if (!has_room(socket, in, charge)) {
        ++socket.info.dropped;
        return false;
    }
    std::array<shm::Slice, kMaxParts> slices;
    std::size_t count_of_slices = 0;
    if (isolated) {
        count_of_slices = copy_private(socket, in, slices);
    } else {
        for (const Part& part : in.parts) {
            slices[count_of_slices++] = part.payload;
            holdings_.hold(socket.session, socket.info.id, part.slot,
                           part.payload.length + kSlotOverhead);
            socket.info.waiting_bytes += part.payload.length + kSlotOverhead;
        }
    }
    tell(socket, in, std::span(slices).first(count_of_slices));
    ++socket.info.rx_datagrams;
    socket.info.rx_bytes += in.bytes;
    count(Counter::UdpDatagramsIn);
    if (shm::SessionCounters* counters = sessions_[socket.session].counters)
        counters->rx_bytes.add(in.bytes);
    return true;
}

/// Isolated sessions: one copy, the parts moved together.
std::size_t Engine::copy_private(Socket& socket, const Incoming& in,
                                 std::span<shm::Slice> slices) {
    const SessionIndex session = socket.session;
    const std::uint32_t room = holdings_.private_slot_bytes(session);
    std::size_t used = 0;
    std::uint32_t left = in.bytes;
    std::size_t part = 0;
    std::uint32_t within = 0;  // of that part
    do {
        const std::uint32_t length = std::min(left, room);
        shm::Slice slice = holdings_.take_private(session, socket.info.id, length + kSlotOverhead);
        socket.info.waiting_bytes += length + kSlotOverhead;
        slice.length = length;
        std::byte* to = holdings_.private_bytes(session, slice);
        for (std::uint32_t done = 0; done < length;) {
            const Part& from = in.parts[part];
            const std::uint32_t piece = std::min(from.payload.length - within, length - done);
            std::memcpy(to + done, from.data + within, piece);
            done += piece;
            within += piece;
            if (within == from.payload.length) {
                ++part;
                within = 0;
            }
        }
        left -= length;
        slices[used++] = slice;
    } while (left > 0);
    count(Counter::CopiedRxPrivate, in.bytes);
    return used;
}

void Engine::note(ChannelIndex index, const Completion& completion) {
    const Index i = notes_.take();
    DCHECK(i != kNil);
    notes_[i].completion = completion;
    notes_[i].next = kNil;
    Channel& channel = channels_[index];
    ++sessions_[channel.session].notes;
    if (channel.last_note == kNil) channel.first_note = i;
    else notes_[channel.last_note].next = i;
    channel.last_note = i;
    channel_ready(index);
}

void Engine::tell(Socket& socket, const Incoming& in, std::span<const shm::Slice> slices) {
    Completion told;
    told.connection = {socket.info.id, 0};
    told.user = socket.info.user;
    if (socket.want_destination != 0) {
        told.op = CompletionOp::Destination;
        told.endpoints = {};
        told.endpoints.local = in.local;
        note(socket.channel, told);
    }
    told.op = CompletionOp::Datagram;
    told.arrived = {.slice = slices[0],
                    .remote = in.remote.address,
                    .port = in.remote.port,
                    .interface = in.interface,
                    .ttl = in.ttl,
                    .tos = in.tos,
                    .more = static_cast<std::uint16_t>(slices.size() / 2)};
    note(socket.channel, told);
    for (std::size_t i = 1; i < slices.size(); i += shm::kSlicesPerDescriptor) {
        told.op = CompletionOp::DatagramMore;
        told.slices = {};
        told.count = 0;
        for (std::size_t k = i; k < slices.size() && told.count < shm::kSlicesPerDescriptor; ++k)
            told.slices[told.count++] = slices[k];
        note(socket.channel, told);
    }
}

/// RFC 1122 §4.1.3.3: told to the socket that sent, if it is connected. An unconnected one could
/// not say whom it concerns, and like Linux's is not told.
bool Engine::icmp_error(const IcmpError& error) {
    Socket* socket = sockets_.match(error.remote, error.local);
    if (socket == nullptr) return false;
    // An unconnected socket is bound to every host there is. What lowers the path's MTU, TCP's as
    // well, is believed only of one that it sent to (RFC 8201 §6).
    if (socket->info.connected == 0 && error.error == EMSGSIZE &&
        destination_place(error.remote.address) != error.remote.address)
        return false;
    if (socket->info.connected == 0 || !error.tell) return true;
    count(Counter::UdpErrorsIn);
    tell_error(*socket, error.error, error.remote, error.mtu);
    return true;
}

}  // namespace chiru::udp
