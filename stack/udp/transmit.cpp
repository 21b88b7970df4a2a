// SPDX-License-Identifier: Apache-2.0
//
// What goes out. A submission becomes one datagram, or with segment_bytes several; each leaves
// whole or in fragments, from where the client put it. A record goes
//
//   its session's queue -> devices' queues -> its channel's list of those to be told -> free
//        ^  |
//        |  v  the neighbour's address became known
//      parked list
//
// Sessions take turns of some frames each, however many datagrams they have queued.
// The client gets its bytes back whatever became of them: UDP promises no more.
#include "stack/udp/engine.hpp"

#include "base/check.hpp"
#include "stack/wire/checksum.hpp"
#include "stack/wire/ipv4.hpp"
#include "stack/wire/ipv6.hpp"
#include "stack/wire/udp.hpp"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

namespace chiru::udp {

using shm::Counter;

namespace {

constexpr auto kProtocolUdp = static_cast<std::uint8_t>(wire::Protocol::Udp);
constexpr std::uint32_t kHeaderBytes = sizeof(wire::UdpHeader);
/// Shorter payload is copied behind its header: cheaper than a buffer of its own to the device.
constexpr std::uint32_t kCopyBytes = 256;
/// Records that wait for one neighbour, and in all; Linux lets some hundred small ones wait.
constexpr std::uint32_t kParkedForOne = 128;
constexpr std::uint32_t kParked = 1024;
/// Frames of one session before the next one's turn.
constexpr std::size_t kTurnFrames = 16;
/// With nothing to be fragmented, a checksum that nobody verifies: it stays in the daemon.
constexpr std::uint16_t kUnverified = 0xffff;

std::uint32_t ip_bytes(const IpAddress& remote) {
    return remote.is_v4() ? sizeof(wire::Ipv4Header) : sizeof(wire::Ipv6Header);
}

}  // namespace

Violation Engine::send(ChannelIndex channel, const shm::Submission& submission) {
    const shm::DatagramBody& body = submission.datagram;
    Session& session = sessions_[channels_[channel].session];
    const shm::Slice slice{submission.user, body.length, shm::kTxArena, 0};
    if (!session.tx_arena.holds(slice)) return Violation::SliceOutsideArena;
    const std::uint32_t most =
        body.remote.is_v4() ? shm::kMaxDatagramBytesV4 : shm::kMaxDatagramBytesV6;
    if (body.length > most) return Violation::BadCount;
    const std::uint32_t segment_bytes = submission.hints.segment_bytes;
    if (segment_bytes != 0 && body.length > shm::kMaxDatagramSegments * segment_bytes)
        return Violation::BadCount;
    Socket* socket = sockets_.find(shm::DatagramId{submission.connection.index});
    if (socket != nullptr && socket->session != channels_[channel].session)
        return Violation::NotItsConnection;
    const Index i = take_record(session);
    if (i == kNil) return Violation::BadCount;
    Outgoing& out = records_[i];
    out = Outgoing{};
    out.offset = submission.user;
    out.length = body.length;
    out.cookie = submission.connection.generation;
    out.socket = submission.connection.index;
    out.session = channels_[channel].session;
    out.channel = channel;
    if (socket == nullptr) {
        count(Counter::StaleNames);
        finish(i);
        return Violation::None;
    }
    out.remote = body.remote;
    out.remote_port = body.port;
    out.source = body.source;
    out.local_port = socket->info.local_port;
    out.interface = body.interface;
    out.segment_bytes = submission.hints.segment_bytes;
    out.flags = submission.flags;
    out.tos = submission.hints.tos;
    out.ttl = submission.hints.ttl;
    if (const int error = find_route(out, *socket); error != 0) {
        undeliverable(out, error, 0);
        finish(i);
    } else {
        enqueue(i);
    }
    return Violation::None;
}

void Engine::append(Queue& queue, Index record) {
    records_[record].next = kNil;
    if (queue.last == kNil) queue.first = record;
    else records_[queue.last].next = record;
    queue.last = record;
}

void Engine::enqueue(Index record) {
    const SessionIndex index = records_[record].session;
    Session& session = sessions_[index];
    append(session.output, record);
    if (session.sending) return;
    session.sending = true;
    senders_.push_back(sessions_.data(), index);
}

std::size_t Engine::transmit(std::span<TxFrame> frames, Instant now) {
    std::size_t used = 0;
    while (used < frames.size() && !senders_.empty()) {
        const Index index = senders_.head;
        Session& session = sessions_[index];
        const std::size_t turn = std::min(frames.size() - used, kTurnFrames);
        used += transmit_session(session, frames.subspan(used, turn), now);
        senders_.remove(sessions_.data(), index);
        session.sending = session.output.first != kNil;
        if (session.sending) senders_.push_back(sessions_.data(), index);
    }
    return used;
}

std::size_t Engine::transmit_session(Session& session, std::span<TxFrame> frames, Instant now) {
    std::size_t used = 0;
    Queue& output = session.output;
    while (used < frames.size() && output.first != kNil) {
        const Index i = output.first;
        const Emitted emitted = emit(i, frames[used], now);
        if (emitted == Emitted::Frame) ++used;
        if (emitted != Emitted::NotYet && !records_[i].finished) continue;
        output.first = records_[i].next;
        if (output.first == kNil) output.last = kNil;
        if (emitted == Emitted::NotYet) park(i);
        else if (records_[i].device_refs == 0) finish(i);
    }
    return used;
}

std::uint32_t Engine::datagram_bytes(const Outgoing& out) const {
    const std::uint32_t left = out.length - out.begun;
    return out.segment_bytes == 0 ? left : std::min<std::uint32_t>(left, out.segment_bytes);
}

/// The way, from the socket's last datagram if that went to the same place. 0 or an errno value.
/// Found as soon as it is submitted: the socket may be closed before it goes out.
int Engine::find_route(Outgoing& out, Socket& socket) {
    IpAddress asked = out.source;
    if (asked.is_unspecified()) {
        const bool to_peer =
            socket.info.connected != 0 && socket.info.remote_address == out.remote;
        const IpAddress& own = to_peer ? socket.info.local_address : socket.bound;
        if (!own.is_unspecified() && !own.is_multicast()) asked = own;
    }
    CachedRoute& cache = socket.route;
    const bool current = cache.link_mtu != 0 && cache.version == lower_.route_version() &&
                         cache.remote == out.remote && cache.asked == asked &&
                         cache.interface == out.interface;
    if (!current) {
        cache = {};
        const auto route = lower_.datagram_route(out.remote, asked, out.interface);
        if (!route) return route.error();
        destination_place(out.remote) = out.remote;
        cache = {.remote = out.remote,
                 .asked = asked,
                 .source = route->local,
                 .path = route->path,
                 .version = lower_.route_version(),
                 .interface = out.interface,
                 .link_mtu = route->link_mtu,
                 .group = route->group};
    }
    out.source = cache.source;
    out.path = cache.path;
    out.link_mtu = cache.link_mtu;
    out.group = cache.group;
    if (out.ttl == 0) out.ttl = out.group && out.remote.is_multicast() ? 1 : 64;
    return 0;
}

/// Writes the next frame of the record. Nothing: it was given up, in part or whole.
Engine::Emitted Engine::emit(Index index, TxFrame& frame, Instant now) {
    Outgoing& out = records_[index];
    const bool probes = (out.flags & shm::kProbePath) != 0;
    const std::uint32_t mtu = std::min<std::uint32_t>(probes ? out.link_mtu : out.path.mtu,
                                                      frame.head_capacity - 18u);
    const std::uint32_t headers = ip_bytes(out.remote);
    const std::uint32_t whole = kHeaderBytes + datagram_bytes(out);
    const bool fits = headers + whole <= mtu;
    if (!fits && (out.flags & (shm::kNeverFragment | shm::kProbePath)) != 0) {
        count(Counter::UdpTooBig);
        undeliverable(out, EMSGSIZE, mtu);
        return Emitted::Nothing;
    }
    DatagramLower::Cut cut;
    std::uint32_t bytes = whole;
    if (fits) {
        cut.dont_fragment = (out.flags & shm::kMayFragment) == 0;
    } else {
        const std::uint32_t extra = out.remote.is_v4() ? 0 : sizeof(wire::FragmentHeader);
        const std::uint32_t most = (mtu - headers - extra) / 8 * 8;
        if (out.done == 0) out.packet_id = lower_.next_packet_id();
        bytes = std::min(whole - out.done, most);
        cut = {.id = out.packet_id, .offset = out.done, .more = out.done + bytes < whole,
               .dont_fragment = false};
    }
    cut.to_group = out.group;
    if (fits && !cut.dont_fragment) cut.id = lower_.next_packet_id();
    const BeginResult begun =
        lower_.begin_datagram(frame, out.path, out.source, out.remote, kProtocolUdp, bytes,
                              {.tos = out.tos, .ttl = out.ttl}, cut, now);
    if (begun == BeginResult::Unresolved) return Emitted::NotYet;
    if (begun == BeginResult::Unreachable) {
        undeliverable(out, EHOSTUNREACH, 0);
        return Emitted::Nothing;
    }
    if (Socket* socket = sockets_.find(shm::DatagramId{out.socket}))
        if (socket->route.remote == out.remote && !out.group)
            socket->route.path = out.path;  // resolved by now
    std::uint32_t at = out.done;  // behind the IP header
    if (at == 0) {
        write_header(frame, out, !fits);
        at = kHeaderBytes;
    }
    place_payload(frame, out, index, at - kHeaderBytes, out.done + bytes - at);
    if (!fits) count(Counter::UdpFragmentsOut);
    out.done += bytes;
    if (out.done == whole) next_datagram(out, true);
    return Emitted::Frame;
}

/// The datagram's own header, with a checksum over all of it, whatever is in this frame.
void Engine::write_header(TxFrame& frame, const Outgoing& out, bool cut) {
    const std::uint32_t bytes = datagram_bytes(out);
    wire::UdpHeader header{.source_port = out.local_port,
                           .destination_port = out.remote_port,
                           .length = static_cast<std::uint16_t>(kHeaderBytes + bytes),
                           .checksum = kUnverified};
    if (out.path.local == 0 || cut) {
        header.checksum = 0;
        auto sum = wire::pseudo_header(out.source, out.remote, kProtocolUdp, kHeaderBytes + bytes);
        sum.add(std::as_bytes(std::span(&header, 1)));
        const std::byte* base = sessions_[out.session].tx_arena.base;
        sum.add({base + out.offset + out.begun, bytes});
        const std::uint16_t checksum = sum.checksum();
        header.checksum = checksum == 0 ? kUnverified : checksum;  // RFC 768: 0 says "none"
    }
    std::memcpy(frame.head + frame.head_length, &header, sizeof header);
    frame.l4_bytes = sizeof header;
    frame.head_length = static_cast<std::uint16_t>(frame.head_length + sizeof header);
}

void Engine::place_payload(TxFrame& frame, Outgoing& out, Index index, std::uint32_t at,
                           std::uint32_t bytes) {
    if (bytes == 0) return;
    const std::uint64_t offset = out.offset + out.begun + at;
    const std::byte* data = sessions_[out.session].tx_arena.base + offset;
    if (bytes <= kCopyBytes) {
        std::memcpy(frame.head + frame.head_length, data, bytes);
        frame.head_length = static_cast<std::uint16_t>(frame.head_length + bytes);
        count(Counter::CopiedTxSmall, bytes);
        return;
    }
    ++out.device_refs;
    frame.slices[frame.slice_count++] = {
        data, {offset, bytes, shm::kTxArena, 0}, SendRecord{index | kRecordMark}};
}

/// The current datagram is out, or given up. To a group it goes once more, to our own members.
void Engine::next_datagram(Outgoing& out, bool was_sent) {
    if (was_sent && loop_back(out)) return;
    const std::uint32_t bytes = datagram_bytes(out);
    if (was_sent) {
        count(Counter::UdpDatagramsOut);
        if (shm::SessionCounters* counters = sessions_[out.session].counters)
            counters->tx_bytes.add(bytes);
        if (Socket* socket = sockets_.find(shm::DatagramId{out.socket})) {
            ++socket->info.tx_datagrams;
            socket->info.tx_bytes += bytes;
        }
    }
    out.begun += bytes;
    out.done = 0;
    out.finished = out.begun >= out.length;
    if (out.looping) out.path.local = 0;
    out.looping = false;
}

bool Engine::loop_back(Outgoing& out) {
    if (!out.group || out.looping || (out.flags & shm::kNoLoop) != 0 ||
        (out.remote.is_multicast() && !lower_.is_member(out.remote)))
        return false;
    out.looping = true;
    out.done = 0;
    out.path.local = 1;
    return true;
}

/// The current datagram will not go out; nor will the others of its submission.
void Engine::undeliverable(Outgoing& out, int error, std::uint32_t mtu) {
    if (error != EMSGSIZE) count(Counter::UdpUnreachable);
    Socket* socket = sockets_.find(shm::DatagramId{out.socket});
    const bool concerns = socket != nullptr && (socket->info.connected != 0 || error == EMSGSIZE);
    if (concerns)
        tell_error(*socket, error, {out.remote, out.remote_port}, mtu);
    out.finished = true;
}

// ---- waiting for neighbours ----------------------------------------------------------------

void Engine::park(Index index) {
    std::uint32_t same = 0;
    const std::uint32_t neighbor = records_[index].path.neighbor;
    Session& session = sessions_[records_[index].session];
    for (Index i = parked_.first; i != kNil; i = records_[i].next)
        if (records_[i].path.neighbor == neighbor) ++same;
    // One session leaves as much room to the others as it takes.
    if (same >= kParkedForOne || parked_count_ + session.parked >= kParked) {
        count(Counter::UdpWaitingDropped);
        records_[index].finished = true;
        if (records_[index].device_refs == 0) finish(index);
        return;
    }
    ++parked_count_;
    ++session.parked;
    append(parked_, index);
}

void Engine::path_ready(std::uint32_t neighbor, bool reachable) {
    Queue waiting = parked_;
    parked_ = {};
    for (Index i = waiting.first; i != kNil;) {
        const Index next = records_[i].next;
        Outgoing& out = records_[i];
        if (out.path.neighbor != neighbor) {
            append(parked_, i);
        } else {
            --parked_count_;
            --sessions_[out.session].parked;
            if (!reachable) undeliverable(out, EHOSTUNREACH, 0);
            if (!out.finished) enqueue(i);
            else if (out.device_refs == 0) finish(i);
        }
        i = next;
    }
}

// ---- the end -------------------------------------------------------------------------------

void Engine::sent(SendRecord record) {
    const Index i = static_cast<std::uint32_t>(record) & ~kRecordMark;
    if (i >= records_.high()) return;
    Outgoing& out = records_[i];
    DCHECK(out.device_refs > 0);
    if (out.device_refs == 0 || --out.device_refs > 0) return;
    if (out.finished) finish(i);
}

/// Nothing refers to its bytes any longer: its client may have them.
void Engine::finish(Index index) {
    Outgoing& out = records_[index];
    Channel& channel = channels_[out.channel];
    if (channel.session != out.session || !alive(out.session)) return free_record(index);
    out.next = kNil;
    if (channel.last_sent == kNil) channel.first_sent = index;
    else records_[channel.last_sent].next = index;
    channel.last_sent = index;
    channel_ready(out.channel);
}

/// Of what the session has queued and parked only the first `keep` go out.
void Engine::drop_queued(SessionIndex index, std::uint32_t keep) {
    Session& session = sessions_[index];
    drop_beyond(session.output, index, keep);
    drop_beyond(parked_, index, keep);
    if (session.sending && session.output.first == kNil) {
        session.sending = false;
        senders_.remove(sessions_.data(), index);
    }
}

void Engine::drop_beyond(Queue& queue, SessionIndex session, std::uint32_t& keep) {
    Queue kept;
    for (Index i = queue.first; i != kNil;) {
        const Index next = records_[i].next;
        Outgoing& out = records_[i];
        if (out.session != session) {
            append(kept, i);
        } else if (keep > 0) {
            --keep;
            append(kept, i);
        } else {
            out.finished = true;
            if (&queue == &parked_) {
                --parked_count_;
                --sessions_[session].parked;
            }
            if (out.device_refs == 0) free_record(i);  // else when the device is done with it
        }
        i = next;
    }
    queue = kept;
}

}  // namespace chiru::udp
