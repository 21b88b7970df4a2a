// SPDX-License-Identifier: Apache-2.0
//
// How a call waits: it looks, polls for a moment, and sleeps, with the lock given away.
#pragma once

#include "base/time.hpp"
#include "libclient/posix/process.hpp"

#include <cstdint>
#include <optional>
#include <span>

#include <poll.h>
#include <time.h>

namespace chiru::posix {

/// CLOCK_MONOTONIC.
Instant now();

/// A moment beyond which a call does not wait.
class Deadline {
public:
    static Deadline never() { return Deadline(kNever); }
    static Deadline at_once() { return Deadline(Instant::min()); }
    static Deadline in(Micros span);
    /// As poll() and epoll_wait() take it: negative is for ever.
    static Deadline in_milliseconds(int milliseconds);
    /// As ppoll() takes it: null is for ever. EINVAL if it is no time.
    static Result<Deadline, int> in_timespec(const timespec* span);

    bool is_never() const { return at_ == kNever; }
    bool is_at_once() const { return at_ == Instant::min(); }
    bool passed() const { return at_ != kNever && (is_at_once() || now() >= at_); }
    /// How long a sleep may last, given another limit; null: for ever.
    std::optional<timespec> left(Micros limit) const;

private:
    explicit Deadline(Instant at) : at_(at) {}
    Instant at_;
};

inline void pause_cpu() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb" ::: "memory");
#endif
}

/// Polls for a moment. True: `ready` was.
template <class Ready>
bool spin(Process& process, Ready ready) {
    const Micros limit = process.spin_limit();
    if (limit <= Micros::zero()) return false;
    const Instant end = now() + limit;
    do {
        pause_cpu();
        process.process();
        if (ready()) return process.spun(true);
    } while (now() < end);
    return process.spun(false);
}

/// What is further away than so many seconds is for ever.
inline constexpr std::int64_t kFarSeconds = 1'000'000'000;

/// What the descriptors in a Waiter are marked with.
inline constexpr std::uint64_t kWaiterMark = 0;

/// Sleeps once, until the daemon, another thread, one of `kernel_fds` or a signal wakes us, or
/// the time is up. Fills their revents. Returns 0 or EINTR. With the lock given away meanwhile.
int sleep_once(Process& process, Guard& guard, const Deadline& deadline,
               std::span<pollfd> kernel_fds = {}, const sigset_t* mask = nullptr);

/// Would the kernel have restarted a call that a signal interrupted? Only if every handler of
/// this process asks for it (SA_RESTART): which of them ran cannot be known. A call with a time
/// limit of SO_RCVTIMEO or SO_SNDTIMEO it never restarts (signal(7)).
bool handlers_restart();

/// Waits until `ready()`. Returns 0, EAGAIN if the deadline passed or EINTR.
template <class Ready>
int wait_until(Process& process, Guard& guard, const Deadline& deadline, Ready ready,
               std::span<pollfd> kernel_fds = {}) {
    for (;;) {
        process.process();
        if (ready()) return 0;
        if (deadline.passed()) return EAGAIN;
        if (spin(process, ready)) return 0;
        int error = 0;
        {
            const Nap nap(process);
            if (!nap.may_sleep()) continue;
            error = sleep_once(process, guard, deadline, kernel_fds);
        }
        if (error != EINTR || (deadline.is_never() && handlers_restart())) continue;
        process.process();
        return ready() ? 0 : EINTR;
    }
}

}  // namespace chiru::posix
