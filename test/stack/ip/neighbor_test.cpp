// SPDX-License-Identifier: Apache-2.0
//
// ARP and neighbour discovery, frame by frame in virtual time.
#include "stack/wire/arp.hpp"
#include "stack/wire/icmpv6.hpp"
#include "stack/wire/ipv6.hpp"
#include "test/stack/ip/host.hpp"

#include <catch2/catch.hpp>

using namespace chiru;
using namespace chiru::test;
using namespace std::chrono_literals;
using ip::NeighborState;
using shm::Counter;

namespace {

const IpAddress kUs = test::ip("10.7.0.2");
const IpAddress kPeer = test::ip("10.7.0.1");
const IpAddress kUs6 = test::ip("fd07::2");
const IpAddress kPeer6 = test::ip("fd07::1");

Bytes arp_frame(bool request, const MacAddress& from, const IpAddress& sender,
                const IpAddress& target) {
    return ethernet({from, request ? kBroadcastMac : test::mac(2)}, wire::EtherType::Arp,
                    arp(request, from, sender, request ? MacAddress{} : test::mac(2), target));
}

Bytes ping_v4(const IpAddress& from = kPeer) {
    return ethernet({test::mac(1), test::mac(2)}, wire::EtherType::Ipv4,
                    ipv4({from, kUs, wire::Protocol::Icmp, 1, 0, false, {}, 64},
                         echo_request_v4(7, pattern(56))));
}

Bytes advertisement(const IpAddress& target, const MacAddress& at, std::uint32_t flags,
                    const IpAddress& to = kUs6) {
    struct Message {
        wire::NeighborMessage message;
        wire::LinkAddressOption option;
    };
    const Message message{{.type = 136, .flags = flags, .target = target},
                          {.type = 2, .mac = at}};
    return ethernet({at, to.is_multicast() ? wire::multicast_mac(to) : test::mac(2)},
                    wire::EtherType::Ipv6,
                    ipv6({target, to, wire::Protocol::Icmpv6, 255},
                         icmpv6(target, to, as_bytes(message))));
}

wire::EtherType type_of(const Bytes& frame) { return wire::parse_link(frame)->type; }

}  // namespace

TEST_CASE("Addresses are announced and checked for duplicates at the start", "[ip][rfc5227]") {
    Host host;
    host.advance(0s);
    int announcements = 0, solicitations = 0, reports = 0;
    for (const Bytes& frame : host.sent()) {
        if (type_of(frame) == wire::EtherType::Arp) {
            const auto arp = header_at<wire::ArpPacket>(frame, 14);
            CHECK(arp.sender_ip == kUs.v4_bits());
            CHECK(arp.target_ip == kUs.v4_bits());
            ++announcements;
        } else if (header_at<wire::Ipv6Header>(frame, 14).next_header == 58) {
            CHECK(header_at<wire::Ipv6Header>(frame, 14).source.is_unspecified());
            ++solicitations;
        } else {
            ++reports;
        }
    }
    CHECK(announcements == 1);
    CHECK(solicitations == 2);  // link-local and fd07::2
    CHECK(reports == 1);
    CHECK_FALSE(host.network().is_local(kUs6));
    CHECK(host.network().is_local(kUs));
    host.advance(1s);
    CHECK(host.network().is_local(kUs6));
}

TEST_CASE("When a link comes up neighbours are asked for anew and told where we are", "[ip]") {
    Host host;
    host.settle();
    host.learn_neighbors();
    REQUIRE(host.neighbor(kPeer) != nullptr);
    host.network().link_up(0, host.now());
    CHECK(host.neighbor(kPeer) == nullptr);
    CHECK(host.neighbor(kPeer6) == nullptr);
    CHECK(host.network().is_local(kUs6));  // connections hang on it: not detected once more
    host.advance(0s);
    int announcements = 0, advertisements = 0;
    for (const Bytes& frame : host.sent()) {
        if (type_of(frame) == wire::EtherType::Arp) {
            CHECK(header_at<wire::ArpPacket>(frame, 14).sender_ip == kUs.v4_bits());
            ++announcements;
        } else if (header_at<wire::Ipv6Header>(frame, 14).next_header == 58 &&
                   header_at<wire::Icmpv6Header>(frame, 54).type == 136) {
            ++advertisements;
        }
    }
    CHECK(announcements == 1);
    CHECK(advertisements == 2);
    host.learn_neighbors();
    host.network().link_up(7, host.now());  // another port
    CHECK(host.neighbor(kPeer) != nullptr);
}

TEST_CASE("A link that comes up during duplicate detection starts it again", "[ip][rfc4862]") {
    Host host;
    host.advance(0s);
    host.advance(500ms);
    host.network().link_up(0, host.now());
    host.advance(700ms);
    CHECK_FALSE(host.network().is_local(kUs6));
    host.advance(400ms);
    CHECK(host.network().is_local(kUs6));
}

TEST_CASE("Only shard 0 speaks of its own accord", "[ip]") {
    StackConfig config = Host::standard();
    config.shard = 1;
    config.shard_count = 2;
    Host host(config);
    host.advance(20s);
    CHECK(host.sent().empty());
    CHECK(host.network().is_local(kUs6));
    host.receive(arp_frame(true, test::mac(1), kPeer, kUs));
    CHECK(host.sent().empty());
    REQUIRE(host.neighbor(kPeer) != nullptr);  // but it learns
    CHECK(host.neighbor(kPeer)->info.state == NeighborState::Stale);
}

TEST_CASE("An address that somebody defends is not used", "[ip][rfc4862]") {
    Host host;
    host.advance(100ms);
    host.receive(advertisement(kUs6, test::mac(9), wire::kNdOverride, wire::kAllNodes));
    CHECK(host.count(Counter::DadDuplicate) == 1);
    host.advance(5s);
    CHECK_FALSE(host.network().is_local(kUs6));
    CHECK(host.network().interface_info(0).addresses[2].state == shm::AddressState::Duplicate);
    // It is the other host's now, and what that says of it is no conflict.
    host.receive(advertisement(kUs6, test::mac(9), wire::kNdOverride, wire::kAllNodes));
    CHECK(host.count(Counter::DadDuplicate) == 1);
}

TEST_CASE("An address that somebody else is checking as well is used by nobody",
          "[ip][rfc4862]") {
    Host host;
    host.advance(100ms);
    const IpAddress group = wire::solicited_node(kUs6);
    const wire::NeighborMessage message{.type = 135, .target = kUs6};
    host.receive(ethernet({test::mac(9), wire::multicast_mac(group)}, wire::EtherType::Ipv6,
                          ipv6({IpAddress(), group, wire::Protocol::Icmpv6, 255},
                               icmpv6(IpAddress(), group, as_bytes(message)))));
    host.advance(5s);
    CHECK_FALSE(host.network().is_local(kUs6));
}

TEST_CASE("An ARP request for us is answered to its sender", "[ip][rfc826]") {
    Host host;
    host.settle();
    host.receive(arp_frame(true, test::mac(1), kPeer, kUs));
    const auto frames = host.sent();
    REQUIRE(frames.size() == 1);
    CHECK(wire::parse_link(frames[0])->destination == test::mac(1));
    const auto reply = header_at<wire::ArpPacket>(frames[0], 14);
    CHECK(reply.operation == 2);
    CHECK(reply.sender_mac == test::mac(2));
    CHECK(reply.sender_ip == kUs.v4_bits());
    CHECK(reply.target_mac == test::mac(1));

    host.receive(arp_frame(true, test::mac(1), kPeer, test::ip("10.7.0.77")));
    CHECK(host.sent().empty());
    CHECK(host.count(Counter::InNotForUs) == 1);
}

TEST_CASE("A solicitation is answered, and its sender known by it", "[ip][rfc4861]") {
    Host host;
    host.settle();
    struct Message {
        wire::NeighborMessage message;
        wire::LinkAddressOption option;
    };
    const Message message{{.type = 135, .target = kUs6}, {.type = 1, .mac = test::mac(1)}};
    const IpAddress group = wire::solicited_node(kUs6);
    const Bytes body = icmpv6(kPeer6, group, as_bytes(message));
    host.receive(ethernet({test::mac(1), wire::multicast_mac(group)}, wire::EtherType::Ipv6,
                          ipv6({kPeer6, group, wire::Protocol::Icmpv6, 255}, body)));
    auto frames = host.sent();
    REQUIRE(frames.size() == 1);
    const auto reply = header_at<wire::NeighborMessage>(frames[0], 54);
    CHECK(reply.type == 136);
    CHECK(reply.target == kUs6);
    CHECK((reply.flags & wire::kNdSolicited) != 0);
    REQUIRE(host.neighbor(kPeer6) != nullptr);
    CHECK(host.neighbor(kPeer6)->info.mac == test::mac(1));

    // From beyond a router it cannot come (hop limit 255).
    host.receive(ethernet({test::mac(1), wire::multicast_mac(group)}, wire::EtherType::Ipv6,
                          ipv6({kPeer6, group, wire::Protocol::Icmpv6, 254}, body)));
    CHECK(host.sent().empty());
    CHECK(host.count(Counter::InImpossible) == 1);
}

TEST_CASE("A reply waits for its neighbour's address and then leaves", "[ip][rfc826]") {
    Host host;
    host.settle();
    host.receive(ping_v4());
    auto frames = host.sent();
    REQUIRE(frames.size() == 1);
    CHECK(type_of(frames[0]) == wire::EtherType::Arp);
    CHECK(host.neighbor(kPeer)->info.state == NeighborState::Incomplete);
    CHECK(host.neighbor(kPeer)->info.queued_frames == 1);
    CHECK(host.held_slots() == 1);

    host.receive(arp_frame(false, test::mac(1), kPeer, kUs));
    frames = host.sent();
    REQUIRE(frames.size() == 1);
    CHECK(type_of(frames[0]) == wire::EtherType::Ipv4);
    CHECK(host.neighbor(kPeer)->info.state == NeighborState::Reachable);
    CHECK(host.held_slots() == 0);
    CHECK(recorded().ready.size() == 1);
    CHECK(recorded().ready[0].second);
}

TEST_CASE("Who does not answer three questions has failed", "[ip][rfc4861]") {
    Host host;
    host.settle();
    host.receive(ping_v4());
    CHECK(host.sent().size() == 1);
    host.advance(1s);
    CHECK(host.sent().size() == 1);
    host.advance(1s);
    CHECK(host.sent().size() == 1);
    host.advance(1s);
    CHECK(host.sent().empty());
    CHECK(host.count(Counter::NeighborFailed) == 1);
    CHECK(host.held_slots() == 0);
    REQUIRE(recorded().ready.size() == 1);
    CHECK_FALSE(recorded().ready[0].second);
    host.advance(1s);
    CHECK(host.neighbor(kPeer) == nullptr);
    host.receive(ping_v4());  // and is asked anew
    CHECK(host.sent().size() == 1);
}

TEST_CASE("No more than a burst waits for one neighbour", "[ip]") {
    Host host;
    host.settle();
    for (int i = 0; i < 50; ++i) host.receive(ping_v4());
    CHECK(host.neighbor(kPeer)->info.queued_frames == ip::kNeighborQueue);
    CHECK(host.count(Counter::NeighborQueueDropped) == 50 - ip::kNeighborQueue);
    CHECK(host.held_slots() == ip::kNeighborQueue);
}

TEST_CASE("A neighbour goes stale, is probed when used, and is forgotten if silent",
          "[ip][rfc4861]") {
    Host host;
    host.settle();
    host.receive(ping_v4());
    host.receive(arp_frame(false, test::mac(1), kPeer, kUs));
    host.advance(30s);
    CHECK(host.neighbor(kPeer)->info.state == NeighborState::Stale);
    host.sent();
    host.receive(ping_v4());
    CHECK(host.sent().size() == 1);  // used at once
    CHECK(host.neighbor(kPeer)->info.state == NeighborState::Delay);
    host.advance(5s);
    CHECK(host.neighbor(kPeer)->info.state == NeighborState::Probe);
    auto frames = host.sent();
    REQUIRE(frames.size() == 1);
    CHECK(wire::parse_link(frames[0])->destination == test::mac(1));  // asked itself

    SECTION("an answer makes it reachable") {
        host.receive(arp_frame(false, test::mac(1), kPeer, kUs));
        CHECK(host.neighbor(kPeer)->info.state == NeighborState::Reachable);
    }
    SECTION("progress of a connection does, too") {
        auto route = host.network().route(kPeer, IpAddress());
        REQUIRE(route);
        std::array<std::byte, kMinHeadBytes> head;
        TxFrame frame;
        frame.head = head.data();
        frame.head_capacity = kMinHeadBytes;
        REQUIRE(host.network().begin(frame, route->path, kUs, kPeer, 6, 20, {}, host.now()) ==
                BeginResult::Ready);
        host.network().confirm(route->path, host.now());
        CHECK(host.neighbor(kPeer)->info.state == NeighborState::Reachable);
    }
    SECTION("silence ends it") {
        host.advance(3s);
        CHECK(host.neighbor(kPeer) == nullptr);
    }
}

TEST_CASE("A gratuitous ARP corrects a known neighbour and makes no new one", "[ip][rfc5227]") {
    Host host;
    host.settle();
    host.receive(arp_frame(true, test::mac(8), test::ip("10.7.0.8"), test::ip("10.7.0.8")));
    CHECK(host.neighbor(test::ip("10.7.0.8")) == nullptr);
    host.receive(arp_frame(true, test::mac(1), kPeer, kUs));
    host.receive(arp_frame(true, test::mac(7), kPeer, kPeer));
    CHECK(host.neighbor(kPeer)->info.mac == test::mac(7));
}

TEST_CASE("An advertisement without override does not replace an address", "[ip][rfc4861]") {
    Host host;
    host.settle();
    host.learn_neighbors();
    host.receive(advertisement(kPeer6, test::mac(1), wire::kNdSolicited | wire::kNdOverride));
    CHECK(host.neighbor(kPeer6)->info.state == NeighborState::Reachable);
    host.receive(advertisement(kPeer6, test::mac(5), wire::kNdSolicited));
    CHECK(host.neighbor(kPeer6)->info.mac == test::mac(1));
    CHECK(host.neighbor(kPeer6)->info.state == NeighborState::Stale);
    host.receive(advertisement(kPeer6, test::mac(5), wire::kNdOverride));
    CHECK(host.neighbor(kPeer6)->info.mac == test::mac(5));
}

TEST_CASE("A flood of strangers does not push out who is in use", "[ip]") {
    Host host;
    host.settle();
    host.receive(ping_v4());
    host.receive(arp_frame(false, test::mac(1), kPeer, kUs));
    for (std::uint32_t i = 0; i < 200; ++i)
        host.receive(arp_frame(true, test::mac(static_cast<std::uint8_t>(i)),
                               IpAddress::v4(0x0a07'0003 + i), kUs));
    REQUIRE(host.neighbor(kPeer) != nullptr);
    CHECK(host.neighbor(kPeer)->info.state == NeighborState::Reachable);
}

TEST_CASE("Someone who claims our address is contradicted and not believed", "[ip][rfc5227]") {
    Host host;
    host.settle();
    host.receive(arp_frame(true, test::mac(6), kUs, kUs));
    CHECK(host.count(Counter::DadDuplicate) == 1);
    CHECK(host.sent().size() == 1);
    CHECK(host.network().is_local(kUs));
}

TEST_CASE("An address is defended once in ten seconds, not for ever", "[ip][rfc5227]") {
    Host host;
    host.settle();
    for (int i = 0; i < 100; ++i) {
        host.receive(arp_frame(true, test::mac(6), kUs, kUs));
        host.advance(10ms);
    }
    CHECK(host.sent().size() == 1);
    CHECK(host.count(Counter::DadDuplicate) == 100);
    host.advance(9s);
    host.sent();
    host.receive(arp_frame(true, test::mac(6), kUs, kUs));
    CHECK(host.sent().size() == 1);
}

TEST_CASE("Neighbours that do not answer take no answers from the others", "[ip]") {
    Host host;
    host.settle();
    host.learn_neighbors();
    host.sent();
    for (std::uint32_t i = 0; i < 20; ++i)
        for (std::uint32_t k = 0; k < ip::kNeighborQueue; ++k)
            host.receive(ping_v4(IpAddress::v4(0x0a07'0064 + i)));
    host.sent();
    CHECK(host.held_slots() <= ip::kParkedJobs);
    CHECK(host.count(Counter::NeighborQueueDropped) > 0);
    host.receive(ping_v4());
    const auto frames = host.sent();
    REQUIRE(frames.size() == 1);
    CHECK(type_of(frames[0]) == wire::EtherType::Ipv4);
    host.advance(3s);  // all have failed
    CHECK(host.held_slots() == 0);
    host.receive(ping_v4(IpAddress::v4(0x0a07'00c8)));
    CHECK(host.held_slots() == 1);
}
