// SPDX-License-Identifier: Apache-2.0
//
// What a test sees of the data plane without devices, and how it plays the shards.
#pragma once

#include "daemon/dataplane/plane.hpp"

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

namespace chiru::test {

inline constexpr std::uint32_t kShards = 2;
inline constexpr std::size_t kRxSlots = 64;
inline constexpr std::uint32_t kRxSlotBytes = 2048;

struct FakePlane {
    std::mutex mutex;  ///< the server runs in a thread of its own
    std::vector<std::pair<std::uint32_t, daemon::Command>> commands;  ///< by shard, in order
    std::vector<daemon::Report> reports;
    bool hold_back = false;  ///< orders are given, and no shard answers
    int wake = -1;

    void reset();
    void forget_commands();
    /// As a shard would.
    void report(const daemon::Report& what);
    void report_locked(const daemon::Report& what);
    /// Ends `hold_back`.
    void release();

    template <class T>
    std::size_t count() {
        const std::lock_guard lock(mutex);
        std::size_t found = 0;
        for (const auto& [shard, command] : commands)
            if (std::holds_alternative<T>(command.what)) ++found;
        return found;
    }
};

/// There is one, as there is one plane in a process.
FakePlane& fake();

}  // namespace chiru::test
