// SPDX-License-Identifier: Apache-2.0
#include "daemon/nic/rx_arena.hpp"

#include <rte_errno.h>
#include <rte_mbuf.h>
#include <rte_memory.h>
#include <rte_mempool.h>

#include <cstring>

namespace chiru::daemon::nic {
namespace {

constexpr unsigned kCacheMbufs = 256;
/// One slot directly behind the other, over page boundaries too: IOVA = VA is contiguous.
constexpr unsigned kPoolFlags = RTE_MEMPOOL_F_NO_SPREAD | RTE_MEMPOOL_F_NO_IOVA_CONTIG;
constexpr std::size_t kNormalPage = 4096;
constexpr std::size_t kHugePage = 2u << 20;

std::uint32_t element_bytes(std::uint32_t data_bytes) {
    return static_cast<std::uint32_t>(sizeof(rte_mbuf)) + RTE_PKTMBUF_HEADROOM + data_bytes;
}

std::string failure(const std::string& what, int error) {
    return "the receive arena: " + what + ": " + std::strerror(error);
}

}  // namespace

Result<std::unique_ptr<RxArena>, std::string> RxArena::create(std::uint32_t slots,
                                                              std::uint32_t data_bytes,
                                                              bool hugepages) {
    std::unique_ptr<RxArena> arena(new RxArena);
    arena->slots_ = slots;
    arena->data_bytes_ = data_bytes;
    if (Result<void, std::string> done = arena->populate(hugepages); !done)
        return std::unexpected(done.error());
    return arena;
}

std::uint32_t RxArena::slot_bytes_for(std::uint32_t data_bytes) {
    return rte_mempool_calc_obj_size(element_bytes(data_bytes), kPoolFlags, nullptr);
}

Result<void, std::string> RxArena::populate(bool hugepages) {
    pool_ = rte_mempool_create_empty("chiru_rx", slots_, element_bytes(data_bytes_), kCacheMbufs,
                                     sizeof(rte_pktmbuf_pool_private), SOCKET_ID_ANY,
                                     kPoolFlags);
    if (pool_ == nullptr) return std::unexpected(failure("no room for its pool", rte_errno));

    rte_pktmbuf_pool_private shape{};
    shape.mbuf_data_room_size = static_cast<std::uint16_t>(data_bytes_ + RTE_PKTMBUF_HEADROOM);
    rte_pktmbuf_pool_init(pool_, &shape);

    slot_bytes_ = pool_->header_size + pool_->elt_size + pool_->trailer_size;
    mbuf_offset_ = pool_->header_size;
    const std::size_t bytes = std::size_t{slots_} * slot_bytes_;
    Result<shm::Region, int> region =
        shm::Region::create("chiru-rx", bytes, shm::PeerAccess::ReadOnly,
                            hugepages ? shm::Pages::Huge : shm::Pages::Normal);
    if (!region) return std::unexpected(failure("no memory", region.error()));
    region_ = std::move(*region);
    base_ = region_.bytes().data();

    const std::size_t page = hugepages ? kHugePage : kNormalPage;
    const std::size_t all = region_.bytes().size();
    if (rte_extmem_register(base_, all, nullptr, static_cast<unsigned>(all / page), page) != 0)
        return std::unexpected(failure("DPDK does not take it", rte_errno));
    registered_ = true;

    const int added = rte_mempool_populate_iova(pool_, reinterpret_cast<char*>(base_),
                                                reinterpret_cast<rte_iova_t>(base_), bytes,
                                                nullptr, nullptr);
    if (added < 0) return std::unexpected(failure("DPDK does not take it", -added));
    rte_mempool_obj_iter(pool_, rte_pktmbuf_init, nullptr);
    if (static_cast<std::uint32_t>(added) != slots_ || !layout_is_constant())
        return std::unexpected(std::string("the receive arena: DPDK laid the pool out in an "
                                           "unexpected way"));
    return {};
}

/// Everything else relies on slot = offset / slot_bytes; so look at every mbuf once.
bool RxArena::layout_is_constant() const {
    struct Seen {
        const RxArena* arena;
        bool good;
    } seen{this, true};
    rte_mempool_obj_iter(
        pool_,
        [](rte_mempool*, void* opaque, void* object, unsigned index) {
            auto* check = static_cast<Seen*>(opaque);
            const std::uint64_t expected =
                std::uint64_t{index} * check->arena->slot_bytes_ + check->arena->mbuf_offset_;
            if (check->arena->offset_of(object) != expected) check->good = false;
        },
        &seen);
    return seen.good;
}

RxArena::~RxArena() {
    rte_mempool_free(pool_);
    if (registered_) rte_extmem_unregister(base_, region_.bytes().size());
}

}  // namespace chiru::daemon::nic
