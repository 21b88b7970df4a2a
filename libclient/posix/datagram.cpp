// SPDX-License-Identifier: Apache-2.0
#include "libclient/posix/datagram.hpp"

#include "libclient/posix/address.hpp"
#include "libclient/posix/calls.hpp"
#include "libclient/posix/real.hpp"
#include "libclient/posix/wait.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include <netinet/in.h>

namespace chiru::posix {

namespace {

constexpr int kPortTries = 8;  // to find one that is free in both stacks

Deadline deadline_of(Micros timeout) {
    return timeout == Micros::zero() ? Deadline::never() : Deadline::in(timeout);
}

/// Where the kernel has bound it; port 0: nowhere yet.
Endpoint kernels_name(int fd, int family) {
    sockaddr_storage storage{};
    socklen_t length = sizeof storage;
    auto* address = reinterpret_cast<sockaddr*>(&storage);
    if (real().getsockname(fd, address, &length) != 0) return {};
    return endpoint_of(address, length, family).value_or(Endpoint{});
}

int bind_kernel(int fd, int family, const Endpoint& local) {
    sockaddr_storage storage{};
    socklen_t length = sizeof storage;
    auto* address = reinterpret_cast<sockaddr*>(&storage);
    store_endpoint(local, family, address, &length);
    return real().bind(fd, address, length) == 0 ? 0 : -errno;
}

bool is_unspec(const sockaddr* address, socklen_t length) {
    return address != nullptr && length >= sizeof(sa_family_t) && address->sa_family == AF_UNSPEC;
}

}  // namespace

bool DatagramSocket::connected() const {
    return chiru_ != nullptr && (chiru_->flags & client::kHasPeer) != 0;
}

// ---- whose it is ---------------------------------------------------------------------------

int DatagramSocket::open(const Endpoint& local) {
    const auto& channel = Process::get().attach();
    if (channel == nullptr) return -ENETDOWN;
    client::Socket* made = channel->create(reinterpret_cast<std::uint64_t>(
        static_cast<Socket*>(this)));
    if (made == nullptr) return -ENOBUFS;
    const auto opened =
        channel->open_datagrams(*made, local, bind_flags(), datagram_options_.receive_buffer);
    if (!opened) {
        channel->close(*made);
        return -opened.error();
    }
    channel_ = channel;
    chiru_ = made;
    tell_options();
    for (const Membership& membership : memberships_)
        static_cast<void>(
            channel->set_membership(*made, membership.group, membership.interface, true));
    return 0;
}

int DatagramSocket::open_in_both(int fd, const Endpoint& local) {
    int error = 0;
    for (int i = 0; i < kPortTries; ++i) {
        if (error = open(local); error != 0) return error;
        const int bound =
            bind_kernel(fd, family_, {local.address, chiru_->local.port});
        if (bound == 0 || (bound == -EADDRINUSE && local.port != 0)) {
            phase_ = Phase::Live;
            become_chirus(fd, bound == 0);
            return 0;
        }
        error = bound;
        chiru_->user = 0;
        channel_->close(*chiru_);
        chiru_ = nullptr;
        channel_.reset();
        if (bound != -EADDRINUSE) break;
    }
    return error;
}

int DatagramSocket::bind(int fd, const sockaddr* address, socklen_t length) {
    if (phase_ != Phase::Fresh) return -EINVAL;
    const auto local = endpoint_of(address, length, family_);
    if (!local) return kToKernel;  // which knows how to refuse it
    Process& process = Process::get();
    if (local->address.is_loopback() && !process.settings().loopback) return kToKernel;
    if (kernels_name(fd, family_).port != 0) return -EINVAL;
    const bool attached = process.attach() != nullptr;
    if (!attached && process.settings().required) return -ENETDOWN;
    const bool group = local->address.is_multicast();
    switch (group && attached ? Stack::Both : process.policy().for_bind(local->address)) {
        case Stack::Kernel: return kToKernel;
        case Stack::Both: return open_in_both(fd, *local);
        case Stack::Chiru: break;
    }
    if (const int error = open(*local); error != 0) return error;
    phase_ = Phase::Live;
    become_chirus(fd, false);
    return 0;
}

/// A socket that sends or connects before it was bound, or was bound by the kernel for that.
int DatagramSocket::open_for_sending(int fd, bool keep_in_kernel) {
    const Endpoint kernels = kernels_name(fd, family_);
    const Endpoint any{family_any(), 0};
    if (kernels.port == 0 && keep_in_kernel) return open_in_both(fd, any);
    int error = open({any.address, kernels.port});
    if (error == -EADDRINUSE) error = open(any);
    if (error != 0) return error;
    phase_ = Phase::Live;
    become_chirus(fd, keep_in_kernel);
    return 0;
}

/// Back to the kernel's part alone.
void DatagramSocket::close_chirus_part() {
    chiru_->user = 0;
    channel_->close(*chiru_);
    chiru_ = nullptr;
    channel_.reset();
    phase_ = Phase::Fresh;
    both_ = false;
    for (Interest* each = interests_.first(); each != nullptr; each = interests_.after(*each))
        each->epoll->give_back(*each);
}

Stack DatagramSocket::stack_of(const IpAddress& remote) {
    Process& process = Process::get();
    if (remote.is_multicast() || remote.is_broadcast()) {
        const bool chirus = datagram_options_.group_interface != 0 ||
                            (chiru_ != nullptr && !both_);
        return chirus ? Stack::Chiru : Stack::Kernel;
    }
    const bool loopback = remote.is_loopback() || remote.is_unspecified();
    if (loopback && !process.settings().loopback) return Stack::Kernel;
    if (!std::exchange(asked_, true)) process.attach();
    return process.policy().for_connect(remote);
}

// ---- connect -------------------------------------------------------------------------------

int DatagramSocket::connect_to_nobody(int fd) {
    if (phase_ == Phase::Fresh) return kToKernel;
    if (chiru_ == nullptr) return -ENOTCONN;
    const auto done = channel_->connect_datagrams(*chiru_, {});
    if (!done) return -done.error();
    if (std::exchange(was_both_, false)) {
        both_ = true;
        for (Interest* each = interests_.first(); each != nullptr;
             each = interests_.after(*each))
            each->epoll->give_back(*each);
    }
    static_cast<void>(fd);
    return 0;
}

int DatagramSocket::connect_in_chiru(Guard&, int fd, const Endpoint& remote) {
    if (phase_ == Phase::Fresh)
        if (const int error = open_for_sending(fd, false); error != 0) return error;
    const auto done = channel_->connect_datagrams(*chiru_, remote);
    if (!done) return -done.error();
    // From here on only the peer is heard: the kernel's part is left alone until that ends.
    if (both_) {
        was_both_ = true;
        both_ = false;
        for (Interest* each = interests_.first(); each != nullptr;
             each = interests_.after(*each))
            each->epoll->take_over(*each, false);
    }
    channel_->flush();
    return 0;
}

int DatagramSocket::connect(Guard& guard, int fd, const sockaddr* address, socklen_t length) {
    if (phase_ == Phase::Orphan) return -ENOTCONN;
    if (is_unspec(address, length)) return connect_to_nobody(fd);
    const auto remote = endpoint_of(address, length, family_);
    if (!remote) return phase_ == Phase::Fresh ? kToKernel : -remote.error();
    Process& process = guard.process();
    asked_ = false;  // a daemon may have come since
    if (stack_of(remote->address) == Stack::Kernel) {
        if (phase_ == Phase::Fresh)
            return !remote->address.is_loopback() && process.settings().required &&
                           process.attach() == nullptr
                       ? -ENETDOWN : kToKernel;
        if (!both_ && !was_both_ && !chiru_->local.address.is_unspecified() && !connected())
            return -ENETUNREACH;  // bound to an address of chiru's, which does not lead there
        close_chirus_part();
        was_both_ = false;
        return kToKernel;
    }
    if (remote->port == 0) return -EINVAL;
    return connect_in_chiru(guard, fd, *remote);
}

// ---- receiving -----------------------------------------------------------------------------

/// One look at chiru's part.
ssize_t DatagramSocket::take(msghdr& message, int flags) {
    const auto oldest = channel_->next_datagram(*chiru_);
    if (!oldest) return -oldest.error();
    const client::RxDatagram& datagram = **oldest;
    std::vector<std::span<std::byte>> room;
    for (std::size_t i = 0; i < message.msg_iovlen; ++i)
        room.emplace_back(static_cast<std::byte*>(message.msg_iov[i].iov_base),
                          message.msg_iov[i].iov_len);
    const std::size_t copied = channel_->copy_datagram(datagram, room);
    if (message.msg_name != nullptr)
        store_endpoint(datagram.remote, family_, static_cast<sockaddr*>(message.msg_name),
                       &message.msg_namelen);
    message.msg_flags = copied < datagram.bytes ? MSG_TRUNC : 0;
    store_control(message, datagram);
    const std::size_t answer = (flags & MSG_TRUNC) != 0 ? datagram.bytes : copied;
    if ((flags & MSG_PEEK) == 0) channel_->drop_datagram(*chiru_);
    return static_cast<ssize_t>(answer);
}

ssize_t DatagramSocket::receive(Guard& guard, int fd, msghdr& message, int flags) {
    if (phase_ == Phase::Fresh) return kToKernel;
    if (phase_ == Phase::Orphan || chiru_ == nullptr) return -ENOTCONN;
    if ((flags & MSG_OOB) != 0) return -EOPNOTSUPP;
    if ((flags & MSG_ERRQUEUE) != 0) return -EAGAIN;
    Process& process = guard.process();
    ssize_t result = -EAGAIN;
    const auto attempt = [&] {
        if (chiru_ == nullptr) result = phase_ == Phase::Fresh ? kToKernel : -EBADF;
        if (chiru_ == nullptr) return true;
        const auto ask_kernel = [&] {
            const ssize_t got = real().recvmsg(fd, &message, flags | MSG_DONTWAIT);
            result = got >= 0 ? got : -errno;
        };
        kernel_first_ = both_ && !kernel_first_;
        if (kernel_first_) ask_kernel();
        if (result == -EAGAIN) result = take(message, flags);
        if (both_ && !kernel_first_ && result == -EAGAIN) ask_kernel();
        if (result == -EAGAIN && receive_done_) result = 0;
        return result != -EAGAIN;
    };
    if (attempt()) return result;
    process.process();
    if (attempt() || nonblocking_ || (flags & MSG_DONTWAIT) != 0) return result;
    const Sleeper sleeper(*this);
    std::array<pollfd, 1> kernel{{{.fd = fd, .events = POLLIN, .revents = 0}}};
    const int waited = wait_until(process, guard, deadline_of(options_.receive_timeout()),
                                  attempt, std::span(kernel).first(both_ ? 1 : 0));
    return waited == 0 ? result : -waited;
}

// ---- sending -------------------------------------------------------------------------------

int DatagramSocket::target_of(const Endpoint& remote, const msghdr& message,
                              client::DatagramTarget& target) {
    const DatagramOptions& set = datagram_options_;
    const bool group = remote.address.is_multicast();
    if (remote.port == 0) return -EINVAL;
    if (remote.address.is_broadcast() && !set.broadcast) return -EACCES;
    target.remote = remote;
    target.flags = set.fragmenting;
    target.tos = static_cast<std::uint8_t>(set.tos);
    target.ttl = static_cast<std::uint8_t>(group ? set.group_ttl : set.ttl);
    target.segment_bytes = set.segment_bytes;
    if (group) {
        target.interface = set.group_interface;
        target.source = set.group_source;
        if (!set.group_loop) target.flags |= shm::kNoLoop;
    }
    return read_control(message, target);
}

ssize_t DatagramSocket::send(Guard& guard, int fd, const msghdr& message, int flags) {
    if (phase_ == Phase::Orphan) return -ENOTCONN;
    if ((flags & MSG_OOB) != 0) return -EOPNOTSUPP;
    Process& process = guard.process();
    Endpoint remote = chiru_ != nullptr ? chiru_->remote : Endpoint{};
    if (message.msg_name != nullptr) {
        const auto named = endpoint_of(static_cast<const sockaddr*>(message.msg_name),
                                       message.msg_namelen, family_);
        if (!named) return phase_ == Phase::Fresh ? ssize_t{kToKernel} : -named.error();
        remote = *named;
        if (stack_of(remote.address) == Stack::Kernel)
            return phase_ == Phase::Fresh || both_ ? ssize_t{kToKernel} : -ENETUNREACH;
        if (phase_ == Phase::Fresh)
            if (const int error = open_for_sending(fd, true); error != 0) return error;
    } else if (!connected()) {
        return phase_ == Phase::Fresh || both_ ? ssize_t{kToKernel} : -EDESTADDRREQ;
    }
    if (send_done_) return -EPIPE;
    client::DatagramTarget target;
    if (const int error = target_of(remote, message, target); error != 0) return error;
    std::vector<std::span<const std::byte>> pieces;
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < message.msg_iovlen; ++i) {
        pieces.emplace_back(static_cast<const std::byte*>(message.msg_iov[i].iov_base),
                            message.msg_iov[i].iov_len);
        bytes += std::min<std::size_t>(message.msg_iov[i].iov_len, 1u << 20);
    }
    const std::size_t headers = remote.address.is_v4() ? 28 : 48;
    const std::size_t one =
        target.segment_bytes == 0 ? bytes : std::min<std::size_t>(bytes, target.segment_bytes);
    const bool whole = (target.flags & (shm::kNeverFragment | shm::kProbePath)) != 0 ||
                       target.segment_bytes != 0;
    if (whole && chiru_->path_mtu != 0 && one + headers > chiru_->path_mtu)
        return target.segment_bytes != 0 && (target.flags & shm::kNeverFragment) == 0
                   ? -EINVAL : -EMSGSIZE;
    const bool waits = !nonblocking_ && (flags & MSG_DONTWAIT) == 0;
    for (bool looked = false;;) {
        const auto sent = channel_->send_datagram(*chiru_, pieces, target);
        channel_->flush();
        if (sent) return static_cast<ssize_t>(*sent);
        if (sent.error() != EAGAIN) return -sent.error();
        if (!looked) {
            process.process();
            looked = true;
            if (chiru_ == nullptr) return -EBADF;
            continue;
        }
        if (!waits) return -EAGAIN;
        const Sleeper sleeper(*this);
        const int error =
            wait_until(process, guard, deadline_of(options_.send_timeout()), [&] {
                return chiru_ == nullptr || (readiness() & (EPOLLOUT | EPOLLERR)) != 0;
            });
        if (chiru_ == nullptr) return -EBADF;  // another thread closed it
        if (error != 0) return -error;
        looked = false;
    }
}

// ---- names, endings ------------------------------------------------------------------------

int DatagramSocket::name(sockaddr* address, socklen_t* length) const {
    if (phase_ == Phase::Orphan || chiru_ == nullptr) return -ENOTCONN;
    store_endpoint(chiru_->local, family_, address, length);
    return 0;
}

int DatagramSocket::peer(sockaddr* address, socklen_t* length) const {
    if (!connected()) return -ENOTCONN;
    store_endpoint(chiru_->remote, family_, address, length);
    return 0;
}

int DatagramSocket::shutdown(int how) {
    if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR) return -EINVAL;
    if (!connected()) return -ENOTCONN;
    if (how != SHUT_RD) send_done_ = true;
    if (how != SHUT_WR) receive_done_ = true;
    edges(client::kReadable);
    return 0;
}

std::uint32_t DatagramSocket::readiness() const {
    if (phase_ == Phase::Orphan) return EPOLLERR | EPOLLHUP;
    if (chiru_ == nullptr) return 0;
    std::uint32_t ready = 0;
    const std::uint8_t levels = chiru_->readiness();
    if ((levels & client::kReadable) != 0) ready |= EPOLLIN | EPOLLRDNORM;
    if ((levels & client::kWritable) != 0) ready |= EPOLLOUT | EPOLLWRNORM;
    if ((levels & client::kError) != 0) ready |= EPOLLERR;
    if (receive_done_) ready |= EPOLLIN | EPOLLRDNORM | EPOLLRDHUP;
    if (receive_done_ && send_done_) ready |= EPOLLHUP;
    return ready;
}

void DatagramSocket::inherited() {
    if (phase_ == Phase::Fresh) return;
    phase_ = both_ || was_both_ ? Phase::Fresh : Phase::Orphan;
    both_ = was_both_ = false;
    chiru_ = nullptr;
    channel_.reset();
    sleepers_ = 0;
}

void DatagramSocket::last_descriptor_closed() {
    drop_interests();
    if (sleepers_ != 0) Process::get().wake_sleepers();  // their calls end with this
    if (chiru_ != nullptr) {
        chiru_->user = 0;
        channel_->flush();
        channel_->close(*chiru_);
        chiru_ = nullptr;
    }
    channel_.reset();
}

int DatagramSocket::next_bytes(int fd) const {
    if (chiru_ != nullptr && chiru_->rx_first != client::kNone) {
        const auto next = channel_->next_datagram(*chiru_);
        if (next) return static_cast<int>((*next)->bytes);
    }
    int bytes = 0;
    if (both_ && real().ioctl(fd, FIONREAD, &bytes) != 0) return 0;
    return bytes;
}

}  // namespace chiru::posix
