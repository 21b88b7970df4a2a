// SPDX-License-Identifier: Apache-2.0
//
// Where a client's send buffers come from. The session's TX arena is cut into blocks of 64 KiB;
// each channel takes whole blocks under a mutex, rarely, and cuts them into pieces of 1 KiB by
// itself, without one. A buffer is a run of neighbouring pieces in one block.
//
//   session:  TxBlocks   | block | block | block | ...        free blocks, one mutex
//   channel:  TxArena    | pppppppp...p (64 pieces) |         a 64-bit mask of free pieces
//
// Idle sockets hold no pieces, and an idle channel no more than kSpareBlocks blocks.
#pragma once

#include "libclient/paged_pool.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

namespace chiru::client {

inline constexpr std::size_t kTxBlockBytes = 65'536;
inline constexpr std::size_t kTxPieceBytes = 1'024;
inline constexpr std::size_t kPiecesPerBlock = kTxBlockBytes / kTxPieceBytes;
static_assert(kPiecesPerBlock == 64);  // one bit each of a std::uint64_t

/// The free blocks of a session's arena. Thread-safe.
class TxBlocks {
public:
    explicit TxBlocks(std::span<std::byte> arena);

    std::optional<std::uint32_t> take();
    void give(std::uint32_t block);

    /// Somebody found no block since the last give(): keep none in reserve.
    bool wanted() const { return wanted_.load(std::memory_order_relaxed); }
    std::uint32_t count() const { return count_; }
    std::byte* data() const { return arena_.data(); }

private:
    std::span<std::byte> arena_;
    std::uint32_t count_;
    std::mutex mutex_;
    std::vector<std::uint32_t> free_;
    std::atomic<bool> wanted_{false};  // a hint, orders nothing
};

/// Neighbouring pieces of one block.
struct TxRun {
    std::uint64_t offset = 0;  ///< from the arena's first byte
    std::uint32_t bytes = 0;   ///< a multiple of kTxPieceBytes; 0: nothing was free
};

/// One channel's share of the arena.
class TxArena {
public:
    static constexpr std::uint32_t kSpareBlocks = 2;

    explicit TxArena(TxBlocks& blocks);
    ~TxArena();
    TxArena(const TxArena&) = delete;
    TxArena& operator=(const TxArena&) = delete;

    /// A run of up to kTxBlockBytes that holds `bytes`, or a shorter one if memory is short.
    TxRun allocate(std::size_t bytes);
    /// A run that holds all of `bytes`, or nothing.
    TxRun allocate_whole(std::size_t bytes);
    void free(TxRun run);

    /// Gives spare blocks back while other channels of the session look for some.
    void share();

    /// May allocate() find something? Its own pieces for certain; other channels' as a hint.
    bool has_room() const;

    std::byte* data(std::uint64_t offset) const { return blocks_->data() + offset; }

private:
    /// Small runs and large ones come from different blocks, so that small ones, which live for
    /// a round trip, do not leave holes where large ones would fit.
    static constexpr std::size_t kSmallPieces = 8;
    static constexpr std::uint32_t kBlocksTried = 8;

    struct Block {
        std::uint64_t free = 0;  ///< bit i: piece i is free. 0 while the block is not ours
        std::uint32_t previous = kNone;
        std::uint32_t next = kNone;
        std::uint8_t list = 0;
    };

    TxRun carve(std::size_t pieces, bool whole);
    TxRun carve_from(std::uint32_t block, std::uint64_t starts, std::size_t pieces);
    void link(std::uint32_t block, std::uint8_t list);
    void unlink(std::uint32_t block);

    TxBlocks* blocks_;
    std::vector<Block> table_;  ///< one for each block of the arena
    std::array<std::uint32_t, 2> lists_{kNone, kNone};  ///< of our blocks with free pieces
    std::vector<std::uint32_t> spare_;  ///< wholly free, in no list
};

}  // namespace chiru::client
