// SPDX-License-Identifier: Apache-2.0
//
// Frames between shards. A device without a receive hash delivers a frame to some shard, which
// hands it to the one that owns its flow group; a shard without a queue on a port hands what it
// sends to one that has it. Every pair of shards has a lane in each direction: SPSC rings in
// private memory, of frame records, never of frame bytes.
#pragma once

#include "daemon/nic/shard_io.hpp"
#include "shm/spsc_ring.hpp"
#include "stack/frame.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace chiru::daemon {

struct SteerLane {
    shm::SpscRing<RxFrame, 1024> received;
    shm::SpscRing<nic::Handoff, 1024> to_send;
};

/// All lanes of the daemon.
class SteerLanes {
public:
    explicit SteerLanes(std::uint32_t shards) : shards_(shards) {
        for (std::size_t i = 0; i < std::size_t{shards} * shards; ++i)
            lanes_.push_back(std::make_unique<SteerLane>());
    }

    SteerLane& between(std::uint32_t from, std::uint32_t to) {
        return *lanes_[std::size_t{from} * shards_ + to];
    }

private:
    std::uint32_t shards_;
    std::vector<std::unique_ptr<SteerLane>> lanes_;
};

}  // namespace chiru::daemon
