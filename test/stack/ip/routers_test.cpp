// SPDX-License-Identifier: Apache-2.0
#include "stack/wire/icmpv6.hpp"
#include "stack/wire/ipv6.hpp"
#include "test/stack/ip/host.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

using namespace chiru;
using namespace chiru::test;
using namespace std::chrono_literals;
using shm::AddressState;
using shm::Origin;

namespace {

const IpAddress kRouter = test::ip("fe80::1");
const IpAddress kMade = test::ip("2001:db8::ff:fe00:2");  // from mac(2)

struct Offer {
    std::uint16_t lifetime_s = 1800;
    std::uint32_t valid_s = 3600;
    std::uint32_t preferred_s = 1800;
    std::uint8_t flags = wire::kPrefixOnLink | wire::kPrefixAutonomous;
    std::uint32_t mtu = 1400;
    std::uint8_t hop_limit = 255;
    IpAddress from = kRouter;
};

Bytes advertisement(const Offer& offer) {
    struct Message {
        wire::RouterAdvertisement message;
        wire::LinkAddressOption link;
        wire::MtuOption mtu;
        wire::PrefixOption prefix;
    };
    const Message message{{.type = 134, .lifetime_s = offer.lifetime_s},
                          {.type = 1, .mac = test::mac(1)},
                          {.type = 5, .mtu = offer.mtu},
                          {.type = 3, .prefix_length = 64, .flags = offer.flags,
                           .valid_s = offer.valid_s, .preferred_s = offer.preferred_s,
                           .prefix = test::ip("2001:db8::")}};
    return ethernet({test::mac(1), wire::multicast_mac(wire::kAllNodes)}, wire::EtherType::Ipv6,
                    ipv6({offer.from, wire::kAllNodes, wire::Protocol::Icmpv6, offer.hop_limit},
                         icmpv6(offer.from, wire::kAllNodes, as_bytes(message))));
}

const shm::AddressInfo* made(const shm::InterfaceInfo& info) {
    for (std::size_t i = 0; i < info.address_count; ++i)
        if (info.addresses[i].prefix.address == kMade) return &info.addresses[i];
    return nullptr;
}

}  // namespace

TEST_CASE("Routers are asked for three times, then no more", "[ip][rfc4861]") {
    Host host;
    host.advance(30s);
    int asked = 0;
    for (const Bytes& frame : host.sent())
        if (frame.size() == 70 && frame[54] == std::byte{133}) ++asked;
    CHECK(asked == 3);
}

TEST_CASE("An advertised prefix gives an address, a route and a router", "[ip][rfc4862]") {
    Host host;
    host.advance(1500ms);
    host.sent();
    const std::uint32_t version = host.network().interfaces_version();
    host.receive(advertisement({}));
    CHECK_FALSE(host.network().is_local(kMade));  // tentative
    host.advance(1s);
    CHECK(host.network().is_local(kMade));
    CHECK(host.network().interfaces_version() != version);

    const shm::InterfaceInfo info = host.network().interface_info(0);
    CHECK(info.mtu == 1400);
    REQUIRE(made(info) != nullptr);
    CHECK(made(info)->origin == Origin::RouterAdvertisement);
    const auto far = host.network().route(test::ip("2600::1"), {});
    REQUIRE(far);
    CHECK(far->local == kMade);
    CHECK(host.network().route(test::ip("2001:db8::77"), {}));
    REQUIRE(host.neighbor(kRouter) != nullptr);
    CHECK(host.neighbor(kRouter)->info.mac == test::mac(1));
    for (const Bytes& frame : host.sent())
        CHECK((frame.size() != 70 || frame[54] != std::byte{133}));
}

TEST_CASE("An address ages: deprecated, then gone; so does its router", "[ip][rfc4862]") {
    Host host;
    host.advance(2s);
    host.receive(advertisement({}));
    host.advance(1801s);
    CHECK(made(host.network().interface_info(0))->state == AddressState::Deprecated);
    CHECK(host.network().is_local(kMade));
    CHECK_FALSE(host.network().route(test::ip("2600::1"), {}));
    host.advance(1800s);
    CHECK(made(host.network().interface_info(0)) == nullptr);
    CHECK_FALSE(host.network().is_local(kMade));
    CHECK_FALSE(host.network().route(test::ip("2001:db8::77"), {}));
}

TEST_CASE("A router that says goodbye is none at once", "[ip][rfc4861]") {
    Host host;
    host.advance(2s);
    host.receive(advertisement({}));
    host.receive(advertisement({.lifetime_s = 0}));
    host.advance(2s);
    CHECK_FALSE(host.network().route(test::ip("2600::1"), {}));
}

TEST_CASE("A forged short lifetime cannot end an address before two hours", "[ip][rfc4862]") {
    Host host;
    host.advance(2s);
    host.receive(advertisement({.valid_s = 86'400, .preferred_s = 86'400}));
    host.receive(advertisement({.valid_s = 1, .preferred_s = 1}));
    host.advance(7100s);
    CHECK(host.network().is_local(kMade));
    host.advance(200s);
    CHECK_FALSE(host.network().is_local(kMade));
}

TEST_CASE("An advertisement that crossed a router or has no link-local source is refused",
          "[ip][rfc4861]") {
    Host host;
    host.advance(2s);
    host.receive(advertisement({.hop_limit = 254}));
    host.receive(advertisement({.from = test::ip("2001:db8::5")}));
    CHECK(host.count(shm::Counter::InImpossible) == 1);
    CHECK(host.count(shm::Counter::InMalformed) == 1);
    CHECK(made(host.network().interface_info(0)) == nullptr);
}

TEST_CASE("The MTU of a link follows its router, down and up, but not beyond the port's",
          "[ip][rfc4861]") {
    Host host;
    host.advance(2s);
    const auto mtu = [&] { return host.network().interface_info(0).mtu; };
    host.receive(advertisement({.mtu = 1280}));
    CHECK(mtu() == 1280);
    host.receive(advertisement({.mtu = 1279}));  // below the least of IPv6
    CHECK(mtu() == 1280);
    host.receive(advertisement({.mtu = 9000}));
    CHECK(mtu() == 1500);
}

TEST_CASE("A router without a lifetime does not end the search for one", "[ip][rfc4861]") {
    Host host;
    host.advance(1500ms);
    host.sent();
    host.receive(advertisement({.lifetime_s = 0}));
    host.advance(30s);
    const auto frames = host.sent();
    CHECK(std::any_of(frames.begin(), frames.end(), [](const Bytes& frame) {
        return frame.size() == 70 && frame[54] == std::byte{133};
    }));
}

TEST_CASE("A learnt default route stands behind a configured one of a later interface", "[ip]") {
    StackConfig config = Host::standard();
    InterfaceConfig storage;
    storage.name = "other";
    storage.vlan = 20;
    storage.addresses = {*IpPrefix::parse("fd08::2/64")};
    storage.routes = {{{}, test::ip("fd08::1")}};
    config.interfaces.push_back(storage);
    Host host(config);
    host.advance(2s);
    host.receive(advertisement({}));
    host.advance(2s);
    const auto far = host.network().route(test::ip("2600::1"), {});
    REQUIRE(far);
    CHECK(far->path.interface == 1);
}

TEST_CASE("Configured routes leave room for learnt ones", "[ip]") {
    StackConfig config = Host::standard();
    for (std::uint32_t i = 0; i < 32; ++i)
        config.interfaces[0].routes.push_back(
            {.to = {IpAddress::v4(0xc0a8'0000u + (i << 8)), 24}, .via = test::ip("10.7.0.1")});
    Host host(config);
    host.advance(2s);
    host.receive(advertisement({}));
    host.advance(2s);
    CHECK(host.network().route(test::ip("2001:db8::77"), {}));
}
