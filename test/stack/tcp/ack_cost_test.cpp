// SPDX-License-Identifier: Apache-2.0
//
// What an ACK costs while much is in flight: hidden, since it measures. Instructions an ACK:
//
//   WINDOW=10000 valgrind --tool=callgrind --toggle-collect='*Machine::process_ack(*'
//       build/test/tcp_test 'SACK of a large window'
#include "test/sim/script.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

using namespace chiru;
using namespace std::chrono_literals;

namespace {

constexpr std::uint32_t kMss = 1000;

std::string at(std::uint32_t segment) { return std::to_string(1 + segment * kMss); }

/// A connection with so many segments in flight.
struct Large {
    explicit Large(std::uint32_t segments)
        : s({.send_buffer_bytes = 64u << 20},
            {.tx_arena_bytes = 128u << 20, .send_records = 65'536}) {
        s.establish("<mss 1000,sackOK,wscale 14>");
        while (s.block().cwnd_bytes < segments * kMss) {
            const std::uint32_t window = s.block().cwnd_bytes;
            for (std::uint32_t i = 0; i < window; i += kMss) s.write(kMss);
            s.skip();
            s.advance(1ms);
            for (std::uint32_t i = window / kMss; i > 0; i -= std::min(i, 8u)) {
                first += std::min(i, 8u);
                s.inject(". 1:1(0) ack " + at(first) + " win 4000");
            }
            s.read();
            REQUIRE(s.block().cwnd_bytes > window);
        }
        for (std::uint32_t i = 0; i < segments; ++i) s.write(kMss);
        s.skip();
        s.advance(1ms);
    }
    void ack(const std::string& blocks) {
        s.inject(". 1:1(0) ack " + at(first) + " win 4000 <" + blocks + ">");
        s.skip();
    }
    /// Blocks of segments, counted from the window's first.
    std::string block(std::uint32_t from, std::uint32_t to) const {
        return "sack " + at(first + from) + ":" + at(first + to);
    }
    ~Large() {
        s.abort();
        s.skip();
    }
    sim::Script s;
    std::uint32_t first = 0;
};

}  // namespace

TEST_CASE("SACK of a large window", "[.][tcp]") {
    const char* chosen = std::getenv("WINDOW");
    for (const std::uint32_t window : {100u, 1000u, 10'000u}) {
        if (chosen != nullptr && std::strtoul(chosen, nullptr, 10) != window) continue;
        for (const char* kind : {"first lost", "every tenth lost", "the last, again and again"}) {
            Large large(window);
            const auto begin = std::chrono::steady_clock::now();
            const std::uint32_t acks = std::min(window, 500u) - 20;
            const std::uint32_t from = window - acks;
            for (std::uint32_t i = from; i < window; ++i) {
                if (kind[0] == 'f') {
                    large.ack(large.block(1, i + 1));
                } else if (kind[0] == 't') {
                    large.ack(large.block(window - 1, window));
                } else if (i % 10 != 0) {
                    const std::uint32_t run = i / 10 * 10;
                    std::string blocks = large.block(run + 1, i + 1);
                    for (std::uint32_t older = 10; older <= std::min(20u, run); older += 10)
                        blocks += "," + large.block(run + 1 - older, run + 10 - older);
                    large.ack(blocks);
                }
            }
            const std::chrono::duration<double, std::nano> took =
                std::chrono::steady_clock::now() - begin;
            std::printf("%6u in flight, %-26s %8.0f ns an ACK\n", window, kind,
                        took.count() / acks);
        }
    }
}
