// SPDX-License-Identifier: Apache-2.0
#include "libclient/posix/biased_lock.hpp"

#include <algorithm>

#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace chiru::posix {

thread_local ThreadMark thread_mark __attribute__((tls_model("initial-exec")));

namespace {

constexpr std::uint32_t kMaxRowForBias = 1U << 20;

bool membarrier(int command) { return ::syscall(SYS_membarrier, command, 0, 0) == 0; }

bool can_bias() {
#if defined(__SANITIZE_THREAD__)
    return false;
#else
    static const bool can = membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
    return can;
#endif
}

}  // namespace

void BiasedLock::lock_slowly() {
    pthread_mutex_lock(&mutex_);
    if (owner_.load(std::memory_order_relaxed) != nullptr) revoke();
    consider_bias();
}

/// Under the mutex. After it nobody is inside, and nobody enters without the mutex.
void BiasedLock::revoke() {
    owner_.store(nullptr, std::memory_order_relaxed);
    membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);  // the other half of ENTER
    while (inside_.load(std::memory_order_acquire) != 0) ::sched_yield();  // LEAVE
    ++revocations_;
    row_for_bias_ = std::min(row_for_bias_ * 2, kMaxRowForBias);
    in_a_row_ = 0;
}

/// Under the mutex, which this thread goes on holding: the bias counts from its next lock().
void BiasedLock::consider_bias() {
    in_a_row_ = last_holder_ == self() ? in_a_row_ + 1 : 1;
    last_holder_ = self();
    if (in_a_row_ < row_for_bias_ || !can_bias()) return;
    if (favourite_ == nullptr) favourite_ = self();
    if (favourite_ == self()) owner_.store(self(), std::memory_order_release);
}

void BiasedLock::reset_after_fork() {
    inside_.store(0, std::memory_order_relaxed);
    owner_.store(nullptr, std::memory_order_relaxed);
    favourite_ = nullptr;
    mutex_ = PTHREAD_MUTEX_INITIALIZER;
    last_holder_ = nullptr;
    in_a_row_ = 0;
    thread_mark.in_lock = false;
}

}  // namespace chiru::posix
