// SPDX-License-Identifier: Apache-2.0
//
// Sessions beside each other on one shard: none can take from the others what all need.
#include "test/stack/udp/wire.hpp"

using namespace chiru;
using namespace chiru::test;
using shm::Counter;

namespace {

/// Another session of a client's host, on the same arena; its completions are not read.
struct Neighbor {
    Neighbor(Client& on, SessionIndex number)
        : client(on), session(number), channel(number + 10) {
        SessionConfig config;
        config.id = number;
        config.tx_arena = {on.host.tx_arena(), on.host.tx_arena_bytes(), 0};
        config.max_connections = 8;
        config.max_rx_slots = 2048;
        stack().attach_session(session, config);
        stack().attach_channel(channel, session);
    }
    Stack& stack() { return client.host.stack(); }
    shm::DatagramId open(const Endpoint& local, std::uint32_t receive_buffer = 0) {
        const shm::DatagramId id{session + 100u + opened++};
        stack().open_datagram({.id = id,
                               .local = local,
                               .session = session,
                               .channel = channel,
                               .receive_buffer = receive_buffer},
                              client.now);
        return id;
    }
    Violation send(shm::DatagramId socket, const Endpoint& to, std::uint32_t bytes,
                   std::uint16_t segment_bytes = 0) {
        shm::Submission s;
        s.op = shm::SubmissionOp::SendDatagram;
        s.connection = {static_cast<std::uint32_t>(socket), 1};
        s.hints.segment_bytes = segment_bytes;
        s.datagram = {.remote = to.address, .source = {}, .port = to.port, .interface = 0,
                      .length = bytes};
        return stack().submit(channel, std::span(&s, 1), client.now);
    }
    std::size_t room() { return stack().submission_room(channel); }
    std::size_t fill(shm::DatagramId socket, const Endpoint& to) {
        std::size_t sent = 0;
        for (; room() > 0; ++sent) REQUIRE(send(socket, to, 10) == Violation::None);
        return sent;
    }

    Client& client;
    SessionIndex session;
    ChannelIndex channel;
    std::uint32_t opened = 0;
};

/// Ports that frames went to, in their order.
std::vector<unsigned> ports_of(const std::vector<sim::Frame>& frames) {
    std::vector<unsigned> ports;
    for (const sim::Frame& frame : frames)
        if (frame.size() > 38 && frame[12] == std::byte{8} && frame[23] == std::byte{17})
            ports.push_back(std::to_integer<unsigned>(frame[36]) << 8 |
                            std::to_integer<unsigned>(frame[37]));
    return ports;
}

}  // namespace

TEST_CASE("clients that do not take their completions stop nobody else", "[udp]") {
    Wire wire;
    const Endpoint to{wire.right.host.v4(), 53};
    std::vector<Neighbor> hogs;
    std::size_t taken = 0;
    for (SessionIndex i = 10; i < 30; ++i) {
        Neighbor& hog = hogs.emplace_back(wire.left, i);
        const std::size_t sent = hog.fill(hog.open({kAnyV4, i}), to);
        CHECK(sent >= 4);
        if (i == 10) CHECK(sent <= 8192 / 2 + 4);
        taken += sent;
    }
    CHECK(taken > 8000);
    wire.run();
    for (Neighbor& hog : hogs) CHECK(hog.room() <= 4);  // nobody was told of anything

    Neighbor streams(wire.left, 40);  // one without sockets does not wait for UDP at all
    CHECK(streams.room() >= 64);
    Neighbor honest(wire.left, 41);
    const auto socket = honest.open({kAnyV4, 2000});
    CHECK(honest.room() > 0);
    wire.right.open(to);
    CHECK(honest.send(socket, to, 10) == Violation::None);
    wire.run();
    CHECK(wire.right.received.size() == 1);
}

TEST_CASE("a session that sends beyond its room without a socket is ended, and takes no more",
          "[udp]") {
    Wire wire;
    const Endpoint to{wire.right.host.v4(), 53};
    Neighbor hog(wire.left, 10), honest(wire.left, 11);
    std::size_t sent = 0;
    while (hog.send(shm::DatagramId{12'345}, to, 10) == Violation::None) ++sent;
    CHECK(sent == 8192 / 2 + 4);
    honest.open({kAnyV4, 2000});
    CHECK(honest.fill(honest.open({kAnyV4, 2001}), to) == 4 + 4096 / 2);
}

TEST_CASE("a session that does not read leaves room for the datagrams of others", "[udp]") {
    Wire wire;
    Neighbor hog(wire.right, 10);
    const auto sender = wire.left.open({kAnyV4, 1000});
    for (std::uint16_t port = 1; port <= 16; ++port)
        hog.open({wire.right.host.v4(), port}, 1u << 20);
    wire.left.send(sender, {wire.right.host.v4(), 1}, pattern(10));  // the neighbour is resolved
    wire.run();
    for (int i = 0; i < 1024; ++i)
        wire.left.send(sender, {wire.right.host.v4(), static_cast<std::uint16_t>(1 + i % 16)},
                       pattern(10));
    wire.run();
    CHECK(wire.right.host.count(Counter::UdpPoolShare) +
              wire.right.host.count(Counter::UdpSessionFull) > 0);

    const Endpoint to{wire.right.host.v4(), 53};
    wire.right.open(to);
    for (int i = 0; i < 16; ++i) wire.left.send(sender, to, pattern(10));
    wire.run();
    CHECK(wire.right.received.size() == 16);
}

TEST_CASE("sessions take turns with what they send", "[udp]") {
    Wire wire;
    const Endpoint to{wire.right.host.v4(), 53};
    const auto warm = wire.left.open({kAnyV4, 999});  // the neighbour is resolved
    wire.left.send(warm, to, pattern(10));
    wire.run();
    Neighbor hog(wire.left, 10), other(wire.left, 11);
    const auto many = hog.open({kAnyV4, 1000});
    const auto one = other.open({kAnyV4, 1001});
    for (int i = 0; i < 100; ++i)
        REQUIRE(hog.send(many, {to.address, 7}, 64, 1) == Violation::None);
    REQUIRE(other.send(one, {to.address, 8}, 1) == Violation::None);
    const auto ports = ports_of(wire.left.host.turn(wire.now));
    const auto at = std::find(ports.begin(), ports.end(), 8u);
    REQUIRE(at != ports.end());
    CHECK(at - ports.begin() <= 16);
}

TEST_CASE("a submission is cut into so many datagrams and no more", "[udp]") {
    Wire wire;
    Neighbor session(wire.left, 10);
    const auto socket = session.open({kAnyV4, 1000});
    const Endpoint to{wire.right.host.v4(), 53};
    CHECK(session.send(socket, to, 128, 1) == Violation::None);
    CHECK(session.send(socket, to, 129, 1) == Violation::BadCount);
    CHECK(session.send(socket, to, 65'507, 512) == Violation::None);
    CHECK(session.send(socket, to, 65'507, 511) == Violation::BadCount);
}

TEST_CASE("what a killed client had queued does not delay the return of its memory", "[udp]") {
    Wire wire;
    Endpoint to{wire.right.host.v4(), 53};
    const bool parked = GENERATE(false, true);
    if (parked) wire.cut = true;
    Neighbor session(wire.left, 10), other(wire.left, 11);
    const auto socket = session.open({kAnyV4, 1000});
    const auto stays = other.open({kAnyV4, 1001});
    REQUIRE(other.send(stays, to, 10) == Violation::None);
    for (int i = 0; i < 100; ++i) REQUIRE(session.send(socket, to, 60'000) == Violation::None);
    if (parked) wire.run();
    auto& stack = wire.left.host.stack();
    stack.detach_channel(session.channel, wire.now);
    stack.detach_session(session.session, wire.now, Parting::Lost);
    CHECK(stack.session_gone(session.session));
    wire.cut = false;
    wire.run(3s);
    CHECK(wire.left.host.count(Counter::UdpDatagramsOut) == 1);  // the other's
}

TEST_CASE("the last words of a client that said farewell are sent, in bounds", "[udp]") {
    Wire wire;
    const Endpoint to{wire.right.host.v4(), 53};
    const auto warm = wire.left.open({kAnyV4, 999});  // the neighbour is resolved
    wire.left.send(warm, to, pattern(10));
    wire.run();
    Neighbor session(wire.left, 10);
    const auto socket = session.open({kAnyV4, 1000});
    for (int i = 0; i < 1200; ++i) REQUIRE(session.send(socket, to, 100) == Violation::None);
    auto& stack = wire.left.host.stack();
    stack.detach_channel(session.channel, wire.now);
    stack.detach_session(session.session, wire.now, Parting::Orderly);
    CHECK(!stack.session_gone(session.session));
    wire.run();
    CHECK(wire.left.host.count(Counter::UdpDatagramsOut) == 1 + 1024);
    CHECK(stack.session_gone(session.session));
}
