// SPDX-License-Identifier: Apache-2.0
#include "stack/wire/icmpv4.hpp"
#include "stack/wire/icmpv6.hpp"
#include "stack/wire/ipv6.hpp"
#include "test/stack/ip/host.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <random>

using namespace chiru;
using namespace chiru::test;
using namespace std::chrono_literals;
using shm::Counter;
using wire::Protocol;

namespace {

const IpAddress kUs = test::ip("10.7.0.2");
const IpAddress kPeer = test::ip("10.7.0.1");
const IpAddress kUs6 = test::ip("fd07::2");
const IpAddress kPeer6 = test::ip("fd07::1");

struct Ready : Host {
    Ready() {
        settle();
        learn_neighbors();
    }
};

Bytes part(const Bytes& whole, std::size_t from, std::size_t to) {
    return {whole.begin() + static_cast<std::ptrdiff_t>(from),
            whole.begin() + static_cast<std::ptrdiff_t>(std::min(to, whole.size()))};
}

Bytes fragment(const Bytes& whole, std::size_t from, std::size_t to, std::uint16_t id = 5,
               const IpAddress& source = kPeer) {
    return ethernet({test::mac(1), test::mac(2)}, wire::EtherType::Ipv4,
                    ipv4({source, kUs, Protocol::Icmp, id, from, to < whole.size(), {}, 64},
                         part(whole, from, to)));
}

Bytes fragment6(const Bytes& whole, std::size_t from, std::size_t to,
                Protocol next = Protocol::Icmpv6) {
    return ethernet({test::mac(1), test::mac(2)}, wire::EtherType::Ipv6,
                    ipv6({kPeer6, kUs6, Protocol::Fragment},
                         fragment_header(next, from, to < whole.size(), 5) +
                             part(whole, from, to)));
}

/// Destination options of 8 bytes: one option of this type, whose four bytes are nothing.
Bytes options_header(Protocol next, std::uint8_t type) {
    const std::uint8_t bytes[8] = {static_cast<std::uint8_t>(next), 0, type, 4};
    return as_bytes(bytes);
}

void expect_parameter_problem(const Bytes& frame, std::uint8_t code, std::uint32_t pointer) {
    const auto error = header_at<wire::Icmpv6Header>(frame, 54);
    CHECK(error.type == 4);
    CHECK(error.code == code);
    CHECK(error.word == pointer);
}

}  // namespace

TEST_CASE("Fragments in any order make the datagram once", "[ip][rfc791]") {
    std::mt19937 random(4);
    const Bytes whole = echo_request_v4(1, pattern(7000));
    for (int round = 0; round < 50; ++round) {
        Ready host;
        std::vector<Bytes> frames;
        for (std::size_t at = 0; at < whole.size(); at += 800)
            frames.push_back(fragment(whole, at, at + 800));
        std::shuffle(frames.begin(), frames.end(), random);
        host.receive(frames);
        CHECK(host.count(Counter::IpReassembled) == 1);
        CHECK(host.count(Counter::IcmpEchoReplies) == 1);
        CHECK(host.count(Counter::InFragmentHeld) == frames.size() - 1);
        CHECK(host.held_slots() == 0);
    }
}

TEST_CASE("An overlap condemns the datagram and what still comes of it", "[ip][rfc5722]") {
    Ready host;
    const Bytes whole = echo_request_v4(1, pattern(4000));
    const Bytes whole6 = echo_request_v6(kPeer6, kUs6, pattern(4000));
    SECTION("IPv4") {
        host.receive(fragment(whole, 0, 1480));
        host.receive(fragment(whole, 1472, 2960));
        CHECK(host.held_slots() == 0);
        host.receive(fragment(whole, 1480, 2960));
        host.receive(fragment(whole, 2960, 5000));
        host.receive(fragment(whole, 0, 1480));
        CHECK(host.count(Counter::InFragmentDropped) == 4);
    }
    SECTION("IPv6") {
        host.receive(fragment6(whole6, 0, 1440));
        host.receive(fragment6(whole6, 1432, 2880));
        host.receive(fragment6(whole6, 1440, 2880));
        host.receive(fragment6(whole6, 2880, 5000));
        CHECK(host.count(Counter::InFragmentDropped) == 3);
    }
    SECTION("a last fragment before the end of another") {
        host.receive(fragment(whole, 1480, 2960));
        host.receive(fragment(part(whole, 0, 1400), 8, 1480));
        CHECK(host.count(Counter::InFragmentDropped) == 1);
    }
    SECTION("a fragment behind the last") {
        host.receive(fragment(part(whole, 0, 1400), 8, 1480));
        host.receive(fragment(whole, 1480, 2960));
        CHECK(host.count(Counter::InFragmentDropped) == 1);
    }
    CHECK(host.count(Counter::IpReassembled) == 0);
    CHECK(host.sent().empty());
    CHECK(host.held_slots() == 0);
}

TEST_CASE("The same fragment twice does no harm", "[ip][rfc8200]") {
    Ready host;
    const Bytes whole = echo_request_v4(1, pattern(2000));
    host.receive(fragment(whole, 0, 1480));
    host.receive(fragment(whole, 0, 1480));
    host.receive(fragment(whole, 1480, 2960));
    CHECK(host.count(Counter::InDuplicate) == 1);
    CHECK(host.sent().size() == 2);
    CHECK(host.held_slots() == 0);
}

TEST_CASE("What does not become whole in time is given up, and the sender told",
          "[ip][rfc1122][rfc8200]") {
    Ready host;
    host.receive(fragment(echo_request_v4(1, pattern(2000)), 0, 1480));
    host.receive(fragment6(echo_request_v6(kPeer6, kUs6, pattern(2000)), 0, 1440));
    CHECK(host.held_slots() == 2);
    host.advance(29s);
    CHECK(host.held_slots() == 2);
    host.advance(1s);
    CHECK(host.held_slots() == 1);
    auto frames = host.sent();
    auto found = std::find_if(frames.begin(), frames.end(), [](const Bytes& frame) {
        return wire::parse_link(frame)->type == wire::EtherType::Ipv4;
    });
    REQUIRE(found != frames.end());
    CHECK((*found)[34] == std::byte{11});
    CHECK((*found)[35] == std::byte{1});
    host.advance(30s);
    CHECK(host.held_slots() == 0);
    CHECK(host.count(Counter::IpFragmentsExpired) == 2);
    CHECK(host.count(Counter::IcmpErrorsSent) == 2);
}

TEST_CASE("Without its first fragment nobody is told of a lost datagram", "[ip][rfc1122]") {
    Ready host;
    host.receive(fragment(echo_request_v4(1, pattern(4000)), 1480, 2960));
    host.advance(30s);
    CHECK(host.count(Counter::IpFragmentsExpired) == 1);
    CHECK(host.count(Counter::IcmpErrorsSent) == 0);
    CHECK(host.held_slots() == 0);
}

TEST_CASE("Fragments that cannot be are malformed", "[ip]") {
    Ready host;
    const Bytes whole = echo_request_v4(1, pattern(4000));
    host.receive(ethernet({test::mac(1), test::mac(2)}, wire::EtherType::Ipv4,
                          ipv4({kPeer, kUs, Protocol::Icmp, 5, 0, true, {}, 64},
                               pattern(1477))));  // not a multiple of 8
    host.receive(ethernet({test::mac(1), test::mac(2)}, wire::EtherType::Ipv4,
                          ipv4({kPeer, kUs, Protocol::Icmp, 5, 65'528, false, {}, 64},
                               pattern(100))));  // beyond the largest datagram
    host.receive(ethernet({test::mac(1), test::mac(2)}, wire::EtherType::Ipv4,
                          ipv4({kPeer, kUs, Protocol::Icmp, 5, 8, false, {}, 64}, {})));
    CHECK(host.count(Counter::InMalformed) == 3);
    host.receive(ethernet({test::mac(1), test::mac(2)}, wire::EtherType::Ipv6,
                          ipv6({kPeer6, kUs6, Protocol::Fragment},
                               fragment_header(Protocol::Udp, 0, true, 5) + pattern(1001))));
    const auto frames = host.sent();
    REQUIRE(frames.size() == 1);
    const auto error = header_at<wire::Icmpv6Header>(frames[0], 54);
    CHECK(error.type == 4);
    CHECK(error.code == 0);
    CHECK(error.word == 4);
}

TEST_CASE("A peer that floods fragments holds no more than its share", "[ip]") {
    Ready host;
    const Bytes whole = echo_request_v4(1, pattern(4000));
    const IpAddress victim = test::ip("10.7.0.9");
    host.receive(fragment(whole, 0, 1480, 1, victim));
    for (std::uint16_t id = 0; id < 2000; ++id) {
        host.receive(fragment(whole, 0, 1480, id));
        host.receive(fragment(whole, 1480, 2960, id));
    }
    CHECK(host.held_slots() <= 256 / 2 + 2);
    host.receive(fragment(whole, 1480, 2960, 1, victim));
    host.receive(fragment(whole, 2960, 5000, 1, victim));
    CHECK(host.count(Counter::IpReassembled) == 1);
}

TEST_CASE("Many peers that flood fragments stay within the bound of all", "[ip]") {
    Ready host;
    const Bytes whole = echo_request_v4(1, pattern(8000));
    std::mt19937 random(5);
    for (int i = 0; i < 5000; ++i) {
        const std::size_t at = random() % 1000 * 8;
        const auto peer = static_cast<std::uint32_t>(0x0a07'0010 + random() % 200);
        host.receive(fragment(whole, at, at + 8, static_cast<std::uint16_t>(random() % 8),
                              IpAddress::v4(peer)));
        REQUIRE(host.held_slots() <= 512);
    }
    host.advance(60s);
    CHECK(host.held_slots() == 0);
}

TEST_CASE("An atomic fragment is a whole packet", "[ip][rfc6946]") {
    Ready host;
    const Bytes whole = echo_request_v6(kPeer6, kUs6, pattern(100));
    host.receive(fragment6(whole, 0, 1440));
    CHECK(host.count(Counter::IcmpEchoReplies) == 1);
    CHECK(host.count(Counter::IpReassembled) == 0);
}

TEST_CASE("A datagram that was made whole has the fate of its content", "[ip]") {
    Ready host;
    const std::uint64_t before = host.count(Counter::InAccepted);
    Bytes damaged = echo_request_v4(1, pattern(4000));
    damaged.back() ^= std::byte{1};
    for (std::size_t at = 0; at < damaged.size(); at += 1480)
        host.receive(fragment(damaged, at, at + 1480));
    CHECK(host.count(Counter::IpReassembled) == 1);
    CHECK(host.count(Counter::InBadChecksum) == 1);
    CHECK(host.count(Counter::InAccepted) == before);
    CHECK(host.held_slots() == 0);
}

TEST_CASE("Headers behind the fragment header are read when the packet is whole",
          "[ip][rfc8200]") {
    Ready host;
    const Bytes echo = echo_request_v6(kPeer6, kUs6, pattern(3000));
    const Bytes padded = options_header(Protocol::Icmpv6, 1) + echo;
    for (std::size_t at = 0; at < padded.size(); at += 1232)
        host.receive(fragment6(padded, at, at + 1232, Protocol::DestinationOptions));
    CHECK(host.count(Counter::IcmpEchoReplies) == 1);
    host.sent();

    const Bytes refused = options_header(Protocol::Icmpv6, 0x80) + echo;
    for (std::size_t at = 0; at < refused.size(); at += 1232)
        host.receive(fragment6(refused, at, at + 1232, Protocol::DestinationOptions));
    const auto frames = host.sent();
    REQUIRE(frames.size() == 1);
    expect_parameter_problem(frames[0], wire::kIcmpv6UnknownOption, 40 + 8 + 2);
    CHECK(host.held_slots() == 0);
}

TEST_CASE("A number that nobody knows is pointed to in the fragment header", "[ip][rfc4443]") {
    Ready host;
    const Bytes whole = pattern(3000);
    for (std::size_t at = 0; at < whole.size(); at += 1232)
        host.receive(fragment6(whole, at, at + 1232, static_cast<Protocol>(253)));
    const auto frames = host.sent();
    REQUIRE(frames.size() == 1);
    expect_parameter_problem(frames[0], wire::kIcmpv6UnknownNextHeader, 40);
}

TEST_CASE("A first fragment without all of the headers is refused", "[ip][rfc7112]") {
    const auto options = options_header(Protocol::Tcp, 1);
    const auto check = [](const Bytes& whole, std::size_t first, Protocol next) {
        Ready host;
        host.receive(fragment6(whole, 0, first, next));
        CHECK(host.count(Counter::InMalformed) == 1);
        CHECK(host.held_slots() == 0);
        const auto frames = host.sent();
        REQUIRE(frames.size() == 1);
        expect_parameter_problem(frames[0], wire::kIcmpv6IncompleteHeaders, 0);
    };
    check(options + pattern(40), 8, Protocol::DestinationOptions);  // nothing of TCP
    check(options + pattern(40), 24, Protocol::DestinationOptions);  // a part of it
    check(pattern(40), 16, Protocol::Tcp);
    Bytes longer = options;
    longer[1] = std::byte{2};  // 24 bytes of options, and here are 8
    check(longer + pattern(40), 8, Protocol::DestinationOptions);
}
