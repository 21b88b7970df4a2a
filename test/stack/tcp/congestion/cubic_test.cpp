// SPDX-License-Identifier: Apache-2.0
//
// The window's curve against the formulas of RFC 9438, an ACK at a time in virtual time.
#include "stack/tcp/congestion/cubic.hpp"

#include <catch2/catch.hpp>

#include <cmath>

using namespace chiru;
using namespace chiru::tcp;
using namespace std::chrono_literals;

namespace {

constexpr std::uint32_t kMss = 1000;

/// A connection that always fills its window: one ACK for each segment, one window a round trip.
class Path {
public:
    explicit Path(Micros rtt) : rtt_(rtt) {
        window_.mss = kMss;
        window_.cwnd_bytes = initial_window(kMss);
    }

    double segments() const { return window_.cwnd_bytes / static_cast<double>(kMss); }
    void lose(bool timeout = false) {
        LossReport loss;
        loss.now = now_;
        loss.in_flight_bytes = window_.cwnd_bytes;
        loss.timeout = timeout;
        cubic_.on_loss(window_, loss);
    }
    void round(bool limited = true) {
        const std::uint32_t acks = window_.cwnd_bytes / kMss;
        for (std::uint32_t i = 0; i < acks; ++i) {
            now_ += rtt_ / static_cast<int>(acks);
            AckReport ack;
            ack.now = now_;
            ack.acked_bytes = kMss;
            ack.in_flight_bytes = window_.cwnd_bytes;
            ack.cwnd_limited = limited;
            ack.smoothed_rtt = rtt_;
            cubic_.on_ack(window_, ack);
        }
    }
    void run(Micros time) {
        for (const Instant end = now_ + time; now_ < end;) round();
    }
    void set(std::uint32_t segments) { window_.cwnd_bytes = segments * kMss; }
    CongestionWindow& window() { return window_; }

private:
    Micros rtt_;
    Instant now_{1s};
    CongestionWindow window_;
    Cubic cubic_;
};

}  // namespace

TEST_CASE("Slow start doubles the window each round trip", "[tcp][rfc9438]") {
    Path path(50ms);
    path.round();
    CHECK(path.segments() == Approx(20));
    path.round();
    CHECK(path.segments() == Approx(40));
}

TEST_CASE("A loss keeps seven tenths, a time-out one segment and the same threshold",
          "[tcp][rfc9438]") {
    Path path(50ms);
    path.set(100);
    path.lose();
    CHECK(path.segments() == Approx(70));
    CHECK_FALSE(path.window().slow_start());
    path.set(100);
    path.lose(true);
    CHECK(path.segments() == Approx(1));
    CHECK(path.window().ssthresh_bytes == 70 * kMss);
}

TEST_CASE("After a loss the window reaches its old size after K seconds, flat, then grows away",
          "[tcp][rfc9438]") {
    // Far and fast, where the cubic part and not Reno's decides.
    Path path(200ms);
    path.set(1000);
    path.lose();
    const double k = std::cbrt(1000 * 0.3 / 0.4);  // 9.1 s
    const auto seconds = [](double s) { return Micros(static_cast<std::int64_t>(s * 1e6)); };
    path.run(seconds(k / 2));
    const double half = 1000 - 0.4 * std::pow(k / 2, 3);  // eq. (1)
    CHECK(path.segments() == Approx(half).epsilon(0.03));
    path.run(seconds(k / 2));
    CHECK(path.segments() == Approx(1000).epsilon(0.02));
    path.run(seconds(k));
    CHECK(path.segments() == Approx(1300).epsilon(0.05));
}

TEST_CASE("On a short path the window grows no slower than Reno's", "[tcp][rfc9438]") {
    Path path(1ms);
    path.set(20);
    path.lose();
    const double before = path.segments();
    for (int i = 0; i < 100; ++i) path.round();
    // alpha = 0.53 segments a round trip until the old size is reached (§4.3), then one.
    const double rounds_to_old = (20 - before) / 0.53;
    CHECK(path.segments() >= 20 + (100 - rounds_to_old) * 0.9);
}

TEST_CASE("A second loss below the plateau lowers it, so that newcomers find room",
          "[tcp][rfc9438]") {
    Path once(200ms), twice(200ms);
    for (Path* path : {&once, &twice}) {
        path->set(1000);
        path->lose();
    }
    twice.set(800);
    twice.lose();  // the plateau is 800 * 0.85 = 680 now, and not 800
    twice.run(6s);
    CHECK(twice.segments() < 720);
}

TEST_CASE("After a time-out the curve begins where slow start ends, and flat", "[tcp][rfc9438]") {
    Path path(200ms);
    path.set(1000);
    path.lose(true);
    while (path.window().slow_start()) path.round();
    const double begun = path.segments();
    path.run(5s);
    CHECK(path.segments() == Approx(begun + 0.4 * 125).epsilon(0.03));  // K = 0
}

TEST_CASE("A window that the application does not fill does not grow", "[tcp][rfc9438]") {
    Path path(50ms);
    for (int i = 0; i < 20; ++i) path.round(false);
    CHECK(path.segments() == Approx(10));
}
