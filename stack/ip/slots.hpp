// SPDX-License-Identifier: Apache-2.0
//
// Receive slots that ip/ holds on to: fragments that wait for their fellows, and what an answer
// quotes or echoes. A piece is some bytes of one slot; pieces are chained by index into packets.
// Bounded, so that no peer can empty the arena through here.
#pragma once

#include "shm/descriptor.hpp"
#include "stack/frame.hpp"
#include "stack/table_carver.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace chiru::ip {

inline constexpr std::uint32_t kNoPiece = ~0u;

struct Piece {
    shm::Slice slot;           ///< what to release
    std::uint64_t offset = 0;  ///< of the bytes meant, in the arena
    std::uint32_t length = 0;
    std::uint32_t at = 0;      ///< where they stand in the packet
    std::uint32_t next = kNoPiece;
    std::uint32_t reserved = 0;
};

/// Gives slots back a batch at a time.
class SlotReturn {
public:
    explicit SlotReturn(BufferPool& pool) : pool_(pool) {}

    void release(const shm::Slice& slot) {
        batch_[count_++] = slot;
        if (count_ == batch_.size()) flush();
    }
    void flush() {
        if (count_ != 0) pool_.release(std::span(batch_).first(count_));
        count_ = 0;
    }

private:
    BufferPool& pool_;
    std::size_t count_ = 0;
    std::array<shm::Slice, 64> batch_;
};

/// The pool of pieces; each holds its slot until it is given back.
class Pieces {
public:
    Pieces(std::span<Piece> table, ArenaView arena, SlotReturn& slots)
        : table_(table), arena_(arena), slots_(slots) {
        for (std::size_t i = table_.size(); i-- > 0;) {
            table_[i].next = free_;
            free_ = static_cast<std::uint32_t>(i);
        }
        free_count_ = table_.size();
    }

    /// Holds `frame`'s slot for the bytes `part` of it; kNoPiece if the bound is reached, and then
    /// the slot stays the caller's.
    std::uint32_t hold(const RxFrame& frame, std::span<const std::byte> part) {
        if (free_ == kNoPiece) return kNoPiece;
        const std::uint32_t index = free_;
        free_ = table_[index].next;
        --free_count_;
        const auto within = static_cast<std::uint64_t>(part.data() - frame.data);
        table_[index] = {.slot = frame.slice,
                         .offset = frame.slice.offset + within,
                         .length = static_cast<std::uint32_t>(part.size())};
        return index;
    }

    /// Gives the piece back, its slot not: it went to somebody else.
    void forget(std::uint32_t index) {
        table_[index].next = free_;
        free_ = index;
        ++free_count_;
    }
    /// Gives back a chain, slots and all.
    void release_chain(std::uint32_t first) {
        while (first != kNoPiece) {
            const std::uint32_t next = table_[first].next;
            slots_.release(table_[first].slot);
            forget(first);
            first = next;
        }
    }

    Piece& operator[](std::uint32_t index) { return table_[index]; }
    const Piece& operator[](std::uint32_t index) const { return table_[index]; }
    std::byte* data(const Piece& piece) const { return arena_.base + piece.offset; }
    std::span<const std::byte> bytes(std::uint32_t index) const {
        return {data(table_[index]), table_[index].length};
    }
    std::size_t free_count() const { return free_count_; }
    std::size_t capacity() const { return table_.size(); }

private:
    std::span<Piece> table_;
    ArenaView arena_;
    SlotReturn& slots_;
    std::uint32_t free_ = kNoPiece;
    std::size_t free_count_ = 0;
};

}  // namespace chiru::ip
