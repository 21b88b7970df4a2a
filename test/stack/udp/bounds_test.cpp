// SPDX-License-Identifier: Apache-2.0
//
// What a socket and its client may hold, and how all of it comes back.
#include "shm/control.hpp"
#include "test/stack/udp/wire.hpp"

#include <cerrno>

using namespace chiru;
using namespace chiru::test;
using namespace std::chrono_literals;
using shm::Counter;

TEST_CASE("a receive buffer is bounded, what is beyond it counted", "[udp]") {
    const bool isolated = GENERATE(false, true);
    Wire wire({}, isolated ? right_isolated() : sim::HostOptions{});
    const Endpoint to{wire.right.host.v4(), 53};
    const auto sender = wire.left.open({kAnyV4, 1000});
    wire.right.open(to, 0, 10'000);
    for (int i = 0; i < 20; ++i) wire.left.send(sender, to, pattern(1000));
    wire.run();
    CHECK(wire.right.received.size() == 5);  // of 1000 bytes, and 768 for each slot
    CHECK(wire.right.host.count(Counter::UdpSocketFull) == 15);
    CHECK(wire.right.host.count(Counter::InDatagramNoRoom) == 15);
    wire.right.release(wire.right.received.back());
    wire.right.received.pop_back();
    wire.left.send(sender, to, pattern(1000));
    wire.run();
    CHECK(wire.right.received.size() == 5);
    wire.require_home();
}

TEST_CASE("a session holds no more slots than it may", "[udp]") {
    sim::HostOptions options;
    options.max_rx_slots = 64;  // a quarter of them for datagrams
    Wire wire({}, options);
    const Endpoint to{wire.right.host.v4(), 53};
    const auto sender = wire.left.open({kAnyV4, 1000});
    wire.right.open(to, 0, 1u << 20);
    for (int i = 0; i < 40; ++i) wire.left.send(sender, to, pattern(10));
    wire.run();
    CHECK(wire.right.received.size() == 16);
    CHECK(wire.right.host.count(Counter::UdpSessionFull) == 24);
    wire.require_home();
}

TEST_CASE("what waits for a neighbour that does not answer is given up and returned", "[udp]") {
    Wire wire;
    wire.cut = true;
    const Endpoint to{wire.right.host.v4(), 53};
    const auto sender = wire.left.open({kAnyV4, 1000});
    REQUIRE(wire.left.host.stack().connect_datagram(sender, to, 0, wire.now));
    for (int i = 0; i < 200; ++i) wire.left.send(sender, to, pattern(100));
    wire.run(10s);
    CHECK(wire.left.host.count(Counter::UdpWaitingDropped) == 72);
    CHECK(wire.left.host.count(Counter::UdpUnreachable) == 128);
    REQUIRE(!wire.left.errors.empty());
    CHECK(wire.left.errors[0].error == EHOSTUNREACH);
    wire.require_home();
}

TEST_CASE("what was sent before the socket was closed still goes out", "[udp]") {
    Wire wire;
    const Endpoint to{wire.right.host.v4(), 53};
    const auto sender = wire.left.open({kAnyV4, 1000});
    wire.right.open(to);
    wire.left.send(sender, to, pattern(100));
    wire.left.host.stack().close_datagram(sender);
    wire.run();
    CHECK(wire.right.received.size() == 1);
    wire.require_home();
}

TEST_CASE("a client's datagrams end with it, and its slots come back", "[udp]") {
    const bool isolated = GENERATE(false, true);
    Wire wire({}, isolated ? right_isolated() : sim::HostOptions{});
    const Endpoint to{wire.right.host.v4(), 53};
    const auto sender = wire.left.open({kAnyV4, 1000});
    wire.right.open(to);
    for (int i = 0; i < 10; ++i) wire.left.send(sender, to, pattern(3000));
    for (const sim::Frame& frame : wire.left.host.turn(wire.now))
        wire.right.host.receive(frame, wire.now);
    wire.run();
    auto& stack = wire.right.host.stack();
    stack.detach_channel(sim::Host::kChannel, wire.now);
    stack.detach_session(sim::Host::kSession, wire.now);
    CHECK(stack.session_gone(sim::Host::kSession));
    CHECK(wire.right.host.slots_out() == 0);
    wire.left.send(sender, to, pattern(30));
    wire.run();
    CHECK(wire.right.host.count(Counter::InNoSocket) == 1);
}

TEST_CASE("what a client may not do with datagrams ends its session", "[udp]") {
    Wire wire;
    Client& client = wire.left;
    const Endpoint to{wire.right.host.v4(), 53};
    const auto socket = client.open({kAnyV4, 1000});
    shm::Submission s = client.submission(socket, to, pattern(10));
    SECTION("a slice outside the arena") {
        s.user = client.host.tx_arena_bytes() - 5;
        CHECK(client.host.submit(s, wire.now) == Violation::SliceOutsideArena);
    }
    SECTION("an offset that overflows") {
        s.user = ~std::uint64_t{0} - 4;
        CHECK(client.host.submit(s, wire.now) == Violation::SliceOutsideArena);
    }
    SECTION("more than a datagram holds") {
        s.datagram.length = 65'508;
        CHECK(client.host.submit(s, wire.now) == Violation::BadCount);
    }
    SECTION("a slot it does not hold") {
        s = sim::Host::release_of({0, 1, shm::kRxArena, 0});
        s.op = shm::SubmissionOp::ReleaseDatagrams;
        CHECK(client.host.submit(s, wire.now) == Violation::NotItsSlot);
        s.release.slots[0] = 0xffff'fff0;
        CHECK(client.host.submit(s, wire.now) == Violation::NotItsSlot);
    }
    SECTION("an option that is none") {
        s = {};
        s.op = shm::SubmissionOp::SetDatagramOption;
        s.connection = {static_cast<std::uint32_t>(socket), 0};
        s.datagram_option = {.option = shm::DatagramOption{99}, .value = 1};
        CHECK(client.host.submit(s, wire.now) == Violation::BadOption);
    }
    SECTION("a socket that is no more is no offence") {
        s.connection.index = 0xffff'ffff;
        CHECK(client.host.submit(s, wire.now) == Violation::None);
        wire.run();
        CHECK(client.under_way == 0);
        CHECK(client.host.count(Counter::StaleNames) == 1);
    }
}
