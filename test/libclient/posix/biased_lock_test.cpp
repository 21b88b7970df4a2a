// SPDX-License-Identifier: Apache-2.0
#include "libclient/posix/biased_lock.hpp"

#include <catch2/catch.hpp>

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

using namespace chiru::posix;

TEST_CASE("a thread knows whether it holds the lock", "[posix]") {
    BiasedLock lock;
    CHECK_FALSE(BiasedLock::held_by_me());
    for (int i = 0; i < 200; ++i) {  // the mutex at first, the bias later
        lock.lock();
        CHECK(BiasedLock::held_by_me());
        lock.unlock();
    }
    CHECK_FALSE(BiasedLock::held_by_me());
    CHECK(lock.revocations() == 0);
}

TEST_CASE("two threads are never inside at once, while the bias comes and goes", "[posix]") {
    BiasedLock lock;
    std::uint64_t plain = 0;  // torn by the first overlap
    std::atomic<std::uint64_t> overlaps{0};
    std::atomic<int> inside{0};
    const auto enter = [&](int times, int bursts) {
        for (int burst = 0; burst < bursts; ++burst) {
            for (int i = 0; i < times; ++i) {
                lock.lock();
                if (inside.fetch_add(1, std::memory_order_relaxed) != 0) ++overlaps;
                ++plain;
                inside.fetch_sub(1, std::memory_order_relaxed);
                lock.unlock();
            }
            std::this_thread::yield();
        }
    };
    // The favourite enters in long rows, so that it gets the bias back again and again.
    std::thread favourite([&] { enter(5'000, 100); });
    std::vector<std::thread> rivals;
    for (int i = 0; i < 2; ++i) rivals.emplace_back([&] { enter(3, 300); });
    favourite.join();
    for (std::thread& each : rivals) each.join();
    CHECK(overlaps == 0);
    CHECK(plain == 5'000 * 100 + 2 * 3 * 300);
}
