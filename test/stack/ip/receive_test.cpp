// SPDX-License-Identifier: Apache-2.0
//
// What becomes of IP packets: echo, errors, and everything that must not get through.
#include "stack/wire/checksum.hpp"
#include "stack/wire/icmpv4.hpp"
#include "stack/wire/icmpv6.hpp"
#include "stack/wire/ipv6.hpp"
#include "stack/wire/tcp.hpp"
#include "test/stack/ip/host.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <map>
#include <random>
#include <utility>
#include <vector>

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
const Link kIn{test::mac(1), test::mac(2)};

/// A host that knows its neighbours.
struct Ready : Host {
    explicit Ready(StackConfig config = standard()) : Host(std::move(config)) {
        settle();
        learn_neighbors();
    }
};

Bytes v4(Protocol protocol, const Bytes& payload, const IpAddress& from = kPeer,
         const IpAddress& to = kUs) {
    return ethernet(kIn, wire::EtherType::Ipv4, ipv4({from, to, protocol, 1, 0, false, {}, 64},
                                                     payload));
}
Bytes v6(Protocol next, const Bytes& payload, const IpAddress& to = kUs6) {
    return ethernet(kIn, wire::EtherType::Ipv6, ipv6({kPeer6, to, next}, payload));
}

/// The payload of the fragments' datagram, checked for gaps; of a whole packet, its payload.
Bytes whole_v4(const std::vector<Bytes>& frames) {
    std::map<std::size_t, Bytes> parts;
    for (const Bytes& frame : frames) {
        const auto header = header_at<wire::Ipv4Header>(frame, 14);
        CHECK(wire::checksum(std::span(frame).subspan(14, 20)) == 0);
        CHECK(frame.size() == 14u + header.total_length);
        CHECK(header.total_length <= 1500);
        parts[header.fragment_offset()] = Bytes(frame.begin() + 34, frame.end());
    }
    Bytes all;
    for (const auto& [offset, part] : parts) {
        CHECK(offset == all.size());
        all = all + part;
    }
    return all;
}

Bytes whole_v6(const std::vector<Bytes>& frames) {
    std::map<std::size_t, Bytes> parts;
    for (const Bytes& frame : frames) {
        CHECK(frame.size() <= 14u + 1500u);
        const auto header = header_at<wire::Ipv6Header>(frame, 14);
        CHECK(frame.size() == 54u + header.payload_length);
        if (header.next_header != 44) return {frame.begin() + 54, frame.end()};
        const auto fragment = header_at<wire::FragmentHeader>(frame, 54);
        parts[fragment.offset()] = Bytes(frame.begin() + 62, frame.end());
    }
    Bytes all;
    for (const auto& [offset, part] : parts) {
        CHECK(offset == all.size());
        all = all + part;
    }
    return all;
}

std::vector<Bytes> fragments_v4(const Bytes& payload, Protocol protocol, std::size_t part = 1480) {
    std::vector<Bytes> frames;
    for (std::size_t at = 0; at < payload.size(); at += part) {
        const std::size_t end = std::min(payload.size(), at + part);
        frames.push_back(ethernet(
            kIn, wire::EtherType::Ipv4,
            ipv4({kPeer, kUs, protocol, 77, at, end < payload.size(), {}, 64},
                 {payload.begin() + static_cast<std::ptrdiff_t>(at),
                  payload.begin() + static_cast<std::ptrdiff_t>(end)})));
    }
    return frames;
}

std::vector<Bytes> fragments_v6(const Bytes& payload, Protocol protocol) {
    std::vector<Bytes> frames;
    for (std::size_t at = 0; at < payload.size(); at += 1448) {
        const std::size_t end = std::min<std::size_t>(payload.size(), at + 1448);
        frames.push_back(v6(Protocol::Fragment,
                            fragment_header(protocol, at, end < payload.size(), 9) +
                                Bytes(payload.begin() + static_cast<std::ptrdiff_t>(at),
                                      payload.begin() + static_cast<std::ptrdiff_t>(end))));
    }
    return frames;
}

/// What reached TCP and what was counted, of frames in one burst or one at a time.
struct Outcome {
    std::vector<std::pair<IpAddress, Bytes>> segments;
    std::vector<std::uint64_t> counters;
    bool operator==(const Outcome&) const = default;
};
Outcome outcome_of(const std::vector<Bytes>& frames, bool one_burst) {
    Ready host;
    if (one_burst) host.receive(frames);
    else
        for (const Bytes& frame : frames) host.receive(frame);
    Outcome outcome;
    for (const Recorded::Segment& segment : recorded().segments)
        outcome.segments.emplace_back(segment.source, segment.l4);
    for (std::size_t i = 0; i < shm::kCounters.size(); ++i)
        outcome.counters.push_back(host.count(static_cast<Counter>(i)));
    CHECK(host.held_slots() == 0);
    return outcome;
}

Bytes tcp_segment(const IpAddress& from, const IpAddress& to, std::uint8_t flags,
                  const Bytes& options, const Bytes& text) {
    wire::TcpHeader header{};
    header.source_port = std::uint16_t{1234};
    header.destination_port = std::uint16_t{80};
    header.sequence = 1000u;
    header.data_offset = static_cast<std::uint8_t>((20 + options.size()) / 4 << 4);
    header.flags = flags;
    Bytes bytes = as_bytes(header) + options + text;
    wire::ChecksumSum sum = wire::pseudo_header(from, to, 6, bytes.size());
    sum.add(bytes);
    const be16 checksum = sum.checksum();
    std::memcpy(bytes.data() + offsetof(wire::TcpHeader, checksum), &checksum, 2);
    return bytes;
}

}  // namespace

TEST_CASE("Pings of every size are answered with what they carried", "[ip][rfc792]") {
    Ready host;
    for (const std::size_t size : {0u, 1u, 56u, 1471u, 1472u, 1473u, 8000u, 65'000u}) {
        INFO(size);
        const Bytes request = echo_request_v4(7, pattern(size));
        host.receive(fragments_v4(request, Protocol::Icmp));
        const Bytes reply = whole_v4(host.sent());
        REQUIRE(reply.size() == request.size());
        CHECK(wire::checksum(reply) == 0);
        CHECK(reply[0] == std::byte{0});
        CHECK(std::equal(reply.begin() + 4, reply.end(), request.begin() + 4));
        CHECK(host.held_slots() == 0);
    }
}

TEST_CASE("Pings over IPv6 are answered, in fragments if need be", "[ip][rfc4443]") {
    Ready host;
    for (const std::size_t size : {0u, 1u, 56u, 1452u, 1453u, 8000u, 60'000u}) {
        INFO(size);
        const Bytes request = echo_request_v6(kPeer6, kUs6, pattern(size));
        host.receive(size <= 1440 ? std::vector<Bytes>{v6(Protocol::Icmpv6, request)}
                                  : fragments_v6(request, Protocol::Icmpv6));
        const Bytes reply = whole_v6(host.sent());
        REQUIRE(reply.size() == request.size());
        CHECK(reply[0] == std::byte{129});
        wire::ChecksumSum sum = wire::pseudo_header(kUs6, kPeer6, 58, reply.size());
        sum.add(reply);
        CHECK(sum.checksum() == 0);
        CHECK(std::equal(reply.begin() + 4, reply.end(), request.begin() + 4));
        CHECK(host.held_slots() == 0);
    }
}

TEST_CASE("A ping to all nodes is answered from an address of ours", "[ip][rfc4443]") {
    Ready host;
    host.receive(v6(Protocol::Icmpv6, echo_request_v6(kPeer6, wire::kAllNodes, pattern(10)),
                    wire::kAllNodes));
    const auto frames = host.sent();
    REQUIRE(frames.size() == 1);
    CHECK(header_at<wire::Ipv6Header>(frames[0], 14).source == kUs6);
    const Bytes reply = whole_v6(frames);
    wire::ChecksumSum sum = wire::pseudo_header(kUs6, kPeer6, 58, reply.size());
    sum.add(reply);
    CHECK(sum.checksum() == 0);
}

TEST_CASE("A ping of ourselves stays at home", "[ip]") {
    Ready host;
    const Bytes request = echo_request_v4(7, pattern(56));
    const IpAddress loopback = test::ip("127.0.0.1");
    host.receive(ethernet({}, wire::EtherType::Ipv4,
                          ipv4({loopback, loopback, Protocol::Icmp, 1, 0, false, {}, 64},
                               request)),
                 kRxLocal | kRxIpChecksumGood | kRxL4ChecksumGood);
    CHECK(host.sent().empty());
    const auto frames = host.sent_locally();
    REQUIRE(frames.size() == 1);
    CHECK(whole_v4(frames).size() == request.size());
}

TEST_CASE("Impossible addresses are counted and dropped", "[ip][rfc1122]") {
    Ready host;
    const Bytes ping = echo_request_v4(1, {});
    for (const char* source : {"127.0.0.1", "224.0.0.1", "0.0.0.0", "255.255.255.255",
                               "10.7.0.255", "10.7.0.2", "240.1.2.3"})
        host.receive(v4(Protocol::Icmp, ping, test::ip(source)));
    CHECK(host.count(Counter::InImpossible) == 7);
    host.receive(v4(Protocol::Icmp, ping, kPeer, test::ip("127.0.0.1")));
    CHECK(host.count(Counter::InImpossible) == 8);
    host.receive(ethernet(kIn, wire::EtherType::Ipv6,
                          ipv6({test::ip("::ffff:10.7.0.1"), kUs6, Protocol::Tcp}, ping)));
    CHECK(host.count(Counter::InImpossible) == 9);
    CHECK(host.sent().empty());
}

TEST_CASE("Frames for others are not ours", "[ip]") {
    Ready host;
    const Bytes ping = ipv4({kPeer, kUs, Protocol::Icmp, 1, 0, false, {}, 64},
                            echo_request_v4(1, {}));
    host.receive(ethernet({test::mac(1), test::mac(3)}, wire::EtherType::Ipv4, ping));  // MAC
    host.receive(ethernet({test::mac(1), test::mac(2), 9}, wire::EtherType::Ipv4, ping));  // VLAN
    host.receive(v4(Protocol::Icmp, echo_request_v4(1, {}), kPeer, test::ip("10.7.0.3")));
    host.receive(v4(Protocol::Icmp, echo_request_v4(1, {}), kPeer, test::ip("10.7.0.255")));
    CHECK(host.count(Counter::InNotForUs) == 4);
    CHECK(host.sent().empty());
}

TEST_CASE("IPv4 options are skipped, bad checksums and lengths are not", "[ip][rfc791]") {
    Ready host;
    host.receive(ethernet(kIn, wire::EtherType::Ipv4,
                          ipv4({kPeer, kUs, Protocol::Icmp, 1, 0, false, Bytes(40, std::byte{1}),
                                64}, echo_request_v4(1, pattern(8)))));
    CHECK(host.sent().size() == 1);
    Bytes frame = v4(Protocol::Icmp, echo_request_v4(1, {}));
    frame[14 + 8] ^= std::byte{1};  // TTL
    host.receive(frame);
    CHECK(host.count(Counter::InBadChecksum) == 1);
    frame = v4(Protocol::Icmp, echo_request_v4(1, {}));
    frame.back() ^= std::byte{1};
    host.receive(frame);
    CHECK(host.count(Counter::InBadChecksum) == 2);
    frame.resize(frame.size() - 1);
    host.receive(frame);
    CHECK(host.count(Counter::InMalformed) == 1);
}

TEST_CASE("Padding behind a packet is not part of it", "[ip]") {
    Ready host;
    host.receive(v4(Protocol::Icmp, echo_request_v4(1, pattern(1))) + Bytes(17, std::byte{0xee}));
    const auto frames = host.sent();
    REQUIRE(frames.size() == 1);
    CHECK(frames[0].size() == 14 + 20 + 8 + 1);
}

TEST_CASE("UDP to a port where nobody listens is answered so", "[ip][rfc1122]") {
    Ready host;
    host.receive(v4(Protocol::Udp, udp_datagram(kPeer, kUs, 53, pattern(1000))));
    auto frames = host.sent();
    REQUIRE(frames.size() == 1);
    CHECK(frames[0].size() == 14 + 576);
    CHECK(frames[0][34] == std::byte{3});
    CHECK(frames[0][35] == std::byte{3});
    CHECK(wire::checksum(std::span(frames[0]).subspan(34)) == 0);
    CHECK(host.count(Counter::InNoSocket) == 1);

    host.receive(v6(Protocol::Udp, udp_datagram(kPeer6, kUs6, 53, pattern(20))));
    frames = host.sent();
    REQUIRE(frames.size() == 1);
    CHECK(frames[0][54] == std::byte{1});
    CHECK(frames[0][55] == std::byte{4});
    wire::ChecksumSum sum = wire::pseudo_header(kUs6, kPeer6, 58, frames[0].size() - 54);
    sum.add(std::span(frames[0]).subspan(54));
    CHECK(sum.checksum() == 0);

    const IpAddress broadcast = test::ip("10.7.0.255");
    host.receive(ethernet({test::mac(1), kBroadcastMac}, wire::EtherType::Ipv4,
                          ipv4({kPeer, broadcast, Protocol::Udp, 1, 0, false, {}, 64},
                               udp_datagram(kPeer, broadcast, 53, {}))));
    CHECK(host.sent().empty());  // never to a group
    CHECK(host.held_slots() == 0);
}

TEST_CASE("Unknown protocols are refused by name", "[ip][rfc1122][rfc8200]") {
    Ready host;
    host.receive(v4(static_cast<Protocol>(132), pattern(20)));
    auto frames = host.sent();
    REQUIRE(frames.size() == 1);
    CHECK(frames[0][34] == std::byte{3});
    CHECK(frames[0][35] == std::byte{2});
    // Behind destination options, so the pointer leads there.
    const Bytes options{std::byte{132}, std::byte{0}, std::byte{1}, std::byte{4},
                        std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}};
    host.receive(v6(Protocol::DestinationOptions, options + pattern(20)));
    frames = host.sent();
    REQUIRE(frames.size() == 1);
    const auto error = header_at<wire::Icmpv6Header>(frames[0], 54);
    CHECK(error.type == 4);
    CHECK(error.code == wire::kIcmpv6UnknownNextHeader);
    CHECK(error.word == 40);
    CHECK(host.count(Counter::InUnknownProtocol) == 2);
}

TEST_CASE("An IPv6 option is skipped, dropped or refused as its type says", "[ip][rfc8200]") {
    Ready host;
    const auto with_option = [](std::uint8_t type, const IpAddress& to = kUs6) {
        return ethernet({test::mac(1), to == kUs6 ? test::mac(2) : wire::multicast_mac(to)},
                        wire::EtherType::Ipv6,
                        ipv6({kPeer6, to, Protocol::DestinationOptions},
                             Bytes{std::byte{58}, std::byte{0}, std::byte{type}, std::byte{4},
                                   std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}} +
                                 echo_request_v6(kPeer6, to, {})));
    };
    host.receive(with_option(0x1e));
    auto frames = host.sent();
    REQUIRE(frames.size() == 1);
    CHECK(frames[0][54] == std::byte{129});
    host.receive(with_option(0x5e));
    CHECK(host.sent().empty());
    host.receive(with_option(0x9e));
    frames = host.sent();
    REQUIRE(frames.size() == 1);
    const auto error = header_at<wire::Icmpv6Header>(frames[0], 54);
    CHECK(error.type == 4);
    CHECK(error.code == wire::kIcmpv6UnknownOption);
    CHECK(error.word == 42);
    host.receive(with_option(0xde, wire::kAllNodes));  // 11: not if it came to many
    CHECK(host.sent().empty());
    host.receive(with_option(0x9e, wire::kAllNodes));  // 10: also then, from an address of ours
    frames = host.sent();
    REQUIRE(frames.size() == 1);
    CHECK(header_at<wire::Ipv6Header>(frames[0], 14).source == kUs6);
}

TEST_CASE("An error is not answered for the options in front of it", "[ip][rfc4443]") {
    Ready host;
    const wire::Icmpv6Header unreachable{.type = 1, .code = 0};
    const Bytes error = icmpv6(kPeer6, kUs6, as_bytes(unreachable) + pattern(48));
    host.receive(v6(Protocol::DestinationOptions,
                    Bytes{std::byte{58}, std::byte{0}, std::byte{0x9e}, std::byte{4}, std::byte{0},
                          std::byte{0}, std::byte{0}, std::byte{0}} + error));
    CHECK(host.count(Counter::InUnknownProtocol) == 1);
    CHECK(host.sent().empty());
    CHECK(host.held_slots() == 0);
}

TEST_CASE("A second tag behind one that the port took off is none of ours", "[ip][vlan]") {
    Ready host;
    const Bytes ping = ipv4({kPeer, kUs, Protocol::Icmp, 1, 0, false, {}, 64},
                            echo_request_v4(1, pattern(5)));
    host.receive(ethernet({test::mac(1), test::mac(2), 20}, wire::EtherType::Ipv4, ping),
                 kRxVlanStripped);
    CHECK(host.count(Counter::InUnknownProtocol) == 1);
    CHECK(host.sent().empty());
}

TEST_CASE("ICMP errors are limited in rate and never answer errors", "[ip][rfc1812]") {
    Ready host;
    for (int i = 0; i < 200; ++i) host.receive(v4(Protocol::Udp, udp_datagram(kPeer, kUs, 53, {})));
    CHECK(host.sent().size() == 50);
    CHECK(host.count(Counter::IcmpRateLimited) == 150);
    host.advance(1s);
    host.sent();
    host.receive(v4(Protocol::Icmp,
                    [] {
                        Bytes error = as_bytes(wire::Icmpv4Header{.type = 3, .code = 3}) +
                                      ipv4({kUs, kPeer, Protocol::Udp, 1, 0, false, {}, 64},
                                           udp_datagram(kUs, kPeer, 1, {}));
                        const be16 checksum = wire::checksum(error);
                        std::memcpy(error.data() + 2, &checksum, 2);
                        return error;
                    }()));
    CHECK(host.sent().empty());
    CHECK(host.count(Counter::InIcmpIgnored) == 1);
    CHECK(host.held_slots() == 0);
}

TEST_CASE("A router's packet-too-big reaches TCP and is remembered", "[ip][rfc1191][rfc5927]") {
    Ready host;
    const IpAddress far = test::ip("198.51.100.1");
    const auto too_big = [&](std::uint16_t mtu) {
        wire::TcpHeader header{};
        header.source_port = std::uint16_t{80};
        header.destination_port = std::uint16_t{1234};
        header.sequence = 4711u;
        const Bytes quote = ipv4({kUs, far, Protocol::Tcp, 1, 0, false, {}, 64},
                                 as_bytes(header) + pattern(1460));
        Bytes error = as_bytes(wire::Icmpv4Header{.type = 3, .code = 4, .word1 = mtu}) +
                      Bytes(quote.begin(), quote.begin() + 28);
        const be16 checksum = wire::checksum(error);
        std::memcpy(error.data() + 2, &checksum, 2);
        return v4(Protocol::Icmp, error);
    };
    host.receive(too_big(1400));
    REQUIRE(recorded().errors.size() == 1);
    const tcp::IcmpError error = recorded().errors[0];
    CHECK(error.kind == tcp::IcmpError::Kind::PacketTooBig);
    CHECK(error.local == Endpoint{kUs, 80});
    CHECK(error.remote == Endpoint{far, 1234});
    CHECK(error.sequence == 4711);
    CHECK(error.mtu == 1400);
    CHECK(host.network().route(far, {})->path.mtu == 1400);
    host.receive(too_big(0));  // an old router: the next smaller usual size
    CHECK(recorded().errors.back().mtu == 1492);
    host.receive(too_big(68));  // too small to be believed
    CHECK(recorded().errors.back().mtu == ip::kMinMtuV4);

    host.receive(too_big(1400));  // no message raises what is known (RFC 1191 §3)
    CHECK(host.network().route(far, {})->path.mtu == ip::kMinMtuV4);
    CHECK(host.count(Counter::IpPathMtusTold) == 2);

    recorded().believe_errors = false;
    host.advance(11min);
    CHECK(host.network().route(far, {})->path.mtu == 1500);
    CHECK(host.count(Counter::IpPathMtusExpired) == 1);
    host.receive(too_big(1300));
    CHECK(host.network().route(far, {})->path.mtu == 1500);
    CHECK(host.count(Counter::InIcmpIgnored) == 1);
}

TEST_CASE("A packet-too-big of less than IPv6's least is discarded", "[ip][rfc8201]") {
    Ready host;
    const IpAddress far = test::ip("2001:db8::1");
    const auto too_big = [&](std::uint32_t mtu) {
        wire::TcpHeader header{};
        header.source_port = std::uint16_t{80};
        header.destination_port = std::uint16_t{1234};
        const Bytes quote = ipv6({kUs6, far, Protocol::Tcp}, as_bytes(header));
        const wire::Icmpv6Header icmp{.type = 2, .code = 0, .word = mtu};
        return v6(Protocol::Icmpv6, icmpv6(kPeer6, kUs6, as_bytes(icmp) + quote));
    };
    host.receive(too_big(1279));
    CHECK(recorded().errors.empty());
    CHECK(host.count(Counter::InIcmpIgnored) == 1);
    host.receive(too_big(1280));
    REQUIRE(recorded().errors.size() == 1);
    CHECK(recorded().errors[0].mtu == 1280);
}

TEST_CASE("What one shard learns of a path is told to the others once", "[ip][rfc1191]") {
    StackConfig config = Host::standard();
    config.shard_count = 2;
    Ready host(config);
    const IpAddress far = test::ip("198.51.100.1");
    const auto mtu = [&] { return host.network().route(far, {})->path.mtu; };
    const Instant now = host.now();
    using Larger = Lower::Larger;
    host.network().found_path_mtu(far, 1400, Larger::May, now);  // nothing less was known
    host.network().found_path_mtu(far, 1400, Larger::Vanish, now);
    host.network().found_path_mtu(far, 1400, Larger::Vanish, now);
    std::array<PathMtu, 4> news;
    REQUIRE(host.network().take_path_mtus(news) == 1);
    CHECK(news[0].remote == far);
    CHECK(news[0].mtu == 1400);
    CHECK(mtu() == 1400);
    CHECK(host.network().link_mtu(host.network().route(far, {})->path) == 1500);
    host.network().found_path_mtu(far, 1450, Larger::May, now);  // a probe arrived
    CHECK(mtu() == 1450);
    REQUIRE(host.network().take_path_mtus(news) == 1);
    CHECK(news[0].mtu == 1450);
    // What others tell is believed, either way, and not told back.
    host.network().learn_path_mtu({far, 1300, false}, now);
    CHECK(mtu() == 1300);
    CHECK(host.network().take_path_mtus(news) == 0);
    // But a router's word that came late by way of another shard does not raise what is known.
    host.network().learn_path_mtu({far, 1400, true}, now);
    CHECK(mtu() == 1300);
    host.network().learn_path_mtu({far, 1280, true}, now);
    CHECK(mtu() == 1280);
}

TEST_CASE("TCP is handed what is for us, and nothing sent to a group", "[ip][rfc9293]") {
    Ready host;
    const Bytes segment = tcp_segment(kPeer, kUs, wire::kAck, {}, pattern(100));
    host.receive(v4(Protocol::Tcp, segment));
    REQUIRE(recorded().segments.size() == 1);
    CHECK(recorded().segments[0].l4 == segment);
    CHECK_FALSE(recorded().segments[0].checksum_good);
    host.receive(ethernet({test::mac(1), kBroadcastMac}, wire::EtherType::Ipv4,
                          ipv4({kPeer, kUs, Protocol::Tcp, 1, 0, false, {}, 64}, segment)));
    CHECK(recorded().segments.size() == 1);
    CHECK(host.count(Counter::InImpossible) == 1);
}

TEST_CASE("TCP is handed what comes behind extension headers, and with a flow label",
          "[ip][rfc8200]") {
    Ready host;
    const auto options = [](Protocol next) {  // eight bytes of padding
        return Bytes{static_cast<std::byte>(next), std::byte{0}, std::byte{1}, std::byte{4},
                     std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}};
    };
    const Bytes segment = tcp_segment(kPeer6, kUs6, wire::kSyn, {}, {});
    Bytes frame = v6(Protocol::HopByHop, options(Protocol::DestinationOptions) +
                                             options(Protocol::Tcp) + segment);
    frame[15] |= std::byte{0x0a};  // the label's first four bits, behind the traffic class
    frame[17] = std::byte{0xbc};
    host.receive(frame);
    REQUIRE(recorded().segments.size() == 1);
    CHECK(recorded().segments[0].l4 == segment);

    const IpAddress far = test::ip("fe80::9"), near = test::ip("fe80::ff:fe00:2");
    host.receive(ethernet(kIn, wire::EtherType::Ipv6,
                          ipv6({far, near, Protocol::Tcp},
                               tcp_segment(far, near, wire::kSyn, {}, {}))));
    CHECK(recorded().segments.size() == 2);
}

TEST_CASE("A segment in fragments reaches TCP as consecutive segments", "[ip][rfc791]") {
    Ready host;
    const Bytes options{std::byte{1}, std::byte{1}, std::byte{8}, std::byte{10}, std::byte{1},
                        std::byte{2}, std::byte{3}, std::byte{4}, std::byte{5}, std::byte{6},
                        std::byte{7}, std::byte{8}};
    const Bytes text = pattern(5000);
    const auto check = [&](const std::vector<Bytes>& frames) {
        recorded().segments.clear();
        host.receive(frames);
        Bytes got;
        const auto& segments = recorded().segments;
        REQUIRE(segments.size() == frames.size());
        for (std::size_t i = 0; i < segments.size(); ++i) {
            const auto header = header_at<wire::TcpHeader>(segments[i].l4, 0);
            CHECK(header.length_bytes() == 32);
            CHECK(segments[i].checksum_good);
            CHECK(header.sequence == 1000 + got.size());
            CHECK(((header.flags & wire::kFin) != 0) == (i + 1 == segments.size()));
            CHECK(std::equal(options.begin(), options.end(), segments[i].l4.begin() + 20));
            got.insert(got.end(), segments[i].l4.begin() + 32, segments[i].l4.end());
        }
        CHECK(got == text);
        CHECK(host.held_slots() == 0);
    };
    constexpr std::uint8_t kFlags = wire::kAck | wire::kPsh | wire::kFin;
    auto four = fragments_v4(tcp_segment(kPeer, kUs, kFlags, options, text), Protocol::Tcp);
    check(four);
    std::reverse(four.begin(), four.end());
    check(four);
    check(fragments_v6(tcp_segment(kPeer6, kUs6, kFlags, options, text), Protocol::Tcp));
}

TEST_CASE("A reassembled segment of another shard's flow goes there", "[ip]") {
    StackConfig config = Host::standard();
    config.shard_count = 2;
    config.flow_map.fill(1);
    Ready host(config);
    const Bytes text = pattern(3000);
    host.receive(fragments_v4(tcp_segment(kPeer, kUs, wire::kAck, {}, text), Protocol::Tcp));
    CHECK(recorded().segments.empty());
    CHECK(host.sent().empty());
    const auto frames = host.sent_locally();
    CHECK(frames.size() == 4);  // with a header the second piece is too large for one frame
    Bytes got;
    for (const Bytes& frame : frames) {
        CHECK(frame.size() <= 14 + 1500);
        const auto header = header_at<wire::Ipv4Header>(frame, 14);
        CHECK(IpAddress::v4(header.source) == kPeer);
        CHECK(header_at<wire::TcpHeader>(frame, 34).sequence == 1000 + got.size());
        got.insert(got.end(), frame.begin() + 54, frame.end());
    }
    CHECK(got == text);
    CHECK(host.held_slots() == 0);
}

TEST_CASE("A port that inserts tags and header checksums is asked to, and nothing is done twice",
          "[ip][vlan][offload]") {
    StackConfig config = Host::standard();
    config.interfaces[0].vlan = 7;
    config.ports[0].offloads = shm::kOffloadVlanInsert | shm::kOffloadTxIpChecksum;
    Host host(config);
    host.settle();
    host.receive(ethernet({test::mac(1), kBroadcastMac, 7}, wire::EtherType::Arp,
                          arp(true, test::mac(1), kPeer, {}, kUs)));
    auto frames = host.sent();
    REQUIRE(frames.size() == 1);
    CHECK(wire::parse_link(frames[0])->vlan == 0);  // not in the frame
    CHECK(wire::parse_link(frames[0])->type == wire::EtherType::Arp);
    CHECK(host.last_flags() == kTxVlanInsert);
    CHECK(host.last_vlan() == 7);

    host.receive(ethernet({test::mac(1), test::mac(2), 7}, wire::EtherType::Ipv4,
                          ipv4({kPeer, kUs, Protocol::Icmp, 1, 0, false, {}, 64},
                               echo_request_v4(1, pattern(5)))));
    frames = host.sent();
    REQUIRE(frames.size() == 1);
    CHECK((host.last_flags() & kTxVlanInsert) != 0);
    CHECK((host.last_flags() & kTxIpChecksum) != 0);
    CHECK(host.last_vlan() == 7);
    CHECK(header_at<wire::Ipv4Header>(frames[0], 14).checksum == 0);  // the port fills it in
}

TEST_CASE("A tagged interface takes and sends tagged frames only", "[ip][vlan]") {
    StackConfig config = Host::standard();
    config.interfaces[0].vlan = 7;
    Host host(config);
    host.settle();
    const Bytes ping = ipv4({kPeer, kUs, Protocol::Icmp, 1, 0, false, {}, 64},
                            echo_request_v4(1, pattern(5)));
    host.receive(ethernet({test::mac(1), kBroadcastMac, 7}, wire::EtherType::Arp,
                          arp(true, test::mac(1), kPeer, {}, kUs)));
    auto frames = host.sent();
    REQUIRE(frames.size() == 1);
    CHECK(wire::parse_link(frames[0])->vlan == 7);
    CHECK(wire::parse_link(frames[0])->type == wire::EtherType::Arp);
    host.receive(ethernet({test::mac(1), test::mac(2), 7}, wire::EtherType::Ipv4, ping));
    frames = host.sent();
    REQUIRE(frames.size() == 1);
    CHECK(wire::parse_link(frames[0])->vlan == 7);
    CHECK(wire::parse_link(frames[0])->type == wire::EtherType::Ipv4);
    host.receive(ethernet({test::mac(1), test::mac(2)}, wire::EtherType::Ipv4, ping));
    CHECK(host.count(Counter::InNotForUs) == 1);
}

TEST_CASE("A segment that follows its flow's in a burst is judged as if it came alone", "[ip]") {
    std::mt19937 random(7);
    const Bytes segment4 = tcp_segment(kPeer, kUs, wire::kAck, {}, pattern(300));
    const Bytes segment6 = tcp_segment(kPeer6, kUs6, wire::kAck, {}, pattern(300));
    for (const bool is_v4 : {true, false}) {
        const Bytes frame = is_v4 ? v4(Protocol::Tcp, segment4) : v6(Protocol::Tcp, segment6);
        // Each byte of the headers in turn, each length, in the middle of a row of good ones.
        for (std::size_t at = 0; at < 14u + (is_v4 ? 20 : 40) + 20; ++at) {
            Bytes changed = frame;
            changed[at] ^= static_cast<std::byte>(1 + random() % 255);
            const std::vector<Bytes> burst{frame, frame, changed, changed, frame};
            INFO(is_v4 << " byte " << at);
            CHECK(outcome_of(burst, true) == outcome_of(burst, false));
        }
        for (std::size_t length = 0; length < frame.size(); length += 1 + random() % 9) {
            const Bytes cut(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(length));
            const std::vector<Bytes> burst{frame, cut, frame, cut + Bytes(64), frame};
            INFO(is_v4 << " length " << length);
            CHECK(outcome_of(burst, true) == outcome_of(burst, false));
        }
    }
}

TEST_CASE("Between segments of one flow nothing else is taken for one of them", "[ip]") {
    const Bytes v4_segment = v4(Protocol::Tcp, tcp_segment(kPeer, kUs, wire::kAck, {}, pattern(9)));
    const Bytes v6_segment =
        v6(Protocol::Tcp, tcp_segment(kPeer6, kUs6, wire::kAck, {}, pattern(9)));
    const Bytes with_options = ethernet(
        kIn, wire::EtherType::Ipv4,
        ipv4({kPeer, kUs, Protocol::Tcp, 1, 0, false, Bytes(4, std::byte{1}), 64},
             tcp_segment(kPeer, kUs, wire::kAck, {}, pattern(9))));
    const Bytes marked = ethernet(kIn, wire::EtherType::Ipv4,
                                  ipv4({kPeer, kUs, Protocol::Tcp, 1, 0, false, {}, 64, 3},
                                       tcp_segment(kPeer, kUs, wire::kAck, {}, pattern(9))));
    const std::vector<Bytes> burst{v4_segment, v6_segment, v4_segment, with_options, with_options,
                                   v4_segment, marked, marked, v6_segment, v6_segment};
    CHECK(outcome_of(burst, true) == outcome_of(burst, false));
    CHECK(recorded().segments.size() == burst.size());
}
