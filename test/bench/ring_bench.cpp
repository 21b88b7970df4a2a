// SPDX-License-Identifier: Apache-2.0
//
// What the contract between daemon and client costs by itself: descriptors over a ring from one
// core to another, and the doorbell's wake-up of a sleeper.
//
//   bench_ring [PRODUCER_CORE CONSUMER_CORE]
#include "shm/channel.hpp"
#include "test/bench/histogram.hpp"

#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <thread>

namespace {

using namespace chiru::shm;
using chiru::bench::Histogram;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kBurst = 32;

void pin(unsigned core) {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(core, &cores);
    if (pthread_setaffinity_np(pthread_self(), sizeof cores, &cores) != 0)
        std::fprintf(stderr, "core %u cannot be used; running anywhere\n", core);
}

struct Cores {
    unsigned producer = 0;
    unsigned consumer = 1;
};

/// Nanoseconds for each descriptor, pushed and popped in bursts as fast as it goes.
double stream(const Cores& cores, std::size_t total) {
    auto ring = std::make_unique<SubmissionRing>();
    const Clock::time_point start = Clock::now();
    std::thread consumer([&] {
        pin(cores.consumer);
        RingConsumer<SubmissionRing> side(*ring);
        std::array<Submission, kBurst> items;
        for (std::size_t done = 0; done < total;) {
            const std::size_t count = side.pop(items);
            if (count == 0 && cores.consumer == cores.producer) sched_yield();
            done += count;
        }
    });
    pin(cores.producer);
    RingProducer<SubmissionRing> side(*ring);
    const std::array<Submission, kBurst> items{};
    for (std::size_t done = 0; done < total;) {
        const std::size_t count = side.push(items);
        if (count == 0 && cores.consumer == cores.producer) sched_yield();
        done += count;
    }
    consumer.join();
    const std::chrono::duration<double, std::nano> took = Clock::now() - start;
    return took.count() / static_cast<double>(total);
}

/// A consumer that sleeps on a doorbell until something is in its ring.
class Sleeper {
public:
    Sleeper()
        : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
        epoll_event event{};
        event.events = EPOLLIN | EPOLLET;
        if (epoll_ctl(epoll_, EPOLL_CTL_ADD, event_, &event) != 0) std::abort();
    }
    ~Sleeper() {
        close(epoll_);
        close(event_);
    }
    Sleeper(const Sleeper&) = delete;
    Sleeper& operator=(const Sleeper&) = delete;

    void wait(RingConsumer<SubmissionRing>& side, Submission& item) {
        while (side.pop({&item, 1}) == 0) {
            sleeper_.arm();
            if (side.pop({&item, 1}) != 0) return sleeper_.disarm();
            epoll_event event;
            epoll_wait(epoll_, &event, 1, -1);
            sleeper_.disarm();
        }
    }
    DoorbellRinger ringer() const { return DoorbellRinger(word_, event_); }

private:
    DoorbellWord word_;
    DoorbellSleeper sleeper_{word_};
    int event_;
    int epoll_;
};

/// There and back between two sleepers: what a request costs when both sides hand the core over.
Histogram ping_pong(const Cores& cores, std::size_t rounds) {
    auto there = std::make_unique<SubmissionRing>();
    auto back = std::make_unique<SubmissionRing>();
    Sleeper near;
    Sleeper far;
    std::thread echo([&] {
        pin(cores.consumer);
        RingConsumer<SubmissionRing> in(*there);
        RingProducer<SubmissionRing> out(*back);
        DoorbellRinger bell = near.ringer();
        Submission item;
        for (std::size_t i = 0; i < rounds; ++i) {
            far.wait(in, item);
            out.push({&item, 1});
            bell.ring();
        }
    });
    pin(cores.producer);
    RingProducer<SubmissionRing> out(*there);
    RingConsumer<SubmissionRing> in(*back);
    DoorbellRinger bell = far.ringer();
    Histogram histogram;
    Submission item;
    for (std::size_t i = 0; i < rounds; ++i) {
        const Clock::time_point start = Clock::now();
        out.push({&item, 1});
        bell.ring();
        near.wait(in, item);
        const std::chrono::nanoseconds took = Clock::now() - start;
        histogram.add(static_cast<std::uint64_t>(took.count()));
    }
    echo.join();
    return histogram;
}

unsigned number(const char* text) {
    unsigned value = 0;
    const std::string_view view = text;
    std::from_chars(view.data(), view.data() + view.size(), value);
    return value;
}

}  // namespace

int main(int count, char** arguments) {
    Cores cores;
    if (count == 3) cores = {number(arguments[1]), number(arguments[2])};
    std::printf("producer on core %u, consumer on core %u\n", cores.producer, cores.consumer);
    std::printf("%-34s %8.1f ns each\n", "descriptors in bursts of 32",
                stream(cores, 20'000'000));
    const Histogram trips = ping_pong(cores, 100'000);
    std::printf("%-34s %8.2f us p50, %.2f us p99\n", "doorbell there and back, both asleep",
                static_cast<double>(trips.percentile(0.5)) / 1e3,
                static_cast<double>(trips.percentile(0.99)) / 1e3);
}
