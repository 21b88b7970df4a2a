// SPDX-License-Identifier: Apache-2.0
//
// How far the receive window opens: what a reader takes, what a session may hold, what was offered.
#include "test/sim/script.hpp"

#include <catch2/catch.hpp>

#include <string>
#include <vector>

using namespace chiru;
using namespace std::chrono_literals;
using shm::Counter;

namespace {

constexpr std::uint32_t kFirst = 128u << 10;

/// A peer that streams to a script's host, in segments of 1000 bytes.
class Stream {
public:
    explicit Stream(sim::Script& script, bool stamps = true) : s_(script), stamps_(stamps) {
        s_.listen(80);
        s_.inject(std::string("S   0:0(0) win 65535 <mss 1000,sackOK,wscale 7") +
                  (stamps ? ",ts 100 0>" : ">"));
        s_.expect("S.  0:0(0) ack 1");
        echo_ = static_cast<std::uint32_t>(s_.timestamp());
        s_.advance(kRtt);
        s_.credit();
        send(0);
        s_.read();
    }

    /// One round trip: `segments` come, the reader takes all, time passes.
    void round(std::size_t segments) {
        for (std::size_t i = 0; i < segments; ++i) send(1000);
        s_.read();
        s_.skip();
        s_.advance(kRtt);
        s_.skip();
        echo_ += static_cast<std::uint32_t>(kRtt.count() / 1000);
    }

    void send(std::size_t bytes) {
        std::string line = ".   " + std::to_string(next_) + ":" + std::to_string(next_ + bytes) +
                           "(" + std::to_string(bytes) + ") ack 1 win 512";
        if (stamps_)
            line += " <ts " + std::to_string(100 + next_) + " " +
                    std::to_string(echo_) + ">";
        s_.inject(line);
        next_ += bytes;
    }

    static constexpr Micros kRtt = 20ms;

private:
    sim::Script& s_;
    bool stamps_;
    std::uint32_t echo_ = 0;  ///< our stamp of a round trip ago
    std::size_t next_ = 1;
};

}  // namespace

TEST_CASE("the window follows twice what the reader takes in a round trip", "[tcp][window]") {
    const bool stamps = GENERATE(true, false);
    sim::Script s;
    Stream stream(s, stamps);
    CHECK(s.block().rcv_buffer_bytes == kFirst);
    for (int i = 0; i < 4; ++i) stream.round(20);
    CHECK(s.block().rcv_buffer_bytes == kFirst);  // 20 kB need no more
    for (int i = 0; i < 4; ++i) stream.round(100);
    CHECK(s.block().rcv_buffer_bytes >= 200'000);
    CHECK(s.block().rcv_buffer_bytes <= 400'000);  // ahead of slow start, once
    const std::uint32_t before = s.block().rcv_buffer_bytes;
    for (int i = 0; i < 10; ++i) stream.round(100);
    CHECK(s.block().rcv_buffer_bytes == before);
    s.skip();
}

TEST_CASE("a window that brought no more when it was widened is not widened again",
          "[tcp][window]") {
    sim::Script s;
    Stream stream(s);
    // Several windows come in what is taken for one round trip: it is shorter in truth.
    const auto rounds = [&](int parts) {
        for (int i = 0; i < 10; ++i) {
            for (int part = 0; part < parts; ++part) {
                for (int segment = 0; segment < 100; ++segment) stream.send(1000);
                s.read();
                s.skip();
            }
            stream.round(0);
        }
    };
    rounds(3);
    CHECK(s.block().rcv_buffer_bytes > kFirst);
    CHECK(s.block().rcv_buffer_bytes <= 4 * kFirst);
    rounds(6);  // more does come
    CHECK(s.block().rcv_buffer_bytes > 4 * kFirst);
}

TEST_CASE("the window grows no further than tcp.receive_buffer and half of the quota allow",
          "[tcp][window]") {
    TcpConfig config;
    config.receive_buffer_bytes = 500'000;
    sim::Script s(config);
    Stream stream(s);
    for (int i = 0; i < 20; ++i) stream.round(std::min<std::size_t>(20u << i / 2, 400));
    CHECK(s.block().rcv_buffer_bytes == 500'000);
}

TEST_CASE("a window that the program has fixed does not grow", "[tcp][window]") {
    sim::Script s;
    Stream stream(s);
    s.option(shm::ConnectionOption::ReceiveBuffer, 100'000);
    for (int i = 0; i < 8; ++i) stream.round(60);
    CHECK(s.block().rcv_buffer_bytes == 100'000);
    CHECK(s.block().rcv_fixed == 1);
    s.option(shm::ConnectionOption::ReceiveBuffer, 0);
    for (int i = 0; i < 8; ++i) stream.round(100);
    CHECK(s.block().rcv_buffer_bytes > 150'000);
}

TEST_CASE("a reader that takes nothing does not widen its window", "[tcp][window]") {
    sim::Script s;
    Stream stream(s);
    for (int i = 0; i < 120; ++i) stream.send(1000);
    s.skip();
    s.advance(1s);
    CHECK(s.block().rcv_buffer_bytes == kFirst);
    CHECK(s.read() == 120'000);
    s.skip();
}

TEST_CASE("what a window needs to grow is given back when the connection rests", "[tcp][window]") {
    sim::Script s;
    Stream stream(s);
    for (int i = 0; i < 4; ++i) stream.round(100);
    const Instant now(3s + 5 * Stream::kRtt);
    CHECK(s.host().next_deadline() <= now + 1s);  // to look whether it still moves
    const std::uint32_t grown = s.block().rcv_buffer_bytes;
    s.advance(3s);
    CHECK(s.host().next_deadline() > now + 4s);
    CHECK(s.block().rcv_buffer_bytes == grown);
    s.skip();
}

TEST_CASE("a window that was offered stays, whatever the program asks for then", "[tcp][window]") {
    sim::Script s;
    s.listen(80);
    s.inject("S   0:0(0) win 65535 <mss 1000>");
    s.expect("S.  0:0(0) ack 1 win 65535");
    s.credit();
    s.inject(".   1:1(0) ack 1 win 65535");
    s.read();
    s.option(shm::ConnectionOption::ReceiveBuffer, 4096);
    s.inject("P.  1:101(100) ack 1 win 65535");
    s.advance(20ms);
    s.expect(".   1:1(0) ack 101 win 65435");
    s.read();
}

TEST_CASE("a full segment out of order makes room for the one that fills the gap",
          "[tcp][window]") {
    sim::HostOptions options;
    options.max_rx_slots = 8;
    sim::Script s({}, options);
    s.establish();
    s.inject(".   1:1001(1000) ack 1 win 65535");
    for (int i = 2; i < 8; ++i)
        s.inject(".   " + std::to_string(i * 1000 + 1) + ":" + std::to_string(i * 1000 + 1001) +
                 "(1000) ack 1 win 65535");
    s.skip();
    CHECK(s.count(Counter::TcpOutOfOrderDropped) > 0);
    // One after the other, all of it arrives.
    std::size_t got = 0;
    for (std::size_t at = 0; at < 8; ++at) {
        const std::size_t first = got + 1;
        s.inject(".   " + std::to_string(first) + ":" + std::to_string(first + 1000) +
                 "(1000) ack 1 win 65535");
        got += s.read();
        s.skip();
        if (got >= 8000) break;
    }
    CHECK(got >= 8000);
}

TEST_CASE("a frame larger than the MSS is taken whole and acknowledged at once",
          "[tcp][window]") {
    sim::Script s;
    s.establish("<mss 500,sackOK>");
    s.inject(".   1:1401(1400) ack 1 win 65535");  // a device put three segments together
    s.expect(".   1:1(0) ack 1401");
    CHECK(s.read() == 1400);
    s.inject(".   2801:4201(1400) ack 1 win 65535");
    s.expect(".   1:1(0) ack 1401 <sack 2801:4201>");
    s.inject(".   1401:2801(1400) ack 1 win 65535");
    s.expect(".   1:1(0) ack 4201");
    CHECK(s.read() == 2800);
    // Partly known, and partly beyond the window: what is new and fits stays.
    s.inject(".   3701:5101(1400) ack 1 win 65535");
    s.advance(20ms);
    s.skip();
    CHECK(s.read() == 900);
}

TEST_CASE("a burst is acknowledged once", "[tcp][window]") {
    sim::Script s;
    s.establish();
    std::vector<std::string> burst;
    for (std::size_t i = 0; i < 8; ++i)
        burst.push_back(".   " + std::to_string(i * 1000 + 1) + ":" +
                        std::to_string(i * 1000 + 1001) + "(1000) ack 1 win 65535");
    s.inject_burst(burst);
    s.expect(".   1:1(0) ack 8001");
    CHECK(s.read() == 8000);
}
