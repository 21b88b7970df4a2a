// SPDX-License-Identifier: Apache-2.0
#include "test/sim/application.hpp"

#include <algorithm>

namespace chiru::sim {

using shm::CompletionOp;
using shm::Submission;
using shm::SubmissionOp;

namespace {

/// Byte `at` of the stream `key`.
std::byte stream_byte(std::uint64_t key, std::uint64_t at) {
    std::uint64_t x = (at >> 3) * 0x9e37'79b9'7f4a'7c15 ^ key;
    x ^= x >> 29;
    x *= 0xbf58'476d'1ce4'e5b9;
    x ^= x >> 32;
    return static_cast<std::byte>(x >> (8 * (at & 7)));
}

constexpr std::uint32_t kFirstListener = 77;

}  // namespace

void Application::submit(const Submission& s, std::uint32_t shard, Instant now) {
    const Violation violation = host_.submit(s, now, shard);
    if (violation != Violation::None)
        complain(std::string("the stack says the client broke the rules: ") + to_string(violation));
}

void Application::listen(std::uint16_t port, const SocketPlan& plan, std::uint32_t backlog) {
    const auto others = static_cast<std::uint32_t>(accept_plans_.size());
    const shm::ListenerId listener{kFirstListener + others};
    accept_plans_[port] = plan;
    accept_plans_[port].second = true;
    for (std::uint32_t shard = 0; shard < host_.shards(); ++shard) {
        host_.stack(shard).listen(listener, Endpoint{IpAddress(), port}, 0,
                                   {.backlog = backlog, .fast_open = plan.fast_open ? 64u : 0u});
        host_.stack(shard).share_listener(listener, Host::kSession);
        Submission s;
        s.op = SubmissionOp::AcceptCredit;
        s.credit = {listener, 10'000};
        submit(s, shard, Instant{});
    }
}

void Application::connect(const Endpoint& remote, const SocketPlan& plan, Instant now,
                          std::uint32_t shard) {
    Submission s;
    s.op = SubmissionOp::Connect;
    s.user = next_user_++;
    s.connect = {};
    s.connect.remote = remote;
    s.connect.local.port = plan.local_port;
    if (remote.address.is_v4()) s.connect.local.address = IpAddress::v4(0);
    if (plan.no_delay)
        s.connect.options = 1u << static_cast<unsigned>(shm::ConnectionOption::NoDelay);
    if (plan.fast_open)
        s.connect.options |= 1u << static_cast<unsigned>(shm::ConnectionOption::FastOpen);
    opening_[s.user] = plan;
    submit(s, shard, now);
}

void Application::opened(const shm::Completion& completion, std::uint32_t shard) {
    const bool accepted = completion.op == CompletionOp::Accepted;
    Socket socket;
    socket.connected = completion.op != CompletionOp::Opening;
    socket.syn_waits = !socket.connected && completion.endpoints.syn_room > 0;
    socket.id = completion.connection;
    socket.shard = shard;
    if (accepted) {
        socket.plan = accept_plans_[completion.endpoints.local.port];
    } else {
        socket.plan = opening_[completion.user];
        opening_.erase(completion.user);
    }
    const std::uint64_t client_port =
        accepted ? completion.endpoints.remote.port : completion.endpoints.local.port;
    const std::uint64_t stream = socket.plan.stream != 0 ? socket.plan.stream : client_port;
    socket.out_key = stream * 2 + (socket.plan.second ? 1 : 0);
    socket.in_key = stream * 2 + (socket.plan.second ? 0 : 1);
    if (free_rings_.empty()) free_rings_.push_back(rings_++ * ring_bytes_);
    socket.ring_base = free_rings_.back();
    free_rings_.pop_back();
    if (socket.ring_base + ring_bytes_ > host_.tx_arena_bytes()) complain("TX arena too small");
    if (!sockets_.emplace(Name{shard, socket.id.index}, socket).second)
        complain("a name came twice");
}

void Application::failed_to_open(const shm::Completion& completion) {
    const auto found = opening_.find(completion.user);
    if (completion.op != CompletionOp::Closed || found == opening_.end()) {
        complain("a completion for nobody");
        return;
    }
    opening_.erase(found);
    ++failed_;
    last_error_ = completion.error;
}

void Application::received(Socket& socket, const shm::Completion& completion) {
    if (socket.peer_closed) complain("payload after the end");
    if (socket.closed) complain("payload after Close");
    for (std::size_t i = 0; i < completion.count; ++i) {
        const auto bytes = host_.bytes_of(completion.slices[i]);
        if (bytes.empty()) complain("an empty slice");
        for (const std::byte b : bytes)
            if (b != stream_byte(socket.in_key, socket.received++)) {
                complain("byte " + std::to_string(socket.received - 1) + " is wrong");
                break;
            }
        socket.kept.push_back(completion.slices[i]);
    }
    if (socket.received > socket.plan.expect_bytes) complain("more was received than was sent");
}

// What is ours again is written over at once: should it go out once more, it shows.
void Application::returned(Socket& socket, std::uint32_t bytes) {
    for (std::uint32_t i = 0; i < bytes; ++i)
        host_.tx_arena()[socket.ring_base + socket.returned++ % ring_bytes_] = std::byte{0xee};
    if (socket.returned > socket.sent) complain("more came back than was sent");
}

void Application::ended(Socket& socket, std::uint16_t error, Instant now) {
    if (error == 0 || socket.aborted) {
        ++finished_;
        const bool whole = (socket.peer_closed || socket.plan.hasty) &&
                           socket.returned == socket.sent &&
                           socket.received == socket.plan.expect_bytes;
        if (!socket.aborted && !whole) complain("closed before all was done");
    } else {
        ++failed_;
        last_error_ = error;
        // What a SYN brought may have been read before the handshake came to nothing.
        const std::uint64_t unproven = socket.plan.fast_open ? 1460 : 0;
        const bool early = socket.received <= unproven && socket.returned == 0;
        if (socket.connected && !socket.plan.may_fail && !(socket.plan.may_fail_early && early))
            complain("stream " + std::to_string(socket.out_key / 2) + " failed with error " +
                     std::to_string(error));
    }
    for (const shm::Slice& slice : socket.kept)
        submit(host_.give_back(slice), socket.shard, now);
    free_rings_.push_back(socket.ring_base);
}

void Application::take(const shm::Completion& completion, std::uint32_t shard, Instant now) {
    const auto found = sockets_.find({shard, completion.connection.index});
    const bool opens = completion.op == CompletionOp::Accepted ||
                       completion.op == CompletionOp::Connected ||
                       completion.op == CompletionOp::Opening;
    const bool named = found != sockets_.end() && !found->second.connected;
    if (opens && !(named && completion.op == CompletionOp::Connected))
        return opened(completion, shard);
    if (found == sockets_.end() || !(found->second.id == completion.connection)) {
        failed_to_open(completion);
        return;
    }
    Socket& socket = found->second;
    returned(socket, completion.sent_bytes);
    switch (completion.op) {
        case CompletionOp::Connected: socket.connected = true; break;
        case CompletionOp::Received: received(socket, completion); break;
        case CompletionOp::PeerClosed:
            if (socket.peer_closed) complain("the end came twice");
            if (socket.closed) complain("the end after Close");
            socket.peer_closed = true;
            if (socket.received != socket.plan.expect_bytes)
                complain("stream " + std::to_string(socket.out_key / 2) + " ended after " +
                         std::to_string(socket.received) + " bytes");
            break;
        case CompletionOp::Closed:
            ended(socket, completion.error, now);
            sockets_.erase(found);
            break;
        default: break;
    }
}

void Application::send_some(Socket& socket, Instant now) {
    const std::uint64_t room = ring_bytes_ - (socket.sent - socket.returned);
    const std::uint64_t left = socket.plan.send_bytes - socket.sent;
    if (room == 0 || left == 0 || now < socket.next_send) return;
    if (host_.stack(socket.shard).submission_room(Host::kChannel) == 0) return;
    const std::uint64_t at = socket.sent % ring_bytes_;
    std::uint64_t length = 1 + random_() % socket.plan.largest_send;
    length = std::min({length, room, left, ring_bytes_ - at});
    for (std::uint64_t i = 0; i < length; ++i)
        host_.tx_arena()[socket.ring_base + at + i] = stream_byte(socket.out_key, socket.sent + i);
    Submission s;
    s.op = SubmissionOp::Send;
    s.connection = socket.id;
    s.count = 1;
    s.slices = {};
    s.slices[0] = {socket.ring_base + at, static_cast<std::uint32_t>(length), shm::kTxArena, 0};
    socket.sent += length;
    socket.next_send = now + socket.plan.pause;
    submit(s, socket.shard, now);
}

void Application::read_some(Socket& socket, Instant now) {
    if (socket.received >= socket.plan.stall_at) {
        socket.plan.stall_at = kAtNoByte;
        socket.stalled_until = now + socket.plan.stall_for;
    }
    if (now < socket.stalled_until) return;
    const std::size_t keep = socket.plan.slow_reader && random_() % 8 != 0 ? 12 : 0;
    while (socket.kept.size() > keep) {
        submit(host_.give_back(socket.kept.front()), socket.shard, now);
        socket.kept.pop_front();
    }
}

void Application::tell(Socket& socket, SubmissionOp op, Instant now) {
    Submission s;
    s.op = op;
    s.connection = socket.id;
    submit(s, socket.shard, now);
}

/// Before the handshake is complete: what travels with the SYN, if it waits for that.
void Application::begin(Socket& socket, Instant now) {
    if (!socket.syn_waits) return;
    if (socket.plan.send_bytes > 0) {
        send_some(socket, now);
        socket.syn_waits = socket.sent == 0;
        return;
    }
    Submission s;
    s.op = SubmissionOp::Send;
    s.connection = socket.id;
    s.count = 1;
    s.slices = {};
    s.slices[0] = {socket.ring_base, 0, shm::kTxArena, 0};
    socket.syn_waits = false;
    submit(s, socket.shard, now);
}

void Application::work(Socket& socket, Instant now) {
    if (socket.closed) return;
    if (!socket.connected) return begin(socket, now);
    for (int i = 0; i < 4; ++i) send_some(socket, now);
    read_some(socket, now);
    if (socket.sent + socket.received >= socket.plan.reset_at) {
        socket.closed = socket.aborted = true;
        tell(socket, SubmissionOp::Abort, now);
        return;
    }
    if (socket.sent < socket.plan.send_bytes) return;
    const bool all = socket.received == socket.plan.expect_bytes && socket.kept.empty();
    if (all && (socket.peer_closed || socket.plan.hasty)) {
        socket.closed = true;
        tell(socket, SubmissionOp::Close, now);
    } else if (!socket.shut && !socket.plan.hasty) {
        socket.shut = true;
        tell(socket, SubmissionOp::Shutdown, now);
    }
}

std::size_t Application::kept_slots() const {
    std::size_t sum = 0;
    for (const auto& [name, socket] : sockets_) sum += socket.kept.size();
    return sum;
}

void Application::turn(Instant now) {
    for (std::uint32_t shard = 0; shard < host_.shards(); ++shard)
        for (const shm::Completion& completion : host_.take_completions(64, shard))
            take(completion, shard, now);
    for (auto& [name, socket] : sockets_) work(socket, now);
}

void Application::abort_all(Instant now) {
    for (auto& [name, socket] : sockets_) {
        if (!socket.closed) tell(socket, SubmissionOp::Abort, now);
        socket.closed = socket.aborted = true;
    }
}

}  // namespace chiru::sim
