// SPDX-License-Identifier: Apache-2.0
#include "stack/tcp/timer_wheel.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <random>
#include <vector>

using namespace chiru;
using namespace chiru::tcp;
using namespace std::chrono_literals;

namespace {

constexpr Micros kTick{64};

struct Wheel {
    explicit Wheel(std::size_t count, Instant start = Instant{1s})
        : connections(count), wheel(connections.data(), start) {}

    /// Who fires until `now`, in order of index.
    std::vector<Index> fired(Instant now) {
        std::vector<Index> all;
        for (Index i = wheel.pop_due(now); i != kNil; i = wheel.pop_due(now)) all.push_back(i);
        std::sort(all.begin(), all.end());
        return all;
    }

    std::vector<Connection> connections;
    TimerWheel wheel;
};

}  // namespace

TEST_CASE("A deadline fires never early, and a tick late at the most", "[tcp][timers]") {
    for (const Micros delay : {1us, 63us, 64us, 65us, 16'383us, 16'384us, 1'000'000us,
                               4'194'303us, 4'194'304us, 1'100'000'000us}) {
        Wheel w(1);
        const Instant at = Instant{1s} + delay;
        w.wheel.schedule(0, at);
        CHECK(w.fired(at - 1us).empty());
        CHECK(w.fired(at + 2 * kTick).size() == 1);
        CHECK(w.wheel.next() == kNever);
    }
}

TEST_CASE("An earlier deadline replaces a later one, a later one waits its turn",
          "[tcp][timers]") {
    Wheel w(2);
    w.wheel.schedule(0, Instant{10s});
    w.wheel.schedule(0, Instant{2s});
    w.wheel.schedule(1, Instant{2s});
    w.wheel.schedule(1, Instant{10s});  // fires at 2 s, and whoever drives it looks again
    CHECK(w.fired(Instant{2s} + 2 * kTick) == std::vector<Index>{0, 1});
    CHECK(w.fired(Instant{20s}).empty());
}

TEST_CASE("What was cancelled does not fire, however it stood", "[tcp][timers]") {
    Wheel w(4);
    const Instant at[] = {Instant{1s} + 10us, Instant{1s} + 10ms, Instant{3s}, Instant{1h}};
    for (Index i = 0; i < 4; ++i) w.wheel.schedule(i, at[i]);
    for (Index i = 0; i < 4; ++i) w.wheel.cancel(i);
    w.wheel.cancel(2);  // once more is no harm
    CHECK(w.wheel.next() == kNever);
    CHECK(w.fired(Instant{2h}).empty());
}

TEST_CASE("A deadline beyond the wheel's reach is looked at again before it is due",
          "[tcp][timers]") {
    Wheel w(1);
    w.wheel.schedule(0, kNever - 1s);
    const Instant next = w.wheel.next();
    CHECK(next > Instant{1h});
    CHECK(next < Instant{20h});
    CHECK(w.fired(Instant{20h}).size() == 1);
}

TEST_CASE("Thousands of deadlines fire as a plain list says, whatever the steps of time",
          "[tcp][timers]") {
    constexpr Index kCount = 2000;
    std::mt19937_64 random(7);
    Wheel w(kCount);
    std::vector<Instant> deadline(kCount, kNever);
    const Micros reach[] = {200us, 20ms, 5s, 20min};
    const Micros step[] = {10us, 1ms, 700ms, 3min};
    Instant now{1s};
    for (int round = 0; round < 4000; ++round) {
        for (int i = 0; i < 4; ++i) {
            const auto who = static_cast<Index>(random() % kCount);
            const Micros limit = reach[random() % 4];
            const Instant at =
                now + Micros(static_cast<std::int64_t>(random()) & 0x7fff'ffff) % limit;
            if (random() % 4 == 0) {
                w.wheel.cancel(who);
                deadline[who] = kNever;
            } else {
                w.wheel.schedule(who, at);
                deadline[who] = std::min(deadline[who], std::max(at, now));
            }
        }
        now += step[random() % 4] * static_cast<int>(random() % 3);
        const Instant earliest = *std::min_element(deadline.begin(), deadline.end());
        if (earliest != kNever) CHECK(w.wheel.next() <= std::max(earliest, now) + 2 * kTick);
        for (const Index who : w.fired(now)) {
            CHECK(deadline[who] <= now);  // never early
            deadline[who] = kNever;
        }
        for (const Instant at : deadline) REQUIRE(at > now - 2 * kTick);  // none was forgotten
    }
}
