// SPDX-License-Identifier: Apache-2.0
#include "shm/directory.hpp"

#include <catch2/catch.hpp>

#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <thread>

using namespace chiru::shm;

namespace {

/// Every word the same, so that a mixture of two shows.
struct Uniform {
    std::array<std::uint64_t, 61> words{};
    std::uint32_t tail = 0;

    static Uniform of(std::uint32_t number) {
        Uniform value;
        value.words.fill(number);
        value.tail = number;
        return value;
    }
    bool whole() const {
        for (const std::uint64_t word : words)
            if (word != tail) return false;
        return true;
    }
};

}  // namespace

TEST_CASE("text in a fixed field is cut to fit and always ends", "[shm]") {
    FixedText<8> text;
    CHECK(text.view().empty());
    text.set("redis");
    CHECK(text.view() == "redis");
    text.set("redis-server");
    CHECK(text.view() == "redis-s");
    text.set("x");
    CHECK(text.view() == "x");
    text.chars.fill('y');  // a writer that forgot the terminator
    CHECK(text.view() == "yyyyyyyy");
}

TEST_CASE("a published record starts as its default and reads back as written", "[shm]") {
    auto record = std::make_unique<Published<PortInfo>>();
    CHECK(record->read().in_use == 0);
    PortInfo port;
    port.in_use = 1;
    port.mtu = 9000;
    port.name.set("nic0");
    record->publish(port);
    CHECK(record->read().mtu == 9000);
    CHECK(record->read().name.view() == "nic0");
}

TEST_CASE("a reader never sees a record in the middle of a change", "[shm][stress]") {
    auto record = std::make_unique<Published<Uniform>>();
    std::atomic<bool> stop{false};
    std::thread writer([&] {
        for (std::uint32_t i = 1; !stop.load(std::memory_order_relaxed); ++i) {
            record->publish(Uniform::of(i));
            for (int pause = 0; pause < 20; ++pause) std::this_thread::yield();
        }
    });
#ifdef __SANITIZE_THREAD__
    constexpr int kReads = 5'000;
#else
    constexpr int kReads = 200'000;
#endif
    int torn = 0;
    std::uint32_t last = 0;
    int backwards = 0;
    for (int i = 0; i < kReads; ++i) {
        const Uniform value = record->read();
        torn += value.whole() ? 0 : 1;
        backwards += value.tail < last ? 1 : 0;
        last = value.tail;
    }
    stop.store(true);
    writer.join();
    CHECK(torn == 0);
    CHECK(backwards == 0);
}

TEST_CASE("every counter has a name of its own, a group, and a help text that fits", "[shm]") {
    std::set<std::string> names;
    for (const CounterInfo& info : kCounters) {
        CAPTURE(info.name);
        CHECK(names.insert(std::string(info.name)).second);
        CHECK(info.name.find('.') != std::string_view::npos);
        CHECK_FALSE(info.help.empty());
        CHECK(info.name.size() < sizeof(CounterName::name));
        CHECK(info.help.size() < sizeof(CounterName::help));
    }
}
