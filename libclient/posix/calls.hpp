// SPDX-License-Identifier: Apache-2.0
//
// The calls of POSIX and Linux with chiru behind them: same names, arguments, results and errno
// as in the C library. What is not chiru's goes to the kernel unchanged. The preload library is
// these functions under the C library's symbols, one line each.
#pragma once

#include <climits>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

namespace chiru::posix {

/// Answered by the insides to the calls below: let the kernel do it, without our lock.
inline constexpr int kToKernel = INT_MIN;

/// Notes the settings. Without it they are noted at the first socket.
void start();
/// The program ends in order: its connections are to be closed, not reset. They still work after
/// this, until the process is gone.
void finish();

int socket(int domain, int type, int protocol);
int bind(int fd, const sockaddr* address, socklen_t length);
int listen(int fd, int backlog);
int connect(int fd, const sockaddr* address, socklen_t length);
int accept4(int fd, sockaddr* address, socklen_t* length, int flags);
int shutdown(int fd, int how);
int getsockname(int fd, sockaddr* address, socklen_t* length);
int getpeername(int fd, sockaddr* address, socklen_t* length);
int getsockopt(int fd, int level, int name, void* value, socklen_t* length);
int setsockopt(int fd, int level, int name, const void* value, socklen_t length);

ssize_t read(int fd, void* buffer, std::size_t bytes);
ssize_t readv(int fd, const iovec* pieces, int count);
ssize_t recv(int fd, void* buffer, std::size_t bytes, int flags);
ssize_t recvfrom(int fd, void* buffer, std::size_t bytes, int flags, sockaddr* from,
                 socklen_t* length);
ssize_t recvmsg(int fd, msghdr* message, int flags);
int recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout);

ssize_t write(int fd, const void* buffer, std::size_t bytes);
ssize_t writev(int fd, const iovec* pieces, int count);
ssize_t send(int fd, const void* buffer, std::size_t bytes, int flags);
ssize_t sendto(int fd, const void* buffer, std::size_t bytes, int flags, const sockaddr* to,
               socklen_t length);
ssize_t sendmsg(int fd, const msghdr* message, int flags);
int sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags);
ssize_t sendfile(int out, int in, off_t* offset, std::size_t bytes);
int vdprintf(int fd, const char* format, std::va_list arguments);
ssize_t splice(int in, off64_t* in_offset, int out, off64_t* out_offset, std::size_t bytes,
               unsigned flags);

int close(int fd);
int fclose(std::FILE* file);
int close_range(unsigned first, unsigned last, int flags);
void closefrom(int first);
int dup(int fd);
int dup2(int fd, int to);
int dup3(int fd, int to, int flags);
/// `argument` as the kernel takes it: an integer or a pointer in a long.
int fcntl(int fd, int command, long argument);
int ioctl(int fd, unsigned long request, void* argument);

int epoll_create1(int flags);
int epoll_create(int size);
int epoll_ctl(int epoll_fd, int operation, int fd, epoll_event* event);
int epoll_wait(int epoll_fd, epoll_event* events, int room, int milliseconds);
int epoll_pwait(int epoll_fd, epoll_event* events, int room, int milliseconds,
                const sigset_t* mask);
int epoll_pwait2(int epoll_fd, epoll_event* events, int room, const timespec* timeout,
                 const sigset_t* mask);
int poll(pollfd* fds, nfds_t count, int milliseconds);
int ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask);
int select(int count, fd_set* readable, fd_set* writable, fd_set* exceptional, timeval* timeout);
int pselect(int count, fd_set* readable, fd_set* writable, fd_set* exceptional,
            const timespec* timeout, const sigset_t* mask);

}  // namespace chiru::posix
