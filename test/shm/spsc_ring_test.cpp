// SPDX-License-Identifier: Apache-2.0
#include "shm/spsc_ring.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <memory>
#include <random>
#include <thread>
#include <vector>

using namespace chiru::shm;

namespace {

using SmallRing = SpscRing<std::uint32_t, 8>;

/// Sixteen words that must stay together: a torn or early read shows as a wrong word.
struct Record {
    std::array<std::uint32_t, 16> words{};

    static Record numbered(std::uint32_t number) {
        Record record;
        for (std::uint32_t i = 0; i < record.words.size(); ++i) record.words[i] = number * 16 + i;
        return record;
    }
    friend bool operator==(const Record&, const Record&) = default;
};
using RecordRing = SpscRing<Record, 256>;

std::vector<std::uint32_t> count_up(std::uint32_t from, std::size_t count) {
    std::vector<std::uint32_t> numbers(count);
    for (std::uint32_t& number : numbers) number = from++;
    return numbers;
}

#ifdef __SANITIZE_THREAD__
constexpr std::uint32_t kStressRecords = 2'000'000;
#else
constexpr std::uint32_t kStressRecords = 20'000'000;
#endif

}  // namespace

TEST_CASE("a ring gives back what was put in, in order", "[shm]") {
    auto ring = std::make_unique<SmallRing>();
    RingProducer producer(*ring);
    RingConsumer consumer(*ring);
    std::array<std::uint32_t, 8> out{};

    CHECK(consumer.pop(out) == 0);
    CHECK(producer.push(count_up(1, 3)) == 3);
    CHECK(consumer.pop(std::span(out).first(2)) == 2);
    CHECK((out[0] == 1 && out[1] == 2));
    CHECK(consumer.pop(out) == 1);
    CHECK(out[0] == 3);
    CHECK(consumer.pop(out) == 0);
}

TEST_CASE("a full ring takes what fits and no more", "[shm]") {
    auto ring = std::make_unique<SmallRing>();
    RingProducer producer(*ring);
    RingConsumer consumer(*ring);
    std::array<std::uint32_t, 16> out{};

    CHECK(producer.push(count_up(0, 5)) == 5);
    CHECK(producer.push(count_up(5, 5)) == 3);
    CHECK(producer.push(count_up(8, 1)) == 0);
    CHECK(consumer.pop(out) == 8);
    for (std::uint32_t i = 0; i < 8; ++i) CHECK(out[i] == i);
    CHECK(producer.push(count_up(8, 1)) == 1);
    CHECK_FALSE(producer.peer_is_corrupt());
    CHECK_FALSE(consumer.peer_is_corrupt());
}

TEST_CASE("nothing is a legal amount to push and to pop", "[shm]") {
    auto ring = std::make_unique<SmallRing>();
    RingProducer producer(*ring);
    RingConsumer consumer(*ring);
    CHECK(producer.push({}) == 0);
    CHECK(consumer.pop({}) == 0);
}

TEST_CASE("a consumer believes no head that lies more than a ring ahead", "[shm][hostile]") {
    const std::uint32_t lie = GENERATE(9u, 100u, 0x8000'0000u, 0xffff'ffffu);
    auto ring = std::make_unique<SmallRing>();
    RingConsumer consumer(*ring);
    std::array<std::uint32_t, 8> out{};

    ring->head.store(lie);
    CHECK(consumer.pop(out) == 0);
    CHECK(consumer.peer_is_corrupt());
    CHECK(ring->tail.load() == 0);
}

TEST_CASE("a consumer's position is its own: rewriting the tail does not move it",
          "[shm][hostile]") {
    auto ring = std::make_unique<SmallRing>();
    RingProducer producer(*ring);
    RingConsumer consumer(*ring);
    std::array<std::uint32_t, 8> out{};

    REQUIRE(producer.push(count_up(0, 4)) == 4);
    REQUIRE(consumer.pop(std::span(out).first(2)) == 2);
    ring->tail.store(0xdead'beef);
    CHECK(consumer.pop(out) == 2);
    CHECK((out[0] == 2 && out[1] == 3));
    CHECK(ring->tail.load() == 4);
}

TEST_CASE("a head that runs back behind what was read is a lie too", "[shm][hostile]") {
    auto ring = std::make_unique<SmallRing>();
    RingProducer producer(*ring);
    RingConsumer consumer(*ring);
    std::array<std::uint32_t, 8> out{};

    REQUIRE(producer.push(count_up(0, 4)) == 4);
    REQUIRE(consumer.pop(out) == 4);
    ring->head.store(3);
    CHECK(consumer.pop(out) == 0);
    CHECK(consumer.peer_is_corrupt());
}

TEST_CASE("a producer believes no tail that was never reached", "[shm][hostile]") {
    const std::uint32_t lie = GENERATE(9u, 0x7fff'ffffu, 0xffff'fff0u);
    auto ring = std::make_unique<SmallRing>();
    RingProducer producer(*ring);
    REQUIRE(producer.push(count_up(0, 8)) == 8);
    ring->tail.store(lie);
    CHECK(producer.push(count_up(8, 1)) == 0);
    CHECK(producer.peer_is_corrupt());
}

TEST_CASE("two threads pass millions of records in bursts of any size, in order and whole",
          "[shm][stress]") {
    auto ring = std::make_unique<RecordRing>();

    std::thread sender([&ring] {
        RingProducer producer(*ring);
        std::minstd_rand random(1);
        std::array<Record, 64> burst{};
        for (std::uint32_t next = 0; next < kStressRecords;) {
            const std::uint32_t wanted = static_cast<std::uint32_t>(random() % 64) + 1;
            const std::uint32_t count = std::min(wanted, kStressRecords - next);
            for (std::uint32_t i = 0; i < count; ++i) burst[i] = Record::numbered(next + i);
            const auto pushed = producer.push(std::span(burst).first(count));
            next += static_cast<std::uint32_t>(pushed);
            if (pushed < count) std::this_thread::yield();
        }
    });

    RingConsumer consumer(*ring);
    std::minstd_rand random(2);
    std::array<Record, 64> burst{};
    std::uint32_t wrong = 0;
    for (std::uint32_t next = 0; next < kStressRecords && !consumer.peer_is_corrupt();) {
        const std::size_t wanted = random() % 64 + 1;
        const std::size_t count = consumer.pop(std::span(burst).first(wanted));
        for (std::size_t i = 0; i < count; ++i)
            if (burst[i] != Record::numbered(next++)) ++wrong;
        if (count == 0) std::this_thread::yield();
    }
    sender.join();
    CHECK(wrong == 0);
    CHECK_FALSE(consumer.peer_is_corrupt());
}

TEST_CASE("the smallest ring turns a million times", "[shm]") {
    auto ring = std::make_unique<SpscRing<std::uint32_t, 2>>();
    RingProducer producer(*ring);
    RingConsumer consumer(*ring);
    std::array<std::uint32_t, 2> out{};
    std::uint32_t wrong = 0;
    for (std::uint32_t i = 0; i < 1'000'000; ++i) {
        const std::array<std::uint32_t, 1> in{i};
        if (producer.push(in) != 1 || consumer.pop(out) != 1 || out[0] != i) ++wrong;
    }
    CHECK(wrong == 0);
}
