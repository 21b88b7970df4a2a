// SPDX-License-Identifier: Apache-2.0
//
// UDP sockets of the client library on a real stack, and what a daemon out of its mind may say.
#include "test/libclient/loopback.hpp"

#include <catch2/catch.hpp>

#include <cerrno>
#include <string>
#include <vector>

using namespace chiru;
using namespace chiru::client;
using namespace chiru::test;

namespace {

struct World {
    World()
        : daemon(1, 4u << 20),
          shard(daemon),
          session(daemon.attach()),
          channel(daemon.open(session)) {}
    ~World() { session->disown(); }

    Socket* open(std::uint16_t port) {
        ++sockets;
        const shm::DatagramId id{sockets * shm::kMaxDatagramSockets + sockets};
        Socket* socket = channel->create(sockets);
        shm::Message reply;
        reply.type = shm::MessageType::OpenDatagram;
        reply.datagram = {.socket = id, .local = {Loopback::address(), port}, .path_mtu = 0};
        daemon.answer(reply);
        REQUIRE(channel->open_datagrams(*socket, {Loopback::address(), port}, 0));
        shard.stack->open_datagram(
            {.id = id,
             .local = {Loopback::address(), port},
             .session = Loopback::kSession,
             .channel = Loopback::kChannel,
             .user = std::uint64_t{socket->name.generation} << 32 | socket->name.index},
            Instant(std::chrono::seconds(1)));
        return socket;
    }
    static DatagramTarget to(std::uint16_t port) {
        DatagramTarget target;
        target.remote = {Loopback::address(), port};
        return target;
    }
    Result<std::size_t, int> send(Socket& socket, const std::string& text, std::uint16_t port) {
        const auto bytes = bytes_of(text);
        return channel->send_datagram(socket, {&bytes, 1}, to(port));
    }
    std::string read(Socket& socket) {
        const auto oldest = channel->next_datagram(socket);
        if (!oldest) return "error " + std::to_string(oldest.error());
        std::string text((*oldest)->bytes, '\0');
        const auto room = std::as_writable_bytes(std::span(text));
        CHECK(channel->copy_datagram(**oldest, {&room, 1}) == text.size());
        channel->drop_datagram(socket);
        return text;
    }
    void turn() {
        channel->process();
        shard.turn();
        channel->process();
        REQUIRE_FALSE(channel->lost());
    }
    void settle() {
        for (int i = 0; i < 20; ++i) turn();
    }

    FakeDaemon daemon;
    Loopback shard;
    std::shared_ptr<Session> session;
    std::unique_ptr<Channel> channel;
    std::uint32_t sockets = 0;
};

std::string edges_of(Channel& channel) {
    std::string text;
    while (Socket* changed = channel.next_changed())
        text += std::to_string(changed->user) + ":" +
                std::to_string(Channel::take_edges(*changed) & changed->readiness()) + " ";
    return text;
}

}  // namespace

TEST_CASE("datagrams go from socket to socket, each by itself", "[udp]") {
    World world;
    Socket* a = world.open(1000);
    Socket* b = world.open(2000);
    world.settle();
    CHECK(edges_of(*world.channel) == "1:2 2:2 ");
    REQUIRE(world.send(*a, "one", 2000));
    REQUIRE(world.send(*a, "", 2000));
    REQUIRE(world.send(*a, std::string(5000, 'x'), 2000));
    world.settle();
    CHECK(edges_of(*world.channel) == "2:1 ");
    CHECK(world.read(*b) == "one");
    CHECK(world.read(*b).empty());
    CHECK(world.read(*b) == std::string(5000, 'x'));
    CHECK(world.read(*b) == "error " + std::to_string(EAGAIN));
    world.settle();
    CHECK(a->tx_bytes == 0);
    CHECK(world.shard.slots_out() == 0);
}

TEST_CASE("a datagram is lent in place, and its slots come back", "[udp]") {
    World world;
    Socket* a = world.open(1000);
    Socket* b = world.open(2000);
    REQUIRE(world.send(*a, std::string(4000, 'y'), 2000));
    world.settle();
    std::array<Lent, 8> pieces;
    CHECK(world.channel->borrow_datagram(*b, std::span(pieces).first(1)).error() == EMSGSIZE);
    const auto lent = world.channel->borrow_datagram(*b, pieces);
    REQUIRE(lent == std::size_t{3});
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < *lent; ++i) bytes += pieces[i].bytes.size();
    CHECK(bytes == 4000);
    CHECK(b->readiness() == kWritable);
    CHECK(world.shard.slots_out() == 3);
    for (std::size_t i = 0; i < *lent; ++i) CHECK(world.channel->give_back(pieces[i].token));
    CHECK_FALSE(world.channel->give_back(pieces[0].token));
    world.settle();
    CHECK(world.shard.slots_out() == 0);
}

TEST_CASE("a send buffer goes out without a copy and is free afterwards", "[udp]") {
    World world;
    Socket* a = world.open(1000);
    Socket* b = world.open(2000);
    const auto buffer = world.channel->allocate(2000);
    REQUIRE(buffer);
    std::fill(buffer->bytes.begin(), buffer->bytes.end(), std::byte{'z'});
    REQUIRE(world.channel->send_datagram_buffer(*a, buffer->token, 10, 900, World::to(2000)));
    CHECK(world.channel->send_datagram_buffer(*a, buffer->token, 2000, 900, World::to(2000))
              .error() == EINVAL);
    REQUIRE(world.channel->free_buffer(buffer->token));
    world.settle();
    CHECK(world.read(*b) == std::string(900, 'z'));
}

TEST_CASE("a sender at its limit waits and is told of room", "[udp]") {
    World world;
    Socket* a = world.open(1000);
    world.open(2000);
    edges_of(*world.channel);
    world.channel->set_send_limit(*a, 4096);
    int sent = 0;
    while (world.send(*a, std::string(100, 'x'), 2000)) ++sent;
    CHECK(sent == 4);
    CHECK((a->readiness() & kWritable) == 0);
    world.settle();
    CHECK(edges_of(*world.channel).find("1:2") != std::string::npos);
    CHECK(world.send(*a, "more", 2000));
}

TEST_CASE("what a datagram may not be is said at once", "[udp]") {
    World world;
    Socket* a = world.open(1000);
    CHECK(world.send(*a, std::string(65'508, 'x'), 2000).error() == EMSGSIZE);
    CHECK(world.send(*a, "x", 0).error() == EINVAL);
    Socket* fresh = world.channel->create(9);
    CHECK(world.send(*fresh, "x", 2000).error() == EINVAL);
    CHECK(world.channel->next_datagram(*fresh).error() == EINVAL);
    std::array<std::byte, 4> room;
    CHECK_FALSE(world.channel->receive(*a, room));  // a stream's call
}

TEST_CASE("a closed socket's datagrams go back unread", "[udp]") {
    World world;
    Socket* a = world.open(1000);
    Socket* b = world.open(2000);
    REQUIRE(world.send(*a, "late", 2000));
    world.channel->flush();
    world.shard.turn();
    world.shard.turn();  // told, and not yet taken
    shm::Message reply;
    reply.type = shm::MessageType::CloseDatagram;
    world.daemon.answer(reply);
    world.channel->close(*b);
    world.settle();
    CHECK(world.shard.slots_out() == 0);
}

TEST_CASE("the rest of a datagram never reaches a socket that took its receiver's place", "[udp]") {
    World world;
    Socket* a = world.open(1000);
    const SocketName old = a->name;
    shm::Completion first;
    first.op = shm::CompletionOp::Datagram;
    first.user = std::uint64_t{old.generation} << 32 | old.index;
    first.connection.index = static_cast<std::uint32_t>(a->datagram);
    first.arrived = {};
    first.arrived.slice = {0, 100, shm::kRxArena, 0};
    first.arrived.more = 1;
    world.daemon.complete(first);
    world.channel->process();
    edges_of(*world.channel);
    shm::Message reply;
    reply.type = shm::MessageType::CloseDatagram;
    world.daemon.answer(reply);
    world.channel->close(*a);
    edges_of(*world.channel);
    Socket* b = world.open(2000);
    REQUIRE(b->name.index == old.index);
    shm::Completion rest;
    rest.op = shm::CompletionOp::DatagramMore;
    rest.count = 1;
    rest.slices[0] = {kSlotBytes, 100, shm::kRxArena, 0};
    world.daemon.complete(rest);
    world.channel->process();
    CHECK_FALSE(world.channel->lost());
    CHECK(world.read(*b) == "error " + std::to_string(EAGAIN));
}

TEST_CASE("nonsense about datagrams costs the session and nothing else", "[udp][hostile]") {
    FakeDaemon daemon;
    const auto session = daemon.attach();
    const auto channel = daemon.open(session);
    shm::Completion completion;
    SECTION("a slice outside the arena") {
        completion.op = shm::CompletionOp::Datagram;
        completion.arrived = {};
        completion.arrived.slice = {~std::uint64_t{0} - 3, 100, shm::kRxArena, 0};
    }
    SECTION("more of none") {
        completion.op = shm::CompletionOp::DatagramMore;
        completion.count = 1;
    }
    SECTION("too many slices") {
        completion.op = shm::CompletionOp::DatagramMore;
        completion.count = 200;
    }
    SECTION("a cookie that was never given") {
        completion.op = shm::CompletionOp::DatagramsSent;
        completion.count = 1;
        completion.cookies[0] = 0xffff'fff0;
    }
    SECTION("too many cookies") {
        completion.op = shm::CompletionOp::DatagramsSent;
        completion.count = 11;
    }
    daemon.complete(completion);
    channel->process();
    CHECK(channel->lost());
}
