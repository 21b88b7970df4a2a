// SPDX-License-Identifier: Apache-2.0
//
// Routers' reports of a path's MTU about datagrams: which are believed.
#include "shm/counters.hpp"
#include "stack/wire/checksum.hpp"
#include "stack/wire/icmpv4.hpp"
#include "stack/wire/icmpv6.hpp"
#include "stack/wire/ipv6.hpp"
#include "stack/wire/udp.hpp"
#include "test/stack/ip/frames.hpp"
#include "test/stack/udp/wire.hpp"

using namespace chiru;
using namespace chiru::test;
using shm::Counter;
using wire::Protocol;

namespace {

/// What a router says to 10.7.0.1 or fd07::1 about a datagram it sent from port 1000.
Bytes too_big(const IpAddress& us, const IpAddress& remote, bool fragment) {
    const Link link{mac(2), mac(1)};
    const Bytes start = as_bytes(wire::UdpHeader{
        .source_port = 1000, .destination_port = 53, .length = 3008, .checksum = 1});
    if (us.is_v4()) {
        const Bytes quote = ipv4({us, remote, Protocol::Udp, 1, 0, fragment, {}, 64}, start);
        Bytes message =
            as_bytes(wire::Icmpv4Header{.type = 3, .code = 4, .word1 = 1300}) + quote;
        const be16 sum = wire::checksum(message);
        std::memcpy(message.data() + 2, &sum, sizeof sum);
        return ethernet(link, wire::EtherType::Ipv4,
                        ipv4({remote, us, Protocol::Icmp, 1, 0, false, {}, 64}, message));
    }
    const Bytes quote =
        fragment ? ipv6({us, remote, Protocol::Fragment},
                        fragment_header(Protocol::Udp, 0, true, 7) + start)
                 : ipv6({us, remote, Protocol::Udp}, start);
    const wire::Icmpv6Header header{.type = 2, .word = 1300u};
    return ethernet(link, wire::EtherType::Ipv6,
                    ipv6({remote, us, Protocol::Icmpv6},
                         icmpv6(remote, us, as_bytes(header) + quote)));
}

}  // namespace

TEST_CASE("a path's MTU is believed of a host that was sent to, fragments or not",
          "[udp][rfc1191][rfc8201]") {
    const bool v6 = GENERATE(false, true);
    const bool fragment = GENERATE(false, true);
    Wire wire;
    const IpAddress us = v6 ? wire.left.host.v6() : wire.left.host.v4();
    const IpAddress remote = v6 ? wire.right.host.v6() : wire.right.host.v4();
    const IpAddress any = v6 ? IpAddress() : kAnyV4;
    const auto sender = wire.left.open({any, 1000});
    const auto other = wire.left.open({any, 1001});
    const auto path_mtu = [&] {
        return wire.left.host.stack().connect_datagram(other, {remote, 99}, 0, wire.now)
            ->path.mtu;
    };
    const Bytes report = too_big(us, remote, fragment);
    wire.left.host.receive(report, wire.now);
    CHECK(wire.left.host.count(Counter::InIcmpIgnored) == 1);
    CHECK(path_mtu() == 1500);
    wire.left.send(sender, {remote, 53}, pattern(3000, 1));
    wire.run();
    wire.left.host.receive(report, wire.now);
    CHECK(wire.left.host.count(Counter::InIcmpIgnored) == 1);
    CHECK(path_mtu() == 1300);
}
