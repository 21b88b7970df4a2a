// SPDX-License-Identifier: Apache-2.0
#include "daemon/nic/shard_io.hpp"

#include "daemon/nic/attached_slice.hpp"
#include "daemon/nic/coalesced.hpp"
#include "daemon/nic/memif_guard.hpp"
#include "stack/segmenter.hpp"

#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#include <sys/epoll.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace chiru::daemon::nic {
namespace {

using shm::Counter;

/// A port that takes nothing for so long is down: its frames are lost as on a cut wire, so that
/// they do not hold up the other ports.
constexpr Micros kPatience{10'000};
/// How long a shard may sleep beside a port that cannot wake it.
constexpr Micros kBlindSleep{100};
/// memif peers other than ours may lose a wake-up (memif_ring.cpp): look now and then.
constexpr Micros kMemifSleep{10'000};

std::byte* data_of(const rte_mbuf* frame) { return rte_pktmbuf_mtod(frame, std::byte*); }

std::uint64_t offload_flags(const TxFrame& frame) {
    if ((frame.flags & (kTxIpChecksum | kTxL4Checksum | kTxSegment)) == 0) return 0;
    std::uint64_t flags =
        (frame.flags & kTxIpv6) != 0 ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4;
    if ((frame.flags & kTxIpChecksum) != 0) flags |= RTE_MBUF_F_TX_IP_CKSUM;
    if ((frame.flags & kTxL4Checksum) != 0) flags |= RTE_MBUF_F_TX_TCP_CKSUM;
    if ((frame.flags & kTxSegment) != 0) flags |= RTE_MBUF_F_TX_TCP_SEG;
    return flags;
}

void describe_offloads(const TxFrame& frame, rte_mbuf* head) {
    head->ol_flags |= offload_flags(frame);
    head->l2_len = frame.l2_bytes & 0x7f;
    head->l3_len = frame.l3_bytes & 0x1ff;
    head->l4_len = frame.l4_bytes;
    head->tso_segsz = frame.segment_bytes;
    if ((frame.flags & kTxVlanInsert) != 0) {
        head->ol_flags |= RTE_MBUF_F_TX_VLAN;
        head->vlan_tci = frame.vlan_tci;
    }
}

std::uint16_t receive_flags(const rte_mbuf& frame) {
    const std::uint64_t flags = frame.ol_flags;
    if (flags == 0) return 0;
    std::uint16_t ours = 0;
    const std::uint64_t ip = flags & RTE_MBUF_F_RX_IP_CKSUM_MASK;
    const std::uint64_t l4 = flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;
    if (ip == RTE_MBUF_F_RX_IP_CKSUM_GOOD) ours |= kRxIpChecksumGood;
    if (ip == RTE_MBUF_F_RX_IP_CKSUM_BAD) ours |= kRxIpChecksumBad;
    // "None": it is not in the frame, but the device knows that the text is right.
    if (l4 == RTE_MBUF_F_RX_L4_CKSUM_GOOD || l4 == RTE_MBUF_F_RX_L4_CKSUM_NONE)
        ours |= kRxL4ChecksumGood;
    if (l4 == RTE_MBUF_F_RX_L4_CKSUM_BAD) ours |= kRxL4ChecksumBad;
    if ((flags & RTE_MBUF_F_RX_VLAN_STRIPPED) != 0) ours |= kRxVlanStripped;
    return ours;
}

}  // namespace

ShardIo::ShardIo(std::uint16_t shard, std::span<const std::unique_ptr<Port>> ports,
                 const RxArena& arena, const TxPools& pools, shm::CounterBlock& counters)
    : arena_(arena), pools_(pools), counters_(counters) {
    for (const std::unique_ptr<Port>& port : ports) {
        Queue queue;
        queue.port = port.get();
        queue.device = port->id();
        queue.sender = shard % port->queues();
        queue.queue = queue.sender;
        queue.own = shard < port->queues();
        queue.prepare = port->needs_prepare();
        queue.guard = port->needs_guard();
        if (port->coalesces()) queue.pieces = most_pieces(arena.data_bytes());
        queue.paused = !port->is_started();
        queue.cuts = queue.own && port->leaves_cutting();
        queue.unsent.resize(queue.cuts ? kCutBacklog : kBacklog);
        queues_.push_back(queue);
    }
}

ShardIo::~ShardIo() {
    for (Queue& queue : queues_)
        for (std::size_t i = 0; i < queue.count; ++i)
            rte_pktmbuf_free(queue.waiting(i));
    for (std::size_t i = 0; i < head_count_; ++i) rte_pktmbuf_free(heads_[i]);
}

// ---- receive -------------------------------------------------------------------------------

std::size_t ShardIo::receive(std::span<RxFrame, kBurst> frames) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < queues_.size() && count < frames.size(); ++i) {
        Queue& queue = queues_[(next_port_ + i) % queues_.size()];
        if (queue.own && !queue.paused) count += receive(queue, frames.subspan(count));
    }
    if (++next_port_ >= queues_.size()) next_port_ = 0;
    return count;
}

std::size_t ShardIo::receive(Queue& queue, std::span<RxFrame> frames) {
    std::array<rte_mbuf*, kBurst> mbufs;
    const auto wanted =
        static_cast<std::uint16_t>(std::min(frames.size() / queue.pieces, mbufs.size()));
    if (wanted == 0) return 0;
    std::uint16_t taken = 0;
    const auto burst = [&] {
        taken = rte_eth_rx_burst(queue.device, queue.queue, mbufs.data(), wanted);
    };
    if (!queue.guard) {
        burst();
    } else {
        mbufs.fill(nullptr);
        if (!guarded(burst))  // what was complete by then is there
            while (taken < wanted && mbufs[taken] != nullptr) ++taken;
    }
    std::size_t count = 0;
    for (std::uint16_t i = 0; i < taken; ++i) {
        if (i + 1 < taken) rte_prefetch0(data_of(mbufs[i + 1]));
        if (mbufs[i]->nb_segs == 1) {
            frames[count++] = describe(*mbufs[i], queue);
        } else {
            count += receive_chain(*mbufs[i], queue, frames.subspan(count));
            rte_pktmbuf_free(mbufs[i]);
        }
    }
    return count;
}

/// A frame in several segments: put together by the device, or longer than the MTU agreed on.
std::size_t ShardIo::receive_chain(const rte_mbuf& chain, const Queue& queue,
                                   std::span<RxFrame> frames) {
    std::array<rte_mbuf*, kBurst> pieces;
    const std::size_t room = std::min({pieces.size(), frames.size(), queue.pieces});
    const std::size_t count =
        queue.pieces == 1 ? 0 : copy_chain(chain, arena_.pool(), arena_.data_bytes(),
                                           std::span(pieces).first(room));
    if (count == 0) {
        counters_.add(Counter::RxOversized);
        return 0;
    }
    counters_.add(Counter::RxCoalesced);
    counters_.add(Counter::CopiedRxCoalesced, chain.pkt_len);
    for (std::size_t i = 0; i < count; ++i) {
        frames[i] = describe(*pieces[i], queue);
        // The headers are ours; and a device puts together only what it has verified.
        if (count > 1) frames[i].flags |= kRxIpChecksumGood | kRxL4ChecksumGood;
    }
    return count;
}

RxFrame ShardIo::describe(const rte_mbuf& mbuf, const Queue& queue) const {
    RxFrame frame;
    frame.data = data_of(&mbuf);
    frame.slice.offset = arena_.offset_of(frame.data);
    frame.slice.length = mbuf.data_len;
    frame.slice.arena = shm::kRxArena;
    frame.port = static_cast<PortIndex>(&queue - queues_.data());
    frame.flags = receive_flags(mbuf);
    frame.vlan_tci = mbuf.vlan_tci;
    if (queue.port->hashes_flows() && (mbuf.ol_flags & RTE_MBUF_F_RX_RSS_HASH) != 0 &&
        (mbuf.packet_type & RTE_PTYPE_L4_MASK) == RTE_PTYPE_L4_TCP)
        frame.flags |= kHashed;
    return frame;
}

void ShardIo::release(std::span<const shm::Slice> slots) {
    std::array<void*, kBurst> mbufs;
    while (!slots.empty()) {
        const std::size_t count = std::min(slots.size(), mbufs.size());
        for (std::size_t i = 0; i < count; ++i) mbufs[i] = arena_.mbuf_at(slots[i].offset);
        // Straight to the pool: a received mbuf is a single segment that nobody else refers to.
        rte_mempool_put_bulk(arena_.pool(), mbufs.data(), static_cast<unsigned>(count));
        slots = slots.subspan(count);
    }
}

void ShardIo::drop(std::span<const RxFrame> frames) {
    for (const RxFrame& frame : frames) release({&frame.slice, 1});
}

std::optional<RxFrame> ShardIo::duplicate(const RxFrame& frame) {
    rte_mbuf* mbuf = rte_pktmbuf_alloc(arena_.pool());
    if (mbuf == nullptr) {
        counters_.add(Counter::PoolEmpty);
        return std::nullopt;
    }
    RxFrame copy = frame;
    std::memcpy(data_of(mbuf), frame.data, frame.slice.length);
    copy.data = data_of(mbuf);
    copy.slice.offset = arena_.offset_of(copy.data);
    return copy;
}

// ---- transmit ------------------------------------------------------------------------------

void ShardIo::refill_heads() {
    const auto missing = static_cast<unsigned>(kBurst - head_count_);
    if (rte_pktmbuf_alloc_bulk(pools_.heads(), heads_.data() + head_count_, missing) != 0) {
        counters_.add(Counter::PoolEmpty);
        return;
    }
    for (; head_count_ < kBurst; ++head_count_)
        frames_[head_count_].lend(data_of(heads_[head_count_]), pools_.head_bytes());
}

std::span<TxFrame> ShardIo::lend(Instant now) {
    if (head_count_ < kBurst) refill_heads();
    std::size_t room = std::min({head_count_, local_.size() - local_count_,
                                 handoffs_.size() - handoff_count_});
    for (Queue& queue : queues_) {
        if (room_of(queue) < room) burst(queue, now);
        room = std::min(room, room_of(queue));
    }
    return {frames_.data(), room};
}

/// So many frames can wait in the queue, whatever they are cut into.
std::size_t ShardIo::room_of(const Queue& queue) {
    if (!queue.cuts) return kBacklog - queue.count;
    return queue.count >= kBacklog ? 0 : (kCutBacklog - queue.count) / kMaxTxSegments;
}

void ShardIo::send(std::size_t count, Instant now) {
    if (count == 0) return;
    for (std::size_t i = 0; i < count; ++i) {
        const TxFrame& frame = frames_[i];
        if (frame.port < queues_.size()) send_outside(i);
        else if (frame.port == kLocalPort) send_local(frame);
        else slices_done(frame);
    }
    close_gaps(count);
    for (Queue& queue : queues_)
        if (queue.count != 0) burst(queue, now);
}

/// A head that is not given away with its frame is lent again.
void ShardIo::send_outside(std::size_t place) {
    TxFrame& frame = frames_[place];
    Queue& queue = queues_[frame.port];
    if (queue.cuts && (frame.flags & kTxSegment) != 0) {
        send_cut(frame);
    } else if (!queue.port->sends_from_arena()) {
        finish(frame, std::exchange(heads_[place], nullptr));
    } else if (rte_mbuf* copy = copy_into_arena(frame)) {
        enqueue(queue, copy);
    }
}

/// All segments or none.
void ShardIo::send_cut(const TxFrame& frame) {
    Queue& queue = queues_[frame.port];
    Segmenter segments(frame);
    std::array<rte_mbuf*, kMaxTxSegments> heads;
    const auto count = static_cast<unsigned>(segments.count());
    counters_.add(Counter::TxCut);
    if (rte_pktmbuf_alloc_bulk(pools_.heads(), heads.data(), count) != 0) {
        counters_.add(Counter::PoolEmpty);
        counters_.add(Counter::TxDropped, count);
        return slices_done(frame);
    }
    for (unsigned i = 0; i < count; ++i) {
        segment_.lend(data_of(heads[i]), pools_.head_bytes());
        segments.next(segment_);
        if (stack_ != nullptr)
            for (std::size_t s = 0; s < segment_.slice_count; ++s)
                stack_->hold(segment_.slices[s].record);
        if (!queue.port->sends_from_arena()) {
            finish(segment_, heads[i]);
            continue;
        }
        if (rte_mbuf* copy = copy_into_arena(segment_)) enqueue(queue, copy);
        rte_pktmbuf_free(heads[i]);
    }
    slices_done(frame);
}

/// The last heads take the places of those among the first `count` that were sent.
void ShardIo::close_gaps(std::size_t count) {
    std::size_t place = 0;
    for (; place < std::min(count, head_count_); ++place) {
        while (head_count_ > place && heads_[head_count_ - 1] == nullptr) --head_count_;
        if (place >= head_count_) break;
        if (heads_[place] == nullptr) heads_[place] = heads_[--head_count_];
        frames_[place].lend(data_of(heads_[place]), pools_.head_bytes());
    }
}

void ShardIo::finish(TxFrame& frame, rte_mbuf* head) {
    Queue& queue = queues_[frame.port];
    head->data_len = frame.head_length;
    head->pkt_len = frame.head_length;
    describe_offloads(frame, head);
    const bool scatter = (queue.port->config().offloads & shm::kOffloadTxScatter) != 0;
    if (frame.slice_count != 0) {
        // Another shard's thread must not be the one that tells our stack of a slice sent.
        if (!scatter || !queue.own) {
            append_slices(frame, head);
        } else if (!attach_slices(frame, head)) {
            counters_.add(Counter::PoolEmpty);
            counters_.add(Counter::TxDropped);
            rte_pktmbuf_free(head);
            return;
        }
    }
    enqueue(queue, head);
}

/// Attaches each slice as an external buffer behind the head. All or none; if none, the stack is
/// told that they are done with.
bool ShardIo::attach_slices(const TxFrame& frame, rte_mbuf* head) {
    std::array<rte_mbuf*, kMaxTxSlices> mbufs;
    const unsigned count = frame.slice_count;
    if (rte_pktmbuf_alloc_bulk(pools_.slices(), mbufs.data(), count) != 0) {
        slices_done(frame);
        return false;
    }
    rte_mbuf* last = head;
    for (unsigned i = 0; i < count; ++i) {
        const TxSlice& slice = frame.slices[i];
        auto* attached = static_cast<AttachedSlice*>(rte_mbuf_to_priv(mbufs[i]));
        attached->owner = this;
        attached->record = slice.record;
        attached->shared.free_cb = [](void*, void* opaque) {
            const auto* done = static_cast<const AttachedSlice*>(opaque);
            if (done->owner->stack_ != nullptr) done->owner->stack_->sent(done->record);
        };
        attached->shared.fcb_opaque = attached;
        rte_mbuf_ext_refcnt_set(&attached->shared, 1);
        auto* data = const_cast<std::byte*>(slice.data);
        const auto length = static_cast<std::uint16_t>(slice.slice.length);
        rte_pktmbuf_attach_extbuf(mbufs[i], data, reinterpret_cast<rte_iova_t>(data), length,
                                  &attached->shared);
        mbufs[i]->data_off = 0;
        mbufs[i]->data_len = length;
        last->next = mbufs[i];
        last = mbufs[i];
        head->pkt_len += length;
    }
    head->nb_segs = static_cast<std::uint16_t>(1 + count);
    return true;
}

void ShardIo::append_slices(const TxFrame& frame, rte_mbuf* head) {
    std::byte* at = data_of(head) + frame.head_length;
    for (std::size_t i = 0; i < frame.slice_count; ++i) {
        const TxSlice& slice = frame.slices[i];
        std::memcpy(at, slice.data, slice.slice.length);
        at += slice.slice.length;
    }
    const std::size_t length = frame.length();
    counters_.add(Counter::CopiedTxLinear, length - frame.head_length);
    head->data_len = static_cast<std::uint16_t>(length);
    head->pkt_len = static_cast<std::uint32_t>(length);
    slices_done(frame);
}

/// A frame as one piece in a receive slot; nullptr, with everything counted, if there is no slot.
rte_mbuf* ShardIo::copy_into_arena(const TxFrame& frame) {
    rte_mbuf* copy = rte_pktmbuf_alloc(arena_.pool());
    const std::size_t length = frame.length();
    if (copy == nullptr || length > arena_.data_bytes()) {
        counters_.add(Counter::PoolEmpty);
        counters_.add(frame.port == kLocalPort ? Counter::LocalDropped : Counter::TxDropped);
        rte_pktmbuf_free(copy);
        slices_done(frame);
        return nullptr;
    }
    std::byte* at = data_of(copy);
    std::memcpy(at, frame.head, frame.head_length);
    at += frame.head_length;
    for (std::size_t i = 0; i < frame.slice_count; ++i) {
        std::memcpy(at, frame.slices[i].data, frame.slices[i].slice.length);
        at += frame.slices[i].slice.length;
    }
    copy->data_len = static_cast<std::uint16_t>(length);
    copy->pkt_len = static_cast<std::uint32_t>(length);
    counters_.add(frame.port == kLocalPort ? Counter::CopiedLocal : Counter::CopiedTxLinear,
                  length - frame.head_length);
    slices_done(frame);
    return copy;
}

void ShardIo::send_local(const TxFrame& frame) {
    counters_.add(Counter::LocalFrames);
    const rte_mbuf* copy = copy_into_arena(frame);
    if (copy == nullptr) return;
    RxFrame& local = local_[local_count_++];
    local = RxFrame{};
    local.data = data_of(copy);
    local.slice.offset = arena_.offset_of(local.data);
    local.slice.length = copy->data_len;
    local.slice.arena = shm::kRxArena;
    local.port = kLocalPort;
    local.flags = kRxLocal | kRxIpChecksumGood | kRxL4ChecksumGood;
}

void ShardIo::slices_done(const TxFrame& frame) {
    if (stack_ == nullptr) return;
    for (std::size_t i = 0; i < frame.slice_count; ++i) stack_->sent(frame.slices[i].record);
}

void ShardIo::enqueue(Queue& queue, rte_mbuf* frame) {
    counters_.add(Counter::TxFrames);
    counters_.add(Counter::TxBytes, frame->pkt_len);
    if (!queue.own) {
        handoffs_[handoff_count_++] = {
            frame, static_cast<PortIndex>(&queue - queues_.data()), queue.sender};
        return;
    }
    queue.waiting(queue.count) = frame;
    ++queue.count;
    ++unsent_;
}

void ShardIo::send_for_other(const Handoff& handoff, Instant now) {
    Queue& queue = queues_[handoff.port];
    if (queue.count >= kBacklog) burst(queue, now);
    if (queue.count >= kBacklog) {
        counters_.add(Counter::TxDropped);
        return drop(handoff);
    }
    queue.waiting(queue.count) = handoff.frame;
    ++queue.count;
    ++unsent_;
}

void ShardIo::drop(const Handoff& handoff) { rte_pktmbuf_free(handoff.frame); }

bool ShardIo::flush(Instant now) {
    if (unsent_ == 0) return false;
    for (Queue& queue : queues_)
        if (queue.count != 0) burst(queue, now);
    return true;
}

/// Offers the port all it has not taken, a piece of the ring at a time.
std::size_t ShardIo::offer(Queue& queue) {
    std::size_t sent = 0;
    while (queue.count != 0) {
        const auto piece = static_cast<std::uint16_t>(
            std::min({std::size_t{queue.count}, queue.unsent.size() - queue.first, kBacklog}));
        rte_mbuf** from = queue.unsent.data() + queue.first;
        const std::uint16_t ready =
            queue.prepare ? rte_eth_tx_prepare(queue.device, queue.queue, from, piece) : piece;
        std::uint16_t taken = 0;
        if (queue.guard) taken = offer_guarded(queue, from, ready);
        else taken = rte_eth_tx_burst(queue.device, queue.queue, from, ready);
        sent += taken;
        if (queue.prepare && taken == ready && ready < piece) {  // one the device cannot send
            counters_.add(Counter::TxDropped);
            rte_pktmbuf_free(from[taken++]);
        }
        queue.first =
            static_cast<std::uint16_t>((queue.first + taken) & (queue.unsent.size() - 1));
        queue.count = static_cast<std::uint16_t>(queue.count - taken);
        unsent_ -= taken;
        if (taken < piece) break;
    }
    return sent;
}

std::uint16_t ShardIo::offer_guarded(const Queue& queue, rte_mbuf** frames, std::uint16_t count) {
    const MemifRing& ring = queue.port->transmit_ring(queue.queue);
    const std::uint64_t before = ring ? ring.bytes_copied() : 0;
    std::array<std::uint32_t, kBacklog> lengths;  // a frame that was sent is not ours to look at
    for (std::uint16_t i = 0; i < count; ++i) lengths[i] = frames[i]->pkt_len;
    std::uint16_t taken = 0;
    bool rings_itself = false;
    const bool whole = guarded([&] {
        rings_itself = ring && ring.receiver_sleeps();
        taken = rte_eth_tx_burst(queue.device, queue.queue, frames, count);
        if (taken != 0 && ring && !rings_itself && ring.receiver_sleeps()) ring.wake_receiver();
    });
    if (whole || taken != 0 || !ring) return taken;
    std::uint64_t copied = ring.bytes_copied() - before;
    while (taken < count && lengths[taken] <= copied) copied -= lengths[taken++];
    return taken;
}

void ShardIo::burst(Queue& queue, Instant now) {
    const std::size_t sent = queue.paused ? 0 : offer(queue);
    if (queue.count == 0) {
        queue.first = 0;  // where the cache has it
        queue.refused_since = kNever;
        return;
    }
    counters_.add(Counter::TxRefused, queue.count);
    if (sent != 0 || queue.refused_since == kNever) queue.refused_since = now;
    if (now - queue.refused_since < kPatience) return;
    counters_.add(Counter::TxDropped, queue.count);
    for (std::size_t i = 0; i < queue.count; ++i)
        rte_pktmbuf_free(queue.waiting(i));
    unsent_ -= queue.count;
    queue.count = 0;
}

// ---- sleep ---------------------------------------------------------------------------------

Micros ShardIo::arm(int epoll_fd) {
    Micros longest = Micros::max();
    for (const Queue& queue : queues_) {
        if (!queue.own || queue.paused) continue;
        const WakeSource& source = queue.port->wake_source(queue.queue);
        epoll_event event{};
        event.events = source.kind == WakeKind::Readable ? EPOLLIN : EPOLLIN | EPOLLET;
        int fd = source.fd;
        if (source.kind == WakeKind::Interrupt) {
            rte_eth_dev_rx_intr_enable(queue.device, queue.queue);
        } else if (source.kind == WakeKind::Memif) {
            guarded([&] {
                fd = source.ring.event_fd();
                source.ring.allow_wakeups(true);
            });
            longest = std::min(longest, kMemifSleep);
        } else if (source.kind == WakeKind::None) {
            longest = std::min(longest, kBlindSleep);
        }
        // Usually there already (EEXIST); but a memif peer brings a new one each time it connects.
        if (fd >= 0) epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
    }
    return longest;
}

void ShardIo::disarm() {
    for (const Queue& queue : queues_) {
        if (!queue.own || queue.paused) continue;
        const WakeSource& source = queue.port->wake_source(queue.queue);
        if (source.kind == WakeKind::Interrupt)
            rte_eth_dev_rx_intr_disable(queue.device, queue.queue);
        else if (source.kind == WakeKind::Memif)
            guarded([&] { source.ring.allow_wakeups(false); });
    }
}

}  // namespace chiru::daemon::nic
