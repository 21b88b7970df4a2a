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

Bytes fragment6(const Bytes& whole, std::size_t from, std::size_t to) {
    return ethernet({test::mac(1), test::mac(2)}, wire::EtherType::Ipv6,
                    ipv6({kPeer6, kUs6, Protocol::Fragment},
                         fragment_header(Protocol::Icmpv6, from, to < whole.size(), 5) +
                             part(whole, from, to)));
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
