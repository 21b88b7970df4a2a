// SPDX-License-Identifier: Apache-2.0
#include "test/sim/script.hpp"

#include <catch2/catch.hpp>

using namespace chiru;
using namespace std::chrono_literals;
using shm::Counter;

namespace {

TcpConfig with_ecn(EcnPolicy policy,
                   shm::CongestionAlgorithm algorithm = shm::CongestionAlgorithm::Cubic) {
    TcpConfig tcp;
    tcp.ecn = policy;
    tcp.congestion = algorithm;
    return tcp;
}

/// A connection whose peer asked for ECN.
void establish(sim::Script& s) {
    s.listen(80);
    s.inject("SEW 0:0(0) win 65535 <mss 1000,sackOK>");
    s.expect("SE. 0:0(0) ack 1 tos 0");
    s.inject(".   1:1(0) ack 1 win 65535");
    s.read();
    REQUIRE(s.was_accepted());
}

/// Ten segments, each of which may be marked.
void expect_ten(sim::Script& s) {
    for (int i = 0; i < 10; ++i) {
        const auto first = std::to_string(1 + i * 1000), end = std::to_string(1001 + i * 1000);
        s.expect((i == 9 ? "P. " : ".  ") + first + ":" + end + "(1000) ack 1 tos 2");
    }
}

}  // namespace

TEST_CASE("a peer that asks for ECN gets it, and text may be marked", "[tcp][rfc3168]") {
    sim::Script s;
    establish(s);
    CHECK((s.block().negotiated & shm::kNegotiatedEcn) != 0);
    CHECK(s.count(Counter::TcpEcnConnections) == 1);
    s.write(500);
    s.expect("P.  1:501(500) ack 1 tos 2");
    s.inject("P.  1:101(100) ack 501 win 65535");
    s.advance(20ms);
    s.expect(".   501:501(0) ack 101 tos 0");  // no text, no ECT
    s.read();
}

TEST_CASE("where ECN is off, a peer that asks for it does not get it", "[tcp][rfc3168]") {
    sim::Script s(with_ecn(EcnPolicy::Off));
    s.listen(80);
    s.inject("SEW 0:0(0) win 65535 <mss 1000,sackOK>");
    s.expect("S.  0:0(0) ack 1 tos 0");
    s.inject(".   1:1(0) ack 1 win 65535");
    s.read();
    s.write(500);
    s.expect("P.  1:501(500) ack 1 tos 0");
    s.inject(".   1:1(0) ack 501 win 65535");
}

TEST_CASE("a SYN with one of the two bits is no offer", "[tcp][rfc3168]") {
    sim::Script s;
    s.listen(80);
    s.inject("SE  0:0(0) win 65535 <mss 1000>");
    s.expect("S.  0:0(0) ack 1");
    s.inject("R   1:1(0) win 0");
}

TEST_CASE("an active open asks for ECN where it is on", "[tcp][rfc3168]") {
    sim::Script s(with_ecn(EcnPolicy::On));
    s.connect(80);
    s.expect("SEW 0:0(0) tos 0");
    SECTION("and takes the answer") {
        s.inject("SE. 0:0(0) ack 1 win 65535 <mss 1000>");
        s.expect(".   1:1(0) ack 1");
        s.read();
        s.write(100);
        s.expect("P.  1:101(100) ack 1 tos 2");
        s.inject(".   1:1(0) ack 101 win 65535");
    }
    SECTION("but not a mirror of its question") {
        s.inject("SEW. 0:0(0) ack 1 win 65535 <mss 1000>");
        s.expect(".   1:1(0) ack 1");
        s.read();
        s.write(100);
        s.expect("P.  1:101(100) ack 1 tos 0");
        s.inject(".   1:1(0) ack 101 win 65535");
    }
    SECTION("and not again when that SYN was lost, for somebody may drop such SYNs") {
        s.advance(1s + 1ms);
        s.expect("S   0:0(0)");
        s.inject("S.  0:0(0) ack 1 win 65535 <mss 1000>");
        s.expect(".   1:1(0) ack 1");
        s.read();
    }
}

TEST_CASE("a mark is told by every ACK until the sender says it slowed down", "[tcp][rfc3168]") {
    sim::Script s;
    establish(s);
    s.inject(".   1:1001(1000) ack 1 win 65535 tos 3");
    s.expect("E.  1:1(0) ack 1001");  // at once
    s.inject(".   1001:2001(1000) ack 1 win 65535 tos 2");
    s.inject(".   2001:3001(1000) ack 1 win 65535 tos 2");
    s.expect("E.  1:1(0) ack 3001");
    s.inject("W.  3001:4001(1000) ack 1 win 65535 tos 2");
    s.inject(".   4001:5001(1000) ack 1 win 65535 tos 2");
    s.expect(".   1:1(0) ack 5001");
    s.inject("W.  5001:6001(1000) ack 1 win 65535 tos 3");  // slowed down, and marked again
    s.expect("E.  1:1(0) ack 6001");
    CHECK(s.count(Counter::TcpMarksReceived) == 2);
    s.read();
}

TEST_CASE("an echo shrinks the window once a round trip, and the next text says so",
          "[tcp][rfc3168]") {
    sim::Script s;
    establish(s);
    s.write(30'000);
    for (int i = 0; i < 10; ++i) {
        const auto first = std::to_string(1 + i * 1000), end = std::to_string(1001 + i * 1000);
        s.expect(".   " + first + ":" + end + "(1000) ack 1 tos 2");
    }
    s.inject("E.  1:1(0) ack 1001 win 65535");
    s.expect("W.  10001:11001(1000) ack 1 tos 2");
    CHECK(s.block().ssthresh_bytes == 7000);  // of 10000 that were in flight
    for (int i = 2; i <= 9; ++i)
        s.inject("E.  1:1(0) ack " + std::to_string(1 + i * 1000) + " win 65535");
    CHECK(s.block().ssthresh_bytes == 7000);
    CHECK(s.count(Counter::TcpReductions) == 1);
    CHECK(s.count(Counter::TcpEchoesReceived) == 9);
    // Nine segments arrived; seven tenths of them were followed by a new one.
    for (int i = 11; i <= 15; ++i) {
        const auto first = std::to_string(1 + i * 1000), end = std::to_string(1001 + i * 1000);
        s.expect(".   " + first + ":" + end + "(1000) ack 1 tos 2");
    }
    s.expect_silence();
    CHECK(s.count(Counter::TcpRetransmits) == 0);
    s.abort();
    s.expect("R.  16001:16001(0)");
}

TEST_CASE("what is sent again may not be marked", "[tcp][rfc3168]") {
    sim::Script s;
    establish(s);
    s.write(10'000);
    expect_ten(s);
    s.inject(".   1:1(0) ack 1 win 65535 <sack 1001:4001>");
    s.expect("P.  1:1001(1000) ack 1 tos 0");
    s.inject(".   1:1(0) ack 10001 win 65535");
}

TEST_CASE("a DCTCP receiver tells of each change at once, and of what came before it first",
          "[tcp][rfc8257]") {
    sim::Script s(with_ecn(EcnPolicy::Passive, shm::CongestionAlgorithm::Dctcp));
    establish(s);
    s.inject(".   1:1001(1000) ack 1 win 65535 tos 2");
    s.expect_silence();  // one segment's ACK waits for the next
    s.inject(".   1001:2001(1000) ack 1 win 65535 tos 3");
    s.expect(".   1:1(0) ack 1001");
    s.expect("E.  1:1(0) ack 2001");
    s.inject(".   2001:3001(1000) ack 1 win 65535 tos 3");
    s.expect_silence();
    s.inject(".   3001:4001(1000) ack 1 win 65535 tos 3");
    s.expect("E.  1:1(0) ack 4001");
    s.inject("W.  4001:5001(1000) ack 1 win 65535 tos 3");  // CWR changes nothing here
    s.inject(".   5001:6001(1000) ack 1 win 65535 tos 2");
    s.expect("E.  1:1(0) ack 5001");
    s.expect(".   1:1(0) ack 6001");
    s.read();
}

TEST_CASE("DCTCP asks for ECN by itself, whatever the interface's policy", "[tcp][rfc8257]") {
    sim::Script s(with_ecn(EcnPolicy::Off, shm::CongestionAlgorithm::Dctcp));
    s.connect(80);
    s.expect("SEW 0:0(0)");
    s.inject("SE. 0:0(0) ack 1 win 65535 <mss 1000>");
    s.expect(".   1:1(0) ack 1");
    s.read();
}

TEST_CASE("a program's type of service leaves the ECN bits alone", "[tcp][rfc3168]") {
    sim::Script s;
    s.establish();
    s.option(shm::ConnectionOption::TypeOfService, 0x2f);
    s.write(100);
    s.expect("P.  1:101(100) ack 1 tos 44");
    s.inject(".   1:1(0) ack 101 win 65535");
}
