// SPDX-License-Identifier: Apache-2.0
#include "stack/tcp/listener.hpp"
#include "stack/tcp/syn_cookie.hpp"
#include "test/sim/script.hpp"

#include <catch2/catch.hpp>

using namespace chiru;
using namespace std::chrono_literals;
using shm::Counter;
using tcp::Seq;

namespace {

constexpr std::uint16_t kFlood = 41'000;

/// Opens as many as the listener remembers, and finishes none.
void fill(sim::Script& s) {
    s.listen(80);
    for (std::uint16_t i = 0; i < tcp::kMinHalfOpen; ++i) {
        s.from(static_cast<std::uint16_t>(kFlood + i));
        s.inject("S 0:0(0) win 1000 <mss 1000>");
        s.expect("S. 0:0(0) ack 1");
    }
    CHECK(s.count(Counter::TcpSynCookiesSent) == 0);
    s.from(40'000);
}

tcp::Tuple some_tuple() {
    return {IpAddress::v4(0x0a07'0001), IpAddress::v4(0x0a07'0063), 80, 40'000};
}

}  // namespace

TEST_CASE("a cookie tells the MSS, rounded down, for two periods", "[tcp][rfc4987]") {
    const SipKey key{1, 2};
    const Instant start{std::chrono::hours(5)};
    for (const unsigned offered : {64u, 536u, 1000u, 1460u, 8940u, 65'535u}) {
        const auto mss = static_cast<std::uint16_t>(offered);
        const Seq cookie = tcp::make_cookie(key, some_tuple(), Seq(77), mss, start);
        const auto told = tcp::check_cookie(key, some_tuple(), Seq(77), cookie, start + 60s);
        REQUIRE(told);
        CHECK(*told <= mss);
        CHECK(*told * 2u + 1000u > std::min(offered, 9000u));
        CHECK_FALSE(tcp::check_cookie(key, some_tuple(), Seq(77), cookie, start + 140s));
        CHECK_FALSE(tcp::check_cookie(key, some_tuple(), Seq(78), cookie, start));
        CHECK_FALSE(tcp::check_cookie(key, some_tuple(), Seq(77), cookie + 1, start));
        CHECK_FALSE(tcp::check_cookie(key, some_tuple(), Seq(77), cookie + (1u << 28), start));
        CHECK_FALSE(tcp::check_cookie({1, 3}, some_tuple(), Seq(77), cookie, start));
        tcp::Tuple other = some_tuple();
        other.remote_port ^= 1;
        CHECK_FALSE(tcp::check_cookie(key, other, Seq(77), cookie, start));
    }
}

TEST_CASE("a stamp carries the options and is none of the future", "[tcp][rfc4987]") {
    for (const std::uint32_t stamp : {0u, 63u, 64u, 0x7fff'ffffu, 0x8000'0000u, 0xffff'ffffu})
        for (unsigned shift = 0; shift <= 15; ++shift)
            for (const bool sack : {false, true}) {
                tcp::CookieOptions o;
                if (shift < 15) o.shift = static_cast<std::uint8_t>(shift);
                o.sack = sack;
                o.ecn = !sack;
                const std::uint32_t told = tcp::stamp_with(stamp, o);
                CHECK(tcp::options_of_stamp(told) == o);
                CHECK(static_cast<std::int32_t>(stamp - told) >= 0);
                CHECK(stamp - told < 128);
            }
}

TEST_CASE("a full listener answers by a cookie, whose ACK makes the connection",
          "[tcp][rfc4987]") {
    sim::Script s;
    fill(s);
    s.inject("S   0:0(0) win 65535 <mss 1400,sackOK,ts 700 0,wscale 3>");
    s.expect("S.  0:0(0) ack 1 win 65535 <mss 1460,sackOK,wscale 9,ts 700>");
    CHECK(s.count(Counter::TcpSynCookiesSent) == 1);
    const std::uint32_t before = s.host().tables().connections_live;
    const std::string stamp = std::to_string(s.timestamp());
    s.inject("P.  1:101(100) ack 1 win 1000 <ts 710 " + stamp + ">");
    CHECK(s.read() == 100);
    CHECK(s.was_accepted());
    CHECK(s.host().tables().connections_live == before + 1);
    CHECK(s.count(Counter::TcpSynCookiesGood) == 1);
    CHECK(s.block().snd_wnd == 8000);
    CHECK(s.block().mss == 1400 - 12);
    CHECK(s.block().negotiated == (shm::kNegotiatedTimestamps | shm::kNegotiatedSack |
                                   shm::kNegotiatedWindowScale));
    s.expect(".   1:1(0) ack 101");  // the window has opened
    s.write(500);
    s.expect("P.  1:501(500) ack 101 <ts 710>");
    CHECK(static_cast<std::int32_t>(s.timestamp() - std::stoul(stamp)) >= 0);
    s.inject(".   101:101(0) ack 501 win 1000 <ts 711 " + std::to_string(s.timestamp()) + ">");
}

TEST_CASE("without timestamps a cookie connection has neither scaling nor SACK",
          "[tcp][rfc4987]") {
    sim::Script s;
    fill(s);
    s.inject("S   0:0(0) win 65535 <mss 1000,sackOK,wscale 3>");
    s.expect("S.  0:0(0) ack 1");
    s.inject(".   1:1(0) ack 1 win 65535");
    s.read();
    CHECK(s.was_accepted());
    CHECK(s.block().negotiated == 0);
    CHECK(s.block().mss == 536);
    CHECK(s.block().snd_wnd == 65'535);
    s.write(10);
    s.expect("P.  1:11(10) ack 1 win 65535");
}

TEST_CASE("a forged cookie is counted and reset", "[tcp][rfc4987]") {
    sim::Script s;
    fill(s);
    s.inject("S   0:0(0) win 65535 <mss 1000>");
    s.expect("S.  0:0(0) ack 1");
    s.inject(".   1:1(0) ack 2 win 65535");
    s.expect("R   2:2(0)");
    s.inject(".   2:2(0) ack 1 win 65535");  // not the number the cookie was made for
    s.expect("R   1:1(0)");
    CHECK(s.count(Counter::TcpSynCookiesBad) == 2);
    s.read();
    CHECK_FALSE(s.was_accepted());
}

TEST_CASE("an ACK is no cookie while the listener gave none", "[tcp][rfc4987]") {
    sim::Script s;
    fill(s);
    s.inject("S   0:0(0) win 65535 <mss 1000>");
    s.expect("S.  0:0(0) ack 1");
    s.advance(140s);
    s.skip();
    s.inject(".   1:1(0) ack 1 win 65535");
    s.expect("R   1:1(0)");
    CHECK(s.count(Counter::TcpSynCookiesBad) == 0);
}

TEST_CASE("cookies can be switched off", "[tcp][rfc4987]") {
    TcpConfig config;
    config.syn_cookies = false;
    sim::Script s(config);
    fill(s);
    s.inject("S   0:0(0) win 65535 <mss 1000>");
    s.expect_silence();
    CHECK(s.count(Counter::InNoListenerRoom) == 1);
}

TEST_CASE("honest clients connect while a flood lasts", "[tcp][rfc4987]") {
    sim::Script s;
    fill(s);
    for (unsigned client = 0; client < 50; ++client) {
        for (unsigned i = 0; i < 400; ++i) {
            s.from(static_cast<std::uint16_t>(20'000 + (client * 400 + i) % 18'000));
            s.inject("S   0:0(0) win 1024 <mss 1460>");
            s.skip();
        }
        s.from(static_cast<std::uint16_t>(50'000 + client));
        s.inject("S   0:0(0) win 65535 <mss 1460,sackOK,ts 5 0,wscale 7>");
        s.expect("S.  0:0(0) ack 1");
        const std::string stamp = std::to_string(s.timestamp());
        s.inject(".   1:1(0) ack 1 win 512 <ts 6 " + stamp + ">");
        s.read();
    }
    CHECK(s.count(Counter::TcpPassiveOpens) == 50);
    CHECK(s.count(Counter::TcpSynCookiesGood) == 50);
    CHECK(s.host().tables().connections_live == 50 + tcp::kMinHalfOpen);
}
