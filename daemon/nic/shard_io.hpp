// SPDX-License-Identifier: Apache-2.0
//
// One shard's side of all ports: receive and transmit queues, as frames of the stack. Here, and
// only here, arena slots become mbufs and mbufs become slots.
//
//   receive   mbuf out of the receive arena -> RxFrame; the same memory, another name
//   transmit  a head mbuf is lent to the stack as TxFrame, comes back with headers in it; each
//             slice is attached behind it as an external buffer, whose release the stack is told of
//   local     a frame to one of our own addresses is copied into a fresh receive slot
//
// What a port does not take is kept and offered again.
#pragma once

#include "daemon/nic/port.hpp"
#include "daemon/nic/rx_arena.hpp"
#include "daemon/nic/tx_pools.hpp"
#include "shm/counters.hpp"
#include "stack/frame.hpp"
#include "stack/stack.hpp"

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace chiru::daemon::nic {

inline constexpr std::size_t kBurst = 64;

/// A finished frame for a port on which another shard has the queue.
struct Handoff {
    rte_mbuf* frame = nullptr;
    PortIndex port = 0;
    std::uint16_t shard = 0;  ///< the one that can send it
};

class ShardIo final : public BufferPool {
public:
    ShardIo(std::uint16_t shard, std::span<const std::unique_ptr<Port>> ports,
            const RxArena& arena, const TxPools& pools, shm::CounterBlock& counters);
    ~ShardIo() override;
    ShardIo(const ShardIo&) = delete;
    ShardIo& operator=(const ShardIo&) = delete;

    /// Whom to tell that a slice was sent; nullptr: nobody any longer.
    void tell(Stack* stack) { stack_ = stack; }

    void release(std::span<const shm::Slice> slots) override;

    /// Leaves the port's queue alone: what is to be sent there waits, and is lost before long.
    void pause(PortIndex port) { queues_[port].paused = true; }
    void resume(PortIndex port) { queues_[port].paused = false; }

    /// Polls this shard's queue of every port; room for kBurst frames.
    std::size_t receive(std::span<RxFrame, kBurst> frames);
    /// Frames that were received, but no stack wants.
    void drop(std::span<const RxFrame> frames);
    /// The same frame in a buffer of its own; nothing, and counted, if there is none.
    std::optional<RxFrame> duplicate(const RxFrame& frame);

    /// Head memory for the stack to fill; as much as the ports will take.
    std::span<TxFrame> lend(Instant now);
    /// Sends the first `count` of the lent frames.
    void send(std::size_t count, Instant now);
    /// Offers what ports refused once more. Returns whether there was anything.
    bool flush(Instant now);
    bool has_unsent() const { return unsent_ != 0; }
    /// Sends, for another shard, on our queue.
    void send_for_other(const Handoff& handoff, Instant now);
    /// Throws a handed-over frame away.
    static void drop(const Handoff& handoff);

    /// Frames to ourselves since the last call of clear_local(), as if they had been received.
    std::span<const RxFrame> local() const { return {local_.data(), local_count_}; }
    void clear_local() { local_count_ = 0; }
    /// Frames for other shards' queues since the last call of clear_handoffs().
    std::span<const Handoff> handoffs() const { return {handoffs_.data(), handoff_count_}; }
    void clear_handoffs() { handoff_count_ = 0; }

    /// Asks every port to wake this thread through the epoll set. Look at the queues once more
    /// before sleeping. Returns how long to sleep at most.
    Micros arm(int epoll_fd);
    void disarm();
    /// Is the hash of this port's TCP frames the device's, and so the frame at the right shard?
    bool arrives_right(const RxFrame& frame) const { return (frame.flags & kHashed) != 0; }

private:
    /// An RxFlag bit of ours that the stack does not know: the device chose this shard by hash.
    static constexpr std::uint16_t kHashed = 0x8000;
    /// More than that are not waited with. What was lent before may come on top, cut into many.
    static constexpr std::size_t kBacklog = 4 * kBurst;
    static constexpr std::size_t kCutBacklog = std::bit_ceil(kBacklog + kBurst * kMaxTxSegments);

    struct Queue {
        Port* port = nullptr;
        std::uint16_t device = 0;
        std::uint16_t queue = 0;
        bool own = false;        ///< the queue is this shard's
        bool prepare = false;
        bool guard = false;
        bool paused = false;
        std::size_t pieces = 1;  ///< frames that one from the device may become
        bool cuts = false;       ///< the port leaves it to us to cut frames into segments
        std::uint16_t sender = 0;  ///< the shard that has it
        std::uint16_t first = 0;
        std::uint16_t count = 0;
        Instant refused_since = kNever;
        std::vector<rte_mbuf*> unsent;  ///< a ring; its size is a power of two

        rte_mbuf*& waiting(std::size_t i) { return unsent[(first + i) & (unsent.size() - 1)]; }
    };

    std::size_t receive(Queue& queue, std::span<RxFrame> frames);
    std::size_t receive_chain(const rte_mbuf& chain, const Queue& queue,
                              std::span<RxFrame> frames);
    RxFrame describe(const rte_mbuf& frame, const Queue& queue) const;
    void refill_heads();
    void close_gaps(std::size_t count);
    void send_local(const TxFrame& frame);
    void send_outside(std::size_t place);
    void send_cut(const TxFrame& frame);
    void finish(TxFrame& frame, rte_mbuf* head);
    static std::size_t room_of(const Queue& queue);
    rte_mbuf* copy_into_arena(const TxFrame& frame);
    bool attach_slices(const TxFrame& frame, rte_mbuf* head);
    void append_slices(const TxFrame& frame, rte_mbuf* head);
    void enqueue(Queue& queue, rte_mbuf* frame);
    void burst(Queue& queue, Instant now);
    static std::uint16_t offer_guarded(const Queue& queue, rte_mbuf** frames,
                                       std::uint16_t count);
    std::size_t offer(Queue& queue);
    void slices_done(const TxFrame& frame);

    const RxArena& arena_;
    const TxPools& pools_;
    shm::CounterBlock& counters_;
    Stack* stack_ = nullptr;
    std::size_t next_port_ = 0;  ///< who is polled first, in turn
    std::size_t unsent_ = 0;
    std::vector<Queue> queues_;
    std::array<rte_mbuf*, kBurst> heads_{};
    std::size_t head_count_ = 0;
    std::array<TxFrame, kBurst> frames_;  ///< the first head_count_ are ready to be lent
    TxFrame segment_;                     ///< of a frame that is being cut
    std::array<RxFrame, kBurst> local_;
    std::size_t local_count_ = 0;
    std::array<Handoff, kBurst> handoffs_;
    std::size_t handoff_count_ = 0;
};

}  // namespace chiru::daemon::nic
