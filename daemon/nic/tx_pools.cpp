// SPDX-License-Identifier: Apache-2.0
#include "daemon/nic/tx_pools.hpp"

#include "daemon/nic/attached_slice.hpp"

#include <rte_errno.h>
#include <rte_mbuf.h>

#include <cstring>

namespace chiru::daemon::nic {
namespace {

constexpr unsigned kCacheMbufs = 256;
constexpr std::uint32_t kSlicesPerFrame = 2;  // on average; a frame may have more
constexpr std::size_t kPerMbuf = 64 + sizeof(rte_mbuf) + 16;

}  // namespace

std::size_t TxPools::bytes_needed(std::uint32_t frames, std::uint16_t head_bytes) {
    return frames * (kPerMbuf + RTE_PKTMBUF_HEADROOM + head_bytes) +
           frames * kSlicesPerFrame * (kPerMbuf + sizeof(AttachedSlice));
}

Result<std::unique_ptr<TxPools>, std::string> TxPools::create(std::uint32_t frames,
                                                              std::uint16_t head_bytes) {
    std::unique_ptr<TxPools> pools(new TxPools);
    pools->head_bytes_ = head_bytes;
    const auto room = static_cast<std::uint16_t>(RTE_PKTMBUF_HEADROOM + head_bytes);
    pools->heads_ = rte_pktmbuf_pool_create("chiru_tx_heads", frames, kCacheMbufs, 0, room,
                                            SOCKET_ID_ANY);
    if (pools->heads_ != nullptr)
        pools->slices_ =
            rte_pktmbuf_pool_create("chiru_tx_slices", frames * kSlicesPerFrame, kCacheMbufs,
                                    sizeof(AttachedSlice), 0, SOCKET_ID_ANY);
    if (pools->slices_ == nullptr)
        return std::unexpected(std::string("no memory for transmit buffers: ") +
                               std::strerror(rte_errno));
    return pools;
}

TxPools::~TxPools() {
    rte_mempool_free(slices_);
    rte_mempool_free(heads_);
}

}  // namespace chiru::daemon::nic
