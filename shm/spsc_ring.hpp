// SPDX-License-Identifier: Apache-2.0
//
// A ring with one producer and one consumer, in two processes that do not trust each other.
//
// SpscRing is what lies in shared memory. Each process works through its own handle,
// RingProducer or RingConsumer, which keeps that side's position in private memory: a peer
// can publish nonsense, but it cannot make us index outside the slots.
//
// Memory ordering. Positions count elements since the beginning and wrap at 2^32; two
// release/acquire edges, one in each direction, are all there is:
//
//   FILLED  producer writes slots, stores head (release)
//           consumer loads head (acquire), reads those slots
//   FREED   consumer reads slots, stores tail (release)
//           producer loads tail (acquire), overwrites those slots
#pragma once

#include "base/cache.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace chiru::shm {

template <class T, std::uint32_t kCapacity>
    requires(std::has_single_bit(kCapacity) && std::is_trivially_copyable_v<T>)
struct SpscRing {
    using Element = T;
    static constexpr std::uint32_t kSlots = kCapacity;  // a constant: a peer cannot change it

    alignas(kNoSharing) std::atomic<std::uint32_t> head{0};  ///< written by the producer only
    alignas(kNoSharing) std::atomic<std::uint32_t> tail{0};  ///< written by the consumer only
    alignas(kNoSharing) T slots[kCapacity];
};
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);  // else not valid across processes

template <class Ring>
class RingProducer {
public:
    explicit RingProducer(Ring& ring) : ring_(&ring) {}

    /// Appends as many of `items` as fit, publishes them together, and returns how many.
    std::size_t push(std::span<const typename Ring::Element> items) {
        if (Ring::kSlots - (head_ - known_tail_) < items.size()) refresh();
        const std::size_t free = Ring::kSlots - (head_ - known_tail_);
        const std::size_t count = std::min(free, items.size());
        if (count == 0) return 0;
        for (std::size_t i = 0; i < count; ++i) ring_->slots[slot(head_ + i)] = items[i];
        head_ += static_cast<std::uint32_t>(count);
        ring_->head.store(head_, std::memory_order_release);  // FILLED
        return count;
    }

    /// How many of `wanted` elements push() would take now.
    std::size_t room(std::size_t wanted) {
        if (Ring::kSlots - (head_ - known_tail_) < wanted) refresh();
        return std::min<std::size_t>(Ring::kSlots - (head_ - known_tail_), wanted);
    }

    /// Would push() take that many now?
    bool has_room(std::uint32_t count) {
        if (Ring::kSlots - (head_ - known_tail_) < count) refresh();
        return Ring::kSlots - (head_ - known_tail_) >= count;
    }

    /// The consumer published a position no correct consumer can reach. Drop the peer.
    bool peer_is_corrupt() const { return corrupt_; }

private:
    static std::size_t slot(std::size_t position) { return position & (Ring::kSlots - 1); }

    // Only when the cached tail leaves too little room: while the ring is far from full, the
    // consumer's cache line never travels to this core.
    void refresh() {
        const std::uint32_t tail = ring_->tail.load(std::memory_order_acquire);  // FREED
        if (head_ - tail <= Ring::kSlots) known_tail_ = tail;
        else corrupt_ = true;
    }

    Ring* ring_;
    std::uint32_t head_ = 0;        ///< ours; ring_->head only tells the peer
    std::uint32_t known_tail_ = 0;  ///< the consumer has freed at least up to here
    bool corrupt_ = false;
};

template <class Ring>
class RingConsumer {
public:
    explicit RingConsumer(Ring& ring) : ring_(&ring) {}

    /// Copies up to items.size() elements out, oldest first, and returns how many. A copy,
    /// because an element must not change between the check of its fields and their use.
    std::size_t pop(std::span<typename Ring::Element> items) {
        if (known_head_ - tail_ < items.size()) refresh();
        const std::size_t count = std::min<std::size_t>(known_head_ - tail_, items.size());
        if (count == 0) return 0;
        for (std::size_t i = 0; i < count; ++i) items[i] = ring_->slots[slot(tail_ + i)];
        tail_ += static_cast<std::uint32_t>(count);
        ring_->tail.store(tail_, std::memory_order_release);  // FREED
        return count;
    }

    bool peer_is_corrupt() const { return corrupt_; }

    /// Was there nothing to pop a moment ago?
    bool empty() {
        refresh();
        return known_head_ == tail_;
    }

private:
    static std::size_t slot(std::size_t position) { return position & (Ring::kSlots - 1); }

    void refresh() {
        const std::uint32_t head = ring_->head.load(std::memory_order_acquire);  // FILLED
        if (head - tail_ <= Ring::kSlots) known_head_ = head;
        else corrupt_ = true;
    }

    Ring* ring_;
    std::uint32_t tail_ = 0;
    std::uint32_t known_head_ = 0;
    bool corrupt_ = false;
};

}  // namespace chiru::shm
