// SPDX-License-Identifier: Apache-2.0
#include "test/sim/script.hpp"

#include <catch2/catch.hpp>

#include <cerrno>

using namespace chiru;
using namespace std::chrono_literals;
using shm::Counter;

TEST_CASE("a SYN is answered with what it offered and no more", "[tcp][rfc9293][rfc7323]") {
    sim::Script s;
    s.listen(80);
    s.inject("S   0:0(0) win 65535 <mss 1000,sackOK,ts 700 0,wscale 3>");
    s.expect("S.  0:0(0) ack 1 <mss 1460,sackOK,wscale 9,ts 700>");
    s.inject(".   1:1(0) ack 1 win 1000 <ts 701 0>");
    CHECK(s.read() == 0);
    CHECK(s.was_accepted());
    CHECK(s.block().snd_wnd == 8000);
    CHECK(s.block().mss == 988);
}

TEST_CASE("without options there are none, and the MSS is 536", "[tcp][rfc9293]") {
    sim::Script s;
    s.establish("", 65'535);
    CHECK(s.block().mss == 536);
    CHECK(s.block().negotiated == 0);
}

TEST_CASE("an active open ends with Connected, and an ACK goes out", "[tcp][rfc9293]") {
    sim::Script s;
    s.connect(90);
    s.expect("S   0:0(0) <mss 1460,sackOK,wscale 9>");
    s.inject("S.  0:0(0) ack 1 win 65535 <mss 1400,sackOK>");
    s.expect(".   1:1(0) ack 1");
    s.read();
    CHECK(s.was_connected());
}

TEST_CASE("both ends may open at once", "[tcp][rfc9293]") {
    sim::Script s;
    s.connect(90);
    s.expect("S   0:0(0)");
    s.inject("S   0:0(0) win 65535 <mss 1400>");
    s.expect("S.  0:0(0) ack 1");
    s.inject("S.  0:0(0) ack 1 win 65535");
    s.expect(".   1:1(0) ack 1");
    s.read();
    CHECK(s.was_connected());
}

TEST_CASE("a refused open says so", "[tcp][rfc9293]") {
    sim::Script s;
    s.connect(90);
    s.expect("S   0:0(0)");
    s.inject("R.  0:0(0) ack 1 win 0");
    s.read();
    CHECK(s.closed() == ECONNREFUSED);
}

TEST_CASE("a reset that does not acknowledge our SYN ends no open", "[tcp][rfc9293]") {
    sim::Script s;
    s.connect(90);
    s.expect("S   0:0(0)");
    s.inject("R   0:0(0) win 0");
    s.inject("R.  0:0(0) ack 5 win 0");
    s.read();
    CHECK_FALSE(s.closed());
}

TEST_CASE("an unanswered SYN is repeated with back-off, and given up", "[tcp][rfc6298]") {
    TcpConfig config;
    config.syn_retries = 2;
    sim::Script s(config);
    s.connect(90);
    s.expect("S   0:0(0)");
    s.advance(999ms);
    s.expect_silence();
    s.advance(2ms);
    s.expect("S   0:0(0)");
    s.advance(1990ms);
    s.expect_silence();
    s.advance(20ms);
    s.expect("S   0:0(0)");
    s.advance(5s);
    s.read();
    CHECK(s.closed() == ETIMEDOUT);
}

TEST_CASE("a SYN to a port where nobody listens is answered with a reset", "[tcp][rfc9293]") {
    sim::Script s;
    s.inject("S   0:0(0) win 65535");
    CHECK(s.count(Counter::InNoSocket) == 1);
    CHECK(s.count(Counter::TcpResetsSent) == 1);
    CHECK(s.host().count(Counter::TcpSegmentsOut) == 1);
    s.expect("R.  0:0(0) ack 1");
}

TEST_CASE("a backlog that is full takes no more, and has room again once somebody accepts",
          "[tcp][rfc4987]") {
    sim::Script s;
    constexpr shm::ListenerId kSlow{77};
    s.host().stack().listen(kSlow, Endpoint{IpAddress(), 80}, 0, {.backlog = 2});
    s.host().stack().share_listener(kSlow, sim::Host::kSession);
    for (const unsigned port : {41'000u, 41'001u}) {
        s.from(static_cast<std::uint16_t>(port));
        s.inject("S 0:0(0) win 1000");
        s.expect("S. 0:0(0) ack 1");
        s.inject(". 1:1(0) ack 1 win 1000");
    }
    s.from(41'002);
    s.inject("S 0:0(0) win 1000");
    s.expect_silence();
    CHECK(s.count(Counter::InNoListenerRoom) == 1);
    shm::Submission credit;
    credit.op = shm::SubmissionOp::AcceptCredit;
    credit.credit = {kSlow, 1};
    CHECK(s.host().submit(credit, Instant{}) == Violation::None);
    s.inject("S 0:0(0) win 1000");
    s.expect("S. 0:0(0) ack 1");
    s.host().stack().unlisten(kSlow, Instant{});
    s.skip();
}

TEST_CASE("a SYN in the window of a connection is not believed", "[tcp][rfc5961]") {
    sim::Script s;
    s.establish();
    CHECK(s.count(Counter::TcpPassiveOpens) == 1);
    s.inject("S   0:0(0) win 65535");  // in the window of the connection: never believed
    s.expect(".   1:1(0) ack 1");
    CHECK(s.count(Counter::TcpChallengeAcks) + s.count(Counter::InDuplicate) +
              s.count(Counter::InOutsideWindow) >= 1);
}
