// SPDX-License-Identifier: Apache-2.0
#include "test/sim/script.hpp"

#include <catch2/catch.hpp>

using namespace chiru;
using namespace std::chrono_literals;
using shm::Counter;

TEST_CASE("a listener that defers accepts once text comes", "[tcp]") {
    sim::Script s;
    s.listen(80, {.backlog = 16, .defer_s = 7});
    s.inject("S   0:0(0) win 65535 <mss 1000>");
    s.expect("S.  0:0(0) ack 1");
    s.inject(".   1:1(0) ack 1 win 65535");
    s.advance(5s);
    s.expect_silence();  // the SYN-ACK has arrived, so it is not repeated
    s.read();
    CHECK_FALSE(s.was_accepted());
    s.inject("P.  1:101(100) ack 1 win 65535");
    CHECK(s.read() == 100);
    CHECK(s.was_accepted());
    s.skip();
}

TEST_CASE("a listener that defers asks again when its time is over", "[tcp]") {
    sim::Script s;
    s.listen(80, {.backlog = 16, .defer_s = 3});
    s.inject("S   0:0(0) win 65535 <mss 1000>");
    s.expect("S.  0:0(0) ack 1");
    s.advance(50ms);
    s.inject(".   1:1(0) ack 1 win 65535");
    s.advance(2900ms);
    s.expect_silence();
    s.advance(200ms);
    s.expect("S.  0:0(0) ack 1");
    s.read();
    CHECK_FALSE(s.was_accepted());
    s.inject(".   1:1(0) ack 1 win 65535");
    s.read();
    CHECK(s.was_accepted());
}

TEST_CASE("the largest segment can be bounded in both directions", "[tcp][rfc6691]") {
    SECTION("of a listener") {
        sim::Script s;
        s.listen(80, {.backlog = 16, .defer_s = 0, .max_segment = 500});
        s.inject("S   0:0(0) win 65535 <mss 1400>");
        s.expect("S.  0:0(0) ack 1 <mss 500>");
        s.inject(".   1:1(0) ack 1 win 65535");
        s.read();
        s.write(1000);
        s.expect(".   1:501(500) ack 1");
        s.expect("P.  501:1001(500) ack 1");
    }
    SECTION("of a connect") {
        sim::Script s;
        s.connect(90, 700);
        s.expect("S   0:0(0) <mss 700>");
        s.inject("S.  0:0(0) ack 1 win 65535 <mss 1400>");
        s.expect(".   1:1(0) ack 1");
        s.read();
        s.write(700);
        s.expect("P.  1:701(700) ack 1");
    }
}
