// SPDX-License-Identifier: Apache-2.0
#include "libclient/tx_arena.hpp"

#include <algorithm>
#include <bit>

namespace chiru::client {
namespace {

constexpr std::uint64_t kAllFree = ~std::uint64_t{0};

std::uint64_t mask_of(std::size_t first, std::size_t pieces) {
    return (pieces == kPiecesPerBlock ? kAllFree : (std::uint64_t{1} << pieces) - 1) << first;
}

/// Bit i is set if bits i .. i + pieces - 1 of `free` are: doubles the run at each step.
std::uint64_t runs_of(std::uint64_t free, std::size_t pieces) {
    std::size_t have = 1;
    while (have < pieces && free != 0) {
        const std::size_t step = std::min(have, pieces - have);
        free &= free >> step;
        have += step;
    }
    return free;
}

/// The longest run in `free`, which is not 0.
std::size_t longest_run(std::uint64_t free) {
    std::size_t pieces = 0;
    for (; free != 0; ++pieces) free &= free >> 1;
    return pieces;
}

}  // namespace

TxBlocks::TxBlocks(std::span<std::byte> arena)
    : arena_(arena), count_(static_cast<std::uint32_t>(arena.size() / kTxBlockBytes)) {
    free_.reserve(count_);
    for (std::uint32_t i = count_; i > 0; --i) free_.push_back(i - 1);  // the first ones first
}

std::optional<std::uint32_t> TxBlocks::take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) {
        wanted_.store(true, std::memory_order_relaxed);
        return std::nullopt;
    }
    const std::uint32_t block = free_.back();
    free_.pop_back();
    return block;
}

void TxBlocks::give(std::uint32_t block) {
    const std::lock_guard lock(mutex_);
    free_.push_back(block);  // never beyond count_, so never allocates
    wanted_.store(false, std::memory_order_relaxed);
}

TxArena::TxArena(TxBlocks& blocks) : blocks_(&blocks), table_(blocks.count()) {
    spare_.reserve(kSpareBlocks + 1);
}

TxArena::~TxArena() {
    // What is still in flight belongs to the daemon until the session ends; only blocks that are
    // wholly free go back.
    for (const std::uint32_t block : spare_) blocks_->give(block);
}

TxRun TxArena::allocate(std::size_t bytes) {
    const std::size_t pieces = (std::min(bytes, kTxBlockBytes) + kTxPieceBytes - 1) / kTxPieceBytes;
    return carve(pieces, false);
}

TxRun TxArena::allocate_whole(std::size_t bytes) {
    if (bytes > kTxBlockBytes) return {};
    return carve((bytes + kTxPieceBytes - 1) / kTxPieceBytes, true);
}

TxRun TxArena::carve(std::size_t pieces, bool whole) {
    if (pieces == 0) return {};
    const std::uint8_t list = pieces <= kSmallPieces ? 0 : 1;
    std::uint32_t block = lists_[list];
    for (std::uint32_t tries = 0; block != kNone && tries < kBlocksTried; ++tries) {
        if (const std::uint64_t starts = runs_of(table_[block].free, pieces); starts != 0)
            return carve_from(block, starts, pieces);
        block = table_[block].next;
    }
    if (!spare_.empty()) {
        block = spare_.back();
        spare_.pop_back();
    } else if (const std::optional<std::uint32_t> taken = blocks_->take()) {
        block = *taken;
    } else {
        // Memory is short: whatever there is, of either list.
        for (const std::uint32_t first : {lists_[list], lists_[1 - list]}) {
            if (first == kNone) continue;
            const std::uint64_t free = table_[first].free;
            const std::size_t most = std::min(pieces, longest_run(free));
            if (most == pieces || !whole) return carve_from(first, runs_of(free, most), most);
        }
        return {};
    }
    table_[block].free = kAllFree;
    link(block, list);
    return carve_from(block, kAllFree, pieces);
}

TxRun TxArena::carve_from(std::uint32_t block, std::uint64_t starts, std::size_t pieces) {
    const auto first = static_cast<std::size_t>(std::countr_zero(starts));
    Block& entry = table_[block];
    entry.free &= ~mask_of(first, pieces);
    if (entry.free == 0) unlink(block);
    return {std::uint64_t{block} * kTxBlockBytes + first * kTxPieceBytes,
            static_cast<std::uint32_t>(pieces * kTxPieceBytes)};
}

void TxArena::free(TxRun run) {
    const auto block = static_cast<std::uint32_t>(run.offset / kTxBlockBytes);
    Block& entry = table_[block];
    if (entry.free == 0) link(block, entry.list);
    entry.free |= mask_of(run.offset % kTxBlockBytes / kTxPieceBytes, run.bytes / kTxPieceBytes);
    if (entry.free != kAllFree) return;
    unlink(block);
    entry.free = 0;
    spare_.push_back(block);
    if (spare_.size() > kSpareBlocks || blocks_->wanted()) share();
}

void TxArena::share() {
    const std::size_t keep = blocks_->wanted() ? 0 : kSpareBlocks;
    while (spare_.size() > keep) {
        blocks_->give(spare_.back());
        spare_.pop_back();
    }
}

bool TxArena::has_room() const {
    return lists_[0] != kNone || lists_[1] != kNone || !spare_.empty() || !blocks_->wanted();
}

void TxArena::link(std::uint32_t block, std::uint8_t list) {
    Block& entry = table_[block];
    entry.list = list;
    entry.previous = kNone;
    entry.next = lists_[list];
    if (entry.next != kNone) table_[entry.next].previous = block;
    lists_[list] = block;
}

void TxArena::unlink(std::uint32_t block) {
    Block& entry = table_[block];
    if (entry.previous != kNone) table_[entry.previous].next = entry.next;
    else lists_[entry.list] = entry.next;
    if (entry.next != kNone) table_[entry.next].previous = entry.previous;
}

}  // namespace chiru::client
