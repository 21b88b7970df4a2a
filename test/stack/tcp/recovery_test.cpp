// SPDX-License-Identifier: Apache-2.0
#include "test/sim/script.hpp"

#include <catch2/catch.hpp>

using namespace chiru;
using namespace std::chrono_literals;
using shm::Counter;

namespace {

void expect_segments(sim::Script& s, int from, int to) {
    for (int i = from; i < to; ++i)
        s.expect(".   " + std::to_string(1 + i * 1000) + ":" + std::to_string(1001 + i * 1000) +
                 "(1000) ack 1");
}

/// Ten segments are out, the timer expired, and the first one went again.
void time_out(sim::Script& s) {
    s.establish("<mss 1000>");
    s.write(30'000);
    expect_segments(s, 0, 10);
    s.advance(8ms);
    s.expect("P.  1:1001(1000) ack 1");
    CHECK(s.count(Counter::TcpTimeouts) == 1);
    CHECK(s.block().cwnd_bytes == 1000);
}

}  // namespace

TEST_CASE("without timestamps, ACKs of text sent once prove a time-out needless",
          "[tcp][rfc5682]") {
    sim::Script s;
    time_out(s);
    s.inject(".   1:1(0) ack 1001 win 65535");
    expect_segments(s, 10, 12);  // new text, and nothing again
    s.inject(".   1:1(0) ack 2001 win 65535");
    CHECK(s.count(Counter::TcpSpuriousTimeouts) == 1);
    CHECK(s.block().cwnd_bytes >= 10'000);
    s.inject(".   1:1(0) ack 10001 win 65535");
    CHECK(s.count(Counter::TcpRetransmits) == 1);
    s.abort();
    expect_segments(s, 12, 28);  // in slow start, as before the time-out
    s.expect("R.  28001:28001(0)");
}

TEST_CASE("a duplicate ACK after the new text shows that the time-out was right",
          "[tcp][rfc5682]") {
    sim::Script s;
    time_out(s);
    s.inject(".   1:1(0) ack 1001 win 65535");
    expect_segments(s, 10, 12);
    s.inject(".   1:1(0) ack 1001 win 65535");
    s.expect("P.  1001:2001(1000) ack 1");
    CHECK(s.count(Counter::TcpSpuriousTimeouts) == 0);
    s.abort();
    s.expect("R.  12001:12001(0)");
}

TEST_CASE("blocks of single bytes tell of no segment, and cut none into pieces",
          "[tcp][rfc2018]") {
    sim::Script s;
    s.establish("<mss 1000,sackOK>");
    s.write(30'000);
    expect_segments(s, 0, 10);
    s.inject(".   1:1(0) ack 1 win 65535 <sack 5002:5003,sack 3002:3003,sack 1002:1003>");
    s.inject(".   1:1(0) ack 1 win 65535 <sack 9002:9003,sack 8002:8003,sack 7002:7003>");
    s.expect_silence();
    CHECK(s.count(Counter::TcpRetransmits) == 0);
    s.inject(".   1:1(0) ack 1 win 65535 <sack 1001:10001>");
    s.expect("P.  1:1001(1000) ack 1");
    CHECK(s.count(Counter::TcpRetransmits) == 1);
    s.abort();
    s.skip();
}

TEST_CASE("after a pause the window is worth half for each period", "[tcp][rfc2861]") {
    sim::Script s;
    s.establish("<mss 1000>");
    for (int round = 0; round < 2; ++round) {
        const int first = round == 0 ? 0 : 10, end = round == 0 ? 10 : 28;
        s.write(static_cast<std::size_t>(end - first) * 1000);
        for (int i = first; i < end; ++i) {
            const bool last = i + 1 == end;
            s.expect((last ? "P.  " : ".   ") + std::to_string(1 + i * 1000) + ":" +
                     std::to_string(1001 + i * 1000) + "(1000) ack 1");
        }
        s.inject(".   1:1(0) ack " + std::to_string(1 + end * 1000) + " win 65535");
    }
    const std::uint32_t before = s.block().cwnd_bytes;
    CHECK(before >= 25'000);
    s.advance(250ms);
    s.write(100);
    s.expect("P.  28001:28101(100) ack 1");
    CHECK(s.block().cwnd_bytes == before / 2);
    s.inject(".   1:1(0) ack 28101 win 65535");
    s.advance(10s);
    s.write(100);
    s.expect("P.  28101:28201(100) ack 1");
    CHECK(s.block().cwnd_bytes == 10'000);  // never below what a new connection has
    s.inject(".   1:1(0) ack 28201 win 65535");
}

TEST_CASE("of a send that was cut behind the stack, only what is lost goes out again",
          "[tcp][rfc6675]") {
    sim::Script s({}, {.tso_bytes = 16'384});
    s.establish();
    s.write(4000);
    s.expect(".   1:1001(1000)     ack 1");
    s.expect(".   1001:2001(1000)  ack 1");  // this one the network loses
    s.expect(".   2001:3001(1000)  ack 1");
    s.expect("P.  3001:4001(1000)  ack 1");
    s.inject(".   1:1(0)           ack 1001 win 65535");
    s.inject(".   1:1(0)           ack 1001 win 65535  <sack 2001:4001>");
    s.advance(1ms);
    s.expect("P.  1001:2001(1000)  ack 1");
    s.expect_silence();
    s.inject(".   1:1(0)           ack 4001 win 65535");
    s.read();
    CHECK(s.given_back() == 4000);
    CHECK(s.count(Counter::TcpRetransmits) == 1);
}

TEST_CASE("without SACK too a single segment of such a send is repeated", "[tcp][rfc6582]") {
    sim::Script s({}, {.tso_bytes = 16'384});
    s.establish("<mss 1000>");
    s.write(5000);
    for (int i = 0; i < 4; ++i) s.expect(". " + std::to_string(1 + 1000 * i) + ":0(1000) ack 1");
    s.expect("P.  4001:5001(1000)  ack 1");
    for (int i = 0; i < 3; ++i) s.inject(". 1:1(0) ack 1 win 65535");
    s.expect("P.  1:1001(1000) ack 1");
    s.expect_silence();
    s.inject(".   1:1(0) ack 5001 win 65535");
    s.read();
    CHECK(s.given_back() == 5000);
    CHECK(s.count(Counter::TcpRetransmits) == 1);
}

TEST_CASE("the tail loss probe is the last segment of such a send", "[tcp][rfc8985]") {
    sim::Script s({}, {.tso_bytes = 16'384});
    s.establish();
    s.write(100);
    s.expect("P.  1:101(100) ack 1");
    s.advance(1ms);
    s.inject(".   1:1(0) ack 101 win 65535");  // a round trip is known
    s.write(3500);
    for (int i = 0; i < 3; ++i) s.expect(". " + std::to_string(101 + 1000 * i) + ":0(1000)");
    s.expect("P.  3101:3601(500) ack 1");
    s.advance(4900us);
    s.expect("P.  3101:3601(500) ack 1");
    s.inject(".   1:1(0) ack 3601 win 65535");
    s.read();
    CHECK(s.given_back() == 3600);
    CHECK(s.count(Counter::TcpTimeouts) == 0);
}
