// SPDX-License-Identifier: Apache-2.0
#include "libclient/posix/wait.hpp"

#include "libclient/posix/real.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <vector>

namespace chiru::posix {

namespace {

constexpr std::int64_t kMicrosPerSecond = 1'000'000;
constexpr Micros kUnwatchedSleep{1000};

timespec timespec_of(Micros span) {
    const std::int64_t micros = std::max<std::int64_t>(span.count(), 0);
    return {.tv_sec = micros / kMicrosPerSecond, .tv_nsec = micros % kMicrosPerSecond * 1000};
}

class BorrowedWaiter {
public:
    explicit BorrowedWaiter(Process& process) : process_(process), waiter_(process.take_waiter()) {}
    ~BorrowedWaiter() { process_.give_waiter(waiter_); }
    BorrowedWaiter(const BorrowedWaiter&) = delete;
    BorrowedWaiter& operator=(const BorrowedWaiter&) = delete;
    int fd() const { return waiter_.fd; }

private:
    Process& process_;
    Waiter waiter_;
};

/// Takes the edges, so that the waiter is quiet until the next ones. True: the daemon stirred.
bool take_edges(int waiter_fd) {
    std::array<epoll_event, 4> edges;
    const int count = real().epoll_wait(waiter_fd, edges.data(), edges.size(), 0);
    bool stirred = false;
    for (int i = 0; i < count; ++i)
        stirred |= edges[static_cast<std::size_t>(i)].data.u64 == kWaiterMark + 1;
    return stirred;
}

}  // namespace

Instant now() {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return Instant(Micros(time.tv_sec * kMicrosPerSecond + time.tv_nsec / 1000));
}

Deadline Deadline::in(Micros span) { return Deadline(now() + span); }

Deadline Deadline::in_milliseconds(int milliseconds) {
    if (milliseconds < 0) return never();
    if (milliseconds == 0) return at_once();
    return in(std::chrono::milliseconds(milliseconds));
}

Result<Deadline, int> Deadline::in_timespec(const timespec* span) {
    if (span == nullptr) return never();
    if (span->tv_sec < 0 || span->tv_nsec < 0 || span->tv_nsec >= 1'000'000'000)
        return std::unexpected(EINVAL);
    if (span->tv_sec == 0 && span->tv_nsec == 0) return at_once();
    if (span->tv_sec > kFarSeconds) return never();
    return in(Micros(span->tv_sec * kMicrosPerSecond + (span->tv_nsec + 999) / 1000));
}

std::optional<timespec> Deadline::left(Micros limit) const {
    if (is_at_once()) return timespec{};
    Micros span = limit;
    if (at_ != kNever) span = std::min(span, at_ - now());
    if (span == Micros::max()) return std::nullopt;
    return timespec_of(span);
}

bool handlers_restart() {
    for (int signal = 1; signal < NSIG; ++signal) {
        struct sigaction action {};
        if (::sigaction(signal, nullptr, &action) != 0) continue;
        const bool handled = (action.sa_flags & SA_SIGINFO) != 0 ||
                             (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN);
        if (handled && (action.sa_flags & SA_RESTART) == 0) return false;
    }
    return true;
}

int sleep_once(Process& process, Guard& guard, const Deadline& deadline,
               std::span<pollfd> kernel_fds, const sigset_t* mask) {
    const BorrowedWaiter waiter(process);
    // At the limit of descriptors there is none, and nobody can wake us.
    const Micros longest =
        waiter.fd() < 0 ? std::min(process.sleep_limit(), kUnwatchedSleep) : process.sleep_limit();
    const auto limit = deadline.left(longest);
    const timespec* timeout = limit ? &*limit : nullptr;
    std::array<pollfd, 8> few;
    std::vector<pollfd> many;
    if (kernel_fds.size() >= few.size()) many.resize(kernel_fds.size() + 1);
    const std::span<pollfd> all =
        many.empty() ? std::span(few).first(kernel_fds.size() + 1) : std::span(many);
    std::copy(kernel_fds.begin(), kernel_fds.end(), all.begin());
    all.back() = {.fd = waiter.fd(), .events = POLLIN, .revents = 0};

    int ready = 0;
    int error = 0;
    bool daemon_stirred = false;
    {
        const Away away(guard);
        ready = real().ppoll(all.data(), all.size(), timeout, mask);
        error = ready < 0 ? errno : 0;
        if (ready > 0 && all.back().revents != 0) daemon_stirred = take_edges(waiter.fd());
    }
    if (daemon_stirred) process.check_daemon();
    if (ready > 0) std::copy_n(all.begin(), kernel_fds.size(), kernel_fds.begin());
    return error;
}

}  // namespace chiru::posix
