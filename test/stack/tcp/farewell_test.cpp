// SPDX-License-Identifier: Apache-2.0
#include "test/sim/script.hpp"

#include <catch2/catch.hpp>

using namespace chiru;
using namespace std::chrono_literals;
using shm::Counter;

TEST_CASE("a process that said farewell leaves what it sent, and a FIN", "[tcp][rfc9293]") {
    sim::Script s;
    s.establish();
    s.write(1500);
    s.expect(".   1:1001(1000) ack 1");
    s.expect("P.  1001:1501(500) ack 1");
    s.part(Parting::Orderly);
    s.expect("F.  1501:1501(0) ack 1");
    CHECK_FALSE(s.host().stack().session_gone(sim::Host::kSession));
    s.inject(".   1:1(0) ack 1502 win 65535");
    s.inject("F.  1:1(0) ack 1502 win 65535");
    s.expect(".   1502:1502(0) ack 2");
    s.host().flush_device();
    CHECK(s.host().stack().session_gone(sim::Host::kSession));
    CHECK(s.count(Counter::TcpResetsSent) == 0);
}

TEST_CASE("a process that vanished is answered for by a reset", "[tcp]") {
    sim::Script s;
    s.establish();
    s.write(500);
    s.expect("P.  1:501(500) ack 1");
    s.part(Parting::Lost);
    s.expect("R.  501:501(0) ack 1");
    CHECK(s.count(Counter::TcpOrphansReset) == 1);
}

TEST_CASE("text that the process never read makes a farewell a reset", "[tcp][rfc2525]") {
    sim::Script s;
    s.establish();
    s.inject("P.  1:101(100) ack 1 win 65535");
    CHECK(s.read(false) == 100);
    s.part(Parting::Orderly);
    s.expect("R.  1:1(0) ack 101");
}

TEST_CASE("what the process had closed is finished, whatever its end", "[tcp]") {
    sim::Script s;
    s.establish();
    s.write(500);
    s.expect("P.  1:501(500) ack 1");
    s.close();
    s.expect("F.  501:501(0) ack 1");
    s.part(Parting::Lost);
    s.inject(".   1:1(0) ack 502 win 65535");
    s.inject("F.  1:1(0) ack 502 win 65535");
    s.expect(".   502:502(0) ack 2");
    CHECK(s.count(Counter::TcpOrphansReset) == 0);
}

TEST_CASE("a farewell lasts as long as the peer takes what was left", "[tcp]") {
    sim::Script s;
    s.establish();
    s.write(20'000);
    s.part(Parting::Orderly);
    s.skip();
    for (std::uint32_t got = 1001; got < 8001; got += 1000) {
        s.advance(6s);
        s.inject(".   1:1(0) ack " + std::to_string(got) + " win 65535");
        s.skip();
    }
    CHECK(s.count(Counter::TcpOrphansReset) == 0);
    s.advance(21s);
    CHECK(s.count(Counter::TcpOrphansReset) == 1);  // it fell silent
    s.skip();
    s.host().flush_device();
    CHECK(s.host().stack().session_gone(sim::Host::kSession));
}
