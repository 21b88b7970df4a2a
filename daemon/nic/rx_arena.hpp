// SPDX-License-Identifier: Apache-2.0
//
// The receive arena: a memfd that is DPDK's packet pool. Ports write frames straight into what
// clients map read-only; a slot of the arena and an mbuf are one object, and turning one into the
// other is arithmetic.
//
//   slot i     [ mempool's header | rte_mbuf | headroom | data ... ]     slot_bytes, constant
//
// One chunk, IOVA = VA, header and data side by side (the af_xdp driver insists on that).
#pragma once

#include "base/result.hpp"
#include "shm/descriptor.hpp"
#include "shm/region.hpp"
#include "stack/frame.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

struct rte_mempool;
struct rte_mbuf;

namespace chiru::daemon::nic {

class RxArena {
public:
    /// `data_bytes`: room for the largest frame of any port.
    static Result<std::unique_ptr<RxArena>, std::string> create(std::uint32_t slots,
                                                                std::uint32_t data_bytes,
                                                                bool hugepages);
    /// The stride that create() will arrive at.
    static std::uint32_t slot_bytes_for(std::uint32_t data_bytes);
    ~RxArena();
    RxArena(const RxArena&) = delete;
    RxArena& operator=(const RxArena&) = delete;

    const shm::Region& region() const { return region_; }
    ArenaView view() const { return {base_, region_.bytes().size(), slot_bytes_}; }
    std::uint32_t slots() const { return slots_; }
    std::uint32_t slot_bytes() const { return slot_bytes_; }
    std::uint32_t data_bytes() const { return data_bytes_; }
    rte_mempool* pool() const { return pool_; }

    std::uint64_t offset_of(const void* address) const {
        return static_cast<std::uint64_t>(static_cast<const std::byte*>(address) - base_);
    }
    /// The mbuf whose slot holds this byte.
    rte_mbuf* mbuf_at(std::uint64_t offset) const {
        return reinterpret_cast<rte_mbuf*>(base_ + offset / slot_bytes_ * slot_bytes_ +
                                           mbuf_offset_);
    }

private:
    RxArena() = default;
    Result<void, std::string> populate(bool hugepages);
    bool layout_is_constant() const;

    shm::Region region_;
    std::byte* base_ = nullptr;
    std::uint32_t slots_ = 0;
    std::uint32_t slot_bytes_ = 0;
    std::uint32_t data_bytes_ = 0;
    std::uint32_t mbuf_offset_ = 0;  ///< of the mbuf within its slot
    bool registered_ = false;
    rte_mempool* pool_ = nullptr;
};

}  // namespace chiru::daemon::nic
