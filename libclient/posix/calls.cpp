// SPDX-License-Identifier: Apache-2.0
//
// The socket and data calls: whose descriptor is it, and if it is ours, what does the socket say.
#include "libclient/posix/calls.hpp"

#include "libclient/no_cancel.hpp"
#include "libclient/posix/datagram.hpp"
#include "libclient/posix/real.hpp"
#include "libclient/posix/socket.hpp"
#include "libclient/posix/tcp_info.hpp"
#include "libclient/posix/transfer.hpp"
#include "libclient/posix/wait.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>

#include <netinet/in.h>
#include <netinet/tcp.h>

namespace chiru::posix {

namespace {

/// Runs `ours(guard, socket)` if chiru has a word in `fd`, with the lock; else `kernels()`. A
/// negative result of `ours` is an errno value; kToKernel sends the call to the kernel after all.
template <class Ours, class Kernels>
auto dispatch(int fd, Ours ours, Kernels kernels) -> decltype(kernels()) {
    if (fd_table.find(fd) == nullptr) [[likely]] return kernels();
    using Answer = decltype(kernels());
    Answer result = kToKernel;
    {
        Guard guard;
        if (!guard) {
            // This library itself, speaking to the daemon; or a signal handler that interrupted
            // it, when a socket may be half changed.
            if (chirus_socket_at(fd) == nullptr) return kernels();
            errno = EAGAIN;
            return -1;
        }
        try {
            if (Socket* socket = socket_at(fd)) result = static_cast<Answer>(ours(guard, *socket));
        } catch (const std::bad_alloc&) {  // not through a C program's frames
            result = -ENOMEM;
        }
    }
    if (result == kToKernel) return kernels();
    if (result >= 0) return result;
    errno = static_cast<int>(-result);
    return -1;
}

/// A call that names no peer, for a UDP socket.
msghdr plain_message(std::span<const iovec> pieces) {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(pieces.data());
    message.msg_iovlen = pieces.size();
    return message;
}

ssize_t receive_or_leave(Guard& guard, int fd, Socket& socket, std::span<const iovec> pieces,
                         int flags) {
    if (DatagramSocket* datagrams = socket.datagrams()) {
        msghdr message = plain_message(pieces);
        return datagrams->receive(guard, fd, message, flags);
    }
    return socket.phase() == Phase::Fresh ? kToKernel : receive(guard, socket, pieces, flags);
}

ssize_t transmit_or_leave(Guard& guard, int fd, Socket& socket, std::span<const iovec> pieces,
                          int flags) {
    if (DatagramSocket* datagrams = socket.datagrams())
        return datagrams->send(guard, fd, plain_message(pieces), flags);
    return socket.phase() == Phase::Fresh ? kToKernel : transmit(guard, socket, pieces, flags);
}

/// dispatch() for what sends: a stream that is over raises SIGPIPE, unless the caller asked not
/// to. UDP never does, and the kernel raises its own.
template <class Ours, class Kernels>
ssize_t dispatch_sending(int fd, int flags, Ours ours, Kernels kernels) {
    bool broken = false;
    const ssize_t sent = dispatch(
        fd,
        [&](Guard& guard, Socket& socket) -> ssize_t {
            const bool stream = socket.datagrams() == nullptr;
            const ssize_t result = ours(guard, socket);  // the socket may be gone after it
            broken = stream && result == -EPIPE && (flags & MSG_NOSIGNAL) == 0;
            return result;
        },
        kernels);
    if (!broken) return sent;
    raise_sigpipe();
    errno = EPIPE;
    return sent;
}

iovec piece_of(const void* buffer, std::size_t bytes) {
    return {.iov_base = const_cast<void*>(buffer), .iov_len = bytes};
}

bool bad_count(int count) { return count < 0 || count > IOV_MAX; }

int get_status(Socket& socket, int level, int name, void* value, socklen_t* length) {
    client::Socket* chiru = socket.chiru();
    if (level == IPPROTO_TCP && chiru != nullptr && socket.phase() == Phase::Live) {
        if (name == TCP_INFO) return get_tcp_info(socket, value, length);
        if (name == TCP_CONGESTION) return get_congestion(socket, value, length);
        if (name == TCP_MAXSEG) return get_max_segment(socket, value, length);
    }
    const bool wants_mtu = (level == IPPROTO_IP && name == IP_MTU) ||
                           (level == IPPROTO_IPV6 && name == IPV6_MTU);
    if (wants_mtu) {
        if (chiru == nullptr || socket.phase() != Phase::Live) return -ENOTCONN;
        return get_path_mtu(socket, value, length);
    }
    int status = 0;
    if (level != SOL_SOCKET) return socket.options().get(level, name, value, length);
    switch (name) {
        case SO_ERROR:
            status = chiru == nullptr ? 0 : socket.channel().take_error(*chiru);
            break;
        case SO_TYPE: status = SOCK_STREAM; break;
        case SO_DOMAIN: status = socket.family(); break;
        case SO_PROTOCOL: status = IPPROTO_TCP; break;
        case SO_ACCEPTCONN:
            status = socket.phase() == Phase::Listening || socket.is_inherited() ? 1 : 0;
            break;
        default: return socket.options().get(level, name, value, length);
    }
    return store_option(&status, sizeof status, value, length);
}

}  // namespace

// ---- sockets -------------------------------------------------------------------------------

void start() { static_cast<void>(Process::get()); }

void finish() {
    // Not for a child that shares our memory, as after vfork(): the program goes on.
    if (!Process::get().is_mine()) return;
    Guard guard;
    if (guard) guard.process().say_farewell();
}

int socket(int domain, int type, int protocol) {
    const int fd = real().socket(domain, type, protocol);
    if (fd < 0 || (domain != AF_INET && domain != AF_INET6)) return fd;
    const int kind = type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC);
    const bool stream = kind == SOCK_STREAM && (protocol == 0 || protocol == IPPROTO_TCP);
    const bool datagrams = kind == SOCK_DGRAM && (protocol == 0 || protocol == IPPROTO_UDP);
    if (!stream && !datagrams) return fd;
    Guard guard;
    if (!guard) return fd;
    const bool nonblocking = (type & SOCK_NONBLOCK) != 0;
    Socket* made = stream ? new (std::nothrow) Socket(domain, nonblocking)
                          : new (std::nothrow) DatagramSocket(domain, nonblocking);
    if (made != nullptr && !fd_table.install(fd, *made)) delete made;  // the kernel's, then
    return fd;
}

int bind(int fd, const sockaddr* address, socklen_t length) {
    return dispatch(
        fd, [&](Guard&, Socket& socket) { return socket.bind(fd, address, length); },
        [&] { return real().bind(fd, address, length); });
}

int listen(int fd, int backlog) {
    return dispatch(
        fd, [&](Guard&, Socket& socket) { return socket.listen(fd, backlog); },
        [&] { return real().listen(fd, backlog); });
}

int connect(int fd, const sockaddr* address, socklen_t length) {
    return dispatch(
        fd,
        [&](Guard& guard, Socket& socket) { return socket.connect(guard, fd, address, length); },
        [&] { return real().connect(fd, address, length); });
}

int accept4(int fd, sockaddr* address, socklen_t* length, int flags) {
    return dispatch(
        fd,
        [&](Guard& guard, Socket& socket) {
            if (socket.phase() == Phase::Fresh) return kToKernel;
            return socket.accept(guard, fd, address, length, flags);
        },
        [&] { return real().accept4(fd, address, length, flags); });
}

int shutdown(int fd, int how) {
    return dispatch(
        fd,
        [&](Guard&, Socket& socket) {
            return socket.phase() == Phase::Fresh ? kToKernel : socket.shutdown(how);
        },
        [&] { return real().shutdown(fd, how); });
}

int getsockname(int fd, sockaddr* address, socklen_t* length) {
    return dispatch(
        fd,
        [&](Guard&, Socket& socket) {
            if (socket.in_kernel()) return kToKernel;
            if (address == nullptr || length == nullptr) return -EFAULT;
            return socket.name(address, length);
        },
        [&] { return real().getsockname(fd, address, length); });
}

int getpeername(int fd, sockaddr* address, socklen_t* length) {
    return dispatch(
        fd,
        [&](Guard&, Socket& socket) {
            if (socket.phase() == Phase::Fresh) return kToKernel;
            if (address == nullptr || length == nullptr) return -EFAULT;
            return socket.peer(address, length);
        },
        [&] { return real().getpeername(fd, address, length); });
}

int getsockopt(int fd, int level, int name, void* value, socklen_t* length) {
    return dispatch(
        fd,
        [&](Guard& guard, Socket& socket) {
            if (socket.phase() == Phase::Fresh) return kToKernel;
            guard.process().process();
            if (DatagramSocket* datagrams = socket.datagrams())
                return datagrams->get_option(fd, level, name, value, length);
            return get_status(socket, level, name, value, length);
        },
        [&] { return real().getsockopt(fd, level, name, value, length); });
}

int setsockopt(int fd, int level, int name, const void* value, socklen_t length) {
    return dispatch(
        fd,
        [&](Guard&, Socket& socket) {
            // Its completions would never come once the socket is chiru's: who is refused copies.
            if (level == SOL_SOCKET && name == SO_ZEROCOPY && Process::get().attach() != nullptr)
                return -EOPNOTSUPP;
            if (DatagramSocket* datagrams = socket.datagrams())
                return datagrams->set_option(fd, level, name, value, length);
            if (socket.in_kernel()) {
                if (real().setsockopt(fd, level, name, value, length) != 0) return -errno;
                if (socket.phase() == Phase::Fresh) {
                    socket.options().remember(level, name, value, length);
                    return 0;
                }
            }
            const bool open = socket.chiru() != nullptr;
            const int result = socket.options().set(open ? &socket.channel() : nullptr,
                                                    socket.chiru(), level, name, value, length);
            const bool told = name == TCP_DEFER_ACCEPT || name == TCP_MAXSEG ||
                              name == TCP_FASTOPEN;
            if (result == 0 && level == IPPROTO_TCP && told) socket.option_changed();
            return result;
        },
        [&] { return real().setsockopt(fd, level, name, value, length); });
}

// ---- receiving -----------------------------------------------------------------------------

ssize_t read(int fd, void* buffer, std::size_t bytes) {
    return dispatch(
        fd,
        [&](Guard& guard, Socket& socket) {
            const iovec piece = piece_of(buffer, bytes);
            if (bytes == 0) return ssize_t{kToKernel};  // which answers 0, whatever is there
            return receive_or_leave(guard, fd, socket, {&piece, 1}, 0);
        },
        [&] { return real().read(fd, buffer, bytes); });
}

ssize_t readv(int fd, const iovec* pieces, int count) {
    return dispatch(
        fd,
        [&](Guard& guard, Socket& socket) -> ssize_t {
            if (bad_count(count)) return -EINVAL;
            const std::span asked(pieces, static_cast<std::size_t>(count));
            const auto is_empty = [](const iovec& piece) { return piece.iov_len == 0; };
            if (std::ranges::all_of(asked, is_empty)) return kToKernel;  // as read() of none
            return receive_or_leave(guard, fd, socket, asked, 0);
        },
        [&] { return real().readv(fd, pieces, count); });
}

ssize_t recv(int fd, void* buffer, std::size_t bytes, int flags) {
    return dispatch(
        fd,
        [&](Guard& guard, Socket& socket) {
            const iovec piece = piece_of(buffer, bytes);
            return receive_or_leave(guard, fd, socket, {&piece, 1}, flags);
        },
        [&] { return real().recv(fd, buffer, bytes, flags); });
}

ssize_t recvfrom(int fd, void* buffer, std::size_t bytes, int flags, sockaddr* from,
                 socklen_t* length) {
    return dispatch(
        fd,
        [&](Guard& guard, Socket& socket) {
            const iovec piece = piece_of(buffer, bytes);
            if (DatagramSocket* datagrams = socket.datagrams()) {
                msghdr message = plain_message({&piece, 1});
                if (from != nullptr && length == nullptr) return ssize_t{-EFAULT};
                message.msg_name = from;
                message.msg_namelen = from == nullptr ? 0 : *length;
                const ssize_t got = datagrams->receive(guard, fd, message, flags);
                if (got >= 0 && from != nullptr) *length = message.msg_namelen;
                return got;
            }
            const ssize_t got = receive_or_leave(guard, fd, socket, {&piece, 1}, flags);
            if (got >= 0 && from != nullptr && length != nullptr) *length = 0;  // a stream has none
            return got;
        },
        [&] { return real().recvfrom(fd, buffer, bytes, flags, from, length); });
}

ssize_t recvmsg(int fd, msghdr* message, int flags) {
    return dispatch(
        fd,
        [&](Guard& guard, Socket& socket) -> ssize_t {
            if (socket.phase() == Phase::Fresh) return kToKernel;
            if (message == nullptr) return -EFAULT;
            if (message->msg_iovlen > IOV_MAX) return -EMSGSIZE;
            if (DatagramSocket* datagrams = socket.datagrams())
                return datagrams->receive(guard, fd, *message, flags);
            const ssize_t got =
                receive(guard, socket, {message->msg_iov, message->msg_iovlen}, flags);
            if (got < 0) return got;
            message->msg_namelen = 0;
            message->msg_controllen = 0;
            message->msg_flags = 0;
            return got;
        },
        [&] { return real().recvmsg(fd, message, flags); });
}

namespace {

/// Nobody's but the kernel's as yet: it takes whole batches.
bool is_kernels(int fd) {
    if (fd_table.find(fd) == nullptr) return true;
    const Guard guard;
    return guard && chirus_socket_at(fd) == nullptr;
}

bool is_datagrams(int fd) {
    const Guard guard;
    Socket* socket = guard ? socket_at(fd) : nullptr;
    return socket != nullptr && socket->datagrams() != nullptr;
}

}  // namespace

int recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout) {
    if (is_kernels(fd)) return real().recvmmsg(fd, messages, count, flags, timeout);
    const auto deadline = Deadline::in_timespec(timeout);
    if (!deadline) {
        errno = EINVAL;
        return -1;
    }
    unsigned done = 0;
    while (done < count && (done == 0 || !deadline->passed())) {
        const bool first = done == 0;
        const int how = (flags & ~MSG_WAITFORONE) |
                        (!first && (flags & MSG_WAITFORONE) != 0 ? MSG_DONTWAIT : 0);
        const ssize_t got = posix::recvmsg(fd, &messages[done].msg_hdr, how);
        if (got < 0) return first ? -1 : static_cast<int>(done);
        messages[done++].msg_len = static_cast<unsigned>(got);
        if (got == 0 && !is_datagrams(fd)) break;
    }
    return static_cast<int>(done);
}

// ---- sending -------------------------------------------------------------------------------

ssize_t send(int fd, const void* buffer, std::size_t bytes, int flags) {
    return dispatch_sending(
        fd, flags,
        [&](Guard& guard, Socket& socket) {
            const iovec piece = piece_of(buffer, bytes);
            return transmit_or_leave(guard, fd, socket, {&piece, 1}, flags);
        },
        [&] { return real().send(fd, buffer, bytes, flags); });
}

ssize_t write(int fd, const void* buffer, std::size_t bytes) {
    if (fd_table.find(fd) == nullptr) [[likely]] return real().write(fd, buffer, bytes);
    return dispatch_sending(
        fd, 0,
        [&](Guard& guard, Socket& socket) {
            const iovec piece = piece_of(buffer, bytes);
            return transmit_or_leave(guard, fd, socket, {&piece, 1}, 0);
        },
        [&] { return real().write(fd, buffer, bytes); });
}

ssize_t writev(int fd, const iovec* pieces, int count) {
    return dispatch_sending(
        fd, 0,
        [&](Guard& guard, Socket& socket) -> ssize_t {
            if (bad_count(count)) return -EINVAL;
            return transmit_or_leave(guard, fd, socket,
                                     {pieces, static_cast<std::size_t>(count)}, 0);
        },
        [&] { return real().writev(fd, pieces, count); });
}

namespace {

/// A stream's message. With MSG_FASTOPEN its address is connected to first; else it is ignored.
ssize_t transmit_to(Guard& guard, int fd, Socket& socket, const msghdr& message, int flags) {
    if ((flags & MSG_FASTOPEN) != 0) {
        const auto* to = static_cast<const sockaddr*>(message.msg_name);
        const int opened = socket.open_fast(guard, fd, to, message.msg_namelen,
                                            (flags & MSG_DONTWAIT) == 0);
        if (opened != 0) return opened;
        flags &= ~MSG_FASTOPEN;
    }
    return transmit_or_leave(guard, fd, socket, {message.msg_iov, message.msg_iovlen}, flags);
}

}  // namespace

ssize_t sendto(int fd, const void* buffer, std::size_t bytes, int flags, const sockaddr* to,
               socklen_t length) {
    return dispatch_sending(
        fd, flags,
        [&](Guard& guard, Socket& socket) {
            const iovec piece = piece_of(buffer, bytes);
            msghdr message = plain_message({&piece, 1});
            message.msg_name = const_cast<sockaddr*>(to);
            message.msg_namelen = to == nullptr ? 0 : length;
            if (socket.datagrams() == nullptr)
                return transmit_to(guard, fd, socket, message, flags);
            return socket.datagrams()->send(guard, fd, message, flags);
        },
        [&] { return real().sendto(fd, buffer, bytes, flags, to, length); });
}

ssize_t sendmsg(int fd, const msghdr* message, int flags) {
    return dispatch_sending(
        fd, flags,
        [&](Guard& guard, Socket& socket) -> ssize_t {
            if (message == nullptr) return -EFAULT;
            if (message->msg_iovlen > IOV_MAX) return -EMSGSIZE;
            if (DatagramSocket* datagrams = socket.datagrams())
                return datagrams->send(guard, fd, *message, flags);
            const bool opens = (flags & MSG_FASTOPEN) != 0;
            if (socket.phase() == Phase::Fresh && !opens) return kToKernel;
            if (message->msg_controllen != 0) return -EINVAL;
            return transmit_to(guard, fd, socket, *message, flags);
        },
        [&] { return real().sendmsg(fd, message, flags); });
}

int sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
    if (fd_table.find(fd) == nullptr) return real().sendmmsg(fd, messages, count, flags);
    unsigned done = 0;
    for (; done < count; ++done) {
        const ssize_t sent = posix::sendmsg(fd, &messages[done].msg_hdr, flags);
        if (sent < 0) return done == 0 ? -1 : static_cast<int>(done);
        messages[done].msg_len = static_cast<unsigned>(sent);
    }
    return static_cast<int>(done);
}

ssize_t sendfile(int out, int in, off_t* offset, std::size_t bytes) {
    return dispatch_sending(
        out, 0,
        [&](Guard& guard, Socket& socket) -> ssize_t {
            if (socket.phase() == Phase::Fresh) return kToKernel;
            if (socket.datagrams() != nullptr) return -EINVAL;
            const client::NoCancel no_cancel;
            return transmit_file(guard, socket, in, offset, bytes);
        },
        [&] { return real().sendfile(out, in, offset, bytes); });
}

// The C library's own would write past us.
int vdprintf(int fd, const char* format, std::va_list arguments) {
    if (fd_table.find(fd) == nullptr) return real().vdprintf(fd, format, arguments);
    char* made = nullptr;
    const int length = ::vasprintf(&made, format, arguments);
    if (length < 0) return -1;
    const std::unique_ptr<char, void (*)(void*)> text(made, std::free);
    const auto bytes = static_cast<std::size_t>(length);
    for (std::size_t done = 0; done < bytes;) {
        const ssize_t sent = write(fd, made + done, bytes - done);
        if (sent < 0) return -1;
        done += static_cast<std::size_t>(sent);
    }
    return length;
}

ssize_t splice(int in, off64_t* in_offset, int out, off64_t* out_offset, std::size_t bytes,
               unsigned flags) {
    bool ours = false;
    if (fd_table.find(in) != nullptr || fd_table.find(out) != nullptr) {
        const Guard guard;
        ours = guard && (chirus_socket_at(in) != nullptr || chirus_socket_at(out) != nullptr);
    }
    if (!ours) return real().splice(in, in_offset, out, out_offset, bytes, flags);
    errno = EINVAL;  // "the file system does not support splicing": callers then copy
    return -1;
}

// ---- epoll ---------------------------------------------------------------------------------

namespace {

Epoll* epoll_at(int fd) {
    Object* object = fd_table.find(fd);
    return object != nullptr && object->kind() == Object::Kind::Epoll
               ? static_cast<Epoll*>(object)
               : nullptr;
}

int remember_epoll(int fd) {
    if (fd < 0) return fd;
    const Guard guard;
    if (!guard) return fd;
    auto* made = new (std::nothrow) Epoll(fd);
    if (made != nullptr && !fd_table.install(fd, *made)) delete made;
    return fd;
}

/// kToKernel if the set is not in the table.
int wait_mixed(int epoll_fd, epoll_event* events, int room, const Deadline& deadline,
               const sigset_t* mask) {
    if (fd_table.find(epoll_fd) == nullptr || room <= 0 || events == nullptr) return kToKernel;
    int result = 0;
    {
        Guard guard;
        if (!guard) return kToKernel;
        Epoll* epoll = epoll_at(epoll_fd);
        if (epoll == nullptr) return kToKernel;
        result = epoll->active()
                     ? epoll->wait(guard, epoll_fd, events, room, deadline, mask)
                     : epoll->wait_for_kernel(guard, epoll_fd, events, room, deadline, mask);
    }
    if (result >= 0) return result;
    errno = -result;
    return -1;
}

}  // namespace

int epoll_create1(int flags) { return remember_epoll(real().epoll_create1(flags)); }
int epoll_create(int size) { return remember_epoll(real().epoll_create(size)); }

int epoll_ctl(int epoll_fd, int operation, int fd, epoll_event* event) {
    if (fd_table.find(epoll_fd) == nullptr)
        return real().epoll_ctl(epoll_fd, operation, fd, event);
    int result = kToKernel;
    {
        Guard guard;
        Epoll* epoll = guard ? epoll_at(epoll_fd) : nullptr;
        Socket* socket = epoll != nullptr ? socket_at(fd) : nullptr;
        if (socket != nullptr) result = epoll->control(epoll_fd, operation, fd, *socket, event);
        else if (epoll != nullptr && operation == EPOLL_CTL_ADD) epoll->kernel_descriptor_added();
    }
    if (result == kToKernel) return real().epoll_ctl(epoll_fd, operation, fd, event);
    if (result == 0) return 0;
    errno = -result;
    return -1;
}

int epoll_pwait(int epoll_fd, epoll_event* events, int room, int milliseconds,
                const sigset_t* mask) {
    const int result =
        fd_table.find(epoll_fd) == nullptr
            ? kToKernel
            : wait_mixed(epoll_fd, events, room, Deadline::in_milliseconds(milliseconds), mask);
    return result == kToKernel ? real().epoll_pwait(epoll_fd, events, room, milliseconds, mask)
                               : result;
}

int epoll_wait(int epoll_fd, epoll_event* events, int room, int milliseconds) {
    return posix::epoll_pwait(epoll_fd, events, room, milliseconds, nullptr);
}

int epoll_pwait2(int epoll_fd, epoll_event* events, int room, const timespec* timeout,
                 const sigset_t* mask) {
    const auto deadline = Deadline::in_timespec(timeout);
    const int result =
        deadline ? wait_mixed(epoll_fd, events, room, *deadline, mask) : kToKernel;
    return result == kToKernel ? real().epoll_pwait2(epoll_fd, events, room, timeout, mask)
                               : result;
}

}  // namespace chiru::posix
