// SPDX-License-Identifier: Apache-2.0
//
// Datagrams between whole stacks: what arrives where, whole and once.
#include "shm/control.hpp"
#include "stack/wire/udp.hpp"
#include "test/stack/udp/wire.hpp"

#include <cerrno>

using namespace chiru;
using namespace chiru::test;
using namespace std::chrono_literals;
using shm::Counter;

TEST_CASE("a datagram arrives where it lies, with its source", "[udp][rfc768]") {
    const bool v6 = GENERATE(false, true);
    const std::size_t bytes = GENERATE(0u, 1u, 300u, 1452u);
    Wire wire;
    const IpAddress to = v6 ? wire.right.host.v6() : wire.right.host.v4();
    const IpAddress from = v6 ? wire.left.host.v6() : wire.left.host.v4();
    const auto sender = wire.left.open({v6 ? IpAddress() : kAnyV4, 1000});
    const auto receiver = wire.right.open({to, 53});
    wire.left.send(sender, {to, 53}, pattern(bytes));
    wire.run();
    REQUIRE(wire.right.received.size() == 1);
    const Received& got = wire.right.received[0];
    CHECK(got.socket == static_cast<std::uint32_t>(receiver));
    CHECK(got.from == Endpoint{from, 1000});
    CHECK(got.bytes == pattern(bytes));
    CHECK(got.ttl == 64);
    CHECK(got.interface == 1);
    CHECK(wire.right.host.count(Counter::InAccepted) > 0);
    CHECK(wire.right.host.count(Counter::UdpDatagramsIn) == 1);
    CHECK(wire.left.host.count(Counter::UdpDatagramsOut) == 1);
    wire.require_home();
}

TEST_CASE("datagrams larger than the path go in fragments and arrive whole", "[udp][rfc791]") {
    const bool v6 = GENERATE(false, true);
    const bool isolated = GENERATE(false, true);
    const std::size_t bytes = GENERATE(1473u, 8000u, 65'507u);
    Wire wire({}, isolated ? right_isolated() : sim::HostOptions{});
    const IpAddress to = v6 ? wire.right.host.v6() : wire.right.host.v4();
    const auto sender = wire.left.open({v6 ? IpAddress() : kAnyV4, 1000});
    wire.right.open({to, 53});
    wire.left.send(sender, {to, 53}, pattern(bytes));
    wire.run();
    REQUIRE(wire.right.received.size() == 1);
    CHECK(wire.right.received[0].bytes == pattern(bytes));
    CHECK(wire.left.host.count(Counter::UdpFragmentsOut) >= bytes / 1472);
    if (isolated)
        CHECK(wire.right.host.count(Counter::CopiedRxPrivate) == bytes);
    wire.require_home();
}

TEST_CASE("one that nobody is bound for is refused, and a connected sender told", "[udp]") {
    const bool v6 = GENERATE(false, true);
    Wire wire;
    const IpAddress to = v6 ? wire.right.host.v6() : wire.right.host.v4();
    const auto connected = wire.left.open({v6 ? IpAddress() : kAnyV4, 1000});
    const auto other = wire.left.open({v6 ? IpAddress() : kAnyV4, 1001});
    const auto route = wire.left.host.stack().connect_datagram(connected, {to, 9}, 0, wire.now);
    REQUIRE(route.has_value());
    CHECK(route->local == (v6 ? wire.left.host.v6() : wire.left.host.v4()));
    CHECK(route->path.mtu == 1500);
    wire.left.send(connected, {to, 9}, pattern(10));
    wire.left.send(other, {to, 9}, pattern(10));
    wire.run();
    CHECK(wire.right.host.count(Counter::InNoSocket) == 2);
    REQUIRE(wire.left.errors.size() == 1);  // who is not connected could not say whom it concerns
    CHECK(wire.left.errors[0].socket == static_cast<std::uint32_t>(connected));
    CHECK(wire.left.errors[0].error == ECONNREFUSED);
    wire.require_home();
}

TEST_CASE("a connected socket hears its peer only, until that is dissolved", "[udp]") {
    Wire wire;
    const Endpoint mine{wire.right.host.v4(), 53};
    const auto peer = wire.left.open({kAnyV4, 1000});
    const auto stranger = wire.left.open({kAnyV4, 1001});
    const auto socket = wire.right.open({kAnyV4, 53});
    auto& stack = wire.right.host.stack();
    REQUIRE(stack.connect_datagram(socket, {wire.left.host.v4(), 1000}, 0, wire.now));
    wire.left.send(peer, mine, pattern(1));
    wire.left.send(stranger, mine, pattern(2));
    wire.run();
    REQUIRE(wire.right.received.size() == 1);
    CHECK(wire.right.received[0].from.port == 1000);
    CHECK(wire.right.host.count(Counter::InNoSocket) == 1);
    REQUIRE(stack.connect_datagram(socket, {}, 0, wire.now));
    wire.left.send(stranger, mine, pattern(3));
    wire.run();
    CHECK(wire.right.received.size() == 2);
    wire.require_home();
}

TEST_CASE("what is bound more closely gets the datagram", "[udp]") {
    Wire wire;
    const Endpoint to{wire.right.host.v4(), 53};
    const auto sender = wire.left.open({kAnyV4, 1000});
    const auto any6 = wire.right.open({IpAddress(), 53});
    const auto send_and_see = [&] {
        wire.left.send(sender, to, pattern(4));
        wire.run();
        return shm::DatagramId{wire.right.received.back().socket};
    };
    CHECK(send_and_see() == any6);  // "::" takes IPv4 as well
    const auto any4 = wire.right.open({kAnyV4, 53});
    CHECK(send_and_see() == any4);
    const auto exact = wire.right.open(to);
    CHECK(send_and_see() == exact);
    const auto connected = wire.right.open(to);
    REQUIRE(wire.right.host.stack().connect_datagram(connected, {wire.left.host.v4(), 1000}, 0,
                                                     wire.now));
    CHECK(send_and_see() == connected);
    for (const auto id : {connected, exact, any4}) wire.right.host.stack().close_datagram(id);
    CHECK(send_and_see() == any6);
    const auto only6 = wire.right.open({IpAddress(), 54}, shm::kBindV6Only);
    wire.left.send(sender, {wire.right.host.v4(), 54}, pattern(4));
    wire.run();
    CHECK(wire.right.received.back().socket != static_cast<std::uint32_t>(only6));
    wire.require_home();
}

TEST_CASE("sockets that share a port by kBindReusePort share the peers", "[udp]") {
    Wire wire;
    const Endpoint to{wire.right.host.v4(), 53};
    const std::uint32_t first =
        static_cast<std::uint32_t>(wire.right.open(to, shm::kBindReusePort));
    wire.right.open(to, shm::kBindReusePort);
    for (std::uint16_t port = 2000; port < 2064; ++port) {
        const auto sender = wire.left.open({kAnyV4, port});
        wire.left.send(sender, to, pattern(4));
        wire.left.send(sender, to, pattern(4));
    }
    wire.run();
    REQUIRE(wire.right.received.size() == 128);
    std::size_t of_first = 0;
    for (std::size_t i = 0; i < 128; i += 2) {
        CHECK(wire.right.received[i].socket == wire.right.received[i + 1].socket);
        of_first += wire.right.received[i].socket == first ? 1u : 0u;
    }
    CHECK(of_first > 16);
    CHECK(of_first < 48);
    wire.require_home();
}

TEST_CASE("segments of one submission are datagrams of their own", "[udp]") {
    Wire wire;
    const Endpoint to{wire.right.host.v4(), 53};
    const auto sender = wire.left.open({kAnyV4, 1000});
    wire.right.open(to);
    shm::Submission s = wire.left.submission(sender, to, pattern(3500));
    s.hints.segment_bytes = 1000;
    REQUIRE(wire.left.host.submit(s, wire.now) == Violation::None);
    wire.run();
    REQUIRE(wire.right.received.size() == 4);
    const Bytes all = pattern(3500);
    for (std::size_t i = 0; i < 4; ++i)
        CHECK(wire.right.received[i].bytes ==
              Bytes(all.begin() + static_cast<std::ptrdiff_t>(1000 * i),
                    all.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(
                                      3500, 1000 * i + 1000))));
    wire.require_home();
}

TEST_CASE("one not to be fragmented is refused with the path's MTU", "[udp][rfc1191]") {
    Wire wire;
    const Endpoint to{wire.right.host.v4(), 53};
    const auto sender = wire.left.open({kAnyV4, 1000});
    wire.right.open(to);
    wire.left.send(sender, to, pattern(1473), shm::kNeverFragment);
    wire.left.send(sender, to, pattern(1472), shm::kNeverFragment);
    wire.run();
    CHECK(wire.right.received.size() == 1);
    REQUIRE(wire.left.errors.size() == 1);
    CHECK(wire.left.errors[0].error == EMSGSIZE);
    CHECK(wire.left.errors[0].mtu == 1500);
    CHECK(wire.left.host.count(Counter::UdpTooBig) == 1);
    wire.require_home();
}

TEST_CASE("between two sockets of one host no frame meets the wire", "[udp]") {
    const bool v6 = GENERATE(false, true);
    const std::size_t bytes = GENERATE(100u, 9000u);
    Wire wire;
    const IpAddress own = v6 ? wire.left.host.v6() : wire.left.host.v4();
    const auto sender = wire.left.open({own, 1000});
    wire.left.open({own, 53});
    wire.left.send(sender, {own, 53}, pattern(bytes));
    wire.run();
    REQUIRE(wire.left.received.size() == 1);
    CHECK(wire.left.received[0].bytes == pattern(bytes));
    CHECK(wire.left.received[0].from == Endpoint{own, 1000});
    CHECK(wire.seen.empty());
    wire.require_home();
}

TEST_CASE("the destination is told to those who ask", "[udp]") {
    Wire wire;
    const auto sender = wire.left.open({kAnyV4, 1000});
    const auto socket = wire.right.open({kAnyV4, 53});
    shm::Submission s;
    s.op = shm::SubmissionOp::SetDatagramOption;
    s.connection = {static_cast<std::uint32_t>(socket), 0};
    s.datagram_option = {.option = shm::DatagramOption::WantDestination, .value = 1};
    REQUIRE(wire.right.host.submit(s, wire.now) == Violation::None);
    wire.left.send(sender, {wire.right.host.v4(), 53}, pattern(5));
    wire.run();
    REQUIRE(wire.right.received.size() == 1);
    CHECK(wire.right.received[0].to == wire.right.host.v4());
    wire.require_home();
}

TEST_CASE("a checksum of zero is none in IPv4, and wrong in IPv6", "[udp][rfc768][rfc8200]") {
    const bool v6 = GENERATE(false, true);
    Wire wire;
    const IpAddress to = v6 ? wire.right.host.v6() : wire.right.host.v4();
    const auto sender = wire.left.open({v6 ? IpAddress() : kAnyV4, 1000});
    wire.right.open({to, 53});
    wire.left.send(sender, {to, 53}, pattern(10));
    wire.run();
    REQUIRE(wire.right.received.size() == 1);
    sim::Frame frame = wire.seen.back();
    const std::size_t at = 14 + (v6 ? 40u : 20u) + offsetof(wire::UdpHeader, checksum);
    frame[at] = frame[at + 1] = std::byte{0};
    wire.right.host.receive(frame, wire.now);
    wire.run();
    CHECK(wire.right.received.size() == (v6 ? 1u : 2u));
    CHECK(wire.right.host.count(Counter::InBadChecksum) == (v6 ? 1u : 0u));
    frame[at] = std::byte{1};
    wire.right.host.receive(frame, wire.now);
    CHECK(wire.right.host.count(Counter::InBadChecksum) == (v6 ? 2u : 1u));
    wire.require_home();
}
