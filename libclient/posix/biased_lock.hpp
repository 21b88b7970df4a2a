// SPDX-License-Identifier: Apache-2.0
//
// A lock that costs its usual owner a few plain loads and stores, and no atomic
// read-modify-write.
//
// Most programs use sockets from one thread; a mutex would charge each of their calls two locked
// instructions for a rival that never comes. Here the lock is biased to one thread:
//
//   owner                                   rival (revokes the bias)
//     inside = 1                              take the mutex
//     compiler barrier                        owner = nobody
//     owner == me?  yes: in                   membarrier: every thread passes a full fence
//                   no:  inside = 0,          wait until inside == 0
//                        take the mutex
//
// This is Dekker's protocol with both fences on the rival's side: membarrier(PRIVATE_EXPEDITED)
// runs a full fence on each CPU that runs a thread of this process. Whichever way the owner's
// store falls, before that fence the rival sees it and waits, or after it the owner's second look
// sees that it lost the bias. Afterwards the lock is an ordinary mutex.
//
// The bias goes to the first thread that takes the lock many times in a row, and only ever to
// that one: so `inside` has one writer, and a thread that was stopped between its two looks can
// do no harm later. If it takes the lock many times in a row again, it gets the bias back, at
// twice the price after each revocation.
//
// Where membarrier is refused (old kernels, seccomp) and under ThreadSanitizer, which does not
// know it, the lock is always the mutex.
#pragma once

#include <atomic>
#include <cstdint>

#include <pthread.h>

namespace chiru::posix {

/// What each thread knows of itself. Its address is the thread's identity: one instruction to
/// get, unique among live threads.
struct ThreadMark {
    bool in_lock = false;  ///< holds a BiasedLock, or is about to; seen by its signal handlers
};
extern thread_local ThreadMark thread_mark __attribute__((tls_model("initial-exec")));

class BiasedLock {
public:
    /// Not for a thread that holds it: check held_by_me() where a signal handler may call.
    void lock() {
        thread_mark.in_lock = true;
        if (owner_.load(std::memory_order_relaxed) == self()) [[likely]] {
            inside_.store(1, std::memory_order_relaxed);
            std::atomic_signal_fence(std::memory_order_seq_cst);  // ENTER: membarrier does the rest
            if (owner_.load(std::memory_order_acquire) == self()) [[likely]] return;
            inside_.store(0, std::memory_order_release);
        }
        lock_slowly();
    }

    void unlock() {
        if (favourite_ == self() && inside_.load(std::memory_order_relaxed) != 0) [[likely]]
            inside_.store(0, std::memory_order_release);  // LEAVE: pairs with revoke()
        else
            pthread_mutex_unlock(&mutex_);
        std::atomic_signal_fence(std::memory_order_seq_cst);
        thread_mark.in_lock = false;
    }

    static bool held_by_me() { return thread_mark.in_lock; }

    /// For the only thread of a forked child: whatever the parent's threads held is free.
    void reset_after_fork();

    std::uint64_t revocations() const { return revocations_; }

private:
    static const ThreadMark* self() { return &thread_mark; }
    void lock_slowly();
    void revoke();
    void consider_bias();

    std::atomic<const ThreadMark*> owner_{nullptr};  ///< may skip the mutex
    std::atomic<std::uint32_t> inside_{0};           ///< written by the favourite only
    const ThreadMark* favourite_ = nullptr;  ///< the one that may ever be owner; under the lock

    pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
    // What follows changes under the mutex only.
    const ThreadMark* last_holder_ = nullptr;
    std::uint32_t in_a_row_ = 0;
    std::uint32_t row_for_bias_ = 64;
    std::uint64_t revocations_ = 0;
};

}  // namespace chiru::posix
