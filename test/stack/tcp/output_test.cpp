// SPDX-License-Identifier: Apache-2.0
#include "test/sim/script.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cerrno>
#include <string>

using namespace chiru;
using namespace std::chrono_literals;
using shm::ConnectionOption;
using shm::Counter;

TEST_CASE("SACKs for three later segments cause exactly one retransmission",
          "[tcp][rfc6675][rfc8985]") {
    sim::Script s;
    s.establish();
    s.write(4000);
    s.expect(".   1:1001(1000)     ack 1");  // this one the network loses
    s.expect(".   1001:2001(1000)  ack 1");
    s.expect(".   2001:3001(1000)  ack 1");
    s.expect("P.  3001:4001(1000)  ack 1");
    s.inject(".   1:1(0)           ack 1    win 65535  <sack 1001:2001>");
    s.inject(".   1:1(0)           ack 1    win 65535  <sack 1001:3001>");
    s.expect_silence();  // two could still be reordering
    s.inject(".   1:1(0)           ack 1    win 65535  <sack 1001:4001>");
    s.expect("P.  1:1001(1000)     ack 1");
    s.expect_silence();
    s.inject(".   1:1(0)           ack 4001 win 65535");
    s.read();
    CHECK(s.given_back() == 4000);
    CHECK(s.count(Counter::TcpRetransmits) == 1);
    CHECK(s.count(Counter::TcpTimeouts) == 0);
}

TEST_CASE("without SACK three duplicates cause a retransmission, and a partial ACK the next",
          "[tcp][rfc6582]") {
    sim::Script s;
    s.establish("<mss 1000>");
    s.write(4000);
    for (int i = 0; i < 3; ++i) s.expect(". " + std::to_string(1 + 1000 * i) + ":0(1000) ack 1");
    s.expect("P.  3001:4001(1000)  ack 1");
    for (int i = 0; i < 2; ++i) s.inject(". 1:1(0) ack 1 win 65535");
    s.expect_silence();
    s.inject(".   1:1(0) ack 1 win 65535");
    s.expect("P.  1:1001(1000) ack 1");
    s.inject(".   1:1(0) ack 2001 win 65535");
    s.expect("P.  2001:3001(1000) ack 1");
    s.inject(".   1:1(0) ack 4001 win 65535");
    s.read();
    CHECK(s.given_back() == 4000);
}

TEST_CASE("the timer doubles with each repeat, and only one segment goes out",
          "[tcp][rfc6298]") {
    sim::Script s;
    s.establish("<mss 1000>");
    s.write(3000);
    s.expect(".   1:1001(1000) ack 1");
    s.expect(".   1001:2001(1000) ack 1");
    s.expect("P.  2001:3001(1000) ack 1");
    s.advance(4900us);
    s.expect_silence();
    s.advance(300us);
    s.expect("P.  1:1001(1000) ack 1");
    s.expect_silence();
    s.advance(9500us);
    s.expect_silence();
    s.advance(800us);
    s.expect("P.  1:1001(1000) ack 1");
    CHECK(s.block().cwnd_bytes == 1000);
    CHECK(s.count(Counter::TcpTimeouts) == 2);
    s.inject(".   1:1(0) ack 3001 win 65535");
    s.read();
    CHECK(s.given_back() == 3000);
}

TEST_CASE("a time-out that was early is undone, and the timer learns", "[tcp][rfc3522]") {
    sim::Script s;
    s.listen(80);
    s.inject("S   0:0(0) win 65535 <mss 1012,ts 1000 0>");  // without SACK no probe
    s.expect("S.  0:0(0) ack 1");
    s.inject(".   1:1(0) ack 1 win 65535 <ts 1001 0>");
    s.read();
    const auto cwnd = s.block().cwnd_bytes;
    s.write(1000);
    s.expect("P.  1:1001(1000) ack 1");
    const std::uint64_t original = s.timestamp();
    s.advance(6ms);
    s.expect("P.  1:1001(1000) ack 1");
    CHECK(s.block().cwnd_bytes == 1000);
    s.inject(".   1:1(0) ack 1001 win 65535 <ts 1002 " + std::to_string(original) + ">");
    s.read();
    CHECK(s.block().cwnd_bytes >= cwnd);
    s.write(1000);
    s.expect("P.  1001:2001(1000) ack 1");
    s.advance(9ms);
    s.expect_silence();  // the floor is 10 ms now
    s.inject(".   1:1(0) ack 2001 win 65535 <ts 1003 " + std::to_string(s.timestamp()) + ">");
    s.read();
}

TEST_CASE("a short segment waits for the one before it, unless told not to", "[tcp][rfc896]") {
    sim::Script s;
    s.establish();
    s.write(100);
    s.expect("P.  1:101(100) ack 1");
    s.write(100);
    s.write(100);
    s.expect_silence();
    s.inject(".   1:1(0) ack 101 win 65535");
    s.expect("P.  101:301(200) ack 1");
    s.option(ConnectionOption::NoDelay, 1);
    s.write(50);
    s.expect("P.  301:351(50) ack 1");
    s.inject(".   1:1(0) ack 351 win 65535");
    s.read();
    CHECK(s.given_back() == 350);
}

TEST_CASE("a corked connection sends full segments only, and the rest when uncorked", "[tcp]") {
    sim::Script s;
    s.establish();
    s.option(ConnectionOption::Cork, 1);
    s.write(1500);
    s.expect(".   1:1001(1000) ack 1");
    s.inject(".   1:1(0) ack 1001 win 65535");
    s.expect_silence();
    s.option(ConnectionOption::Cork, 0);
    s.expect("P.  1001:1501(500) ack 1");
    s.inject(".   1:1(0) ack 1501 win 65535");
    s.read();
}

TEST_CASE("a closed window is probed for as long as the peer answers", "[tcp][rfc9293]") {
    sim::Script s;
    s.establish("<mss 1000>", 1000);
    s.write(2000);
    s.expect(".   1:1001(1000) ack 1");
    s.inject(".   1:1(0) ack 1001 win 0");
    s.expect_silence();
    Micros wait = 200ms;
    for (int i = 0; i < 30; ++i) {
        s.advance(wait + 1ms);
        s.expect(".   1000:1000(0) ack 1");
        s.inject(".   1:1(0) ack 1001 win 0");
        wait = std::min<Micros>(2 * wait, 60s);
    }
    CHECK(s.count(Counter::TcpZeroWindowProbes) == 30);
    s.inject(".   1:1(0) ack 1001 win 1000");
    s.expect("P.  1001:2001(1000) ack 1");
    s.inject(".   1:1(0) ack 2001 win 1000");
    s.read();
    CHECK_FALSE(s.closed());
}

TEST_CASE("no segment is larger than the peer's window", "[tcp][rfc9293]") {
    sim::Script s;
    s.establish("<mss 1000>", 1500);
    s.write(4000);
    s.expect(".   1:1001(1000) ack 1");
    s.expect_silence();  // 500 are less than a segment, and less than half the window
    s.inject(".   1:1(0) ack 1001 win 3000");
    s.expect(".   1001:2001(1000) ack 1");
    s.expect(".   2001:3001(1000) ack 1");
    s.expect("P.  3001:4001(1000) ack 1");
    s.inject(".   1:1(0) ack 4001 win 3000");
    s.read();
    CHECK(s.given_back() == 4000);
}

TEST_CASE("an abort resets the peer, and gives everything back", "[tcp][rfc9293]") {
    sim::Script s;
    s.establish();
    s.write(1000);
    s.expect("P.  1:1001(1000) ack 1");
    s.abort();
    s.expect("R.  1001:1001(0) ack 1");
    s.read();
    CHECK(s.closed() == 0);
}

TEST_CASE("after an abort no end is told, though one had come", "[tcp][rfc9293]") {
    sim::Script s;
    s.establish();
    s.inject("FP. 1:101(100) ack 1 win 65535");
    s.expect(".   1:1(0) ack 102");
    s.abort();
    s.expect("R.  1:1(0) ack 102");
    s.read();
    CHECK_FALSE(s.peer_closed());
    CHECK(s.closed() == 0);
}

TEST_CASE("a timer that had backed off recovers with the first repeat that the echo tells apart",
          "[tcp][rfc7323][rfc6298]") {
    sim::Script s;
    s.establish("<mss 1000,ts 1 0>");
    s.write(100);
    s.expect("P.  1:101(100) ack 1");
    s.advance(700ms);
    for (int i = 0; i < 7; ++i) s.expect("P.  1:101(100) ack 1");
    CHECK(s.block().rto_us == 128 * 5'001);  // a round trip of 1 us, and the floor
    const std::string echo = std::to_string(s.timestamp());
    s.inject(".   1:1(0) ack 101 win 65535 <ts 2 " + echo + ">");
    CHECK(s.block().rto_us < 100'000);
    s.read();
}

TEST_CASE("silence is asked by keep-alives, and ends the connection", "[tcp][rfc9293]") {
    sim::Script s;
    s.establish();
    s.option(ConnectionOption::KeepIdle, 10);
    s.option(ConnectionOption::KeepInterval, 2);
    s.option(ConnectionOption::KeepCount, 3);
    s.option(ConnectionOption::KeepAlive, 1);
    s.advance(9s);
    s.expect_silence();
    s.advance(1100ms);
    s.expect(".   0:0(0) ack 1");
    s.inject(".   1:1(0) ack 1 win 65535");
    s.advance(9s);
    s.expect_silence();
    for (int i = 0; i < 3; ++i) {
        s.advance(2s);
        s.expect(".   0:0(0) ack 1");
    }
    s.advance(2100ms);
    s.expect("R.  1:1(0) ack 1");
    s.read();
    CHECK(s.closed() == ETIMEDOUT);
    CHECK(s.count(Counter::TcpKeepAlives) == 4);
}

TEST_CASE("what has arrived behind a gap takes no room from what may be queued", "[tcp][rfc6675]") {
    sim::Script s;
    s.establish();
    for (int i = 0; i < 20; ++i) s.write(1'000);
    s.inject(".  1:1(0)  ack 1    win 65535  <sack 1001:2001,sack 3001:10001>");
    s.skip();
    s.read();
    s.inject(".  1:1(0)  ack 2001 win 65535  <sack 3001:10001>");
    s.skip();
    std::uint32_t room = 0;
    for (const shm::Completion& told : s.host().take_completions())
        if (told.op == shm::CompletionOp::Sent) room = told.sent.room_bytes;
    CHECK(room == 7'000 + 2 * s.block().cwnd_bytes);
    s.abort();
    s.skip();
}
