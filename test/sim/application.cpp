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

constexpr shm::ListenerId kListener{77};

}  // namespace

void Application::submit(const Submission& s, Instant now) {
    const Violation violation = host_.submit(s, now);
    if (violation != Violation::None)
        complain(std::string("the stack says the client broke the rules: ") + to_string(violation));
}

void Application::listen(std::uint16_t port, const SocketPlan& plan) {
    accept_plan_ = plan;
    host_.stack().listen(kListener, Endpoint{IpAddress(), port}, 0, {.backlog = 128});
    host_.stack().share_listener(kListener, Host::kSession);
    Submission s;
    s.op = SubmissionOp::AcceptCredit;
    s.credit = {kListener, 10'000};
    submit(s, Instant{});
}

void Application::connect(const Endpoint& remote, const SocketPlan& plan, Instant now) {
    Submission s;
    s.op = SubmissionOp::Connect;
    s.user = next_user_++;
    s.connect = {};
    s.connect.remote = remote;
    if (remote.address.is_v4()) s.connect.local.address = IpAddress::v4(0);
    if (plan.no_delay)
        s.connect.options = 1u << static_cast<unsigned>(shm::ConnectionOption::NoDelay);
    opening_[s.user] = plan;
    submit(s, now);
}

void Application::opened(const shm::Completion& completion, bool accepted) {
    Socket socket;
    socket.id = completion.connection;
    const std::uint64_t client_port =
        accepted ? completion.endpoints.remote.port : completion.endpoints.local.port;
    socket.out_key = client_port * 2 + (accepted ? 1 : 0);
    socket.in_key = client_port * 2 + (accepted ? 0 : 1);
    if (accepted) {
        socket.plan = accept_plan_;
    } else {
        socket.plan = opening_[completion.user];
        opening_.erase(completion.user);
    }
    if (free_rings_.empty()) free_rings_.push_back(rings_++ * kRingBytes);
    socket.ring_base = free_rings_.back();
    free_rings_.pop_back();
    if (socket.ring_base + kRingBytes > host_.tx_arena_bytes()) complain("TX arena too small");
    if (!sockets_.emplace(socket.id.index, socket).second) complain("a name came twice");
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
}

void Application::take(const shm::Completion& completion, Instant now) {
    if (completion.op == CompletionOp::Accepted || completion.op == CompletionOp::Connected) {
        opened(completion, completion.op == CompletionOp::Accepted);
        return;
    }
    const auto found = sockets_.find(completion.connection.index);
    if (found == sockets_.end() || !(found->second.id == completion.connection)) {
        if (completion.op == CompletionOp::Closed && opening_.erase(completion.user) == 1) {
            ++failed_;
            last_error_ = completion.error;
            return;
        }
        complain("a completion for nobody");
        return;
    }
    Socket& socket = found->second;
    socket.returned += completion.sent_bytes;
    if (socket.returned > socket.sent) complain("more came back than was sent");
    switch (completion.op) {
        case CompletionOp::Received: received(socket, completion); break;
        case CompletionOp::PeerClosed:
            socket.peer_closed = true;
            if (socket.received != socket.plan.expect_bytes)
                complain("closed after " + std::to_string(socket.received) + " bytes");
            break;
        case CompletionOp::Closed:
            if (completion.error == 0) {
                ++finished_;
                if (!socket.peer_closed || socket.returned != socket.sent)
                    complain("closed before all was done");
            } else {
                ++failed_;
                last_error_ = completion.error;
            }
            for (const shm::Slice& slice : socket.kept) submit(Host::release_of(slice), now);
            free_rings_.push_back(socket.ring_base);
            sockets_.erase(found);
            break;
        default: break;
    }
}

void Application::send_some(Socket& socket, Instant now) {
    const std::uint64_t room = kRingBytes - (socket.sent - socket.returned);
    const std::uint64_t left = socket.plan.send_bytes - socket.sent;
    if (room == 0 || left == 0) return;
    const std::uint64_t at = socket.sent % kRingBytes;
    std::uint64_t length = 1 + random_() % socket.plan.largest_send;
    length = std::min({length, room, left, kRingBytes - at});
    for (std::uint64_t i = 0; i < length; ++i)
        host_.tx_arena()[socket.ring_base + at + i] = stream_byte(socket.out_key, socket.sent + i);
    Submission s;
    s.op = SubmissionOp::Send;
    s.connection = socket.id;
    s.count = 1;
    s.slices = {};
    s.slices[0] = {socket.ring_base + at, static_cast<std::uint32_t>(length), shm::kTxArena, 0};
    socket.sent += length;
    submit(s, now);
}

void Application::work(Socket& socket, Instant now) {
    for (int i = 0; i < 4; ++i) send_some(socket, now);
    if (socket.sent == socket.plan.send_bytes && !socket.shut) {
        socket.shut = true;
        Submission s;
        s.op = SubmissionOp::Shutdown;
        s.connection = socket.id;
        submit(s, now);
    }
    const std::size_t keep = socket.plan.slow_reader && random_() % 8 != 0 ? 12 : 0;
    while (socket.kept.size() > keep) {
        submit(Host::release_of(socket.kept.front()), now);
        socket.kept.pop_front();
    }
    if (socket.peer_closed && socket.shut && !socket.closed && socket.kept.empty()) {
        socket.closed = true;
        Submission s;
        s.op = SubmissionOp::Close;
        s.connection = socket.id;
        submit(s, now);
    }
}

void Application::turn(Instant now) {
    for (const shm::Completion& completion : host_.take_completions()) take(completion, now);
    for (auto& [index, socket] : sockets_) work(socket, now);
}

void Application::abort_all(Instant now) {
    for (auto& [index, socket] : sockets_) {
        Submission s;
        s.op = SubmissionOp::Abort;
        s.connection = socket.id;
        submit(s, now);
    }
}

}  // namespace chiru::sim
