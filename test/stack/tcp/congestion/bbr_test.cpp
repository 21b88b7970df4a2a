// SPDX-License-Identifier: Apache-2.0
//
// BBR's model by itself, on a path of one bottleneck in virtual time: segments leave at its pace
// and within its window, queue, are lost or acknowledged one by one.
#include "stack/tcp/congestion/bbr.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <deque>
#include <random>

using namespace chiru;
using namespace chiru::tcp;
using namespace std::chrono_literals;

namespace {

constexpr std::uint32_t kMss = 1000;

class Path {
public:
    struct Shape {
        std::uint32_t kbps = 62'500;  ///< kilobytes a second: 500 Mbit/s
        Micros rtt{20'000};
        std::uint32_t queue_bytes = 512'000;
        std::uint32_t lose_ppm = 0;
    };

    explicit Path(const Shape& shape) : shape_(shape) {
        window_.mss = kMss;
        window_.cwnd_bytes = initial_window(kMss);
        bbr_ = Bbr(window_, shape.rtt, 0, now_);
    }

    /// The program has `share` of the rate to send; 1: as much as goes.
    void run(Micros time, double share = 1) {
        const Instant end = now_ + time;
        while (now_ < end) {
            now_ += 10us;
            budget_ = share >= 1 ? 1e12 : std::min(budget_ + share * shape_.kbps / 100, 3e4);
            while (!wire_.empty() && wire_.front().acked_at <= now_) arrive();
            while (may_send()) send();
        }
    }
    void mark() { bbr_.on_loss(window_, {.now = now_, .marked = true}); }
    void time_out() {
        in_flight_ = 0;
        wire_.clear();
        recovering_ = true;
        bbr_.on_loss(window_, {.now = now_, .in_flight_bytes = in_flight_, .timeout = true});
    }
    void recovered() { recovering_ = false; }
    void reshape(const Shape& shape) { shape_ = shape; }
    void forget_queue() { longest_queue_ = 0; }

    Bbr& bbr() { return bbr_; }
    std::uint32_t cwnd() const { return window_.cwnd_bytes; }
    std::uint32_t longest_queue() const { return longest_queue_; }
    std::uint64_t delivered() const { return delivered_; }
    std::uint64_t lost() const { return lost_; }
    std::uint32_t path_bytes() const {
        return static_cast<std::uint32_t>(shape_.kbps * std::uint64_t(shape_.rtt.count()) / 1000);
    }

private:
    struct Segment {
        Instant acked_at;
        SentStamp stamp;
        Instant sent;
        bool lost;
    };

    bool may_send() const {
        return in_flight_ + kMss <= window_.cwnd_bytes && now_ >= next_send_ && budget_ >= kMss;
    }
    void send() {
        const auto us = static_cast<std::uint32_t>(now_.time_since_epoch().count());
        Segment s{{}, bbr_.rate().stamp(us, in_flight_), now_, false};
        budget_ -= kMss;
        in_flight_ += kMss;
        const auto backlog = std::max(free_at_ - now_, Micros(0));
        const auto queued =
            static_cast<std::uint32_t>(std::uint64_t(backlog.count()) * shape_.kbps / 1000);
        longest_queue_ = std::max(longest_queue_, queued);
        s.lost = queued + kMss > shape_.queue_bytes || random_() % 1'000'000 < shape_.lose_ppm;
        if (queued + kMss <= shape_.queue_bytes)
            free_at_ = std::max(free_at_, now_) + Micros(kMss * 1000 / shape_.kbps);
        s.acked_at = std::max(free_at_, now_) + shape_.rtt;
        wire_.push_back(s);
        if (budget_ < kMss && budget_ < 1e11) bbr_.rate().run_dry(in_flight_);
        if (const std::uint32_t kbps = bbr_.pacing_kbps(); kbps != 0)
            next_send_ = std::max(next_send_, now_ - 250us) + Micros(kMss * 1000 / kbps);
    }
    void arrive() {
        const Segment s = wire_.front();
        wire_.pop_front();
        AckReport ack;
        ack.now = now_;
        ack.in_flight_bytes = in_flight_;
        in_flight_ -= kMss;
        ack.recovering = recovering_;
        if (s.lost) {
            lost_ += kMss;
        } else {
            delivered_ += kMss;
            ack.acked_bytes = ack.delivered_bytes = kMss;
            ack.rtt = now_ - s.sent;
            ack.newest = {s.stamp, static_cast<std::uint32_t>(s.sent.time_since_epoch().count()),
                          true};
        }
        ack.lost_bytes = lost_;
        bbr_.on_ack(window_, ack);
    }

    Shape shape_;
    Instant now_{1s};
    Instant free_at_{};
    Instant next_send_{};
    CongestionWindow window_;
    Bbr bbr_;
    std::deque<Segment> wire_;
    std::mt19937 random_{7};
    std::uint32_t in_flight_ = 0;
    std::uint32_t longest_queue_ = 0;
    std::uint64_t delivered_ = 0;
    std::uint64_t lost_ = 0;
    double budget_ = 0;
    bool recovering_ = false;
};

void check_rate(Path& path, double least, double most) {
    CAPTURE(path.bbr().bandwidth_kbps(), path.bbr().min_rtt_us(), path.cwnd());
    CHECK(path.bbr().bandwidth_kbps() >= least);
    CHECK(path.bbr().bandwidth_kbps() <= most);
}

}  // namespace

TEST_CASE("BBR finds the rate and the round trip of a path", "[tcp][bbr]") {
    const Micros rtt = GENERATE(Micros(100), Micros(1'000), Micros(20'000));
    Path path({.rtt = rtt});
    path.run(2s);
    CHECK(path.bbr().mode() == Bbr::Mode::ProbeBw);
    check_rate(path, 60'000, 66'000);
    CHECK(path.bbr().min_rtt_us() <= rtt.count() + 60);
}

TEST_CASE("once the path is known, its queue stays shorter than the path", "[tcp][bbr]") {
    Path path({});
    path.run(3s);
    path.forget_queue();
    const std::uint64_t before = path.delivered();
    path.run(5s);
    CHECK(path.longest_queue() < path.path_bytes() / 2);
    CHECK(static_cast<double>(path.delivered() - before) > 0.93 * 5 * 62.5e6);
}

TEST_CASE("random losses of one in twenty do not lower the rate", "[tcp][bbr]") {
    const Micros rtt = GENERATE(Micros(1'000), Micros(20'000));
    Path path({.rtt = rtt, .lose_ppm = 50'000});
    path.run(2s);
    const std::uint64_t before = path.delivered();
    path.run(5s);
    check_rate(path, 57'000, 66'000);
    CHECK(static_cast<double>(path.delivered() - before) > 0.87 * 5 * 62.5e6);
}

TEST_CASE("a program that sends little does not lower what is known of the path", "[tcp][bbr]") {
    Path path({});
    path.run(2s);
    const std::uint32_t known = path.bbr().bandwidth_kbps();
    path.run(5s, 0.1);
    CHECK(path.bbr().bandwidth_kbps() >= known / 100 * 95);
}

TEST_CASE("a path that became slower is noticed within a few round trips", "[tcp][bbr]") {
    Path path({});
    path.run(2s);
    path.reshape({.kbps = 10'000});
    path.run(3s);
    check_rate(path, 9'000, 11'500);
}

TEST_CASE("every ten seconds half of a window shows the path without its queue", "[tcp][bbr]") {
    Path path({});
    path.run(5s);
    path.reshape({.rtt = 30'000us});  // from now on no round trip is as short as the shortest
    std::uint32_t lowest = path.cwnd();
    for (int i = 0; i < 1'000; ++i) {
        path.run(10ms);
        lowest = std::min(lowest, path.cwnd());
    }
    CHECK(lowest <= 62'500u * 30 / 2 + 40'000);
    CHECK(path.bbr().min_rtt_us() >= 29'000);
    CHECK(path.bbr().mode() == Bbr::Mode::ProbeBw);
    path.run(1s);
    CHECK(path.cwnd() > 62'500u * 30);
}

TEST_CASE("where a tenth is lost, no more is in flight than the path holds", "[tcp][bbr]") {
    Path path({});
    path.run(3s);
    REQUIRE(path.cwnd() > path.path_bytes() * 3 / 2);
    path.reshape({.queue_bytes = 10'000, .lose_ppm = 200'000});
    path.run(500ms);
    CHECK(path.cwnd() <= path.path_bytes() * 13 / 10);
    path.reshape({});
    path.run(5s);  // it finds back
    check_rate(path, 58'000, 66'000);
    CHECK(path.cwnd() > path.path_bytes() * 3 / 2);
}

TEST_CASE("Startup ends where the queue overflows", "[tcp][bbr]") {
    Path path({.queue_bytes = 60'000});
    path.run(5s);
    CHECK(path.bbr().mode() == Bbr::Mode::ProbeBw);
    check_rate(path, 55'000, 68'000);
    CHECK(static_cast<double>(path.lost()) < 0.05 * static_cast<double>(path.delivered()));
}

TEST_CASE("a mark bounds the window to what the path holds", "[tcp][bbr][rfc3168]") {
    Path path({});
    path.run(3s);
    path.mark();
    path.run(40ms);
    CHECK(path.cwnd() <= path.path_bytes() * 14 / 10);
}

TEST_CASE("a time-out leaves one segment, and what was known comes back afterwards",
          "[tcp][bbr]") {
    Path path({});
    path.run(3s);
    const std::uint32_t before = path.cwnd();
    path.time_out();
    CHECK(path.cwnd() == kMss);
    path.run(25ms);
    CHECK(path.cwnd() < before / 2);
    path.recovered();
    path.run(50ms);
    CHECK(path.cwnd() >= before / 2);
}

namespace {

AckReport ack_of(Instant now, std::uint32_t bytes, const SentStamp& stamp, std::uint32_t sent_us) {
    AckReport ack;
    ack.now = now;
    ack.delivered_bytes = bytes;
    ack.newest = {stamp, sent_us, true};
    return ack;
}

}  // namespace

TEST_CASE("ACKs that come in a lump do not make a path look faster", "[tcp][bbr]") {
    DeliveryRate rate;
    const SentStamp first = rate.stamp(1'000, 0);
    const SentStamp second = rate.stamp(2'000, kMss);
    // Both after 10 ms, in a moment: they were sent a millisecond apart.
    const auto one = rate.on_ack(ack_of(Instant(11'000us), kMss, first, 1'000), 0);
    REQUIRE(one);
    CHECK(one->kbps == 100);
    const auto two = rate.on_ack(ack_of(Instant(11'001us), kMss, second, 2'000), 0);
    REQUIRE(two);
    CHECK(two->delivered == 2 * kMss);
    CHECK(two->kbps == 199);
    CHECK_FALSE(rate.on_ack(ack_of(Instant(11'010us), kMss, rate.stamp(11'005, 0), 11'005), 1'000));
}

TEST_CASE("samples of a program that ran dry say so, until what it sent is delivered",
          "[tcp][bbr]") {
    DeliveryRate rate;
    CHECK_FALSE(rate.stamp(1'000, 0).app_limited);
    rate.run_dry(kMss);
    const SentStamp limited = rate.stamp(1'500, kMss);
    CHECK(limited.app_limited);
    const auto sample = rate.on_ack(ack_of(Instant(9'000us), 2 * kMss, limited, 1'500), 0);
    REQUIRE(sample);
    CHECK(sample->app_limited);
    CHECK_FALSE(rate.stamp(9'000, 0).app_limited);
}

TEST_CASE("the best of the last rounds is forgotten after ten", "[tcp][bbr]") {
    RoundMax best;
    best.update(100, 1);
    for (std::uint32_t round = 2; round <= 11; ++round) {
        best.update(50, round);
        CHECK(best.best() == 100);
    }
    best.update(50, 12);
    CHECK(best.best() == 50);
    best.update(70, 13);
    CHECK(best.best() == 70);
}
