// SPDX-License-Identifier: Apache-2.0
//
// poll() and select() over descriptors of both kinds. One pass looks at chiru's sockets and, if
// there are kernel descriptors, asks the kernel without waiting; a sleep is one ppoll() on those
// and on what wakes us.
#include "libclient/posix/calls.hpp"
#include "libclient/posix/real.hpp"
#include "libclient/posix/socket.hpp"
#include "libclient/posix/wait.hpp"

#include <cerrno>
#include <deque>
#include <span>
#include <vector>

namespace chiru::posix {

namespace {

// What epoll calls ready, poll() calls by the same bits.
static_assert(EPOLLIN == POLLIN && EPOLLOUT == POLLOUT && EPOLLERR == POLLERR);
static_assert(EPOLLHUP == POLLHUP && EPOLLRDHUP == POLLRDHUP && EPOLLRDNORM == POLLRDNORM);

constexpr short kAlways = POLLERR | POLLHUP | POLLNVAL;

bool any_of_ours(std::span<const pollfd> fds) {
    for (const pollfd& each : fds)
        if (fd_table.find(each.fd) != nullptr) return true;
    return false;
}

/// One call's view: the program's array, the sockets of ours in it, and the kernel's part.
class Poll {
public:
    explicit Poll(std::span<pollfd> fds) : fds_(fds) {
        for (std::size_t i = 0; i < fds.size(); ++i) {
            Socket* socket = chirus_socket_at(fds[i].fd);
            if (socket != nullptr) {
                ours_.push_back({i, socket});
                if ((fds[i].events & (POLLIN | POLLRDNORM)) != 0) socket->show_interest();
            }
            if (socket == nullptr || socket->in_kernel()) {
                kernel_.push_back(fds[i]);
                kernel_place_.push_back(i);
            }
        }
    }

    bool has_ours() const { return !ours_.empty(); }
    std::span<pollfd> kernel() { return kernel_; }

    /// Keeps the sockets while the lock is away.
    void pin() {
        for (const Ours& each : ours_) sleepers_.emplace_back(*each.socket);
    }

    bool ours_ready() const {
        for (const Ours& each : ours_)
            if (ready(each) != 0) return true;
        return false;
    }

    void ask_kernel() {
        if (kernel_.empty()) return;
        const timespec at_once{};
        real().ppoll(kernel_.data(), kernel_.size(), &at_once, nullptr);
    }

    /// Fills the program's array; how many descriptors have something to tell.
    int answer() {
        for (pollfd& each : fds_) each.revents = 0;
        for (std::size_t i = 0; i < kernel_.size(); ++i)
            fds_[kernel_place_[i]].revents = kernel_[i].revents;
        for (const Ours& each : ours_)
            fds_[each.place].revents = static_cast<short>(fds_[each.place].revents | ready(each));
        int count = 0;
        for (const pollfd& each : fds_) count += each.revents != 0 ? 1 : 0;
        return count;
    }

private:
    struct Ours {
        std::size_t place;
        Socket* socket;
    };

    short ready(const Ours& each) const {
        const auto levels = static_cast<short>(each.socket->readiness());
        return static_cast<short>(levels & (fds_[each.place].events | kAlways));
    }

    std::span<pollfd> fds_;
    std::vector<Ours> ours_;
    std::vector<pollfd> kernel_;
    std::vector<std::size_t> kernel_place_;
    std::deque<Socket::Sleeper> sleepers_;
};

int poll_both(Guard& guard, Poll& poll, const Deadline& deadline, const sigset_t* mask) {
    Process& process = guard.process();
    bool pinned = false;
    for (;;) {
        process.process();
        poll.ask_kernel();
        const int count = poll.answer();
        if (count != 0 || deadline.passed()) return count;
        if (!pinned) poll.pin();
        pinned = true;
        if (spin(process, [&] { return poll.ours_ready(); })) continue;
        int error = 0;
        {
            const Nap nap(process);
            if (!nap.may_sleep()) continue;
            error = sleep_once(process, guard, deadline, poll.kernel(), mask);
        }
        if (error == 0) continue;
        process.process();
        const int late = poll.ours_ready() ? poll.answer() : 0;
        return late != 0 ? late : -error;
    }
}

/// kToKernel if none of the descriptors is ours.
int poll_mixed(std::span<pollfd> fds, const Deadline& deadline, const sigset_t* mask) {
    Guard guard;
    if (!guard) return kToKernel;
    Poll poll(fds);
    if (!poll.has_ours()) return kToKernel;
    return poll_both(guard, poll, deadline, mask);
}

int answer(int result) {
    if (result >= 0) return result;
    errno = -result;
    return -1;
}

bool has(const fd_set* set, int fd) { return set != nullptr && FD_ISSET(fd, set); }

struct Sets {
    fd_set* readable;
    fd_set* writable;
    fd_set* exceptional;
};

constexpr short kReadable = POLLIN | POLLRDNORM | POLLRDBAND | POLLHUP | POLLERR;
constexpr short kWritable = POLLOUT | POLLWRNORM | POLLWRBAND | POLLERR;

std::vector<pollfd> poll_of(int count, const Sets& sets) {
    std::vector<pollfd> fds;
    for (int fd = 0; fd < count; ++fd) {
        int events = 0;
        if (has(sets.readable, fd)) events |= POLLIN;
        if (has(sets.writable, fd)) events |= POLLOUT;
        if (has(sets.exceptional, fd)) events |= POLLPRI;
        if (events != 0)
            fds.push_back({.fd = fd, .events = static_cast<short>(events), .revents = 0});
    }
    return fds;
}

/// The bits of `sets` that are to stay, from what poll() said; how many.
int select_of(std::span<const pollfd> fds, const Sets& sets) {
    int count = 0;
    const auto keep = [&](fd_set* set, const pollfd& each, short asked, int bits) {
        if (set == nullptr || (each.events & asked) == 0) return;
        if ((each.revents & bits) != 0) ++count;
        else FD_CLR(each.fd, set);
    };
    for (const pollfd& each : fds) {
        if ((each.revents & POLLNVAL) != 0) return -EBADF;
        keep(sets.readable, each, POLLIN, kReadable);
        keep(sets.writable, each, POLLOUT, kWritable);
        keep(sets.exceptional, each, POLLPRI, POLLPRI);
    }
    return count;
}

/// kToKernel if none of the descriptors is ours.
int select_mixed(int count, const Sets& sets, const Deadline& deadline, const sigset_t* mask) {
    std::vector<pollfd> fds = poll_of(count, sets);
    if (!any_of_ours(fds)) return kToKernel;
    const int ready = poll_mixed(fds, deadline, mask);
    return ready < 0 ? ready : select_of(fds, sets);
}

}  // namespace

int poll(pollfd* fds, nfds_t count, int milliseconds) {
    if (!any_of_ours({fds, count})) return real().poll(fds, count, milliseconds);
    const int result = poll_mixed({fds, count}, Deadline::in_milliseconds(milliseconds), nullptr);
    return result == kToKernel ? real().poll(fds, count, milliseconds) : answer(result);
}

int ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) {
    const auto deadline = Deadline::in_timespec(timeout);
    if (!deadline || !any_of_ours({fds, count})) return real().ppoll(fds, count, timeout, mask);
    const int result = poll_mixed({fds, count}, *deadline, mask);
    return result == kToKernel ? real().ppoll(fds, count, timeout, mask) : answer(result);
}

int select(int count, fd_set* readable, fd_set* writable, fd_set* exceptional, timeval* timeout) {
    timespec span{};
    if (timeout != nullptr)  // glibc lets a second and more be given in tv_usec
        span = {.tv_sec = timeout->tv_sec + timeout->tv_usec / 1'000'000,
                .tv_nsec = timeout->tv_usec % 1'000'000 * 1000};
    const auto deadline = Deadline::in_timespec(timeout == nullptr ? nullptr : &span);
    const int result =
        deadline ? select_mixed(count, {readable, writable, exceptional}, *deadline, nullptr)
                 : kToKernel;
    if (result == kToKernel)
        return real().select(count, readable, writable, exceptional, timeout);
    if (timeout != nullptr) {  // Linux says how much time was left
        const auto left = deadline->left(Micros::max());
        *timeout = {.tv_sec = left->tv_sec, .tv_usec = left->tv_nsec / 1000};
    }
    return answer(result);
}

int pselect(int count, fd_set* readable, fd_set* writable, fd_set* exceptional,
            const timespec* timeout, const sigset_t* mask) {
    const auto deadline = Deadline::in_timespec(timeout);
    const int result =
        deadline ? select_mixed(count, {readable, writable, exceptional}, *deadline, mask)
                 : kToKernel;
    return result == kToKernel
               ? real().pselect(count, readable, writable, exceptional, timeout, mask)
               : answer(result);
}

}  // namespace chiru::posix
