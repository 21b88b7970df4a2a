// SPDX-License-Identifier: Apache-2.0
//
// The client library and the stack together: what one side promises the other relies on.
#include "test/libclient/loopback.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <cerrno>
#include <cstring>
#include <random>
#include <string>
#include <vector>

using namespace chiru;
using namespace chiru::client;
using namespace chiru::test;

namespace {

struct World {
    explicit World(std::size_t tx_bytes = 4u << 20)
        : daemon(1, tx_bytes),
          shard(daemon),
          session(daemon.attach()),
          channel(daemon.open(session)) {
        listener = channel->create(0);
        REQUIRE(channel->listen(*listener, shard.listen(1, 7)));
    }
    ~World() { session->disown(); }

    void turn() {
        channel->process();
        shard.turn();
        channel->process();
        REQUIRE_FALSE(channel->lost());
        while (Socket* socket = channel->next_changed()) Channel::take_edges(*socket);
    }

    /// Both ends of a fresh connection.
    std::pair<Socket*, Socket*> connection() {
        Socket* near = channel->create(0);
        REQUIRE(channel->connect(*near, {Loopback::address(), 7}));
        for (int i = 0; i < 100; ++i) {
            turn();
            const Result<Socket*, int> far = channel->accept(*listener);
            if (far) return {near, *far};
        }
        FAIL("nobody came");
        return {};
    }

    void settle() {
        for (int i = 0; i < 300; ++i) turn();
    }

    FakeDaemon daemon;
    Loopback shard;
    std::shared_ptr<Session> session;
    std::unique_ptr<Channel> channel;
    Socket* listener = nullptr;
};

std::string letters(std::size_t count, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::string text(count, ' ');
    for (char& c : text) c = static_cast<char>('a' + random() % 26);
    return text;
}

}  // namespace

TEST_CASE("an echo goes through library and stack and back", "[client][stack]") {
    World w;
    const auto [near, far] = w.connection();
    CHECK(near->remote == far->local);
    CHECK(near->local == far->remote);
    CHECK(w.channel->send(*near, bytes_of("hello")) == 5);
    w.settle();
    CHECK(read(*w.channel, *far) == "hello");
    CHECK(w.channel->send(*far, bytes_of("back")) == 4);
    w.settle();
    CHECK(read(*w.channel, *near) == "back");
    CHECK(near->unsent_bytes() == 0);
    w.settle();
    CHECK(w.shard.slots_out() == 0);
}

TEST_CASE("a stream of any sizes arrives whole, and no buffer stays behind", "[client][stack]") {
    for (std::uint64_t seed = 1; seed <= 3; ++seed) {
        INFO("seed " << seed);
        World w(1u << 20);  // less than what is sent
        const auto [near, far] = w.connection();
        const std::string text = letters(3'000'000, seed);
        std::mt19937_64 random(seed);
        std::string got;
        std::size_t sent = 0;
        for (int step = 0; step < 200'000 && got.size() < text.size(); ++step) {
            const std::size_t size = std::min<std::size_t>(1 + random() % 70'000,
                                                           text.size() - sent);
            if (size != 0)
                sent += w.channel->send(*near, bytes_of(std::string_view(text).substr(sent, size)))
                            .value_or(0);
            w.turn();
            std::string part(1 + random() % 50'000, ' ');
            if (random() % 3 == 0) continue;  // a reader that is busy elsewhere
            const auto count =
                w.channel->receive(*far, std::as_writable_bytes(std::span(part)));
            got.append(part, 0, count.value_or(0));
        }
        CHECK(got == text);
        w.settle();
        CHECK(near->unsent_bytes() == 0);
        w.channel->close(*near);
        w.settle();
        CHECK(w.channel->receive(*far, std::as_writable_bytes(std::span(got))) == 0);
        w.channel->close(*far);
        w.settle();
        CHECK(w.channel->socket_count() == 1);  // the listener
        CHECK(w.shard.slots_out() == 0);
        CHECK(w.channel->allocate(kTxBlockBytes));
    }
}

TEST_CASE("close delivers what was sent; the peer reads it to the end", "[client][stack]") {
    World w;
    const auto [near, far] = w.connection();
    const std::string text = letters(200'000, 9);
    CHECK(w.channel->send(*near, bytes_of(text)) == text.size());
    w.channel->close(*near);
    std::string got;
    for (int i = 0; i < 5'000; ++i) {
        w.turn();
        std::string part(20'000, ' ');
        const auto count = w.channel->receive(*far, std::as_writable_bytes(std::span(part)));
        if (count && *count == 0) break;
        got.append(part, 0, count.value_or(0));
    }
    CHECK(got == text);
    CHECK((far->readiness() & kPeerClosed) != 0);
}

TEST_CASE("text travels with the SYN once there is a cookie", "[client][stack][rfc7413]") {
    World w;
    const auto open = [&] {
        Socket* socket = w.channel->create(0);
        REQUIRE(w.channel->set_option(*socket, shm::ConnectionOption::FastOpen, 1));
        REQUIRE(w.channel->connect(*socket, {Loopback::address(), 7}));
        w.turn();
        return socket;
    };
    Socket* first = open();
    CHECK(first->syn_room == 0);
    w.settle();
    REQUIRE(first->state == SocketState::Connected);
    REQUIRE(w.channel->accept(*w.listener));

    Socket* second = open();
    REQUIRE(second->syn_room > 0);
    w.settle();
    CHECK(second->state == SocketState::Connecting);
    CHECK(w.channel->send(*second, bytes_of("hello")) == 5u);
    w.turn();  // the SYN goes, and comes
    w.turn();
    const Result<Socket*, int> far = w.channel->accept(*w.listener);
    REQUIRE(far);
    std::array<std::byte, 16> text{};
    CHECK(w.channel->receive(**far, text) == 5u);
    CHECK(std::memcmp(text.data(), "hello", 5) == 0);
    CHECK(w.channel->send(**far, bytes_of("world")) == 5u);
    w.settle();
    CHECK(second->state == SocketState::Connected);
    CHECK(w.channel->receive(*second, text) == 5u);
    CHECK(second->unsent_bytes() == 0);
}

TEST_CASE("half close works both ways", "[client][stack]") {
    World w;
    const auto [near, far] = w.connection();
    CHECK(w.channel->send(*near, bytes_of("question")) == 8);
    REQUIRE(w.channel->shutdown_send(*near));
    w.settle();
    CHECK(read(*w.channel, *far) == "question");
    std::byte none;
    CHECK(w.channel->receive(*far, {&none, 1}) == 0);
    CHECK(w.channel->send(*far, bytes_of("answer")) == 6);
    w.settle();
    CHECK(read(*w.channel, *near) == "answer");
    w.channel->close(*far);
    w.settle();
    CHECK(w.channel->receive(*near, {&none, 1}) == 0);
    CHECK((near->readiness() & kHangup) != 0);
}

TEST_CASE("a mark of unsent bytes bounds what is queued and not what is on its way",
          "[client][stack]") {
    World w;
    const auto [near, far] = w.connection();
    const std::vector<std::byte> much(60'000, std::byte{'x'});
    REQUIRE(w.channel->send(*near, much));  // counts, though it was there first
    REQUIRE(w.channel->set_option(*near, shm::ConnectionOption::UnsentLowWater, 10'000));
    std::size_t sent = much.size();
    for (int i = 0; i < 400; ++i) {
        w.turn();
        if (const auto more = w.channel->send(*near, much)) sent += *more;
    }
    w.settle();
    CHECK(w.channel->send(*near, much).error() == EAGAIN);
    CHECK((near->readiness() & kWritable) == 0);
    CHECK(near->unsent >= 5'000);
    CHECK(near->unsent <= 10'000 + Channel::kLeastQueued);
    std::size_t got = 0;
    std::vector<std::byte> room(65'536);
    for (int i = 0; i < 400 && got < sent; ++i) {
        if (const auto part = w.channel->receive(*far, room)) got += *part;
        w.turn();
    }
    CHECK(got == sent);
    w.settle();
    CHECK(near->unsent == 0);
    CHECK((near->readiness() & kWritable) != 0);
}

TEST_CASE("an abort is a reset for the peer", "[client][stack]") {
    World w;
    const auto [near, far] = w.connection();
    w.channel->abort(*near);
    w.settle();
    CHECK((far->readiness() & (kError | kHangup)) == (kError | kHangup));
    CHECK(w.channel->take_error(*far) == ECONNRESET);
}

TEST_CASE("a port where nobody listens refuses", "[client][stack]") {
    World w;
    Socket* socket = w.channel->create(0);
    REQUIRE(w.channel->connect(*socket, {Loopback::address(), 8}));
    w.settle();
    CHECK(w.channel->take_error(*socket) == ECONNREFUSED);
}

TEST_CASE("hundreds of connections come and go, and nothing stays behind", "[client][stack]") {
    World w;
    for (int round = 0; round < 3; ++round) {
        std::vector<std::pair<Socket*, Socket*>> pairs;
        for (int i = 0; i < 200; ++i) pairs.push_back(w.connection());
        for (const auto& [near, far] : pairs) CHECK(w.channel->send(*near, bytes_of("hi")) == 2);
        w.settle();
        for (const auto& [near, far] : pairs) {
            CHECK(read(*w.channel, *far) == "hi");
            w.channel->abort(*far);
        }
        w.settle();
        for (const auto& [near, far] : pairs) w.channel->close(*near);
        w.settle();
        CHECK(w.channel->socket_count() == 1);
    }
    CHECK(w.shard.slots_out() == 0);
}
