// SPDX-License-Identifier: Apache-2.0
#include "daemon/dataplane/spin_window.hpp"

#include <catch2/catch.hpp>

using namespace chiru;
using daemon::SpinWindow;

namespace {

constexpr Micros kLimit{50};

/// Idle times of `gap`, one after the other, as a shard would spend them.
Micros spent(SpinWindow& window, Micros gap, int times, Instant& now) {
    Micros polled{};
    for (int i = 0; i < times; ++i) {
        polled += std::min(gap, window.length());
        now += gap;
        window.idle_ended(gap, gap > window.length(), now);
    }
    return polled;
}

}  // namespace

TEST_CASE("a shard polls through pauses that are shorter than the limit", "[daemon]") {
    SpinWindow window(kLimit);
    Instant now{};
    spent(window, Micros(30), 4, now);
    CHECK(window.length() > Micros(30));
    CHECK(spent(window, Micros(30), 10, now) == Micros(300));
}

TEST_CASE("a shard does not poll at all where pauses are long", "[daemon]") {
    SpinWindow window(kLimit);
    Instant now{};
    spent(window, Micros(20), 10, now);
    spent(window, Micros(500), 1, now);
    CHECK(window.length() == Micros::zero());
    CHECK(spent(window, Micros(500), 1000, now) == Micros::zero());
}

TEST_CASE("a peer that needs our core to answer does not keep us polling", "[daemon]") {
    SpinWindow window(kLimit);
    Instant now{};
    Micros polled{};
    const Instant end = now + Micros(1'000'000);
    while (now < end) {
        const Micros gap = window.length() + Micros(5);  // it answers once we sleep
        polled += window.length();
        now += gap;
        window.idle_ended(gap, true, now);
    }
    CHECK(polled < Micros(20'000));
}

TEST_CASE("a limit of zero never polls", "[daemon]") {
    SpinWindow window{Micros(0)};
    Instant now{};
    CHECK(spent(window, Micros(3), 100, now) == Micros::zero());
}
