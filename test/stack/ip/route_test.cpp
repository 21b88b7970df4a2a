// SPDX-License-Identifier: Apache-2.0
#include "test/stack/ip/host.hpp"

#include <catch2/catch.hpp>

#include <cerrno>

using namespace chiru;
using namespace chiru::test;
using namespace std::chrono_literals;

namespace {

StackConfig two_interfaces() {
    StackConfig config = Host::standard();
    InterfaceConfig second;
    second.name = "backup";
    second.vlan = 9;
    second.addresses = {*IpPrefix::parse("10.8.0.2/16"), *IpPrefix::parse("fd08::2/64"),
                        *IpPrefix::parse("10.9.0.2/24")};
    second.routes = {{*IpPrefix::parse("172.16.0.0/12"), test::ip("10.8.0.1")},
                     {*IpPrefix::parse("172.16.5.0/24"), test::ip("10.9.0.1")},
                     {*IpPrefix::parse("::/0"), test::ip("fd08::1")}};
    config.interfaces.push_back(second);
    return config;
}

}  // namespace

TEST_CASE("The longest prefix decides the interface, and the source follows", "[ip][route]") {
    Host host(two_interfaces());
    host.settle();
    const auto from = [&](const char* remote) {
        const auto route = host.network().route(test::ip(remote), {});
        REQUIRE(route);
        return std::pair(route->path.interface, route->local.to_string());
    };
    CHECK(from("10.7.0.9") == std::pair<std::uint16_t, std::string>(0, "10.7.0.2"));
    CHECK(from("10.8.200.1") == std::pair<std::uint16_t, std::string>(1, "10.8.0.2"));
    CHECK(from("10.9.0.77") == std::pair<std::uint16_t, std::string>(1, "10.9.0.2"));
    CHECK(from("172.16.1.1") == std::pair<std::uint16_t, std::string>(1, "10.8.0.2"));
    CHECK(from("172.16.5.1") == std::pair<std::uint16_t, std::string>(1, "10.9.0.2"));
    CHECK(from("8.8.8.8") == std::pair<std::uint16_t, std::string>(0, "10.7.0.2"));
    CHECK(from("fd07::5") == std::pair<std::uint16_t, std::string>(0, "fd07::2"));
    CHECK(from("2600::1") == std::pair<std::uint16_t, std::string>(1, "fd08::2"));
}

TEST_CASE("An answer to a link-local host goes where its question came in", "[ip][route]") {
    Host host(two_interfaces());
    host.settle();
    const IpAddress peer = test::ip("fe80::9");
    const IpAddress ours = test::ip("fe80::ff:fe00:2");  // of both links
    for (const std::uint16_t link : {std::uint16_t{0}, std::uint16_t{1}}) {
        const auto route = host.network().route(peer, ours, link);
        REQUIRE(route);
        CHECK(route->path.interface == link);
    }
    CHECK(host.network().route(peer, test::ip("fd08::2"), 1)->path.interface == 1);
}

TEST_CASE("A chosen source must be ours, usable and of the right family", "[ip][route]") {
    Host host;
    const auto error = [&](const char* remote, const char* local) {
        return host.network().route(test::ip(remote), test::ip(local)).error();
    };
    CHECK(error("10.7.0.1", "10.7.0.3") == EADDRNOTAVAIL);
    CHECK(error("10.7.0.1", "fd07::2") == EADDRNOTAVAIL);
    CHECK(error("fd07::1", "fd07::2") == EADDRNOTAVAIL);  // tentative as yet
    CHECK(error("10.7.0.1", "127.0.0.1") == ENETUNREACH);
    host.settle();
    CHECK(host.network().route(test::ip("fd07::1"), test::ip("fd07::2")));
    CHECK(error("2600::1", "fd07::2") == ENETUNREACH);
    CHECK(host.network().route(test::ip("224.0.0.1"), {}).error() == ENETUNREACH);
    CHECK(host.network().route(test::ip("10.7.0.255"), {}).error() == ENETUNREACH);
    CHECK(host.network().route(test::ip("0.0.0.0"), {}).error() == ENETUNREACH);
}

TEST_CASE("Our own addresses are reached without a wire", "[ip][route]") {
    Host host;
    host.settle();
    for (const char* remote : {"10.7.0.2", "fd07::2", "::1", "127.0.0.1"}) {
        const auto route = host.network().route(test::ip(remote), {});
        REQUIRE(route);
        CHECK(route->path.local == 1);
        CHECK(route->path.offload_l4 == 1);
        CHECK(route->local == test::ip(remote));
    }
    CHECK(host.network().route(test::ip("127.9.9.9"), {})->local == test::ip("127.0.0.1"));
}

TEST_CASE("begin() renews a path that changed under it", "[ip][route]") {
    Host host;
    host.settle();
    host.learn_neighbors();
    auto route = host.network().route(test::ip("10.7.0.1"), {});
    REQUIRE(route);
    std::array<std::byte, kMinHeadBytes> head;
    TxFrame frame;
    frame.head = head.data();
    frame.head_capacity = kMinHeadBytes;
    Path& path = route->path;
    const auto begin = [&] {
        return host.network().begin(frame, path, route->local, test::ip("10.7.0.1"), 6, 20, {},
                                    host.now());
    };
    CHECK(begin() == BeginResult::Ready);
    CHECK(frame.head_length == 34);
    CHECK(frame.l2_bytes == 14);
    CHECK(frame.l3_bytes == 20);
    CHECK(wire::parse_link(head)->destination == test::mac(1));
    path.generation += 5;
    CHECK(begin() == BeginResult::Ready);
    path.neighbor = 0xffff'ffff;
    CHECK(begin() == BeginResult::Ready);
    host.advance(20min);  // stale, forgotten
    CHECK(begin() == BeginResult::Unresolved);
    host.advance(3s);
    CHECK(begin() == BeginResult::Unreachable);
}
