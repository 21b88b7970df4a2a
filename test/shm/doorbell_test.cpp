// SPDX-License-Identifier: Apache-2.0
//
// The doorbell under load: sleepers that really sleep, on two threads. What every interleaving
// does is test/model/doorbell.pml's subject; here the machine has its say.
#include "shm/doorbell.hpp"
#include "shm/spsc_ring.hpp"

#include <catch2/catch.hpp>

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <fcntl.h>
#include <memory>
#include <random>
#include <thread>
#include <vector>

using namespace chiru;
using namespace chiru::shm;

namespace {

using Ring = SpscRing<std::uint64_t, 64>;
constexpr int kLongMs = 20'000;  // a sleep this long means that a wake-up was lost

/// Waits for the edges of one descriptor, as every sleeper of the program does.
class EdgeWaiter {
public:
    explicit EdgeWaiter(int fd) : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
        epoll_event edge{};
        edge.events = EPOLLIN | EPOLLET;
        REQUIRE(epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &edge) == 0);
    }
    bool wait(int milliseconds) const {
        epoll_event got{};
        int count = -1;
        do {
            count = epoll_wait(epoll_.get(), &got, 1, milliseconds);
        } while (count < 0 && errno == EINTR);
        return count == 1;
    }

private:
    UniqueFd epoll_;
};

UniqueFd event_fd() {
    return UniqueFd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
}

struct Tally {
    std::uint64_t popped = 0;
    std::uint64_t sleeps = 0;
    std::uint64_t lost = 0;
};

/// Pops until every ring has given `each` numbers, sleeping whenever all rings are empty.
Tally consume(std::span<const std::unique_ptr<Ring>> rings, std::uint64_t each, DoorbellWord& word,
              const EdgeWaiter& waiter) {
    Tally tally;
    DoorbellSleeper sleeper(word);
    std::vector<RingConsumer<Ring>> consumers;
    for (const auto& ring : rings) consumers.emplace_back(*ring);
    const auto pop_all = [&] {
        std::array<std::uint64_t, 16> out{};
        std::uint64_t count = 0;
        for (auto& consumer : consumers) count += consumer.pop(out);
        tally.popped += count;
        return count;
    };
    while (tally.popped < each * rings.size()) {
        if (pop_all() != 0) continue;
        sleeper.arm();
        if (pop_all() == 0) {
            ++tally.sleeps;
            if (!waiter.wait(kLongMs)) {
                ++tally.lost;
                break;
            }
        }
        sleeper.disarm();
    }
    return tally;
}

/// Pushes `count` numbers in small bursts with pauses in which the consumer falls asleep.
std::uint64_t produce(Ring& ring, std::uint64_t count, DoorbellRinger ringer, unsigned seed) {
    RingProducer producer(ring);
    std::minstd_rand random(seed);
    std::array<std::uint64_t, 8> burst{};
    std::uint64_t rings = 0;
    while (count > 0) {
        const std::size_t wanted = std::min<std::uint64_t>(random() % 8 + 1, count);
        const std::size_t pushed = producer.push(std::span(burst).first(wanted));
        count -= pushed;
        if (pushed != 0) rings += ringer.ring();
        if (pushed < wanted || random() % 4 == 0) std::this_thread::yield();
    }
    return rings;
}

#ifdef __SANITIZE_THREAD__
constexpr std::uint64_t kEach = 200'000;
#else
constexpr std::uint64_t kEach = 1'000'000;
#endif

}  // namespace

TEST_CASE("a producer rings only a consumer that sleeps, and once for each sleep", "[shm]") {
    DoorbellWord word;
    DoorbellSleeper sleeper(word);
    const UniqueFd fd = event_fd();
    DoorbellRinger ringer(word, fd.get());

    CHECK_FALSE(ringer.ring());
    sleeper.arm();
    CHECK(ringer.consumer_awaits_ring());
    CHECK(ringer.ring());
    CHECK_FALSE(ringer.consumer_awaits_ring());
    CHECK_FALSE(ringer.ring());
    sleeper.disarm();
    CHECK_FALSE(ringer.consumer_awaits_ring());
    CHECK_FALSE(ringer.ring());
    sleeper.arm();
    CHECK(ringer.ring());
}

TEST_CASE("each of two producers rings for itself", "[shm]") {
    DoorbellWord word;
    DoorbellSleeper sleeper(word);
    const UniqueFd fd = event_fd();
    DoorbellRinger first(word, fd.get());
    DoorbellRinger second(word, fd.get());
    sleeper.arm();
    CHECK(first.ring());
    CHECK(second.ring());
}

TEST_CASE("no wake-up is lost between one producer and a sleeper", "[shm][stress]") {
    DoorbellWord word;
    const UniqueFd fd = event_fd();
    const EdgeWaiter waiter(fd.get());
    std::vector<std::unique_ptr<Ring>> rings;
    rings.push_back(std::make_unique<Ring>());
    std::uint64_t rung = 0;
    std::thread sender(
        [&] { rung = produce(*rings[0], kEach, DoorbellRinger(word, fd.get()), 7); });
    const Tally tally = consume(rings, kEach, word, waiter);
    sender.join();
    CHECK(tally.lost == 0);
    CHECK(tally.popped == kEach);
    CHECK(rung <= tally.sleeps + kEach / 8);  // once an epoch, and epochs need an empty ring
    CHECK(tally.sleeps <= rung);              // nobody woke without an edge, spurious ones included
}

TEST_CASE("no wake-up is lost between two producers and a sleeper", "[shm][stress]") {
    DoorbellWord word;
    const UniqueFd fd = event_fd();
    const EdgeWaiter waiter(fd.get());
    std::vector<std::unique_ptr<Ring>> rings;
    rings.push_back(std::make_unique<Ring>());
    rings.push_back(std::make_unique<Ring>());
    std::thread first([&] { produce(*rings[0], kEach, DoorbellRinger(word, fd.get()), 3); });
    std::thread second([&] { produce(*rings[1], kEach, DoorbellRinger(word, fd.get()), 4); });
    const Tally tally = consume(rings, kEach, word, waiter);
    first.join();
    second.join();
    CHECK(tally.lost == 0);
    CHECK(tally.popped == 2 * kEach);
}

TEST_CASE("no wake-up is lost between two sleepers that wake each other", "[shm][stress]") {
    // Ping-pong is the hard case: every push meets a consumer on its way to sleep.
    DoorbellWord there_word;
    DoorbellWord back_word;
    const UniqueFd there_fd = event_fd();
    Result<ClientDoorbell, int> back_bell = make_client_doorbell();
    REQUIRE(back_bell);
    std::vector<std::unique_ptr<Ring>> there;
    std::vector<std::unique_ptr<Ring>> back;
    there.push_back(std::make_unique<Ring>());
    back.push_back(std::make_unique<Ring>());
    constexpr std::uint64_t kTrips = kEach / 10;

    const EdgeWaiter there_waiter(there_fd.get());
    const EdgeWaiter waiter(back_bell->client.get());
    std::thread server([&] {
        DoorbellRinger ringer(back_word, back_bell->ring.get());
        RingProducer producer(*back[0]);
        RingConsumer consumer(*there[0]);
        DoorbellSleeper sleeper(there_word);
        std::array<std::uint64_t, 1> item{};
        for (std::uint64_t trip = 0; trip < kTrips;) {
            if (consumer.pop(item) == 0) {
                sleeper.arm();
                const bool came = consumer.pop(item) != 0;
                if (!came && !there_waiter.wait(kLongMs)) return;
                sleeper.disarm();
                if (!came) continue;
            }
            producer.push(item);
            ringer.ring();
            ++trip;
        }
    });

    DoorbellRinger ringer(there_word, there_fd.get());
    RingProducer producer(*there[0]);
    RingConsumer consumer(*back[0]);
    DoorbellSleeper sleeper(back_word);
    std::uint64_t wrong = 0;
    std::uint64_t lost = 0;
    for (std::uint64_t trip = 0; trip < kTrips && lost == 0; ++trip) {
        std::array<std::uint64_t, 1> item{trip};
        producer.push(item);
        ringer.ring();
        while (consumer.pop(item) == 0) {
            sleeper.arm();
            const bool came = consumer.pop(item) != 0;
            if (!came && !waiter.wait(kLongMs)) ++lost;
            sleeper.disarm();
            if (came || lost != 0) break;
        }
        if (item[0] != trip) ++wrong;
    }
    server.join();
    CHECK(lost == 0);
    CHECK(wrong == 0);
}

TEST_CASE("a client can wait for its doorbell and do nothing else to it", "[shm][hostile]") {
    Result<ClientDoorbell, int> bell = make_client_doorbell();
    REQUIRE(bell);
    const int client = bell->client.get();
    const EdgeWaiter waiter(client);
    const std::uint64_t one = 1;
    std::uint64_t count = 0;

    CHECK_FALSE(waiter.wait(0));
    for (int i = 0; i < 3; ++i) {  // an edge for each ring, with nothing read in between
        REQUIRE(write(bell->ring.get(), &one, sizeof one) == sizeof one);
        CHECK(waiter.wait(0));
        CHECK_FALSE(waiter.wait(0));
    }
    CHECK(read(client, &count, sizeof count) < 0);
    CHECK(write(client, &one, sizeof one) < 0);
    REQUIRE(fcntl(client, F_SETFL, 0) == 0);
    CHECK((fcntl(bell->ring.get(), F_GETFL) & O_NONBLOCK) != 0);
    CHECK(epoll_ctl(client, EPOLL_CTL_DEL, bell->ring.get(), nullptr) == 0);  // only who holds it
}
