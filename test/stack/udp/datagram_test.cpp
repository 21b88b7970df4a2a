// SPDX-License-Identifier: Apache-2.0
//
// Datagrams between whole stacks, completion by completion.
#include "shm/control.hpp"
#include "stack/wire/checksum.hpp"
#include "stack/wire/ethernet.hpp"
#include "stack/wire/igmp.hpp"
#include "stack/wire/ipv4.hpp"
#include "stack/wire/udp.hpp"
#include "test/sim/host.hpp"

#include <catch2/catch.hpp>

#include <cerrno>
#include <cstring>
#include <numeric>
#include <optional>

using namespace chiru;
using namespace std::chrono_literals;
using shm::CompletionOp;
using shm::Counter;

namespace {

using Bytes = std::vector<std::byte>;

Bytes pattern(std::size_t bytes, unsigned seed = 1) {
    Bytes made(bytes);
    for (std::size_t i = 0; i < bytes; ++i) made[i] = static_cast<std::byte>(i * 7 + seed);
    return made;
}

/// A datagram as a client has it in the end.
struct Received {
    std::uint32_t socket = 0;
    Endpoint from;
    std::optional<IpAddress> to;
    Bytes bytes;
    std::uint8_t ttl = 0;
    std::uint16_t interface = 0;
    std::vector<shm::Slice> slices;
};

struct Error {
    std::uint32_t socket = 0;
    int error = 0;
    std::uint32_t mtu = 0;
};

/// A host with its client: sockets are opened as the daemon does it.
struct Client {
    explicit Client(const sim::HostOptions& options) : host(options) {}

    shm::DatagramId open(const Endpoint& local, std::uint32_t flags = 0,
                         std::uint32_t receive_buffer = 0) {
        ++generation;
        const shm::DatagramId id{generation * shm::kMaxDatagramSockets + generation};
        host.stack().open_datagram({.id = id,
                                    .local = local,
                                    .flags = flags,
                                    .session = sim::Host::kSession,
                                    .channel = sim::Host::kChannel,
                                    .receive_buffer = receive_buffer,
                                    .user = 7},
                                   now);
        return id;
    }
    shm::Submission submission(shm::DatagramId id, const Endpoint& to, const Bytes& bytes,
                               std::uint16_t flags = 0) {
        std::memcpy(host.tx_arena() + tx_at, bytes.data(), bytes.size());
        shm::Submission s;
        s.op = shm::SubmissionOp::SendDatagram;
        s.flags = flags;
        s.connection = {static_cast<std::uint32_t>(id), ++cookie};
        s.user = tx_at;
        s.datagram = {.remote = to.address, .source = {}, .port = to.port, .interface = 0,
                      .length = static_cast<std::uint32_t>(bytes.size())};
        tx_at += (bytes.size() + 1023) / 1024 * 1024;
        ++under_way;
        return s;
    }
    void send(shm::DatagramId id, const Endpoint& to, const Bytes& bytes,
              std::uint16_t flags = 0) {
        REQUIRE(host.submit(submission(id, to, bytes, flags), now) == Violation::None);
    }
    void listen_to_completions() {
        for (const shm::Completion& c : host.take_completions(256)) take(c);
    }
    void release(const Received& datagram) {
        for (const shm::Slice& slice : datagram.slices) {
            shm::Submission s = sim::Host::release_of(slice);
            s.op = shm::SubmissionOp::ReleaseDatagrams;
            REQUIRE(host.submit(s, now) == Violation::None);
        }
    }

    sim::Host host;
    Instant now{};
    std::vector<Received> received;
    std::vector<Error> errors;
    std::size_t under_way = 0;  ///< sends whose bytes did not come back

private:
    void take(const shm::Completion& c) {
        const auto add = [&](const shm::Slice& slice) {
            const auto bytes = host.bytes_of(slice);
            received.back().bytes.insert(received.back().bytes.end(), bytes.begin(), bytes.end());
            received.back().slices.push_back(slice);
        };
        switch (c.op) {
            case CompletionOp::Destination: destination = c.endpoints.local.address; break;
            case CompletionOp::Datagram:
                CHECK(more == 0);
                more = c.arrived.more;
                CHECK(c.user == 7);
                received.push_back({.socket = c.connection.index,
                                    .from = {c.arrived.remote, c.arrived.port},
                                    .to = std::exchange(destination, std::nullopt),
                                    .bytes = {},
                                    .ttl = c.arrived.ttl,
                                    .interface = c.arrived.interface,
                                    .slices = {}});
                add(c.arrived.slice);
                break;
            case CompletionOp::DatagramMore:
                REQUIRE(more-- > 0);
                for (std::size_t i = 0; i < c.count; ++i) add(c.slices[i]);
                break;
            case CompletionOp::DatagramError:
                errors.push_back({c.connection.index, c.error, c.endpoints.path_mtu});
                break;
            case CompletionOp::DatagramsSent: under_way -= c.count; break;
            default: FAIL("not about datagrams");
        }
    }

    std::uint32_t generation = 0;
    std::uint32_t cookie = 0;
    std::uint64_t tx_at = 0;
    std::optional<IpAddress> destination;
    unsigned more = 0;
};

/// Two clients on one wire, which keeps what went over it.
struct Wire {
    explicit Wire(sim::HostOptions left_options = {}, sim::HostOptions right_options = {})
        : left(left_options), right((right_options.number = 2, right_options)) {
        run(3s);  // duplicate address detection
        seen.clear();
    }
    void run(Micros span = 1ms) {
        const Instant end = now + span;
        while (true) {
            left.now = right.now = now;
            for (bool busy = true; busy;) {
                busy = carry(left, right) | carry(right, left);
                left.listen_to_completions();
                right.listen_to_completions();
            }
            if (now >= end) return;
            const Instant next =
                std::min(left.host.next_deadline(), right.host.next_deadline());
            now = std::clamp(next, now + 1us, end);
        }
    }
    bool carry(Client& from, Client& to) {
        const auto frames = from.host.turn(now);
        for (const sim::Frame& frame : frames) {
            seen.push_back(frame);
            if (!cut) to.host.receive(frame, now);
        }
        return !frames.empty();
    }
    /// All is delivered, released and returned.
    void require_home() {
        for (Client* client : {&left, &right}) {
            for (const Received& datagram : client->received) client->release(datagram);
            client->received.clear();
            run();
            client->host.flush_device();
            client->listen_to_completions();
            CHECK(client->under_way == 0);
            CHECK(client->host.slots_out() == 0);
            CHECK(client->host.session().datagram_slots_held.read() == 0);
        }
    }

    Client left;
    Client right;
    Instant now{};
    bool cut = false;
    std::vector<sim::Frame> seen;
};

sim::HostOptions right_isolated() {
    sim::HostOptions options;
    options.isolated = true;
    return options;
}

const IpAddress kAnyV4 = IpAddress::v4(0);

}  // namespace

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

TEST_CASE("a datagram to a group reaches every member of it, in one slot", "[udp][rfc1112]") {
    const bool v6 = GENERATE(false, true);
    Wire wire;
    const IpAddress group = *IpAddress::parse(v6 ? "ff05::abc" : "239.1.2.3");
    const IpAddress any = v6 ? IpAddress() : kAnyV4;
    const auto sender = wire.left.open({any, 1000});
    wire.right.open({any, 53}, shm::kBindReuseAddress);
    wire.right.open({group, 53}, shm::kBindReuseAddress);
    wire.left.send(sender, {group, 53}, pattern(600));
    wire.run();
    CHECK(wire.right.received.empty());  // nobody joined
    auto& stack = wire.right.host.stack();
    REQUIRE(stack.join_group(group, 0, wire.now) == std::uint16_t{1});
    wire.left.send(sender, {group, 53}, pattern(600));
    wire.run();
    REQUIRE(wire.right.received.size() == 2);
    for (const Received& got : wire.right.received) CHECK(got.bytes == pattern(600));
    CHECK(wire.right.received[0].ttl == 1);
    CHECK(wire.right.host.slots_out() == 1);
    wire.right.release(wire.right.received[0]);
    CHECK(wire.right.host.slots_out() == 1);  // the other still reads it
    wire.right.release(wire.right.received[1]);
    CHECK(wire.right.host.slots_out() == 0);
    wire.right.received.clear();
    stack.leave_group(group, 0, wire.now);
    wire.left.send(sender, {group, 53}, pattern(600));
    wire.run();
    CHECK(wire.right.received.empty());
    wire.require_home();
}

TEST_CASE("members of a sender's own host hear it, unless it asks not to", "[udp]") {
    Wire wire;
    const IpAddress group = *IpAddress::parse("239.1.2.3");
    const auto sender = wire.left.open({kAnyV4, 1000});
    wire.left.open({kAnyV4, 53});
    REQUIRE(wire.left.host.stack().join_group(group, 0, wire.now));
    wire.run(3s);
    wire.seen.clear();
    wire.left.send(sender, {group, 53}, pattern(2000));
    wire.run();
    REQUIRE(wire.left.received.size() == 1);
    CHECK(wire.left.received[0].bytes == pattern(2000));
    CHECK(wire.seen.size() == 2);
    wire.left.send(sender, {group, 53}, pattern(20), shm::kNoLoop);
    wire.run();
    CHECK(wire.left.received.size() == 1);
    CHECK(wire.seen.size() == 3);
    wire.require_home();
}

TEST_CASE("joining and leaving is reported by IGMPv3, twice each", "[udp][rfc3376]") {
    Wire wire;
    const IpAddress group = *IpAddress::parse("239.1.2.3");
    const auto reports = [&](wire::GroupRecordType type) {
        std::size_t count = 0;
        for (const sim::Frame& frame : wire.seen) {
            constexpr std::size_t kIgmp = sizeof(wire::EthernetHeader) + 24;
            if (frame.size() < kIgmp + 16) continue;
            const auto ip = *read_header<wire::Ipv4Header>(std::span(frame).subspan(14));
            if (ip.protocol != 2 || ip.ttl != 1) continue;
            CHECK(IpAddress::v4(ip.destination) == wire::kIgmpRouters);
            CHECK(wire::checksum(std::span(frame).subspan(kIgmp)) == 0);
            CHECK(wire::checksum(std::span(frame).subspan(14, 24)) == 0);
            const auto record =
                *read_header<wire::GroupRecordV4>(std::span(frame).subspan(kIgmp + 8));
            if (record.type == static_cast<std::uint8_t>(type) &&
                IpAddress::v4(record.group) == group)
                ++count;
        }
        wire.seen.clear();
        return count;
    };
    auto& stack = wire.left.host.stack();
    REQUIRE(stack.join_group(group, 0, wire.now));
    REQUIRE(stack.join_group(group, 0, wire.now));  // a second member: nothing new
    wire.run(5s);
    CHECK(reports(wire::GroupRecordType::ChangeToExclude) == 2);
    stack.leave_group(group, 0, wire.now);
    wire.run(5s);
    CHECK(reports(wire::GroupRecordType::ChangeToInclude) == 0);
    stack.leave_group(group, 0, wire.now);
    wire.run(5s);
    CHECK(reports(wire::GroupRecordType::ChangeToInclude) == 2);
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
