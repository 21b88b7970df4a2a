// SPDX-License-Identifier: Apache-2.0
#include "test/sim/script.hpp"

#include <catch2/catch.hpp>

#include <set>

using namespace chiru;
using namespace std::chrono_literals;
using shm::Counter;

TEST_CASE("what no honest host sends is neither answered nor believed", "[tcp][rfc9293]") {
    sim::Script s;
    s.establish();
    for (const char* segment :
         {"SF  1:1(0) win 100", "SR  1:1(0) win 100", "SFR. 1:1(0) ack 1 win 100",
          "-   1:1(0) win 100", "SR. 1:1(0) ack 1 win 100"})
        s.inject(segment);
    s.expect_silence();
    CHECK(s.count(Counter::InImpossible) == 5);
    s.from(40'001);
    s.inject("SF  0:0(0) win 100");
    s.inject("-   0:0(0) win 100");
    s.from(0);
    s.inject("S   0:0(0) win 100 <mss 1000>");
    s.expect_silence();
    CHECK(s.count(Counter::InImpossible) == 8);
    s.read();
    CHECK_FALSE(s.closed());
}

TEST_CASE("resets to strangers are limited, by no number they could count on", "[tcp]") {
    TcpConfig config;
    config.resets_per_second = 100;
    sim::Script s(config);
    std::set<std::uint64_t> counts;
    for (int second = 0; second < 6; ++second) {
        const std::uint64_t before = s.count(Counter::TcpResetsSent);
        for (int i = 0; i < 300; ++i) {
            s.from(static_cast<std::uint16_t>(40'000 + i));
            s.inject("S 0:0(0) win 1000");
        }
        s.skip();
        counts.insert(s.count(Counter::TcpResetsSent) - before);
        s.advance(1100ms);
    }
    CHECK(*counts.begin() >= 50);
    CHECK(*counts.rbegin() <= 250);  // two seconds may meet in one
    CHECK(counts.size() > 2);
    CHECK(s.count(Counter::TcpResetsLimited) > 0);
}

TEST_CASE("TIME-WAIT takes no more than half of the table", "[tcp]") {
    sim::Script s;  // 256 connections
    s.listen(80);
    for (std::uint16_t i = 0; i < 200; ++i) {
        s.from(static_cast<std::uint16_t>(41'000 + i));
        s.inject("S   0:0(0) win 65535 <mss 1000>");
        s.skip();
        s.inject(".   1:1(0) ack 1 win 65535");
        s.read();
        s.close();
        s.skip();
        s.inject("F.  1:1(0) ack 2 win 65535");
        s.read();
        s.skip();
        s.credit();
    }
    CHECK(s.host().tables().connections_live == 128);
    CHECK(s.count(Counter::TcpTimeWaitRecycled) == 72);
}

TEST_CASE("orphans take no more than a quarter of the table", "[tcp]") {
    sim::Script s;
    s.listen(80);
    for (std::uint16_t i = 0; i < 90; ++i) {
        s.from(static_cast<std::uint16_t>(41'000 + i));
        s.inject("S   0:0(0) win 65535 <mss 1000>");
        s.skip();
        s.inject(".   1:1(0) ack 1 win 65535");
        s.read();
        s.credit();
    }
    s.part(Parting::Orderly);
    CHECK(s.count(Counter::TcpOrphansReset) == 90 - 64);
    CHECK(s.host().tables().connections_live == 64);
    s.skip();
}
