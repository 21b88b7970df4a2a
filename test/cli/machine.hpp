// SPDX-License-Identifier: Apache-2.0
//
// A daemon's memory made by hand: two shards, one port, two clients and an observer, a handful of
// connections in several states. No daemon runs.
#pragma once

#include "cli/view.hpp"

#include <cstddef>
#include <memory>
#include <vector>

namespace chiru::cli::test {

class Machine {
public:
    Machine();

    /// Of all there is, at a moment that never changes.
    View view() const;
    /// As somebody sees it who may not read the tables.
    View without_tables() const;

    shm::Directory& directory() { return *directory_; }
    shm::ShardTables& tables(std::size_t shard);
    shm::ConnectionInfo& connection(std::size_t shard, std::size_t index);
    shm::ListenerInfo& listener(std::size_t shard, std::size_t index);
    shm::NeighborInfo& neighbor(std::size_t shard, std::size_t index);
    std::span<const std::byte> tables_region(std::size_t shard) const;

    static constexpr std::int64_t kNowUs = 1'000'000'000'000;
    static constexpr std::size_t kConnections = 64;
    static constexpr std::uint32_t kStride = 512;  ///< a block is more than what is described

private:
    struct alignas(kNoSharing) Line {
        std::byte bytes[kNoSharing];
    };

    void make_directory();
    void make_sessions();
    void make_connections();
    void make_paths();

    std::unique_ptr<shm::Directory> directory_;
    std::vector<std::vector<Line>> tables_;
};

}  // namespace chiru::cli::test
