// SPDX-License-Identifier: Apache-2.0
#include "test/sim/script.hpp"

#include <catch2/catch.hpp>

#include <string>

using namespace chiru;
using namespace std::chrono_literals;
using shm::ConnectionOption;
using shm::Counter;

namespace {

void expect_segment(sim::Script& s, int i, bool last = false) {
    s.expect((last ? "P.  " : ".   ") + std::to_string(1 + i * 1000) + ":" +
             std::to_string(1001 + i * 1000) + "(1000) ack 1");
}

}  // namespace

TEST_CASE("a program's bound on the rate spaces its segments", "[tcp][pacing]") {
    sim::Script s;
    s.establish("<mss 1000>");
    s.option(ConnectionOption::MaxPacingRate, 1'000'000);  // a segment each millisecond
    CHECK(s.block().pacing_kbps == 1'000);
    s.write(5'000);
    expect_segment(s, 0);
    for (int i = 1; i < 5; ++i) {
        s.expect_silence();
        s.advance(600us);
        s.expect_silence();
        s.advance(i == 1 ? 300us : 400us);  // the first burst may run a little ahead
        expect_segment(s, i, i == 4);
    }
    s.inject(".   1:1(0) ack 5001 win 65535");
    CHECK(s.count(Counter::TcpRetransmits) == 0);
}

TEST_CASE("no time-out is due for what waits for its pace", "[tcp][pacing]") {
    sim::Script s;
    s.establish("<mss 1000>");
    s.option(ConnectionOption::MaxPacingRate, 10'000);  // a segment in 100 ms, the RTO is 5
    s.write(2'000);
    expect_segment(s, 0);
    s.inject(".   1:1(0) ack 1001 win 65535");
    s.advance(90ms);
    s.expect_silence();
    s.advance(12ms);
    expect_segment(s, 1, true);
    s.inject(".   1:1(0) ack 2001 win 65535");
    CHECK(s.count(Counter::TcpTimeouts) == 0);
}

TEST_CASE("what a time-out repeats does not wait", "[tcp][pacing]") {
    sim::Script s;
    s.establish("<mss 1000>");
    s.option(ConnectionOption::MaxPacingRate, 10'000);
    s.write(2'000);
    expect_segment(s, 0);
    s.advance(6ms);
    s.expect("P.  1:1001(1000) ack 1");
    CHECK(s.count(Counter::TcpTimeouts) == 1);
    s.inject(".   1:1(0) ack 1001 win 65535");
    s.abort();
    s.expect("R.  1001:1001(0)");
}

TEST_CASE("without a bound, and with one taken back, all goes at once", "[tcp][pacing]") {
    sim::Script s;
    s.establish("<mss 1000>");
    s.option(ConnectionOption::MaxPacingRate, 1'000'000);
    s.write(4'000);
    expect_segment(s, 0);
    s.expect_silence();
    s.option(ConnectionOption::MaxPacingRate, 0);
    CHECK(s.block().pacing_kbps == 0);
    for (int i = 1; i < 4; ++i) expect_segment(s, i, i == 3);
    s.inject(".   1:1(0) ack 4001 win 65535");
}

TEST_CASE("ACKs and the end of a stream do not wait for a pace", "[tcp][pacing]") {
    sim::Script s;
    s.establish("<mss 1000>");
    s.option(ConnectionOption::MaxPacingRate, 10'000);
    s.write(2'000);
    expect_segment(s, 0);
    s.inject("P.  1:1001(1000) ack 1 win 65535");
    s.inject("P.  1001:2001(1000) ack 1 win 65535");
    s.expect(".   1001:1001(0) ack 2001");
    s.read();
    s.inject(".   2001:2001(0) ack 1001 win 65535");
    s.advance(102ms);
    s.expect("P.  1001:2001(1000) ack 2001");
    s.inject(".   2001:2001(0) ack 2001 win 65535");
    s.shut_down();
    s.expect("F.  2001:2001(0) ack 2001");
}
