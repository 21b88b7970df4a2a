// SPDX-License-Identifier: Apache-2.0
#include "libclient/posix/epoll.hpp"

#include "libclient/posix/real.hpp"
#include "libclient/posix/socket.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <new>
#include <optional>
#include <span>
#include <utility>

namespace chiru::posix {

namespace {

/// A busy set asks the kernel about its part once in so many calls, or in so long.
constexpr std::uint32_t kCallsWithoutKernel = 8;
constexpr Micros kTimeWithoutKernel{50};
constexpr std::uint32_t kReading = EPOLLIN | EPOLLRDNORM;
constexpr std::uint32_t kModes = EPOLLET | EPOLLONESHOT | EPOLLWAKEUP | EPOLLEXCLUSIVE;
constexpr std::uint32_t kExclusiveAllows =
    EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE;

/// The data of our own descriptors in the program's sets: an address of ours, which no data of
/// the program's can be by accident.
alignas(2) const char mark_of_ours[2] = {};

std::uint64_t mark() { return reinterpret_cast<std::uint64_t>(&mark_of_ours[0]); }

/// Counts a thread, however its call ends.
class Counted {
public:
    explicit Counted(std::uint32_t& count) : count_(count) { ++count_; }
    ~Counted() { --count_; }
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;

private:
    std::uint32_t& count_;
};

/// epoll_pwait2() with the lock away; a negative errno value if it fails.
int kernel_wait(Guard& guard, int fd, std::span<epoll_event> events,
                const std::optional<timespec>& limit, const sigset_t* mask) {
    const Away away(guard);
    const int room = static_cast<int>(events.size());
    int count = real().epoll_pwait2(fd, events.data(), room, limit ? &*limit : nullptr, mask);
    if (count < 0 && errno == ENOSYS) {  // before Linux 5.11
        const auto ms = limit ? std::min<std::int64_t>(
                                    limit->tv_sec * 1000 + (limit->tv_nsec + 999'999) / 1'000'000,
                                    INT32_MAX)
                              : -1;
        count = real().epoll_pwait(fd, events.data(), room, static_cast<int>(ms), mask);
    }
    return count < 0 ? -errno : count;
}

}  // namespace

Epoll::Epoll(int fd)
    : Object(Kind::Epoll), fd_(fd), forks_at_birth_(Process::get().forks()) {}

Epoll::~Epoll() {
    while (Interest* interest = set_.first()) drop(*interest);
}

void Epoll::last_descriptor_closed() {
    while (Interest* interest = set_.first()) drop(*interest);
    if (active_) Process::get().remove_epoll(*this);
}

// ---- epoll_ctl -----------------------------------------------------------------------------

int Epoll::control(int epoll_fd, int operation, int fd, Socket& socket, epoll_event* event) {
    fd_ = epoll_fd;
    if (event == nullptr && operation != EPOLL_CTL_DEL) return -EFAULT;
    Interest* interest = socket.find_interest(*this, fd);
    switch (operation) {
        case EPOLL_CTL_ADD: return interest != nullptr ? -EEXIST : add(fd, socket, *event);
        case EPOLL_CTL_MOD: return interest == nullptr ? -ENOENT : modify(*interest, *event);
        case EPOLL_CTL_DEL: return interest == nullptr ? -ENOENT : remove(*interest);
        default: return -EINVAL;
    }
}

int Epoll::add(int fd, Socket& socket, const epoll_event& event) {
    if ((event.events & EPOLLEXCLUSIVE) != 0 && (event.events & ~kExclusiveAllows) != 0)
        return -EINVAL;
    auto* made = new (std::nothrow) Interest;
    if (made == nullptr) return -ENOMEM;
    made->epoll = this;
    made->socket = &socket;
    made->fd = fd;
    made->event = event;
    made->in_kernel = socket.in_kernel();
    if (made->in_kernel) {
        epoll_event copy = event;
        if (real().epoll_ctl(fd_, EPOLL_CTL_ADD, fd, &copy) != 0) {
            delete made;
            return -errno;
        }
        has_kernel_ = true;
    }
    set_.push_back(*made);
    socket.add_interest(*made);
    if (socket.phase() == Phase::Fresh) return 0;
    activate();
    show(*made);
    touch(*made);
    return 0;
}

int Epoll::modify(Interest& interest, const epoll_event& event) {
    if (((interest.event.events | event.events) & EPOLLEXCLUSIVE) != 0) return -EINVAL;
    if (interest.in_kernel) {
        epoll_event copy = event;
        if (real().epoll_ctl(fd_, EPOLL_CTL_MOD, interest.fd, &copy) != 0) return -errno;
    }
    interest.event = event;
    interest.disabled = false;
    if (interest.socket->phase() == Phase::Fresh) return 0;
    show(interest);
    touch(interest);
    return 0;
}

int Epoll::remove(Interest& interest) {
    int result = 0;
    if (interest.in_kernel && real().epoll_ctl(fd_, EPOLL_CTL_DEL, interest.fd, nullptr) != 0)
        result = -errno;
    drop(interest);
    return result;
}

void Epoll::drop(Interest& interest) {
    ready_.remove(interest);
    set_.remove(interest);
    interest.socket->remove_interest(interest);
    delete &interest;
}

void Epoll::take_over(Interest& interest, bool keep_in_kernel) {
    if (interest.in_kernel && !keep_in_kernel) {
        static_cast<void>(real().epoll_ctl(fd_, EPOLL_CTL_DEL, interest.fd, nullptr));
        interest.in_kernel = false;
    }
    activate();
    touch(interest);
}

void Epoll::give_back(Interest& interest) {
    if (interest.in_kernel) return;
    epoll_event copy = interest.event;
    interest.in_kernel = real().epoll_ctl(fd_, EPOLL_CTL_ADD, interest.fd, &copy) == 0;
    has_kernel_ = true;
}

void Epoll::activate() {
    if (!active_) {
        active_ = true;
        Process::get().add_epoll(*this);
    }
    session_came();
}

bool Epoll::shared() const { return Process::get().forks() != forks_at_birth_; }

void Epoll::show(Interest& interest) {
    if ((interest.event.events & kReading) == 0) return;
    if (waiters_ == 0) unshown_ = true;
    else interest.socket->show_interest();
}

void Epoll::show_all() {
    if (!std::exchange(unshown_, false)) return;
    for (Interest* each = set_.first(); each != nullptr; each = set_.after(*each))
        if ((each->event.events & kReading) != 0) each->socket->show_interest();
}

void Epoll::forget_session() {
    watching_ = false;
    unshown_ = true;
    while (Interest* interest = ready_.first()) ready_.remove(*interest);
}

void Epoll::share() {
    if (!watching_) return;
    // Who sleeps in the kernel's set now is woken by the nudge, which stays for that.
    session_gone();
    if (waiters_ != 0) Process::get().wake_now();
}

void Epoll::session_came() {
    if (watching_ || Process::get().channel() == nullptr) return;
    watching_ = !shared();
    if (watching_) Process::get().watch(fd_, mark());
    else if (unaware_ != 0) Process::get().watch_nudge(fd_, mark());
    if (waiters_ != 0) Process::get().wake_sleepers();
    if (unaware_ != 0) Process::get().wake_now();
}

void Epoll::session_gone() {
    if (!watching_) return;
    Process::get().unwatch(fd_);
    watching_ = false;
}

// ---- epoll_wait ----------------------------------------------------------------------------

void Epoll::touch(Interest& interest) {
    if (interest.disabled) return;
    const std::uint32_t wanted = interest.event.events | EPOLLERR | EPOLLHUP;
    if ((interest.socket->readiness() & wanted) == 0) return;
    if (!ready_.contains(interest)) ready_.push_back(interest);
    if (waiters_ != 0) Process::get().wake_sleepers();
}

int Epoll::collect(epoll_event* events, int room) {
    int count = 0;
    for (std::size_t left = ready_.size(); left != 0 && count < room; --left) {
        Interest& interest = *ready_.first();
        ready_.remove(interest);
        if (interest.disabled) continue;
        const std::uint32_t wanted = interest.event.events | EPOLLERR | EPOLLHUP;
        const std::uint32_t ready = interest.socket->readiness() & wanted & ~kModes;
        if (ready == 0) continue;
        events[count].events = ready;
        events[count].data = interest.event.data;
        ++count;
        if ((interest.event.events & EPOLLONESHOT) != 0) interest.disabled = true;
        else if ((interest.event.events & EPOLLET) == 0) ready_.push_back(interest);
    }
    return count;
}

int Epoll::without_marks(epoll_event* events, int count) {
    int kept = 0;
    for (int i = 0; i < count; ++i) {
        const std::uint64_t data = events[i].data.u64;
        if (data == mark() + 1) Process::get().check_daemon();
        if (data != mark() && data != mark() + 1) events[kept++] = events[i];
    }
    return kept;
}

bool Epoll::kernel_is_due() {
    return ready_.empty() || ++calls_since_kernel_ >= kCallsWithoutKernel ||
           now() - kernel_asked_ >= kTimeWithoutKernel;
}

int Epoll::ask_kernel(epoll_event* events, int room) {
    calls_since_kernel_ = 0;
    kernel_asked_ = now();
    const int count = real().epoll_wait(fd_, events, room, 0);
    if (count <= 0) return 0;
    const int kept = without_marks(events, count);
    if (kept != count) pass_on();
    return kept;
}

/// An edge that was for a sleeper of this set came to a thread that does not sleep: that one has to
/// look in its place, and the sleepers need another.
void Epoll::pass_on() {
    Process::get().process();
    Process::get().wake_sleepers();
}

/// sleep() in a set that another process has, too: what wakes us is not in it.
int Epoll::sleep_beside(Guard& guard, std::span<epoll_event> events, const Deadline& deadline,
                        const sigset_t* mask) {
    std::array<pollfd, 1> set{{{.fd = fd_, .events = POLLIN, .revents = 0}}};
    const int error = sleep_once(guard.process(), guard, deadline, set, mask);
    if (error != 0) return -error;
    if (set[0].revents == 0) return 0;
    return ask_kernel(events.data(), static_cast<int>(events.size()));
}

/// The kernel's events that ended the sleep, or a negative errno value.
int Epoll::sleep(Guard& guard, std::span<epoll_event> events, const Deadline& deadline,
                 const sigset_t* mask) {
    if (shared()) return sleep_beside(guard, events, deadline, mask);
    const auto limit = deadline.left(guard.process().sleep_limit());
    const int count = kernel_wait(guard, fd_, events, limit, mask);
    // Another thread forked meanwhile: whoever sleeps still as this one did is to look, too.
    if (shared()) guard.process().wake_sleepers();
    return count < 0 ? count : without_marks(events.data(), count);
}

int Epoll::wait(Guard& guard, int epoll_fd, epoll_event* events, int room,
                const Deadline& deadline, const sigset_t* mask) {
    fd_ = epoll_fd;
    const Pin pin(*this);
    const Counted waiting(waiters_);
    show_all();
    const int count = wait_counted(guard, events, room, deadline, mask);
    // Several threads in one set: what is ready still, the kernel too tells another one.
    if (waiters_ > 1 && !ready_.empty()) guard.process().wake_sleepers();
    return count;
}

int Epoll::wait_counted(Guard& guard, epoll_event* events, int room, const Deadline& deadline,
                        const sigset_t* mask) {
    Process& process = guard.process();
    int count = 0;
    for (;;) {
        process.process();
        if (has_kernel_ && kernel_is_due()) count = ask_kernel(events, std::max(room / 2, 1));
        count += collect(events + count, room - count);
        if (count != 0 || deadline.passed()) return count;
        if (spin(process, [&] { return !ready_.empty(); })) continue;
        {
            const Nap nap(process);
            if (!nap.may_sleep()) continue;
            count = sleep(guard, {events, static_cast<std::size_t>(room)}, deadline, mask);
        }
        process.process();
        const int kernels = std::max(count, 0);
        const int ours = collect(events + kernels, room - kernels);
        if (count < 0 && ours == 0) return count;
        count = kernels + ours;
        if (count != 0) return count;
    }
}

int Epoll::wait_for_kernel(Guard& guard, int epoll_fd, epoll_event* events, int room,
                           const Deadline& deadline, const sigset_t* mask) {
    const Pin pin(*this);
    int count = 0;
    {
        const Counted unaware(unaware_);
        count = kernel_wait(guard, epoll_fd, {events, static_cast<std::size_t>(room)},
                            deadline.left(Micros::max()), mask);
    }
    if (count < 0 || !active_) return count;
    // Another thread put a socket of ours here. The nudge's edge wakes one thread: pass it on.
    if (unaware_ != 0) guard.process().wake_now();
    const int kept = without_marks(events, count);
    if (kept != count) pass_on();
    if (kept != 0) return kept;
    return wait(guard, epoll_fd, events, room, deadline, mask);
}

}  // namespace chiru::posix
