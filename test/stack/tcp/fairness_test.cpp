// SPDX-License-Identifier: Apache-2.0
//
// Several sessions on one stack: whatever one of them takes of a common table, the others go on.
#include "stack/tcp/send_queue.hpp"
#include "stack/wire/checksum.hpp"
#include "stack/wire/ethernet.hpp"
#include "stack/wire/ipv4.hpp"
#include "test/sim/host.hpp"
#include "test/stack/tcp/client.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

using namespace chiru;
using namespace std::chrono_literals;
using test::Client;
using shm::Completion;
using shm::CompletionOp;
using shm::Submission;
using shm::SubmissionOp;

namespace {

/// How many connections the client gets, to a host that does not answer.
std::size_t opened(Client& client, const sim::Host& host, std::size_t most) {
    const std::uint32_t before = host.tables().connections_live;
    for (std::size_t i = 0; i < most && client.room() > 0; ++i)
        client.connect({IpAddress::v4(0x0a07'0063), 80});
    return host.tables().connections_live - before;
}

/// An IPv4 packet from 10.7.0.9 in its Ethernet frame.
sim::Frame packet(const sim::Host& host, wire::Protocol protocol, std::uint16_t id,
                  std::uint16_t fragment, std::span<const std::byte> payload) {
    const wire::EthernetHeader ethernet{MacAddress{{2, 0, 0, 0, 0, 1}},
                                        MacAddress{{2, 0, 0, 0, 0, 9}},
                                        static_cast<std::uint16_t>(wire::EtherType::Ipv4)};
    wire::Ipv4Header ip{};
    ip.total_length = static_cast<std::uint16_t>(sizeof ip + payload.size());
    ip.id = id;
    ip.fragment = fragment;
    ip.ttl = 64;
    ip.protocol = static_cast<std::uint8_t>(protocol);
    ip.source = 0x0a07'0009u;
    ip.destination = host.v4().v4_bits();
    ip.checksum = wire::checksum(std::as_bytes(std::span(&ip, 1)));
    sim::Frame frame(sizeof ethernet + sizeof ip + payload.size());
    std::memcpy(frame.data(), &ethernet, sizeof ethernet);
    std::memcpy(frame.data() + sizeof ethernet, &ip, sizeof ip);
    std::memcpy(frame.data() + sizeof ethernet + sizeof ip, payload.data(), payload.size());
    return frame;
}

}  // namespace

TEST_CASE("A channel that takes no answers holds up nobody else", "[tcp][sessions]") {
    sim::Host host({});
    Client rogue(host, 10), other(host, 11);
    const Endpoint nowhere{IpAddress::v4(0x0b00'0001), 9};  // no route
    std::size_t refused = 0;
    while (rogue.room() > 0) {
        rogue.connect(nowhere);
        REQUIRE(++refused < 10'000);
    }
    CHECK(other.room() > 32);
    other.connect(nowhere);
    CHECK(other.take().size() == 1);
    CHECK(rogue.take().size() == 64);
    CHECK(rogue.room() > 32);
}

TEST_CASE("The last blocks are for sessions that have few", "[tcp][sessions]") {
    sim::HostOptions options;
    options.connections = 64;
    sim::Host host(options);
    Client rogue(host, 10), other(host, 11);
    CHECK(opened(rogue, host, 100) == 60);
    CHECK(opened(other, host, 100) >= 1);
    const std::vector<Completion> told = rogue.take();
    REQUIRE_FALSE(told.empty());
    CHECK(told.front().error == ENOBUFS);
}

TEST_CASE("A full table still takes connections for whom it has few", "[tcp][sessions]") {
    sim::HostOptions options;
    options.connections = 256;
    sim::Host host(options);
    Client rogue(host, 10), other(host, 11);
    REQUIRE(opened(rogue, host, 300) == 240);
    const shm::ConnectionId connection = other.connect_to_itself(80);  // takes two
    other.send(connection, 1000);
    other.turn();
    bool received = false;
    for (const Completion& told : other.take()) received |= told.op == CompletionOp::Received;
    CHECK(received);
}

TEST_CASE("Sessions that queue all they can leave send records to the others",
          "[tcp][sessions]") {
    sim::Host host({});
    Client first(host, 10), second(host, 11), other(host, 12);
    for (Client* greedy : {&first, &second}) {
        const shm::ConnectionId connection =
            greedy->connect_to_itself(static_cast<std::uint16_t>(greedy == &first ? 80 : 81));
        std::size_t sent = 0;
        while (greedy->room() > 0) {
            greedy->send(connection, 65'536);
            if (++sent % 64 == 0) greedy->turn();
            REQUIRE(sent < 10'000);
        }
        CHECK(sent > 200);
    }
    CHECK(other.room() > 32);
}

TEST_CASE("Sessions that do not read leave receive slots to the others", "[tcp][sessions]") {
    sim::HostOptions options;
    options.rx_slots = 512;
    sim::Host host(options);
    Client first(host, 10), second(host, 11), third(host, 12), other(host, 13);
    std::uint16_t port = 80;
    for (Client* slow : {&first, &second, &third}) {
        const shm::ConnectionId connection = slow->connect_to_itself(port++);
        for (int i = 0; i < 16; ++i) slow->send(connection, 60'000);
        slow->turn();
        CHECK(slow->counters().rx_slots_held.read() > 30);
    }
    const shm::ConnectionId connection = other.connect_to_itself(port);
    other.send(connection, 20'000);
    other.turn();
    CHECK(other.counters().rx_slots_held.read() > 10);
}

TEST_CASE("Connections that are not read leave receive slots to the session's others",
          "[tcp][sessions]") {
    sim::Host host({});
    Client client(host, 10, 64);
    for (std::uint16_t port = 80; port < 83; ++port) {
        const shm::ConnectionId stalled = client.connect_to_itself(port);
        for (int i = 0; i < 4; ++i) client.send(stalled, 60'000);
        client.turn();
    }
    const std::uint64_t before = client.counters().rx_slots_held.read();
    CHECK(before > 40);
    CHECK(before <= 60);  // 32, 16 and 8
    const shm::ConnectionId connection = client.connect_to_itself(90);
    static_cast<void>(client.take());
    client.send(connection, 4000);
    client.turn();
    std::size_t received = 0;
    for (const Completion& told : client.take())
        if (told.op == CompletionOp::Received && told.user == 90)
            for (std::size_t i = 0; i < told.count; ++i) received += told.slices[i].length;
    CHECK(received >= 1448);
    CHECK(client.counters().rx_slots_held.read() <= 64);
}

TEST_CASE("Slow readers and lost fragments leave receive slots for what is answered at once",
          "[ip][tcp][sessions]") {
    sim::HostOptions options;
    options.rx_slots = 1024;
    options.rx_budget = 512;
    sim::Host host(options);
    std::vector<std::unique_ptr<Client>> slow;
    for (std::uint16_t i = 0; i < 8; ++i) {
        slow.push_back(std::make_unique<Client>(host, static_cast<std::uint16_t>(10 + i)));
        const auto port = static_cast<std::uint16_t>(80 + i);
        const shm::ConnectionId connection = slow.back()->connect_to_itself(port);
        for (int k = 0; k < 16; ++k) slow.back()->send(connection, 60'000);
        slow.back()->turn();
    }
    const std::array<std::byte, 64> text{};
    for (std::uint16_t id = 1; id < 1000; ++id)
        host.receive(packet(host, wire::Protocol::Udp, id, wire::kIpv4MoreFragments, text),
                     Client::now());
    CHECK(host.slots_out() > 256);
    CHECK(host.slots_out() <= 512);

    static_cast<void>(host.turn(Client::now()));
    std::array<std::byte, 8> echo{std::byte{8}};  // a request, and its checksum
    echo[2] = std::byte{0xf7};
    echo[3] = std::byte{0xff};
    host.receive(packet(host, wire::Protocol::Icmp, 7, 0, echo), Client::now());
    CHECK(host.count(shm::Counter::IcmpEchoReplies) == 1);
}

TEST_CASE("A connect from a port of one's choice respects rights and others' listeners",
          "[tcp][sessions]") {
    sim::Host host({});
    Client owner(host, 10), other(host, 11, 4096, 1024);
    static_cast<void>(owner.connect_to_itself(8080));
    const auto connect_from = [&](Client& client, std::uint16_t port) {
        Submission s;
        s.op = SubmissionOp::Connect;
        s.connect = shm::ConnectBody{{IpAddress::v4(0x0a07'0063), 80}, {{}, port}, 0};
        client.submit(s);
        const std::vector<Completion> told = client.take();
        return told.empty() ? 0 : int{told.front().error};
    };
    CHECK(connect_from(other, 8080) == EADDRINUSE);
    CHECK(connect_from(other, 1023) == EACCES);
    CHECK(connect_from(other, 1024) == 0);
    CHECK(connect_from(owner, 8080) == 0);  // its own
    CHECK(connect_from(owner, 1023) == 0);  // it may
}

TEST_CASE("Accepted connections are shared among the channels that ask for them",
          "[tcp][listener]") {
    sim::Host host({});
    Client first(host, 10), second(host, 11), opener(host, 12);
    const auto id = static_cast<shm::ListenerId>(1);
    host.stack().listen(id, {host.v4(), 80}, 0, {.backlog = 64});
    for (Client* client : {&first, &second}) {
        host.stack().share_listener(id, client == &first ? 10 : 11);
        client->credit(id, 6);
    }
    const auto accepted = [](Client& client) {
        std::size_t count = 0;
        for (const Completion& told : client.take()) count += told.op == CompletionOp::Accepted;
        return count;
    };
    for (int i = 0; i < 8; ++i) opener.connect({host.v4(), 80});
    opener.turn();
    CHECK(accepted(first) == 4);  // in turn
    CHECK(accepted(second) == 4);

    for (int i = 0; i < 8; ++i) opener.connect({host.v4(), 80});
    opener.turn();
    CHECK(accepted(first) == 2);  // what they had asked for; the rest waits
    CHECK(accepted(second) == 2);
    host.stack().leave_listener(id, 11, Client::now());
    first.credit(id, 100);
    CHECK(accepted(first) == 4);
}

TEST_CASE("That no source port is free is believed for a while, and then looked at again",
          "[tcp][rfc6056]") {
    sim::HostOptions options;
    options.tcp.first_port = 40'000;
    options.tcp.last_port = 40'003;
    sim::Host host(options);
    Client client(host, 10);
    CHECK(opened(client, host, 5) == 4);
    const std::vector<Completion> told = client.take();
    REQUIRE(told.size() == 1);
    CHECK(told.front().error == EADDRNOTAVAIL);
    // Another destination has its own ports.
    const std::uint32_t before = host.tables().connections_live;
    client.connect({IpAddress::v4(0x0a07'0063), 81});
    CHECK(host.tables().connections_live == before + 1);
}

TEST_CASE("Flights are shared between sessions, and everybody has one while there is any",
          "[tcp][sessions]") {
    std::vector<tcp::SendEntry> records(64);
    std::vector<tcp::Flight> flights(8);
    tcp::SendQueue queue({records.data(), 64}, {flights.data(), 8});
    auto connections = std::make_unique<std::array<tcp::Connection, 4>>();
    std::uint16_t session = 1;
    for (tcp::Connection& c : *connections) {
        c.session = session++;
        REQUIRE(queue.append(c, 0, {0, 60'000, shm::kTxArena, 0}));
        c.send_cursor = c.send_head;
        c.info.snd_end += 60'000;
    }
    const auto fill = [&](tcp::Connection& c) {
        std::size_t count = 0;
        for (; queue.may_launch(c); ++count) queue.launch(c, 1000, false, 0);
        return count;
    };
    auto& [first, second, third, fourth] = *connections;
    CHECK(fill(first) == 4);
    CHECK(fill(second) == 2);
    CHECK(fill(third) == 1);
    CHECK(fill(fourth) == 1);
    CHECK(queue.flights().available() == 0);
    queue.land_all(second);
    CHECK(fill(first) == 0);  // it has its part
    CHECK(fill(fourth) == 1);
    queue.change_hands(first, tcp::kNobody);
    queue.land_all(first);
    queue.land_all(third);
    queue.land_all(fourth);
    CHECK(fill(second) == 4);  // nothing was charged twice
}
