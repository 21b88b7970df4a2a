// SPDX-License-Identifier: Apache-2.0
//
// A daemon that is gone, odd or hostile: the program sees errors, and nothing else happens to it.
#include "libclient/channel.hpp"

#include "test/libclient/fake_daemon.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <random>
#include <thread>

using namespace chiru;
using namespace chiru::client;
using namespace chiru::test;
using shm::CompletionOp;

namespace {

constexpr shm::ConnectionId kFirst{.index = 5, .generation = 1};

/// One completion of nonsense, and what is left of the session.
void check_gives_up(const shm::Completion& nonsense) {
    FakeDaemon daemon;
    const auto session = daemon.attach();
    const auto channel = daemon.open(session);
    Socket& socket = daemon.connected(*channel, kFirst);
    daemon.complete(nonsense);
    channel->process();
    CHECK(session->lost());
    CHECK(channel->lost());
    CHECK(channel->take_error(socket) == ECONNRESET);
    CHECK(channel->next_changed() == &socket);
    CHECK(channel->wait(Micros(-1)).error() == EPIPE);
    channel->close(socket);
}

}  // namespace

TEST_CASE("a daemon that dies wakes the sleeper and resets every socket", "[client]") {
    FakeDaemon daemon;
    const auto session = daemon.attach();
    const auto channel = daemon.open(session);
    Socket& socket = daemon.connected(*channel, kFirst);
    Socket* connecting = channel->create(0);
    REQUIRE(channel->connect(*connecting, FakeDaemon::remote()));
    CHECK(channel->send(socket, bytes_of("lost")) == 4);
    std::thread reaper([&daemon] {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        daemon.control.reset();
    });
    const auto start = std::chrono::steady_clock::now();
    while (channel->wait(std::chrono::seconds(20)) && !channel->lost()) {}
    reaper.join();
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(10));
    CHECK(channel->lost());
    for (Socket* dead : {&socket, connecting}) {
        CHECK((dead->readiness() & (kHangup | kError)) == (kHangup | kError));
        CHECK(channel->take_error(*dead) == ECONNRESET);
        CHECK(channel->send(*dead, bytes_of("x")).error() == EPIPE);
        channel->close(*dead);
    }
    CHECK(channel->connect(*channel->create(0), FakeDaemon::remote()).error() == ECONNRESET);
    CHECK(session->bind(FakeDaemon::local(), 0).error() == EPIPE);
}

TEST_CASE("a program that only polls notices a dead daemon too", "[client]") {
    FakeDaemon daemon;
    const auto session = daemon.attach();
    const auto channel = daemon.open(session);
    daemon.control.reset();
    for (int i = 0; i < 100'000 && !channel->lost(); ++i) channel->process();
    CHECK(channel->lost());
}

TEST_CASE("completions of nonsense end the session and touch nothing", "[client]") {
    FakeDaemon source;
    shm::Completion bad = source.received(kFirst, 0, "x");
    bad.slices[0].offset = ~std::uint64_t{0};
    check_gives_up(bad);
    bad = source.received(kFirst, 0, "x");
    bad.slices[0].length = kSlotBytes * kSlots + 1;
    check_gives_up(bad);
    bad = source.received(kFirst, 0, "x");
    bad.slices[0].arena = shm::kTxArena;
    check_gives_up(bad);
    bad = source.received(kFirst, 0, "x");
    bad.count = 3;
    check_gives_up(bad);
    check_gives_up(FakeDaemon::sent(kFirst, 1));  // nothing was sent
    check_gives_up(FakeDaemon::about(shm::CompletionOp{77}, kFirst));
    check_gives_up(FakeDaemon::connected_to(0xdead'beef'dead'beef, kFirst));  // nobody asked
}

TEST_CASE("a connection name used twice, or out of range, ends the session", "[client]") {
    FakeDaemon daemon;
    const auto session = daemon.attach();
    const auto channel = daemon.open(session);
    daemon.connected(*channel, kFirst);
    Socket* second = channel->create(0);
    REQUIRE(channel->connect(*second, FakeDaemon::remote()));
    const std::uint64_t user = daemon.take(shm::SubmissionOp::Connect).user;
    SECTION("twice") {
        daemon.complete(FakeDaemon::connected_to(user, kFirst));
        channel->process();
        CHECK(session->lost());
    }
    SECTION("out of range") {
        daemon.complete(FakeDaemon::connected_to(user, {.index = ~0u, .generation = 1}));
        channel->process();
        CHECK(channel->take_error(*second) == ENOBUFS);
        session->disown();
    }
}

TEST_CASE("stale names are ignored, but their slots go back", "[client]") {
    FakeDaemon daemon;
    const auto session = daemon.attach();
    const auto channel = daemon.open(session);
    Socket& socket = daemon.connected(*channel, kFirst);
    const shm::ConnectionId stale{.index = kFirst.index, .generation = 2};
    daemon.complete(daemon.received(stale, 9, "for another"));
    daemon.complete(FakeDaemon::about(CompletionOp::PeerClosed, stale));
    daemon.complete(FakeDaemon::about(CompletionOp::Closed, stale, ECONNRESET));
    channel->process();
    CHECK_FALSE(session->lost());
    CHECK(socket.state == SocketState::Connected);
    CHECK(channel->next_changed() == nullptr);
    CHECK(daemon.take(shm::SubmissionOp::Release).release.slots[0] == 9);
    session->disown();
}

TEST_CASE("ring positions out of range end the session", "[client]") {
    FakeDaemon daemon;
    const auto session = daemon.attach();
    const auto channel = daemon.open(session);
    Socket& socket = daemon.connected(*channel, kFirst);
    daemon.layout->lane(0).completions.head = 5'000'000;
    channel->process();
    CHECK(session->lost());
    CHECK(channel->take_error(socket) == ECONNRESET);
}

TEST_CASE("random completions never harm the client", "[client]") {
    for (std::uint64_t seed = 1; seed <= 200; ++seed) {
        INFO("seed " << seed);
        std::mt19937_64 random(seed);
        FakeDaemon daemon;
        const auto session = daemon.attach();
        const auto channel = daemon.open(session);
        std::array<Socket*, 4> sockets;
        for (std::uint32_t i = 0; i < sockets.size(); ++i)
            sockets[i] = &daemon.connected(*channel, {.index = i, .generation = 1});
        for (Socket* socket : sockets) CHECK(channel->send(*socket, bytes_of("some text")));
        for (int step = 0; step < 300 && !session->lost(); ++step) {
            shm::Completion completion;
            completion.op = static_cast<shm::CompletionOp>(random() % 9);
            completion.count = static_cast<std::uint8_t>(random() % 4);
            completion.error = static_cast<std::uint16_t>(random() % 120);
            completion.sent_bytes = static_cast<std::uint32_t>(random() % 3);
            completion.connection = {.index = static_cast<std::uint32_t>(random() % 6),
                                     .generation = static_cast<std::uint32_t>(random() % 3)};
            completion.user = random() % 6 | std::uint64_t{random() % 3} << 32;
            for (shm::Slice& slice : completion.slices)
                slice = {.offset = random() % (kSlotBytes * kSlots),
                         .length = static_cast<std::uint32_t>(random() % 5'000),
                         .arena = static_cast<shm::ArenaId>(random() % 64 == 0),
                         .reserved = 0};
            daemon.complete(completion);
            channel->process();
            while (Socket* socket = channel->next_changed()) {
                Channel::take_edges(*socket);
                if (random() % 2 == 0) read(*channel, *socket);
                if (random() % 8 == 0) channel->close(*socket);
            }
            shm::Submission taken;
            while (daemon.submissions[0].pop({&taken, 1}) != 0) {}
        }
        session->disown();
    }
}

TEST_CASE("an attach with missing or unfit memory is refused", "[client]") {
    using Fds = std::vector<int>;
    const auto attach = [](auto&& spoil) {
        const FakeDaemon daemon;
        shm::Message reply = daemon.attach_reply();
        Fds fds = daemon.attach_fds();
        spoil(reply, fds);
        int ends[2];
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
        const shm::UniqueFd far(ends[0]);
        reply.sequence = 1;
        REQUIRE(shm::send_message(far.get(), reply, fds) == 0);
        const auto session = Session::attach(shm::UniqueFd(ends[1]), "test");
        return session ? 0 : session.error();
    };
    CHECK(attach([](shm::Message&, Fds&) {}) == 0);
    CHECK(attach([](shm::Message&, Fds& fds) { fds.pop_back(); }) == EPROTO);
    CHECK(attach([](shm::Message& m, Fds&) { m.attached.shard_count = 0; }) == EPROTO);
    CHECK(attach([](shm::Message& m, Fds&) { m.attached.shard_count = 33; }) == EPROTO);
    CHECK(attach([](shm::Message& m, Fds&) { m.attached.rx_slot_bytes = 0; }) == EPROTO);
    CHECK(attach([](shm::Message& m, Fds&) { m.attached.tx_arena_bytes <<= 20; }) == EINVAL);
    CHECK(attach([](shm::Message&, Fds& fds) { std::swap(fds[0], fds[1]); }) != 0);
    CHECK(attach([](shm::Message& m, Fds&) { m.error = EACCES; }) == EACCES);
}
