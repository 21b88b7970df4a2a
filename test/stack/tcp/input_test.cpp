// SPDX-License-Identifier: Apache-2.0
#include "test/sim/script.hpp"

#include <catch2/catch.hpp>

#include <cerrno>

using namespace chiru;
using namespace std::chrono_literals;
using shm::Counter;

TEST_CASE("a reset is believed only at RCV.NXT, elsewhere in the window it is challenged",
          "[tcp][rfc5961]") {
    sim::Script s;
    s.establish();
    s.inject("R   500:500(0) win 0");
    s.expect(".   1:1(0) ack 1");
    CHECK(s.count(Counter::TcpChallengeAcks) == 1);
    s.inject("R   200000000:200000000(0) win 0");
    s.expect_silence();
    s.inject("R   1:1(0) win 0");
    s.read();
    CHECK(s.closed() == ECONNRESET);
    CHECK(s.count(Counter::InReset) == 1);
}

TEST_CASE("a SYN in the window is challenged and changes nothing", "[tcp][rfc5961]") {
    sim::Script s;
    s.establish();
    s.inject("S   500:500(0) win 65535");
    s.expect(".   1:1(0) ack 1");
    CHECK(s.count(Counter::InChallenged) == 1);
    CHECK_FALSE(s.closed());
}

TEST_CASE("an ACK of what was never sent is challenged", "[tcp][rfc5961]") {
    sim::Script s;
    s.establish();
    s.inject(".   1:1(0) ack 5000 win 65535");
    s.expect(".   1:1(0) ack 1");
    CHECK(s.count(Counter::InBadAck) == 1);
}

TEST_CASE("two ends that disagree about their numbers do not answer each other for ever",
          "[tcp][rfc5961]") {
    sim::Script s;
    s.establish();
    for (int i = 0; i < 10; ++i) {
        s.inject(".   200000000:200000000(0) ack 1 win 65535");
        s.expect(".   1:1(0) ack 1");
    }
    s.inject(".   200000000:200000000(0) ack 1 win 65535");
    s.expect_silence();
    CHECK(s.count(Counter::TcpChallengeLimited) == 1);
    // Text that comes again is answered all the same: its sender waits for it.
    s.inject("P.  200000000:200001000(1000) ack 1 win 65535");
    s.expect(".   1:1(0) ack 1");
    s.advance(5s);
    s.inject(".   200000000:200000000(0) ack 1 win 65535");
    s.expect(".   1:1(0) ack 1");
}

TEST_CASE("text behind a gap is told by SACK and delivered once the gap is filled",
          "[tcp][rfc2018]") {
    sim::Script s;
    s.establish();
    s.inject("P.  1001:2001(1000) ack 1 win 65535");
    s.expect(".   1:1(0) ack 1 <sack 1001:2001>");
    s.inject("P.  3001:4001(1000) ack 1 win 65535");
    s.expect(".   1:1(0) ack 1 <sack 3001:4001,sack 1001:2001>");
    CHECK(s.read() == 0);
    s.inject("P.  1:1001(1000) ack 1 win 65535");
    s.expect(".   1:1(0) ack 2001 <sack 3001:4001>");
    CHECK(s.read() == 2000);
    s.inject("P.  2001:3001(1000) ack 1 win 65535");
    s.expect(".   1:1(0) ack 4001");
    CHECK(s.read() == 2000);
}

TEST_CASE("text that came before is reported by DSACK", "[tcp][rfc2883]") {
    sim::Script s;
    s.establish();
    s.inject("P.  1:1001(1000) ack 1 win 65535");
    s.inject("P.  1:1001(1000) ack 1 win 65535");
    s.expect(".   1:1(0) ack 1001 <sack 1:1001>");
    CHECK(s.read() == 1000);
    CHECK(s.count(Counter::InDuplicate) == 1);
}

TEST_CASE("every second full segment is acknowledged at once, a single one by the timer",
          "[tcp][rfc5681]") {
    sim::Script s;
    s.establish();
    s.inject(".   1:1001(1000) ack 1 win 65535");
    s.expect_silence();
    s.inject(".   1001:2001(1000) ack 1 win 65535");
    s.expect(".   1:1(0) ack 2001");
    s.inject("P.  2001:2101(100) ack 1 win 65535");
    s.expect_silence();
    s.advance(20ms);
    s.expect(".   1:1(0) ack 2101");
    CHECK(s.count(Counter::TcpDelayedAcks) == 1);
    s.read();
}

TEST_CASE("a timestamp older than the connection's is refused", "[tcp][rfc7323]") {
    sim::Script s;
    s.listen(80);
    s.inject("S   0:0(0) win 65535 <mss 1000,ts 1000 0>");
    s.expect("S.  0:0(0) ack 1 <ts 1000>");
    s.inject(".   1:1(0) ack 1 win 65535 <ts 1001 0>");
    s.inject("P.  1:101(100) ack 1 win 65535 <ts 900 0>");
    s.expect(".   1:1(0) ack 1 <ts 1001>");
    CHECK(s.count(Counter::InPaws) == 1);
    CHECK(s.read() == 0);
}

TEST_CASE("the window closes as text waits, and opens when it is read", "[tcp][rfc9293]") {
    TcpConfig config;
    config.receive_buffer_bytes = 4000;
    sim::Script s(config);
    s.establish();
    s.inject(".   1:1001(1000) ack 1 win 65535");
    s.inject(".   1001:2001(1000) ack 1 win 65535");
    s.expect(".   1:1(0) ack 2001 win 2000");
    s.inject(".   2001:3001(1000) ack 1 win 65535");
    s.inject(".   3001:4001(1000) ack 1 win 65535");
    s.expect(".   1:1(0) ack 4001 win 0");
    s.inject(".   4001:4002(1) ack 1 win 65535");  // a window probe
    s.expect(".   1:1(0) ack 4001 win 0");
    CHECK(s.read() == 4000);
    s.expect(".   1:1(0) ack 4001 win 1000");  // not before a segment fits, then at each doubling
    s.expect(".   1:1(0) ack 4001 win 2000");
    s.expect(".   1:1(0) ack 4001 win 4000");
}

TEST_CASE("a FIN before its text ends the stream only when the text is there", "[tcp][rfc9293]") {
    sim::Script s;
    s.establish();
    s.inject("F.  1001:1001(0) ack 1 win 65535");
    s.expect(".   1:1(0) ack 1");
    s.read();
    CHECK_FALSE(s.peer_closed());
    s.inject(".   1:1001(1000) ack 1 win 65535");
    s.expect(".   1:1(0) ack 1002");
    CHECK(s.read() == 1000);
    CHECK(s.peer_closed());
}

TEST_CASE("closing in turn goes through LAST-ACK, and is told as an orderly end",
          "[tcp][rfc9293]") {
    sim::Script s;
    s.establish();
    s.inject("F.  1:1(0) ack 1 win 65535");
    s.expect(".   1:1(0) ack 2");
    s.read();
    CHECK(s.block().state == shm::TcpState::CloseWait);
    s.close();
    s.expect("F.  1:1(0) ack 2");
    CHECK(s.block().state == shm::TcpState::LastAck);
    s.inject(".   2:2(0) ack 2 win 65535");
    s.read();
    CHECK(s.closed() == 0);
}

TEST_CASE("closing first rests in TIME-WAIT, where a repeated FIN is answered",
          "[tcp][rfc9293]") {
    sim::Script s;
    s.establish();
    s.close();
    s.expect("F.  1:1(0) ack 1");
    s.inject(".   1:1(0) ack 2 win 65535");
    CHECK(s.block().state == shm::TcpState::FinWait2);
    s.read();
    CHECK(s.closed() == 0);
    s.inject("F.  1:1(0) ack 2 win 65535");
    s.expect(".   2:2(0) ack 2");
    CHECK(s.block().state == shm::TcpState::TimeWait);
    s.advance(50s);
    s.inject("F.  1:1(0) ack 2 win 65535");
    s.expect(".   2:2(0) ack 2");
    s.advance(50s);
    CHECK(s.block().state == shm::TcpState::TimeWait);
    s.advance(11s);
    CHECK(s.block().state == shm::TcpState::Free);
}

TEST_CASE("text for a client that closed is answered with a reset", "[tcp][rfc1122]") {
    sim::Script s;
    s.establish();
    s.close();
    s.expect("F.  1:1(0) ack 1");
    s.inject("P.  1:101(100) ack 2 win 65535");
    s.expect("R.  2:2(0) ack 1");
    s.read();
}

TEST_CASE("half a connection goes on when the other half is closed", "[tcp][rfc9293]") {
    sim::Script s;
    s.establish();
    s.shut_down();
    s.expect("F.  1:1(0) ack 1");
    s.inject(".   1:1(0) ack 2 win 65535");
    s.inject("P.  1:101(100) ack 2 win 65535");
    s.advance(20ms);
    s.expect(".   2:2(0) ack 101");
    CHECK(s.read() == 100);
    s.inject("F.  101:101(0) ack 2 win 65535");
    s.expect(".   2:2(0) ack 102");
    s.read();
    CHECK(s.peer_closed());
    CHECK(s.closed() == 0);
}

TEST_CASE("an ACK that says more brings its window along, though its text is an older repeat",
          "[tcp][rfc9293]") {
    sim::Script s;
    s.establish("<mss 1000>", 3000);
    s.write(8000);
    s.expect(".   1:1001(1000) ack 1");
    s.expect(".   1001:2001(1000) ack 1");
    s.expect(".   2001:3001(1000) ack 1");
    s.inject("F.  101:101(0) ack 1001 win 2000");  // sent behind text that is lost
    s.expect(".   3001:3001(0) ack 1");
    s.inject("P.  1:101(100) ack 3001 win 500");   // that text again, and a window nearly closed
    s.expect(".   3001:3001(0) ack 102");
    s.expect_silence();
}
