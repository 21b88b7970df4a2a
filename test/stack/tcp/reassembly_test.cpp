// SPDX-License-Identifier: Apache-2.0
//
// Text behind gaps: what a peer can make us keep, and what is told of it.
#include "test/sim/script.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <string>

using namespace chiru;
using shm::Counter;

namespace {

std::string text(std::uint32_t from, std::uint32_t bytes) {
    return ". " + std::to_string(from) + ":" + std::to_string(from + bytes) + "(" +
           std::to_string(bytes) + ") ack 1 win 65535";
}

sim::HostOptions roomy() {
    return {.rx_slots = 16'384, .max_rx_slots = 12'288};
}

/// With a window that takes some thousand segments.
void establish(sim::Script& s) {
    s.establish("<mss 1000,sackOK,wscale 7>");
    s.option(shm::ConnectionOption::ReceiveBuffer, 8u << 20);
    s.skip();
}

}  // namespace

TEST_CASE("More than a thousand frames are kept behind one gap", "[tcp][reassembly]") {
    sim::Script s({.receive_buffer_bytes = 8u << 20}, roomy());
    establish(s);
    s.inject_burst(std::array{text(1, 1000), text(1001, 1000)});  // their ACK opens the window
    s.read();
    s.skip();
    const std::uint32_t count = std::min(s.block().rcv_wnd / 1000 - 1, 2500u);
    REQUIRE(count > 1100);
    for (std::uint32_t i = 1; i < count; ++i) s.inject(text(2001 + i * 1000, 1000));
    s.skip();
    CHECK(s.count(Counter::TcpOutOfOrderDropped) == 0);
    s.inject(text(2001, 1000));
    s.expect(". 1:1(0) ack " + std::to_string(2001 + count * 1000));
    std::size_t taken = 0;
    while (const std::size_t more = s.read()) taken += more;
    CHECK(taken == count * 1000);
    s.abort();
    s.skip();
}

TEST_CASE("Single bytes behind a gap share slots, in whatever order they come",
          "[tcp][reassembly]") {
    constexpr std::uint32_t kBytes = 900;
    const int order = GENERATE(0, 1, 2);
    sim::Script s({}, roomy());
    establish(s);
    const auto put = [&](std::uint32_t i) { s.inject(text(100 + i, 1)); };
    if (order == 0)
        for (std::uint32_t i = 0; i < kBytes; ++i) put(i);
    if (order == 1)
        for (std::uint32_t i = kBytes; i-- > 0;) put(i);
    if (order == 2) {
        for (std::uint32_t i = 0; i < kBytes; i += 2) put(i);
        for (std::uint32_t i = 1; i < kBytes; i += 2) put(i);
    }
    s.skip();
    CHECK(s.block().out_of_order_bytes == kBytes);
    CHECK(s.block().rx_slots <= 4);
    s.inject(text(1, 99));
    s.expect(". 1:1(0) ack " + std::to_string(100 + kBytes));
    CHECK(s.read() == 99 + kBytes);
    CHECK(s.block().rx_slots == 0);
    s.abort();
    s.skip();
}

TEST_CASE("A peer that sends every second byte gets no more than 512 slots", "[tcp][reassembly]") {
    sim::Script s({}, roomy());
    establish(s);
    for (std::uint32_t i = 0; i < 2000; ++i) s.inject(text(100 + 2 * i, 1));
    s.skip();
    CHECK(s.block().rx_slots == 512);
    CHECK(s.count(Counter::TcpOutOfOrderDropped) == 2000 - 512);
    // What joins two pieces is taken all the same.
    s.inject(text(101, 1));
    s.expect(". 1:1(0) ack 1 <sack 100:103>");
    CHECK(s.block().rx_slots == 511);
    s.abort();
    s.skip();
}

TEST_CASE("The first block is all of the piece that the newest text is in", "[tcp][rfc2018]") {
    sim::Script s;
    s.establish("<mss 1000,sackOK>");
    // The first piece is told of so long ago that its block is forgotten.
    for (const std::uint32_t from : {2001u, 4001u, 6001u, 8001u}) s.inject(text(from, 500));
    s.skip();
    s.inject(text(2501, 500));
    s.expect(". 1:1(0) ack 1 <sack 2001:3001,sack 8001:8501,sack 6001:6501>");
    s.abort();
    s.skip();
}
