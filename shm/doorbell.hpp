// SPDX-License-Identifier: Apache-2.0
//
// Waking the sleeping consumer of rings in another process, without a system call while it is
// awake and without ever losing a wake-up.
//
// The consumer owns a word, `epoch`: even while it is awake, odd while it is asleep or about to
// be. The producers only read it, so it may lie where they have no right to write. Each producer
// remembers the last epoch it rang for and rings once for each, however much it pushes.
//
//   consumer                                  producer
//     arm():    epoch = odd                     push: publish the ring's head
//               fence                           ring(): fence
//               look at every ring once more            if epoch is odd, and not the one rung
//               still empty: sleep on the eventfd          last: write the eventfd
//     disarm(): epoch = even
//
// The two fences forbid the one bad outcome, that the consumer misses the push and the producer
// misses the odd epoch. test/model/doorbell.pml explores every interleaving of this page and
// finds the lost wake-up when the second look is taken out.
//
// The descriptor's count is never read: consumers wait for its edge (EPOLLET), so a wake-up costs
// one system call less.
//
// Which descriptor: an eventfd is one open file, whoever holds it. Its holders can empty it, fill
// it and clear its O_NONBLOCK, and so steal or block the other side's wake-ups. Therefore a shard
// is woken by an eventfd for each session, which the shard never reads or writes; and a client is
// woken by a descriptor it can only wait for (make_client_doorbell).
#pragma once

#include "base/cache.hpp"
#include "base/result.hpp"
#include "shm/unique_fd.hpp"

#include <atomic>
#include <cstdint>

namespace chiru::shm {

/// The shared half; written by the consumer only.
struct DoorbellWord {
    alignas(kNoSharing) std::atomic<std::uint32_t> epoch{0};
    /// Which CPU the consumer last ran on, or kNoCpu. A producer on the same CPU does not spin
    /// for an answer that cannot come before it yields.
    std::atomic<std::uint32_t> cpu{~0u};
};
static_assert(sizeof(DoorbellWord) == kNoSharing);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);  // else not valid across processes

inline constexpr std::uint32_t kNoCpu = ~0u;

/// All that this thread did before it happens, for every core, before all that it does after.
/// g++ warns that ThreadSanitizer learns nothing from a fence. It need not: the rings' own edges
/// publish the data, and the fence itself is executed all the same.
inline void full_fence() {
#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wtsan"
#endif
    std::atomic_thread_fence(std::memory_order_seq_cst);
#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
}

/// The consumer's handle.
class DoorbellSleeper {
public:
    explicit DoorbellSleeper(DoorbellWord& word) : word_(&word) {}

    /// Announces sleep. The caller must look at all its rings after this, and go to sleep only
    /// if every one is empty; either way disarm() follows.
    void arm() {
        epoch_ |= 1;
        // Relaxed store plus fence: pairs with the fence in DoorbellRinger::ring().
        word_->epoch.store(epoch_, std::memory_order_relaxed);
        full_fence();  // ARMED before the second look
    }

    void disarm() {
        epoch_ += 1;  // odd to even; the next arm() is a new epoch
        word_->epoch.store(epoch_, std::memory_order_relaxed);  // orders nothing: a late ring is
                                                                // a spurious wake-up, no more
    }

    void runs_on(std::uint32_t cpu) { word_->cpu.store(cpu, std::memory_order_relaxed); }

private:
    DoorbellWord* word_;
    std::uint32_t epoch_ = 0;  ///< ours; the shared word only tells the producers
};

/// A producer's handle; one for each producer, with its own memory of what it rang.
class DoorbellRinger {
public:
    DoorbellRinger() = default;
    DoorbellRinger(const DoorbellWord& word, int event_fd) : word_(&word), event_fd_(event_fd) {}

    /// Call after a push, once a burst. Returns whether a system call was made.
    bool ring() {
        full_fence();  // PUSHED before the epoch is read
        const std::uint32_t epoch = word_->epoch.load(std::memory_order_relaxed);
        if ((epoch & 1) == 0 || epoch == rung_) return false;
        rung_ = epoch;
        wake();
        return true;
    }

    /// Is the consumer asleep, and did we not ring since? A hint, with no order to anything.
    bool consumer_awaits_ring() const {
        const std::uint32_t epoch = word_->epoch.load(std::memory_order_relaxed);
        return (epoch & 1) != 0 && epoch != rung_;
    }
    std::uint32_t consumer_cpu() const { return word_->cpu.load(std::memory_order_relaxed); }

private:
    void wake() const;

    const DoorbellWord* word_ = nullptr;
    int event_fd_ = -1;
    std::uint32_t rung_ = 0;  ///< even, so no odd epoch equals it before the first ring
};

/// The two ends of the doorbell that wakes a client. Waiting for an edge of `client` works as for
/// an eventfd; but it is an epoll descriptor that holds the eventfd, so whoever has it can wait and
/// nothing else.
struct ClientDoorbell {
    UniqueFd ring;    ///< an eventfd, the daemon's alone: a write to it never blocks
    UniqueFd client;  ///< for the client; readable at each write to `ring`
};
/// Both are CLOEXEC. Returns an errno value on failure.
Result<ClientDoorbell, int> make_client_doorbell();

}  // namespace chiru::shm
