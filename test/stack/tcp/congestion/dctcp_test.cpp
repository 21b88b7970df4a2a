// SPDX-License-Identifier: Apache-2.0
#include "stack/tcp/congestion/dctcp.hpp"

#include <catch2/catch.hpp>

using namespace chiru;
using namespace chiru::tcp;

namespace {

constexpr std::uint32_t kMss = 1000;

/// A sender with `segments` in flight: one round trip of ACKs, of which the first `marked` echo.
class Sender {
public:
    explicit Sender(std::uint32_t segments) {
        window.cwnd_bytes = segments * kMss;
        window.ssthresh_bytes = segments * kMss;
        window.mss = kMss;
        nxt = Seq(segments * kMss);
    }

    void round(std::uint32_t marked) {
        const std::uint32_t segments = static_cast<std::uint32_t>(nxt - una) / kMss;
        bool told = false;
        for (std::uint32_t i = 0; i < segments; ++i) {
            una += kMss;
            nxt += kMss;
            AckReport ack;
            ack.acked_bytes = kMss;
            ack.cwnd_limited = true;
            ack.echoed = i < marked;
            ack.una = una;
            ack.nxt = nxt;
            if (ack.echoed && !told) {
                dctcp.on_loss(window, {.in_flight_bytes = window.cwnd_bytes, .marked = true});
                told = true;
            }
            dctcp.on_ack(window, ack);
        }
    }

    Dctcp dctcp{Seq(kMss)};
    CongestionWindow window;
    Seq una{0};
    Seq nxt;
};

}  // namespace

TEST_CASE("alpha follows the share of marked bytes", "[tcp][rfc8257]") {
    Sender sender(100);
    CHECK(sender.dctcp.alpha() > 0.9f);
    for (int i = 0; i < 100; ++i) sender.round(0);
    CHECK(sender.dctcp.alpha() < 0.01f);
    for (int i = 0; i < 100; ++i) sender.round(25);
    CHECK(sender.dctcp.alpha() == Approx(0.25f).margin(0.02f));
}

TEST_CASE("few marks cost little of the window, all marks cost half", "[tcp][rfc8257]") {
    Sender sender(100);
    sender.dctcp.on_loss(sender.window, {.marked = true});
    CHECK(sender.window.cwnd_bytes == 50 * kMss);  // nothing is known yet: as after a loss
    for (int i = 0; i < 100; ++i) sender.round(0);
    for (int i = 0; i < 100; ++i) sender.round(10);
    sender.window.cwnd_bytes = 100 * kMss;
    sender.dctcp.on_loss(sender.window, {.marked = true});
    CHECK(sender.window.cwnd_bytes == Approx(95 * kMss).margin(kMss));
}

TEST_CASE("a loss costs DCTCP as much as Reno", "[tcp][rfc8257]") {
    Sender sender(100);
    sender.dctcp.on_loss(sender.window, {.in_flight_bytes = 100 * kMss});
    CHECK(sender.window.cwnd_bytes == 50 * kMss);
    sender.dctcp.on_loss(sender.window, {.in_flight_bytes = 50 * kMss, .timeout = true});
    CHECK(sender.window.cwnd_bytes == kMss);
}

TEST_CASE("the window never falls below two segments by marks", "[tcp][rfc8257]") {
    Sender sender(2);
    for (int i = 0; i < 10; ++i) sender.dctcp.on_loss(sender.window, {.marked = true});
    CHECK(sender.window.cwnd_bytes == 2 * kMss);
}
