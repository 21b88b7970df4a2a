// SPDX-License-Identifier: Apache-2.0
#include "stack/tcp/congestion/cubic.hpp"

#include <catch2/catch.hpp>

using namespace chiru;
using namespace chiru::tcp;
using namespace std::chrono_literals;

namespace {

constexpr std::uint32_t kMss = 1000;

/// A sender that always has something to send; a round is a window of ACKs, one a segment.
class Sender {
public:
    explicit Sender(std::uint32_t segments) {
        window.cwnd_bytes = segments * kMss;
        window.mss = kMss;
        nxt = Seq(window.cwnd_bytes);
        cubic = Cubic(window, nxt);
    }

    void round(Micros rtt) {
        const std::uint32_t segments = static_cast<std::uint32_t>(nxt - una) / kMss;
        for (std::uint32_t i = 0; i < segments; ++i) {
            AckReport ack;
            ack.now = now += rtt / segments;
            ack.acked_bytes = kMss;
            ack.cwnd_limited = true;
            ack.smoothed_rtt = ack.rtt = rtt;
            ack.una = una += kMss;
            ack.nxt = nxt;
            cubic.on_ack(window, ack);
            nxt = una + window.cwnd_bytes;
        }
    }

    Cubic cubic;
    CongestionWindow window;
    Instant now{1s};
    Seq una{0};
    Seq nxt;
};

}  // namespace

TEST_CASE("while round trips stay short, slow start doubles the window", "[tcp][rfc9406]") {
    Sender sender(10);
    for (int i = 0; i < 6; ++i) sender.round(20ms);
    CHECK(sender.window.cwnd_bytes == 640 * kMss);
    CHECK(sender.window.untried());
}

TEST_CASE("round trips that grow end slow start before anything is lost", "[tcp][rfc9406]") {
    Sender sender(10);
    for (int i = 0; i < 4; ++i) sender.round(20ms);
    const std::uint32_t before = sender.window.cwnd_bytes;
    for (int i = 0; i < 7; ++i) sender.round(26ms);  // the queue holds 6 ms
    CHECK_FALSE(sender.window.untried());
    CHECK(sender.window.ssthresh_bytes == Approx(sender.window.cwnd_bytes).epsilon(0.2));
    // One round until it shows, then five that grow by a quarter each.
    CHECK(sender.window.cwnd_bytes < before * 8);
}

TEST_CASE("a rise that passes was a false alarm", "[tcp][rfc9406]") {
    Sender sender(10);
    for (int i = 0; i < 3; ++i) sender.round(20ms);
    sender.round(30ms);
    const std::uint32_t before = sender.window.cwnd_bytes;
    for (int i = 0; i < 2; ++i) sender.round(20ms);
    CHECK(sender.window.untried());
    CHECK(sender.window.cwnd_bytes > before * 3);
}

TEST_CASE("CUBIC begun in the middle of a connection goes on from its window", "[tcp][rfc9438]") {
    CongestionWindow window{50 * kMss, 40 * kMss, kMss};
    Cubic cubic(window, Seq(0));
    AckReport ack;
    ack.now = Instant{1s};
    ack.acked_bytes = kMss;
    ack.cwnd_limited = true;
    for (int i = 0; i < 1000; ++i) {
        ack.now += 1ms;
        cubic.on_ack(window, ack);
    }
    CHECK(window.cwnd_bytes > 50 * kMss);
    CHECK(window.cwnd_bytes < 80 * kMss);
}
