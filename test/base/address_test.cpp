// SPDX-License-Identifier: Apache-2.0
#include "base/address.hpp"

#include <catch2/catch.hpp>

using namespace chiru;

TEST_CASE("addresses of both families survive a round trip through text", "[base]") {
    for (const char* text : {"10.7.0.2", "255.255.255.255", "fd07::2", "::", "::1", "fe80::1"})
        CHECK(IpAddress::parse(text)->to_string() == text);
    for (const char* text : {"", "10.7.0", "10.7.0.256", "fd07::g", "10.7.0.2 "})
        CHECK_FALSE(IpAddress::parse(text));
}

TEST_CASE("an IPv4 address never equals an IPv6 address with the same low bits", "[base]") {
    CHECK(IpAddress::parse("0.0.0.1") != IpAddress::parse("::1"));
    CHECK(IpAddress::parse("0.0.0.0")->is_v4());
    CHECK(IpAddress::parse("::")->is_v6());
}

TEST_CASE("a prefix holds its hosts and no others", "[base]") {
    const IpPrefix v4 = *IpPrefix::parse("10.7.0.2/23");
    CHECK(v4.contains(*IpAddress::parse("10.7.1.255")));
    CHECK_FALSE(v4.contains(*IpAddress::parse("10.7.2.0")));
    CHECK_FALSE(v4.contains(*IpAddress::parse("fd07::2")));
    const IpPrefix v6 = *IpPrefix::parse("fd07::2/64");
    CHECK(v6.contains(*IpAddress::parse("fd07::ffff:1")));
    CHECK_FALSE(v6.contains(*IpAddress::parse("fd07:0:0:1::1")));
    CHECK(IpPrefix::parse("0.0.0.0/0")->contains(*IpAddress::parse("1.2.3.4")));
    CHECK_FALSE(IpPrefix::parse("10.0.0.0/33"));
    CHECK_FALSE(IpPrefix::parse("10.0.0.0"));
}

TEST_CASE("a MAC address is six pairs of digits", "[base]") {
    CHECK(to_string(*parse_mac("02:00:5e:10:00:ff")) == "02:00:5e:10:00:ff");
    CHECK_FALSE(parse_mac("02:00:5e:10:00"));
    CHECK_FALSE(parse_mac("02:00:5e:10:00:zz"));
}
