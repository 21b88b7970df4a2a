// SPDX-License-Identifier: Apache-2.0
#include "daemon/nic/memif_ring.hpp"

#include "shm/doorbell.hpp"

#include <rte_ethdev.h>
#include <rte_interrupts.h>
#include <rte_mempool.h>
#include <rte_version.h>

#include <dlfcn.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <new>

namespace chiru::daemon::nic {
namespace {

constexpr bool kLayoutKnown = RTE_VER_YEAR == 22 && RTE_VER_MONTH == 11;
constexpr std::uint32_t kRingCookie = 0x3E31F20;  // of the memif protocol
constexpr std::uint16_t kMaskInterrupt = 1;       // the same: MEMIF_RING_FLAG_MASK_INT
constexpr std::size_t kMaxRegions = 256;

/// The shared ring's head, as the memif protocol defines it.
struct RingHead {
    std::uint32_t cookie;
    std::atomic<std::uint16_t> flags;
    std::uint16_t head;
};
static_assert(offsetof(RingHead, flags) == 4);

struct DriverQueue {
    rte_mempool* pool;
    void* device;
    std::uint32_t type;
    std::uint16_t region;
    std::uint16_t port;
    std::uint32_t ring_offset;
    std::uint16_t last_head;
    std::uint16_t last_tail;
    void* buffers;
    std::uint64_t frames;
    std::uint64_t bytes;
    rte_intr_handle* interrupt;
    std::uint8_t log2_ring_size;
};

struct DriverRegion {
    std::byte* address;
    std::uint64_t bytes;
};

struct DriverRegions {
    std::array<DriverRegion*, kMaxRegions> regions;
    std::uint16_t count;
};

/// The beginning and the size of DPDK's own record of a port.
struct alignas(64) Device {
    void* functions[6];
    void* data;
    DriverRegions* regions;
    void* others[3];
    void* callbacks[2];
    void* queue_callbacks[2 * RTE_MAX_QUEUES_PER_PORT];
    std::uint64_t state;
    void* security;
};

const Device* device_of(std::uint16_t port) {
    static const auto* devices =
        static_cast<const Device*>(dlsym(RTLD_DEFAULT, "rte_eth_devices"));
    return devices == nullptr ? nullptr : devices + port;
}

const DriverQueue& driver_queue(const void* queue) {
    return *static_cast<const DriverQueue*>(queue);
}

}  // namespace

MemifRing MemifRing::of_queue(std::uint16_t port, std::uint16_t queue, Direction direction,
                              const rte_mempool* pool) {
    MemifRing ring;
    if (!kLayoutKnown) return ring;
    const auto& operations = rte_eth_fp_ops[port];  // the public record of its functions
    const Device* device = device_of(port);
    if (device == nullptr ||
        device->functions[0] != reinterpret_cast<void*>(operations.rx_pkt_burst) ||
        device->functions[1] != reinterpret_cast<void*>(operations.tx_pkt_burst))
        return ring;
    const bool receive = direction == Direction::Receive;
    const void* found = receive ? operations.rxq.data[queue] : operations.txq.data[queue];
    if (found == nullptr) return ring;
    const DriverQueue& record = driver_queue(found);
    if (record.port != port || record.type > 1 || (receive && record.pool != pool)) return ring;
    ring.queue_ = found;
    ring.port_ = port;
    return ring;
}

void* MemifRing::ring() const {
    const DriverQueue& queue = driver_queue(queue_);
    const DriverRegions* regions = device_of(port_)->regions;
    if (regions == nullptr || queue.region >= kMaxRegions) return nullptr;
    const DriverRegion* region = regions->regions[queue.region];
    if (region == nullptr || region->address == nullptr ||
        queue.ring_offset + sizeof(RingHead) > region->bytes)
        return nullptr;
    auto* head = reinterpret_cast<RingHead*>(region->address + queue.ring_offset);
    return head->cookie == kRingCookie ? head : nullptr;
}

int MemifRing::event_fd() const {
    return ring() == nullptr ? -1 : rte_intr_fd_get(driver_queue(queue_).interrupt);
}

void MemifRing::allow_wakeups(bool allowed) const {
    auto* head = static_cast<RingHead*>(ring());
    if (head == nullptr) return;
    // Relaxed store plus fence: the fence pairs with the one in receiver_sleeps().
    head->flags.store(allowed ? 0 : kMaskInterrupt, std::memory_order_relaxed);
    if (allowed) shm::full_fence();
}

bool MemifRing::receiver_sleeps() const {
    // The driver publishes frames and then looks at the flags with nothing in between, which lets
    // the processor swap the two; then neither side sees the other. This fence forbids it.
    shm::full_fence();
    const auto* head = static_cast<const RingHead*>(ring());
    return head != nullptr &&
           (head->flags.load(std::memory_order_relaxed) & kMaskInterrupt) == 0;
}

std::uint64_t MemifRing::bytes_copied() const { return driver_queue(queue_).bytes; }

void MemifRing::wake_receiver() const {
    const std::uint64_t one = 1;
    // EAGAIN, a full count: the receiver has been woken.
    [[maybe_unused]] const ssize_t written =
        write(rte_intr_fd_get(driver_queue(queue_).interrupt), &one, sizeof one);
}

}  // namespace chiru::daemon::nic
