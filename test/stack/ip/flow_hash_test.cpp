// SPDX-License-Identifier: Apache-2.0
#include "stack/ip/flow_hash.hpp"

#include "stack/wire/icmpv4.hpp"
#include "stack/wire/icmpv6.hpp"
#include "stack/wire/ipv6.hpp"
#include "stack/wire/tcp.hpp"
#include "test/stack/ip/frames.hpp"

#include <catch2/catch.hpp>

using namespace chiru;
using namespace chiru::test;

namespace {

struct Vector {
    const char* destination;
    std::uint16_t destination_port;
    const char* source;
    std::uint16_t source_port;
    std::uint32_t addresses_only;
    std::uint32_t with_ports;
};

// "Verifying the RSS Hash Calculation", Microsoft.
constexpr Vector kVectors[] = {
    {"161.142.100.80", 1766, "66.9.149.187", 2794, 0x323e8fc2, 0x51ccc178},
    {"65.69.140.83", 4739, "199.92.111.2", 14230, 0xd718262a, 0xc626b0ea},
    {"12.22.207.184", 38024, "24.19.198.95", 12898, 0xd2d0a5de, 0x5c2b394a},
    {"209.142.163.6", 2217, "38.27.205.30", 48228, 0x82989176, 0xafc7327f},
    {"202.188.127.2", 1303, "153.39.163.191", 44251, 0x5d1809c5, 0x10e828a2},
    {"3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x2cc18cd5, 0x40207d3d},
    {"ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0x0f0c461c, 0xdde51bbf},
    {"fe80::200:f8ff:fe21:67cf", 38024, "3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, 0x4b61e985,
     0x02d1feef},
};

const Link kLink{mac(1), mac(2)};

Bytes tcp_start(std::uint16_t source, std::uint16_t destination) {
    wire::TcpHeader header{};
    header.source_port = source;
    header.destination_port = destination;
    header.data_offset = 0x50;
    return as_bytes(header);
}

std::size_t hash_of(const Bytes& frame) {
    const ip::Placement placement = ip::place(frame);
    CHECK_FALSE(placement.every_shard);
    return placement.hash;
}

const IpAddress kRemote = test::ip("192.0.2.9");
const IpAddress kLocal = test::ip("10.7.0.2");
const IpAddress kRemote6 = test::ip("fd07::9");
const IpAddress kLocal6 = test::ip("fd07::2");

}  // namespace

TEST_CASE("Receive hashes equal those that Microsoft published", "[ip][rss]") {
    for (const Vector& v : kVectors) {
        INFO(v.source);
        CHECK(ip::flow_hash(test::ip(v.source), test::ip(v.destination)) == v.addresses_only);
        CHECK(ip::flow_hash({test::ip(v.source), v.source_port},
                            {test::ip(v.destination), v.destination_port}) == v.with_ports);
    }
}

TEST_CASE("A TCP frame is placed by its four-tuple, tagged or not", "[ip][rss]") {
    const std::uint32_t flow = ip::flow_hash({kRemote, 1234}, {kLocal, 80});
    const Bytes packet =
        ipv4({kRemote, kLocal, wire::Protocol::Tcp, 1, 0, false, {}, 64}, tcp_start(1234, 80));
    CHECK(hash_of(ethernet(kLink, wire::EtherType::Ipv4, packet)) == flow);
    CHECK(hash_of(ethernet({mac(1), mac(2), 7}, wire::EtherType::Ipv4, packet)) == flow);
    const Bytes with_options = ipv4(
        {kRemote, kLocal, wire::Protocol::Tcp, 1, 0, false, Bytes(8, std::byte{1}), 64},
        tcp_start(1234, 80));
    CHECK(hash_of(ethernet(kLink, wire::EtherType::Ipv4, with_options)) == flow);
}

TEST_CASE("IPv6 ports are found behind extension headers", "[ip][rss]") {
    const std::uint32_t flow = ip::flow_hash({kRemote6, 1234}, {kLocal6, 80});
    const Bytes plain = ipv6({kRemote6, kLocal6, wire::Protocol::Tcp}, tcp_start(1234, 80));
    CHECK(hash_of(ethernet(kLink, wire::EtherType::Ipv6, plain)) == flow);
    const Bytes options{std::byte{6}, std::byte{0}, std::byte{1}, std::byte{4},
                        std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}};
    const Bytes extended = ipv6({kRemote6, kLocal6, wire::Protocol::DestinationOptions},
                                options + tcp_start(1234, 80));
    CHECK(hash_of(ethernet(kLink, wire::EtherType::Ipv6, extended)) == flow);
}

TEST_CASE("All fragments of a datagram are placed alike, by addresses", "[ip][rss]") {
    const std::uint32_t pair = ip::flow_hash(kRemote, kLocal);
    for (const std::size_t offset : {0u, 1480u}) {
        const Bytes packet = ipv4({kRemote, kLocal, wire::Protocol::Tcp, 1, offset, offset == 0,
                                   {}, 64}, tcp_start(1234, 80));
        CHECK(hash_of(ethernet(kLink, wire::EtherType::Ipv4, packet)) == pair);
        const Bytes six =
            ipv6({kRemote6, kLocal6, wire::Protocol::Fragment},
                 fragment_header(wire::Protocol::Tcp, offset, offset == 0, 5) +
                     tcp_start(1234, 80));
        CHECK(hash_of(ethernet(kLink, wire::EtherType::Ipv6, six)) ==
              ip::flow_hash(kRemote6, kLocal6));
    }
}

TEST_CASE("ARP and neighbour discovery go to every shard", "[ip][rss]") {
    CHECK(ip::place(ethernet(kLink, wire::EtherType::Arp,
                             arp(true, mac(1), kRemote, {}, kLocal))).every_shard);
    for (const auto type : {wire::Icmpv6Type::NeighborSolicitation,
                            wire::Icmpv6Type::NeighborAdvertisement,
                            wire::Icmpv6Type::RouterAdvertisement}) {
        wire::NeighborMessage message;
        message.type = static_cast<std::uint8_t>(type);
        const Bytes packet = ipv6({kRemote6, kLocal6, wire::Protocol::Icmpv6, 255},
                                  icmpv6(kRemote6, kLocal6, as_bytes(message)));
        CHECK(ip::place(ethernet(kLink, wire::EtherType::Ipv6, packet)).every_shard);
    }
    const Bytes ping = ipv6({kRemote6, kLocal6, wire::Protocol::Icmpv6},
                            echo_request_v6(kRemote6, kLocal6, {}));
    CHECK(hash_of(ethernet(kLink, wire::EtherType::Ipv6, ping)) ==
          ip::flow_hash(kRemote6, kLocal6));
}

TEST_CASE("An ICMP error is placed with the connection it speaks of", "[ip][rss]") {
    const IpAddress router = test::ip("203.0.113.1");
    const Bytes sent = ipv4({kLocal, kRemote, wire::Protocol::Tcp, 1, 0, false, {}, 3},
                            tcp_start(80, 1234));
    const Bytes cut(sent.begin(), sent.begin() + 28);
    const Bytes error = ipv4({router, kLocal, wire::Protocol::Icmp, 1, 0, false, {}, 64},
                             as_bytes(wire::Icmpv4Header{.type = 3, .code = 4}) + cut);
    CHECK(hash_of(ethernet(kLink, wire::EtherType::Ipv4, error)) ==
          ip::flow_hash({kRemote, 1234}, {kLocal, 80}));

    const Bytes sent6 = ipv6({kLocal6, kRemote6, wire::Protocol::Tcp}, tcp_start(80, 1234));
    const Bytes error6 = ipv6({test::ip("fd07::ff"), kLocal6, wire::Protocol::Icmpv6},
                              as_bytes(wire::Icmpv6Header{.type = 2, .word = 1300u}) + sent6);
    CHECK(hash_of(ethernet(kLink, wire::EtherType::Ipv6, error6)) ==
          ip::flow_hash({kRemote6, 1234}, {kLocal6, 80}));
}

TEST_CASE("A report about a datagram in fragments goes to every shard", "[ip][rss]") {
    for (const wire::Protocol carried : {wire::Protocol::Udp, wire::Protocol::Tcp}) {
        const Bytes sent = ipv6({kLocal6, kRemote6, wire::Protocol::Fragment},
                                fragment_header(carried, 0, true, 5) + tcp_start(53, 1234));
        const Bytes error =
            ipv6({test::ip("fd07::ff"), kLocal6, wire::Protocol::Icmpv6},
                 as_bytes(wire::Icmpv6Header{.type = 2, .word = 1300u}) + sent);
        const auto placed = ip::place(ethernet(kLink, wire::EtherType::Ipv6, error));
        CHECK(placed.every_shard == (carried == wire::Protocol::Udp));
    }
}

TEST_CASE("Every prefix of a frame can be placed", "[ip][rss]") {
    const Bytes frame = ethernet(
        {mac(1), mac(2), 7}, wire::EtherType::Ipv6,
        ipv6({kRemote6, kLocal6, wire::Protocol::Fragment},
             fragment_header(wire::Protocol::Tcp, 0, false, 5) + tcp_start(1, 2)));
    for (std::size_t length = 0; length <= frame.size(); ++length)
        CHECK_NOTHROW(ip::place(std::span(frame).first(length)));
}
