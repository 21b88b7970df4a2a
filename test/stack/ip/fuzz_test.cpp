// SPDX-License-Identifier: Apache-2.0
//
// Damaged and random frames: each must end in exactly one counter of group "in", and no slot may
// be lost. test/fuzz does the same with a fuzzer's inputs.
#include "stack/wire/icmpv6.hpp"
#include "stack/wire/ipv6.hpp"
#include "test/stack/ip/host.hpp"

#include <catch2/catch.hpp>

#include <random>

using namespace chiru;
using namespace chiru::test;
using namespace std::chrono_literals;
using shm::Counter;
using wire::Protocol;

namespace {

std::vector<Bytes> seeds() {
    const IpAddress us = test::ip("10.7.0.2"), peer = test::ip("10.7.0.1");
    const IpAddress us6 = test::ip("fd07::2"), peer6 = test::ip("fd07::1");
    const Link in{test::mac(1), test::mac(2)};
    const auto four = [&](Protocol protocol, const Bytes& payload, std::size_t offset = 0,
                          bool more = false) {
        return ethernet(in, wire::EtherType::Ipv4,
                        ipv4({peer, us, protocol, 1, offset, more, {}, 64}, payload));
    };
    const auto six = [&](Protocol protocol, const Bytes& payload) {
        return ethernet(in, wire::EtherType::Ipv6, ipv6({peer6, us6, protocol, 255}, payload));
    };
    const Bytes options{std::byte{58}, std::byte{0}, std::byte{1}, std::byte{4},
                        std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}};
    const wire::NeighborMessage solicitation{.type = 135, .target = us6};
    return {ethernet(in, wire::EtherType::Arp, arp(true, test::mac(1), peer, {}, us)),
            ethernet({test::mac(1), test::mac(2), 5}, wire::EtherType::Ipv4, pattern(60)),
            four(Protocol::Icmp, echo_request_v4(1, pattern(40))),
            four(Protocol::Icmp, echo_request_v4(1, pattern(40)), 0, true),
            four(Protocol::Icmp, pattern(48), 48, false),
            four(Protocol::Udp, udp_datagram(peer, us, 9, pattern(9))),
            four(Protocol::Tcp, pattern(60)),
            six(Protocol::Icmpv6, echo_request_v6(peer6, us6, pattern(30))),
            six(Protocol::DestinationOptions, options + echo_request_v6(peer6, us6, {})),
            six(Protocol::Fragment, fragment_header(Protocol::Udp, 0, true, 3) + pattern(64)),
            six(Protocol::Fragment, fragment_header(Protocol::Udp, 64, false, 3) + pattern(64)),
            six(Protocol::Icmpv6, icmpv6(peer6, us6, as_bytes(solicitation))),
            pattern(100)};
}

}  // namespace

TEST_CASE("Every frame ends in one counter and every slot comes back", "[ip][fuzz]") {
    const std::vector<Bytes> originals = seeds();
    std::mt19937_64 random(6);
    Host host;
    host.advance(3s);
    const std::uint64_t before = host.count_in();
    constexpr std::uint64_t kRounds = 100'000;
    for (std::uint64_t i = 0; i < kRounds; ++i) {
        Bytes frame = originals[random() % originals.size()];
        const std::uint64_t damage = random() % 4;
        for (std::uint64_t k = 0; k < damage; ++k)
            frame[random() % frame.size()] = static_cast<std::byte>(random());
        if (random() % 8 == 0) frame.resize(random() % (frame.size() + 1));
        // Half of the time the device says that the checksums are good, to get further in.
        host.receive(frame, random() % 2 == 0 ? kRxIpChecksumGood | kRxL4ChecksumGood : 0);
        if (random() % 1000 == 0) host.advance(std::chrono::milliseconds(random() % 3000));
    }
    CHECK(host.count_in() - before == kRounds);
    CHECK(host.count(Counter::RxFrames) == host.count_in());
    host.advance(120s);
    CHECK(host.held_slots() == 0);
}
