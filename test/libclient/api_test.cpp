// SPDX-License-Identifier: Apache-2.0
//
// The C interface as a program sees it: over a control socket with a path, by handles and negative
// errno values.
#include "chiru/chiru.hpp"
#include "test/libclient/fake_daemon.hpp"

#include <catch2/catch.hpp>

#include <netinet/in.h>
#include <poll.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <thread>

using namespace chiru;
using namespace chiru::test;
using shm::CompletionOp;
using shm::SubmissionOp;

namespace {

constexpr shm::ConnectionId kFirst{.index = 5, .generation = 1};

/// A FakeDaemon that a program reaches by path.
struct Program {
    Program() {
        sockaddr_un name{};
        name.sun_family = AF_UNIX;
        path = "/tmp/chiru-api-test." + std::to_string(getpid());
        std::memcpy(name.sun_path, path.c_str(), path.size() + 1);
        unlink(path.c_str());
        const shm::UniqueFd door(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
        REQUIRE(bind(door.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0);
        REQUIRE(listen(door.get(), 1) == 0);
        std::thread porter([&] {
            daemon.control.reset(accept4(door.get(), nullptr, nullptr, SOCK_CLOEXEC));
            shm::Message reply = daemon.attach_reply();
            daemon.answer(reply, daemon.attach_fds());
            daemon.answer_channel();
        });
        REQUIRE(chiru_attach(path.c_str(), "test", &session) == 0);
        REQUIRE(chiru_channel_create(session, &channel) == 0);
        porter.join();
        chiru_set_spin(channel, 0);
        unlink(path.c_str());
    }
    ~Program() {
        daemon.control.reset();
        chiru_channel_destroy(channel);
        chiru_detach(session);
    }

    chiru_socket connected(void* user) {
        chiru_socket made = 0;
        REQUIRE(chiru_socket_create(channel, user, &made) == 0);
        REQUIRE(chiru_connect(channel, made, address(), sizeof where) == 0);
        daemon.complete(
            FakeDaemon::connected_to(daemon.take(SubmissionOp::Connect).user, kFirst));
        chiru_event event;
        REQUIRE(chiru_poll(channel, &event, 1, 0) == 1);
        CHECK(event.socket == made);
        CHECK(event.user == user);
        CHECK(event.events == CHIRU_WRITABLE);
        return made;
    }
    const sockaddr* address() {
        where.sin_family = AF_INET;
        where.sin_port = htons(6379);
        where.sin_addr.s_addr = htonl(0x0a07'0001);
        return reinterpret_cast<const sockaddr*>(&where);
    }
    void answer_bind() {
        shm::Message bound;
        bound.type = shm::MessageType::Bind;
        bound.bound = {};
        bound.bound.listener = shm::ListenerId{9};
        bound.bound.endpoint = FakeDaemon::local();
        bound.bound.token = {1, 2};
        daemon.answer(bound);
    }
    void answer_empty(shm::MessageType type) {
        shm::Message message;
        message.type = type;
        daemon.answer(message);
    }

    FakeDaemon daemon;
    std::string path;
    chiru_session* session = nullptr;
    chiru_channel* channel = nullptr;
    sockaddr_in where{};
};

}  // namespace

TEST_CASE("a daemon that is not there is an error, not an end", "[client][api]") {
    chiru_session* session = nullptr;
    CHECK(chiru_attach("/nonexistent/socket", nullptr, &session) == -ENOENT);
    CHECK(session == nullptr);
    chiru_detach(nullptr);
    chiru_channel_destroy(nullptr);
}

TEST_CASE("data goes through the C interface, copied and in place", "[client][api]") {
    Program p;
    int mine = 0;
    const chiru_socket socket = p.connected(&mine);
    CHECK(chiru_send(p.channel, socket, "ping", 4, 0) == 4);
    CHECK(chiru_unacknowledged(p.channel, socket) == 4);
    CHECK(p.daemon.text(p.daemon.take(SubmissionOp::Send).slices[0]) == "ping");
    p.daemon.complete(p.daemon.received(kFirst, 1, "pong"));
    p.daemon.complete(p.daemon.received(kFirst, 2, "again"));
    chiru_event event;
    REQUIRE(chiru_poll(p.channel, &event, 1, CHIRU_FOREVER) == 1);
    CHECK(event.events == CHIRU_READABLE);
    std::array<char, 16> text{};
    CHECK(chiru_recv(p.channel, socket, text.data(), 4, CHIRU_PEEK) == 4);
    CHECK(chiru_recv(p.channel, socket, text.data(), 4, 0) == 4);
    CHECK(std::string(text.data()) == "pong");
    std::array<chiru_slice, 4> slices;
    REQUIRE(chiru_recv_slices(p.channel, socket, slices.data(), 4) == 1);
    CHECK(std::memcmp(slices[0].data, "again", slices[0].bytes) == 0);
    CHECK(chiru_recv_slices(p.channel, socket, slices.data(), 4) == -EAGAIN);
    CHECK(chiru_release(p.channel, &slices[0].token, 1) == 0);
    CHECK(chiru_release(p.channel, &slices[0].token, 1) == -EINVAL);

    chiru_buffer buffer;
    CHECK(chiru_buffer_alloc(p.channel, CHIRU_BUFFER_MAX + 1, &buffer) == -EMSGSIZE);
    REQUIRE(chiru_buffer_alloc(p.channel, 100, &buffer) == 0);
    CHECK(buffer.bytes >= 100);
    CHECK(chiru_send_buffer(p.channel, socket, buffer.token, 0, 100, CHIRU_MORE) == 0);
    CHECK(chiru_buffer_free(p.channel, buffer.token) == 0);
    CHECK(chiru_buffer_free(p.channel, buffer.token) == -EINVAL);
    CHECK(chiru_poll(p.channel, &event, 1, 1'000) == 0);
}

TEST_CASE("a stale socket is an error, never another socket", "[client][api]") {
    Program p;
    chiru_socket old = 0, fresh = 0;
    REQUIRE(chiru_socket_create(p.channel, nullptr, &old) == 0);
    CHECK(chiru_close(p.channel, old) == 0);
    REQUIRE(chiru_socket_create(p.channel, nullptr, &fresh) == 0);
    CHECK(fresh != old);
    CHECK(chiru_close(p.channel, old) == -EINVAL);
    CHECK(chiru_send(p.channel, old, "x", 1, 0) == -EINVAL);
    CHECK(chiru_send(p.channel, 0, "x", 1, 0) == -EINVAL);
    CHECK(chiru_send(p.channel, ~chiru_socket{0}, "x", 1, 0) == -EINVAL);
    CHECK(chiru_set_option(p.channel, fresh, chiru_option{}, 1) == -EINVAL);
    CHECK(chiru_connect(p.channel, fresh, nullptr, 0) == -EAFNOSUPPORT);
    CHECK(chiru_listen(p.channel, fresh, 5) == -EDESTADDRREQ);
    sockaddr_storage none;
    socklen_t bytes = sizeof none;
    CHECK(chiru_getpeername(p.channel, fresh, reinterpret_cast<sockaddr*>(&none), &bytes) ==
          -ENOTCONN);
}

TEST_CASE("a listener is shared by ticket and ends with its last holder", "[client][api]") {
    Program p;
    chiru_socket first = 0, second = 0;
    REQUIRE(chiru_socket_create(p.channel, nullptr, &first) == 0);
    REQUIRE(chiru_socket_create(p.channel, nullptr, &second) == 0);
    p.answer_bind();
    REQUIRE(chiru_bind(p.channel, first, p.address(), sizeof p.where, 0) == 0);
    sockaddr_in bound;
    socklen_t bytes = sizeof bound;
    CHECK(chiru_getsockname(p.channel, first, reinterpret_cast<sockaddr*>(&bound), &bytes) == 0);
    CHECK(ntohs(bound.sin_port) == FakeDaemon::local().port);
    p.answer_empty(shm::MessageType::Listen);
    REQUIRE(chiru_listen(p.channel, first, 5) == 0);
    p.daemon.take(SubmissionOp::AcceptCredit);
    chiru_ticket ticket;
    REQUIRE(chiru_listener_ticket(p.channel, first, &ticket) == 0);
    ++ticket.words[1];
    CHECK(chiru_listen_by_ticket(p.channel, second, &ticket) == -EACCES);
    --ticket.words[1];
    CHECK(chiru_listen_by_ticket(p.channel, second, &ticket) == -EADDRINUSE);  // same channel
    p.daemon.complete(FakeDaemon::accepted(9, kFirst));
    chiru_event event;
    REQUIRE(chiru_poll(p.channel, &event, 1, 0) == 1);
    CHECK(event.socket == first);
    chiru_socket accepted = 0;
    int user = 0;
    REQUIRE(chiru_accept(p.channel, first, &user, &accepted) == 0);
    REQUIRE(chiru_poll(p.channel, &event, 1, 0) == 1);
    CHECK(event.user == &user);
    p.answer_empty(shm::MessageType::Unbind);
    CHECK(chiru_close(p.channel, first) == 0);
}

TEST_CASE("the channel's descriptor is readable exactly when there is something to fetch",
          "[client][api]") {
    Program p;
    const chiru_socket socket = p.connected(nullptr);
    pollfd watched{.fd = chiru_channel_fd(p.channel), .events = POLLIN, .revents = 0};
    chiru_event event;
    std::int64_t limit = 0;
    for (std::uint32_t round = 0; round < 3; ++round) {
        REQUIRE(chiru_poll(p.channel, &event, 1, 0) == 0);
        REQUIRE(chiru_arm(p.channel, &limit) == 1);
        CHECK(limit == CHIRU_FOREVER);
        if (round > 0) CHECK(poll(&watched, 1, 0) == 0);
        p.daemon.complete(p.daemon.received(kFirst, round, "x"));
        CHECK(poll(&watched, 1, 1'000) == 1);
        CHECK(poll(&watched, 1, 0) == 1);
        REQUIRE(chiru_poll(p.channel, &event, 1, 0) == 1);
        char byte;
        CHECK(chiru_recv(p.channel, socket, &byte, 1, 0) == 1);
    }
    p.daemon.complete(p.daemon.received(kFirst, 5, "x"));
    CHECK(chiru_arm(p.channel, &limit) == 0);
}

TEST_CASE("the daemon's death reaches a program in its own event loop", "[client][api]") {
    Program p;
    const chiru_socket socket = p.connected(nullptr);
    std::int64_t limit = 0;
    chiru_event event;
    REQUIRE(chiru_poll(p.channel, &event, 1, 0) == 0);
    REQUIRE(chiru_arm(p.channel, &limit) == 1);
    p.daemon.control.reset();
    pollfd watched{.fd = chiru_channel_fd(p.channel), .events = POLLIN, .revents = 0};
    CHECK(poll(&watched, 1, 1'000) == 1);
    REQUIRE(chiru_poll(p.channel, &event, 1, CHIRU_FOREVER) == 1);
    CHECK((event.events & (CHIRU_ERROR | CHIRU_HANGUP)) == (CHIRU_ERROR | CHIRU_HANGUP));
    CHECK(chiru_socket_error(p.channel, socket) == ECONNRESET);
    CHECK(chiru_poll(p.channel, &event, 1, CHIRU_FOREVER) == -EPIPE);
    CHECK(chiru_arm(p.channel, &limit) == -EPIPE);
    CHECK(chiru_flush(p.channel) == -EPIPE);
}
