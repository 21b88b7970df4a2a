// SPDX-License-Identifier: Apache-2.0
//
// Does a shard still turn?
#pragma once

#include "base/time.hpp"
#include "shm/directory.hpp"

namespace chiru::daemon {

inline constexpr Micros kStuckAfter = std::chrono::seconds(5);

/// A shard that sleeps may do so for any time; one that is awake stamps each turn. The two reads
/// may race with a shard that wakes after a long sleep: believe what is so twice in a row.
inline bool is_stuck(const shm::ShardPage& page, Instant now) {
    const bool sleeps = (page.doorbell.epoch.load(std::memory_order_relaxed) & 1) != 0;
    const Instant turned{Micros(page.alive_us.load(std::memory_order_relaxed))};
    return !sleeps && turned != Instant{} && now - turned > kStuckAfter;
}

}  // namespace chiru::daemon
