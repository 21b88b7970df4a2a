// SPDX-License-Identifier: Apache-2.0
//
// What happens to descriptors as such: closing, duplicating, modes. The table follows the
// kernel's, and this library's own descriptors look closed to the program.
//
// A child after vfork() shares our memory and has its own descriptors: what it closes or
// duplicates must not touch the table of the parent, which sleeps meanwhile.
#include "libclient/posix/calls.hpp"
#include "libclient/posix/datagram.hpp"
#include "libclient/posix/real.hpp"
#include "libclient/posix/socket.hpp"

#include <algorithm>
#include <cerrno>

#include <linux/close_range.h>
#include <linux/sockios.h>

namespace chiru::posix {

namespace {

bool is_internal(int fd) {
    const Object* object = fd_table.find(fd);
    return object != nullptr && object->kind() == Object::Kind::Internal;
}

/// The kernel made `copy` of `fd`; the table follows. (Lock.)
int follow(int fd, int copy) {
    if (copy < 0) return copy;
    Object* object = fd_table.find(fd);
    if (object == nullptr) {
        fd_table.remove(copy);
        return copy;
    }
    if (fd_table.install(copy, *object)) return copy;
    real().close(copy);
    errno = EMFILE;
    return -1;
}

int refuse(int error) {
    errno = error;
    return -1;
}

}  // namespace

int close(int fd) {
    if (fd_table.find(fd) == nullptr) [[likely]] return real().close(fd);
    {
        Guard guard;
        if (!guard) {
            // This library itself, ending one of its own; or a signal handler that interrupted
            // it, which cannot close a socket now.
            if (!is_internal(fd)) return refuse(EINTR);
            fd_table.remove(fd);
            return real().close(fd);
        }
        if (guard.process().is_mine()) {
            if (is_internal(fd)) return refuse(EBADF);
            if (Socket* socket = socket_at(fd)) socket->linger(guard);
            fd_table.remove(fd);
        }
    }
    return real().close(fd);
}

/// The number is free afterwards, though libc closes it by itself. What stdio still holds goes to
/// the placeholder, as all that stdio writes to our sockets.
int fclose(std::FILE* file) {
    const int fd = file == nullptr ? -1 : ::fileno(file);
    if (fd >= 0 && fd_table.find(fd) != nullptr) {
        Guard guard;
        if (guard && guard.process().is_mine() && !is_internal(fd)) {
            if (Socket* socket = socket_at(fd)) socket->linger(guard);
            fd_table.remove(fd);
        }
    }
    return real().fclose(file);
}

int close_range(unsigned first, unsigned last, int flags) {
    const auto modes = static_cast<unsigned>(flags);
    if (first > last || (modes & CLOSE_RANGE_CLOEXEC) != 0)
        return real().close_range(first, last, flags);
    Guard guard;
    if (!guard || !guard.process().is_mine() || (modes & CLOSE_RANGE_UNSHARE) != 0)
        return real().close_range(first, last, flags);
    const int from = first > INT_MAX ? INT_MAX : static_cast<int>(first);
    const int to = static_cast<int>(std::min<unsigned>(last, FdTable::kEnd - 1));
    unsigned next = first;  // closed up to here
    int result = 0;
    fd_table.for_each(from, to, [&](int fd, Object& object) {
        if (object.kind() != Object::Kind::Internal) {
            fd_table.remove(fd);
            return;
        }
        const auto kept = static_cast<unsigned>(fd);
        if (kept > next) result |= real().close_range(next, kept - 1, flags);
        next = kept + 1;
    });
    if (next <= last) result |= real().close_range(next, last, flags);
    return result;
}

void closefrom(int first) {
    static_cast<void>(close_range(static_cast<unsigned>(std::max(first, 0)), ~0U, 0));
}

int dup(int fd) {
    if (fd_table.find(fd) == nullptr) [[likely]] return real().dup(fd);
    Guard guard;
    if (!guard || !guard.process().is_mine()) return real().dup(fd);
    return is_internal(fd) ? refuse(EBADF) : follow(fd, real().dup(fd));
}

namespace {

/// The program chose where messages go.
int noting_stderr(int to, int result) {
    if (to != STDERR_FILENO || result < 0) return result;
    const Guard guard;
    if (guard && Process::get().is_mine()) Process::get().note_stderr();
    return result;
}

}  // namespace

int dup3(int fd, int to, int flags) {
    if (to == STDERR_FILENO && fd_table.find(fd) == nullptr && fd_table.find(to) == nullptr)
        return noting_stderr(to, real().dup3(fd, to, flags));
    if (fd_table.find(fd) == nullptr && fd_table.find(to) == nullptr) [[likely]]
        return real().dup3(fd, to, flags);
    Guard guard;
    if (!guard || !guard.process().is_mine()) return real().dup3(fd, to, flags);
    if (is_internal(fd)) return refuse(EBADF);
    if (is_internal(to)) return refuse(EBUSY);
    return follow(fd, real().dup3(fd, to, flags));
}

int dup2(int fd, int to) {
    if (fd == to) return real().dup2(fd, to);
    if (to == STDERR_FILENO) return posix::dup3(fd, to, 0);
    if (fd_table.find(fd) == nullptr && fd_table.find(to) == nullptr) [[likely]]
        return real().dup2(fd, to);
    return posix::dup3(fd, to, 0);
}

int fcntl(int fd, int command, long argument) {
    if (fd_table.find(fd) == nullptr) [[likely]] return real().fcntl(fd, command, argument);
    Guard guard;
    if (!guard || !guard.process().is_mine()) return real().fcntl(fd, command, argument);
    if (command == F_DUPFD || command == F_DUPFD_CLOEXEC)
        return is_internal(fd) ? refuse(EBADF) : follow(fd, real().fcntl(fd, command, argument));
    Socket* socket = socket_at(fd);
    if (socket == nullptr) return real().fcntl(fd, command, argument);
    if (command == F_SETFL) {
        socket->set_nonblocking(fd, (argument & O_NONBLOCK) != 0);
        return socket->phase() == Phase::Fresh ? real().fcntl(fd, command, argument) : 0;
    }
    const int result = real().fcntl(fd, command, argument);
    if (command != F_GETFL || result < 0) return result;
    // Accepted sockets share one open file of the kernel's; their modes are ours to keep.
    return (result & ~O_NONBLOCK) | (socket->nonblocking() ? O_NONBLOCK : 0);
}

int ioctl(int fd, unsigned long request, void* argument) {
    if (fd_table.find(fd) == nullptr) [[likely]] return real().ioctl(fd, request, argument);
    Guard guard;
    Socket* socket = guard && guard.process().is_mine() ? socket_at(fd) : nullptr;
    if (socket == nullptr) return real().ioctl(fd, request, argument);
    auto* number = static_cast<int*>(argument);
    if (request == FIONBIO) {
        if (number == nullptr) return refuse(EFAULT);
        socket->set_nonblocking(fd, *number != 0);
        return 0;
    }
    if (socket->phase() == Phase::Fresh) return real().ioctl(fd, request, argument);
    if (request == FIOASYNC) return refuse(EINVAL);
    if (request == SIOCATMARK && number != nullptr && socket->datagrams() == nullptr) {
        *number = 0;  // urgent text is in-band, and has no mark
        return 0;
    }
    if (request == SIOCATMARK) return refuse(number == nullptr ? EFAULT : EINVAL);
    if (request != SIOCINQ && request != SIOCOUTQ && request != SIOCOUTQNSD)
        return real().ioctl(fd, request, argument);
    if (number == nullptr) return refuse(EFAULT);
    if (socket->phase() != Phase::Live || socket->chiru() == nullptr) return refuse(EINVAL);
    guard.process().process();
    if (socket->chiru() == nullptr) return refuse(EBADF);
    if (request == SIOCINQ && socket->datagrams() != nullptr) {
        *number = socket->datagrams()->next_bytes(fd);
        return 0;
    }
    if (request == SIOCOUTQNSD) {  // of TCP alone
        const auto info = socket->channel().info(*socket->chiru());
        *number = info ? static_cast<int>(info->unsent_bytes()) : 0;
        return 0;
    }
    *number = static_cast<int>(request == SIOCINQ ? socket->chiru()->unread_bytes()
                                                  : socket->chiru()->unsent_bytes());
    return 0;
}

}  // namespace chiru::posix
