// SPDX-License-Identifier: Apache-2.0
//
// The interrupt half of memif, which DPDK's driver leaves out: it always asks the peer not to
// ring ("polling mode") and offers no rte_eth_dev_rx_intr_enable(). Here we find the ring of a
// queue and its eventfd in the driver's own records, so that a shard can ask for the wake-up
// when it is about to sleep, and tell a sleeping peer of its frames without fail.
//
// The driver's records are private to it. Their layout is that of DPDK 22.11, and is believed only
// after what can be checked agrees with the public interface; else a memif queue has no
// wake-up, and its shard sleeps for short times only.
#pragma once

#include <cstdint>

struct rte_mempool;

namespace chiru::daemon::nic {

class MemifRing {
public:
    enum class Direction { Receive, Transmit };

    MemifRing() = default;
    /// The port must have been started. `pool`: what its receive queues were set up with.
    static MemifRing of_queue(std::uint16_t port, std::uint16_t queue, Direction direction,
                              const rte_mempool* pool);

    /// Could the driver's records be recognised?
    explicit operator bool() const { return queue_ != nullptr; }

    /// The eventfd that the sender writes; -1 while no peer is connected.
    int event_fd() const;

    /// As the receiver: from now on the sender shall ring, or shall not. Nothing while there is no
    /// peer. Look at the ring once more after allow_wakeups(true) before going to sleep.
    void allow_wakeups(bool allowed) const;

    /// As the sender: does the receiver want to be woken?
    bool receiver_sleeps() const;
    void wake_receiver() const;

    /// Bytes the driver has copied through this queue, ever.
    std::uint64_t bytes_copied() const;

private:
    void* ring() const;

    const void* queue_ = nullptr;
    std::uint16_t port_ = 0;
};

}  // namespace chiru::daemon::nic
