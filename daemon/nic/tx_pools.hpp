// SPDX-License-Identifier: Apache-2.0
//
// What frames on their way out are made of: head buffers, into which the stack writes headers, and
// bare mbufs to which a slice of somebody's arena is attached. Shared by all shards through DPDK's
// per-thread caches.
#pragma once

#include "base/result.hpp"

#include <cstdint>
#include <memory>
#include <string>

struct rte_mempool;

namespace chiru::daemon::nic {

class TxPools {
public:
    /// `frames`: how many can be under way at once. `head_bytes`: room in each head.
    static Result<std::unique_ptr<TxPools>, std::string> create(std::uint32_t frames,
                                                                std::uint16_t head_bytes);
    ~TxPools();
    TxPools(const TxPools&) = delete;
    TxPools& operator=(const TxPools&) = delete;

    /// Bytes of DPDK's memory that create() will need.
    static std::size_t bytes_needed(std::uint32_t frames, std::uint16_t head_bytes);

    rte_mempool* heads() const { return heads_; }
    rte_mempool* slices() const { return slices_; }
    std::uint16_t head_bytes() const { return head_bytes_; }

private:
    TxPools() = default;

    rte_mempool* heads_ = nullptr;
    rte_mempool* slices_ = nullptr;
    std::uint16_t head_bytes_ = 0;
};

}  // namespace chiru::daemon::nic
