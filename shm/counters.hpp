// SPDX-License-Identifier: Apache-2.0
//
// Counters a shard writes and anyone may read, live or after the shard stopped.
#pragma once

#include "base/cache.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace chiru::shm {

enum class Counter : std::uint16_t {
#define COUNTER(enumerator, name, unit, help) enumerator,
#include "shm/counters.def"
#undef COUNTER
};

enum class Unit : std::uint8_t { Frames, Bytes, Events, Micros };

struct CounterInfo {
    std::string_view name;
    Unit unit;
    std::string_view help;
};

inline constexpr auto kCounters = std::to_array<CounterInfo>({
#define COUNTER(enumerator, name, unit, help) {name, Unit::unit, help},
#include "shm/counters.def"
#undef COUNTER
});

/// Room for more, so that a reader and a daemon of neighbouring releases agree on the layout: the
/// directory names the counters that are there.
inline constexpr std::size_t kMaxCounters = 160;
static_assert(kCounters.size() <= kMaxCounters);

/// A value with one writer and any number of readers. An increment is a plain load and store;
/// atomic only so that a reader sees a whole value. Relaxed throughout: a counter orders nothing.
class SingleWriterCounter {
public:
    void add(std::uint64_t n = 1) { set(read() + n); }
    void subtract(std::uint64_t n = 1) { set(read() - n); }
    void set(std::uint64_t value) { value_.store(value, std::memory_order_relaxed); }
    std::uint64_t read() const { return value_.load(std::memory_order_relaxed); }

private:
    std::atomic<std::uint64_t> value_{0};
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

/// One shard's counters. A reader may see counts of one moment and neighbours of the next: sums
/// over a running shard are approximate by design.
class alignas(kNoSharing) CounterBlock {
public:
    void add(Counter c, std::uint64_t n = 1) { values_[static_cast<std::size_t>(c)].add(n); }
    std::uint64_t read(Counter c) const { return values_[static_cast<std::size_t>(c)].read(); }
    /// By position, for readers that go by the directory's names.
    std::uint64_t read(std::size_t position) const { return values_[position].read(); }

private:
    std::array<SingleWriterCounter, kMaxCounters> values_{};
};

}  // namespace chiru::shm
