// SPDX-License-Identifier: Apache-2.0
#include "libclient/posix/socket.hpp"

#include "libclient/posix/address.hpp"
#include "libclient/posix/calls.hpp"
#include "libclient/posix/real.hpp"
#include "libclient/posix/wait.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <new>
#include <utility>

#include <netinet/in.h>

namespace chiru::posix {

namespace {

Deadline deadline_of(Micros timeout) {
    return timeout == Micros::zero() ? Deadline::never() : Deadline::in(timeout);
}

/// Where the kernel has bound it; nothing if that is one certain address.
bool bound_to_any(int fd, int family, Endpoint& local) {
    sockaddr_storage storage{};
    socklen_t length = sizeof storage;
    auto* address = reinterpret_cast<sockaddr*>(&storage);
    if (real().getsockname(fd, address, &length) != 0) return false;
    const auto endpoint = endpoint_of(address, length, family);
    if (!endpoint || !endpoint->address.is_unspecified()) return false;
    local = *endpoint;
    return true;
}

}  // namespace

// ---- whose it is ---------------------------------------------------------------------------

int Socket::open(const std::shared_ptr<client::Channel>& channel) {
    client::Socket* made = channel->create(reinterpret_cast<std::uint64_t>(this));
    if (made == nullptr) return -ENOBUFS;
    channel_ = channel;
    chiru_ = made;
    options_.apply(*channel_, *chiru_);
    return 0;
}

void Socket::become_chirus(int fd, bool keep_in_kernel) {
    both_ = keep_in_kernel;
    // accept() asks both stacks, so it must not block in one of them. UDP asks with MSG_DONTWAIT.
    if (keep_in_kernel && datagrams() == nullptr) {
        const int flags = real().fcntl(fd, F_GETFL);
        real().fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    }
    for (Interest* each = interests_.first(); each != nullptr; each = interests_.after(*each))
        each->epoll->take_over(*each, keep_in_kernel);
    const Process& process = Process::get();
    if (process.settings().verbose)
        Process::get().say("chiru: descriptor %d is %s\n", fd,
                           keep_in_kernel ? "chiru's and the kernel's" : "chiru's");
}

void Socket::leave_to_kernel(int fd) {
    if (descriptors() == 1) return fd_table.remove(fd);
    fd_table.for_each(0, FdTable::kEnd - 1, [&](int name, Object& object) {
        if (&object == this) fd_table.remove(name);
    });
}

std::uint32_t Socket::bind_flags() const {
    std::uint32_t flags = 0;
    if (options_.value_of(OptionRow::ReuseAddress) != 0) flags |= shm::kBindReuseAddress;
    if (options_.value_of(OptionRow::ReusePort) != 0) flags |= shm::kBindReusePort;
    if (options_.value_of(OptionRow::V6Only) != 0) flags |= shm::kBindV6Only;
    return flags;
}

void Socket::set_nonblocking(int fd, bool nonblocking) {
    nonblocking_ = nonblocking;
    if (phase_ != Phase::Fresh && datagrams() == nullptr) return;
    const int flags = real().fcntl(fd, F_GETFL);
    real().fcntl(fd, F_SETFL, nonblocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

// ---- bind, listen --------------------------------------------------------------------------

int Socket::bind_in_chiru(const Endpoint& local) {
    const auto& channel = Process::get().attach();
    if (channel == nullptr) return -ENETDOWN;
    auto bound = channel->session().bind(local, bind_flags());
    if (!bound) return -bound.error();
    bound_ = *bound;
    channel_ = channel;
    return 0;
}

int Socket::bind(int fd, const sockaddr* address, socklen_t length) {
    if (phase_ != Phase::Fresh) return -EINVAL;
    const auto local = endpoint_of(address, length, family_);
    if (!local) return kToKernel;  // which knows how to refuse it
    Process& process = Process::get();
    if (local->address.is_loopback() && !process.settings().loopback) {
        if (real().bind(fd, address, length) != 0) return -errno;
        leave_to_kernel(fd);
        return 0;
    }
    const bool attached = process.attach() != nullptr;
    if (!attached && process.settings().required) return -ENETDOWN;
    switch (process.policy().for_bind(local->address)) {
        case Stack::Kernel:
            if (real().bind(fd, address, length) != 0) return -errno;
            leave_to_kernel(fd);
            return 0;
        case Stack::Both:  // chiru's part follows when it is known what the port is for
            if (real().bind(fd, address, length) == 0) return 0;
            if (errno != EADDRINUSE) return -errno;
            break;
        case Stack::Chiru: break;
    }
    if (const int error = bind_in_chiru(*local); error != 0) return error;
    phase_ = Phase::Bound;
    become_chirus(fd, false);
    return 0;
}

int Socket::listen_in_chiru(int backlog) {
    backlog_ = backlog < 0 ? SOMAXCONN : static_cast<std::uint32_t>(backlog);
    const bool bounded = options_.is_set(OptionRow::MaxSegment);
    const int segment = bounded ? options_.value_of(OptionRow::MaxSegment) : 0;
    const auto done = channel_->session().listen(
        bound_.listener,
        {.backlog = backlog_,
         .defer_s = static_cast<std::uint32_t>(options_.value_of(OptionRow::DeferAccept)),
         .max_segment = static_cast<std::uint16_t>(segment),
         .fast_open = static_cast<std::uint16_t>(
             std::min(options_.value_of(OptionRow::FastOpen), 65'535))});
    if (!done) return -done.error();
    if (chiru_ == nullptr)
        if (const int error = open(channel_); error != 0) return error;
    phase_ = Phase::Listening;
    for (Interest* each = interests_.first(); each != nullptr; each = interests_.after(*each))
        each->epoll->show(*each);
    return 0;
}

void Socket::option_changed() {
    if (phase_ == Phase::Listening)
        static_cast<void>(listen_in_chiru(static_cast<int>(backlog_)));
}

int Socket::listen(int fd, int backlog) {
    Process& process = Process::get();
    if (phase_ == Phase::Live || phase_ == Phase::Orphan) return -EINVAL;
    if (in_kernel() && real().listen(fd, backlog) != 0) return -errno;
    if (phase_ == Phase::Inherited)
        if (const int error = adopt(); error != 0) return error;
    if (phase_ != Phase::Fresh) return listen_in_chiru(backlog);

    const bool attached = process.attach() != nullptr;
    if (!attached && process.settings().required) return -ENETDOWN;
    Endpoint local;
    if (!attached || !bound_to_any(fd, family_, local)) {
        leave_to_kernel(fd);
        return 0;
    }
    if (const int error = bind_in_chiru(local); error != 0) return error;
    phase_ = Phase::Bound;
    become_chirus(fd, true);
    return listen_in_chiru(backlog);
}

void Socket::show_interest() {
    if (phase_ == Phase::Inherited && adopt() != 0) return;
    if (phase_ != Phase::Listening || taking_part_) return;
    taking_part_ = channel_->listen(*chiru_, bound_).has_value();
}

// ---- connect -------------------------------------------------------------------------------

int Socket::start_connect(Guard& guard, int fd, const Endpoint& remote, bool fast) {
    Endpoint local;
    if (phase_ == Phase::Fresh && bound_to_any(fd, family_, local) && local.port != 0)
        if (const int error = bind_in_chiru(local); error != 0) return error;
    const bool named = bound_.listener != shm::kNoListener;
    const auto channel = named ? channel_ : Process::get().attach();
    if (channel == nullptr) return -ENETDOWN;
    if (const int error = open(channel); error != 0) return error;
    const bool was_fresh = phase_ == Phase::Fresh;
    phase_ = Phase::Live;
    if (was_fresh) become_chirus(fd, false);
    if (fast) static_cast<void>(channel_->set_option(*chiru_, shm::ConnectionOption::FastOpen, 1));
    const auto started = channel_->connect(*chiru_, remote, bound_.endpoint);
    if (!started) {
        chiru_->user = 0;
        channel_->close(*chiru_);
        chiru_ = nullptr;
        phase_ = Phase::Bound;
        return -started.error();
    }
    channel_->flush();
    connecting_ = true;
    if (!fast) return 0;
    // The shard answers at once, from what it knows of the destination.
    const Sleeper sleeper(*this);
    const int waited = wait_until(guard.process(), guard, Deadline::never(), [&] {
        return chiru_ == nullptr || (chiru_->flags & client::kAnswered) != 0 ||
               chiru_->state != client::SocketState::Connecting;
    });
    return chiru_ == nullptr ? -EBADF : -waited;
}

bool Socket::deferred() const {
    return chiru_ != nullptr && chiru_->state == client::SocketState::Connecting &&
           chiru_->syn_room != 0;
}

int Socket::connect(Guard& guard, int fd, const sockaddr* address, socklen_t length) {
    return connect(guard, fd, address, length, false, !nonblocking_);
}

int Socket::open_fast(Guard& guard, int fd, const sockaddr* address, socklen_t length,
                      bool waits) {
    if (deferred()) return 0;  // TCP_FASTOPEN_CONNECT has begun it
    if (address == nullptr) return -EINVAL;
    return connect(guard, fd, address, length, true, waits && !nonblocking_);
}

int Socket::connect(Guard& guard, int fd, const sockaddr* address, socklen_t length,
                    bool by_message, bool waits) {
    Process& process = guard.process();
    if (phase_ == Phase::Listening || phase_ == Phase::Inherited) return -EISCONN;
    if (phase_ == Phase::Orphan) return -ENOTCONN;
    const auto remote = endpoint_of(address, length, family_);
    if (!remote) return phase_ == Phase::Fresh ? kToKernel : -remote.error();
    if (phase_ == Phase::Fresh) {
        const bool loopback = remote->address.is_loopback() || remote->address.is_unspecified();
        const bool may_be_ours = !loopback || process.settings().loopback;
        if (may_be_ours && process.attach() == nullptr && process.settings().required)
            return -ENETDOWN;
        if (!may_be_ours || process.policy().for_connect(remote->address) == Stack::Kernel) {
            leave_to_kernel(fd);
            return kToKernel;
        }
    }
    if (phase_ == Phase::Live) {
        process.process();
        if (chiru_->state == client::SocketState::Connected && !connecting_) return -EISCONN;
        if (chiru_->state == client::SocketState::Over) {
            if (!connecting_) return -EISCONN;
            connecting_ = false;
            if (const int error = channel_->take_error(*chiru_); error != 0) return -error;
            chiru_->user = 0;
            channel_->close(*chiru_);
            chiru_ = nullptr;
        } else if (deferred()) {
            return -EISCONN;
        } else if (chiru_->state == client::SocketState::Connecting && (by_message || !waits)) {
            return -EALREADY;
        }
    }
    if (chiru_ == nullptr) {
        const bool fast = by_message || options_.value_of(OptionRow::FastOpenConnect) != 0;
        if (const int error = start_connect(guard, fd, *remote, fast); error != 0) return error;
        if (deferred()) return 0;
        if (!waits) return -EINPROGRESS;
    }
    const Sleeper sleeper(*this);
    const int waited = wait_until(process, guard, deadline_of(options_.send_timeout()), [&] {
        return chiru_ == nullptr || chiru_->state != client::SocketState::Connecting;
    });
    if (chiru_ == nullptr) return -EBADF;  // another thread closed it
    if (waited != 0) return waited == EAGAIN ? -EINPROGRESS : -waited;
    connecting_ = false;
    return -channel_->take_error(*chiru_);
}

// ---- accept --------------------------------------------------------------------------------

int Socket::adopt() {
    Process& process = Process::get();
    const auto& channel = process.attach();
    if (channel == nullptr) return -EINVAL;
    auto adopted = channel->session().adopt(bound_.listener, bound_.token);
    if (!adopted) return -adopted.error();
    bound_ = *adopted;
    channel_ = channel;
    phase_ = Phase::Bound;
    const int error = open(channel_);
    if (error == 0) phase_ = Phase::Listening;
    process.listener_settled();
    return error;
}

int Socket::accept_in_chiru(sockaddr* address, socklen_t* length, int flags) {
    if ((chiru_->flags & client::kAcceptWaiting) == 0) {
        if (!channel_->lost()) return -EAGAIN;
        // Said once: a program that waits for more is not woken for nothing for ever after.
        if (!end_told_) return end_told_ = true, -ECONNABORTED;
        return nonblocking_ || both_ ? -EAGAIN : -EINVAL;
    }
    // The descriptor first: without one the connection stays in the queue.
    Process& process = Process::get();
    const int fd = process.placeholder((flags & SOCK_CLOEXEC) != 0);
    if (fd < 0) return -errno;
    auto* made = new (std::nothrow) Socket(family_, (flags & SOCK_NONBLOCK) != 0);
    if (made == nullptr || !fd_table.install(fd, *made)) {
        delete made;
        real().close(fd);
        return made == nullptr ? -ENOMEM : -EMFILE;
    }
    const auto accepted = channel_->accept(*chiru_);
    if (!accepted) {
        fd_table.remove(fd);
        real().close(fd);
        return -accepted.error();
    }
    made->phase_ = Phase::Live;
    made->channel_ = channel_;
    made->chiru_ = *accepted;
    made->chiru_->user = reinterpret_cast<std::uint64_t>(made);
    made->options_ = options_;
    store_endpoint(made->chiru_->remote, family_, address, length);
    return fd;
}

int Socket::accept_in_kernel(int fd, sockaddr* address, socklen_t* length, int flags) {
    const int accepted = real().accept4(fd, address, length, flags);
    return accepted >= 0 ? accepted : -errno;
}

int Socket::accept(Guard& guard, int fd, sockaddr* address, socklen_t* length, int flags) {
    if ((flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != 0) return -EINVAL;
    if (address != nullptr && length == nullptr) return -EFAULT;
    show_interest();
    if (phase_ == Phase::Inherited && both_) return kToKernel;  // chiru's part is out of reach
    if (phase_ != Phase::Listening) return -EINVAL;
    Process& process = guard.process();
    int result = -EAGAIN;
    const auto attempt = [&] {
        if (phase_ != Phase::Listening || chiru_ == nullptr) result = -EINVAL;
        if (result == -EINVAL) return true;
        kernel_first_ = both_ && !kernel_first_;
        if (kernel_first_) result = accept_in_kernel(fd, address, length, flags);
        if (result == -EAGAIN) result = accept_in_chiru(address, length, flags);
        if (both_ && !kernel_first_ && (result == -EAGAIN || result == -EINVAL))
            result = accept_in_kernel(fd, address, length, flags);
        return result != -EAGAIN;
    };
    if (attempt()) return result;
    process.process();
    if (attempt() || nonblocking_) return result;
    const Sleeper sleeper(*this);
    std::array<pollfd, 1> kernel{{{.fd = fd, .events = POLLIN, .revents = 0}}};
    const int waited = wait_until(process, guard, deadline_of(options_.receive_timeout()), attempt,
                                  std::span(kernel).first(both_ ? 1 : 0));
    return waited == 0 ? result : -waited;
}

// ---- names, endings ------------------------------------------------------------------------

int Socket::name(sockaddr* address, socklen_t* length) const {
    if (phase_ == Phase::Orphan) return -ENOTCONN;
    const bool live = phase_ == Phase::Live && chiru_ != nullptr;
    Endpoint local = live ? chiru_->local : bound_.endpoint;
    if (local == Endpoint{} && family_ == AF_INET) local.address = IpAddress::v4(0);
    store_endpoint(local, family_, address, length);
    return 0;
}

int Socket::peer(sockaddr* address, socklen_t* length) const {
    if (phase_ != Phase::Live || chiru_ == nullptr) return -ENOTCONN;
    if (chiru_->state != client::SocketState::Connected) return -ENOTCONN;
    store_endpoint(chiru_->remote, family_, address, length);
    return 0;
}

int Socket::shutdown(int how) {
    if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR) return -EINVAL;
    if (phase_ == Phase::Listening && chiru_ != nullptr) return stop_listening(how);
    if (phase_ != Phase::Live || chiru_ == nullptr) return -ENOTCONN;
    if (chiru_->state == client::SocketState::Connecting) return -ENOTCONN;
    if (chiru_->state == client::SocketState::Over) return -ENOTCONN;
    if (how != SHUT_RD) {
        const auto done = channel_->shutdown_send(*chiru_);
        if (!done) return -done.error();
        channel_->flush();
    }
    if (how != SHUT_WR) channel_->shutdown_receive(*chiru_);
    Process::get().process();
    return 0;
}

/// As Linux does it: nobody listens any longer, threads in accept() return, and the name stays.
int Socket::stop_listening(int how) {
    if (how == SHUT_WR) return 0;
    chiru_->user = 0;
    channel_->close(*std::exchange(chiru_, nullptr));
    channel_->flush();
    const Endpoint name = bound_.endpoint;
    give_up_name();  // with it goes the listener
    static_cast<void>(bind_in_chiru(name));
    taking_part_ = false;
    phase_ = Phase::Bound;
    edges(0);
    Process::get().wake_sleepers();
    return both_ ? kToKernel : 0;
}

void Socket::linger(Guard& guard) {
    const Micros time = options_.linger_time();
    if (phase_ != Phase::Live || descriptors() != 1 || time == Micros::zero()) return;
    const Sleeper sleeper(*this);
    static_cast<void>(wait_until(guard.process(), guard, Deadline::in(time), [&] {
        return chiru_ == nullptr || chiru_->unsent_bytes() == 0 || channel_->lost();
    }));
}

void Socket::give_up_name() {
    if (bound_.listener == shm::kNoListener || channel_ == nullptr) return;
    static_cast<void>(channel_->session().unbind(bound_.listener));
    bound_ = {};
}

void Socket::drop_interests() {
    while (Interest* interest = interests_.first()) interest->epoll->drop(*interest);
}

void Socket::last_descriptor_closed() {
    drop_interests();
    if (sleepers_ != 0) Process::get().wake_sleepers();  // their calls end with this
    if (phase_ == Phase::Inherited) Process::get().listener_settled();
    if (chiru_ != nullptr) {
        chiru_->user = 0;
        if (phase_ == Phase::Live && options_.resets_on_close()) channel_->abort(*chiru_);
        else channel_->close(*chiru_);
        chiru_ = nullptr;
        channel_->flush();
    }
    give_up_name();
    channel_.reset();
}

// ---- readiness -----------------------------------------------------------------------------

std::uint32_t Socket::readiness() const {
    if (phase_ == Phase::Orphan) return EPOLLERR | EPOLLHUP;
    if (phase_ == Phase::Bound) return EPOLLOUT | EPOLLHUP;  // as the kernel's unconnected ones
    if (chiru_ == nullptr) return 0;
    const std::uint8_t levels = chiru_->readiness();
    std::uint32_t ready = 0;
    // SO_RCVLOWAT: fewer bytes are none yet, unless no more will come.
    const bool few = chiru_->unread_bytes() < options_.receive_low_water() &&
                     (levels & (client::kPeerClosed | client::kError)) == 0 &&
                     phase_ == Phase::Live;
    if ((levels & client::kReadable) != 0 && !few) ready |= EPOLLIN | EPOLLRDNORM;
    if (phase_ == Phase::Listening)
        return chiru_->state != client::SocketState::Over ? ready
               : end_told_                                ? 0u
                                                          : EPOLLERR | EPOLLHUP;
    if ((levels & client::kWritable) != 0) ready |= EPOLLOUT | EPOLLWRNORM;
    if ((levels & client::kPeerClosed) != 0) ready |= EPOLLRDHUP;
    if ((levels & client::kHangup) != 0) ready |= EPOLLHUP;
    if ((levels & client::kError) != 0) ready |= EPOLLERR;
    return ready;
}

void Socket::edges(std::uint8_t) {
    if (sleepers_ != 0) Process::get().wake_sleepers();
    for (Interest* each = interests_.first(); each != nullptr; each = interests_.after(*each))
        each->epoll->touch(*each);
}

Interest* Socket::find_interest(const Epoll& epoll, int fd) const {
    for (Interest* each = interests_.first(); each != nullptr; each = interests_.after(*each))
        if (each->epoll == &epoll && each->fd == fd) return each;
    return nullptr;
}

void Socket::inherited() {
    if (phase_ == Phase::Fresh || phase_ == Phase::Inherited) return;
    phase_ = phase_ == Phase::Live ? Phase::Orphan : Phase::Inherited;
    chiru_ = nullptr;
    channel_.reset();
    taking_part_ = false;
    sleepers_ = 0;
}

}  // namespace chiru::posix
