// SPDX-License-Identifier: Apache-2.0
//
// libchiru_preload.so: the C library's symbols, one line each, over libclient/posix.
//
// The fortified names (__read_chk and its kin) are what programs built with _FORTIFY_SOURCE call.
// They check a buffer's size, known to the compiler, before the call; a call that would overflow
// goes to the C library, which ends the program as it always does.
#include "libclient/posix/calls.hpp"
#include "libclient/posix/real.hpp"

#include <cstdarg>

#include <cstdlib>

#include <dlfcn.h>
#include <sys/syscall.h>

namespace posix = chiru::posix;

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int socket(int d, int t, int p) noexcept { return posix::socket(d, t, p); }
EXPORT int bind(int f, const sockaddr* a, socklen_t n) noexcept { return posix::bind(f, a, n); }
EXPORT int listen(int f, int n) noexcept { return posix::listen(f, n); }
EXPORT int connect(int f, const sockaddr* a, socklen_t n) { return posix::connect(f, a, n); }
EXPORT int accept(int f, sockaddr* a, socklen_t* n) { return posix::accept4(f, a, n, 0); }
EXPORT int accept4(int f, sockaddr* a, socklen_t* n, int m) { return posix::accept4(f, a, n, m); }
EXPORT int shutdown(int f, int how) noexcept { return posix::shutdown(f, how); }
EXPORT int getsockname(int f, sockaddr* a, socklen_t* n) noexcept {
    return posix::getsockname(f, a, n);
}
EXPORT int getpeername(int f, sockaddr* a, socklen_t* n) noexcept {
    return posix::getpeername(f, a, n);
}
EXPORT int getsockopt(int f, int l, int o, void* v, socklen_t* n) noexcept {
    return posix::getsockopt(f, l, o, v, n);
}
EXPORT int setsockopt(int f, int l, int o, const void* v, socklen_t n) noexcept {
    return posix::setsockopt(f, l, o, v, n);
}

EXPORT ssize_t read(int f, void* b, size_t n) { return posix::read(f, b, n); }
EXPORT ssize_t readv(int f, const iovec* v, int n) { return posix::readv(f, v, n); }
EXPORT ssize_t recv(int f, void* b, size_t n, int m) { return posix::recv(f, b, n, m); }
EXPORT ssize_t recvfrom(int f, void* b, size_t n, int m, sockaddr* a, socklen_t* l) {
    return posix::recvfrom(f, b, n, m, a, l);
}
EXPORT ssize_t recvmsg(int f, msghdr* h, int m) { return posix::recvmsg(f, h, m); }
EXPORT int recvmmsg(int f, mmsghdr* h, unsigned n, int m, timespec* t) {
    return posix::recvmmsg(f, h, n, m, t);
}

EXPORT ssize_t write(int f, const void* b, size_t n) { return posix::write(f, b, n); }
EXPORT ssize_t writev(int f, const iovec* v, int n) { return posix::writev(f, v, n); }
EXPORT ssize_t send(int f, const void* b, size_t n, int m) { return posix::send(f, b, n, m); }
EXPORT ssize_t sendto(int f, const void* b, size_t n, int m, const sockaddr* a, socklen_t l) {
    return posix::sendto(f, b, n, m, a, l);
}
EXPORT ssize_t sendmsg(int f, const msghdr* h, int m) { return posix::sendmsg(f, h, m); }
EXPORT int sendmmsg(int f, mmsghdr* h, unsigned n, int m) { return posix::sendmmsg(f, h, n, m); }
EXPORT ssize_t sendfile(int o, int i, off_t* p, size_t n) noexcept {
    return posix::sendfile(o, i, p, n);
}
EXPORT ssize_t sendfile64(int o, int i, off64_t* p, size_t n) noexcept {
    return posix::sendfile(o, i, p, n);
}
EXPORT ssize_t splice(int i, off64_t* p, int o, off64_t* q, size_t n, unsigned m) {
    return posix::splice(i, p, o, q, n, m);
}

EXPORT int vdprintf(int f, const char* t, std::va_list a) { return posix::vdprintf(f, t, a); }
EXPORT int dprintf(int f, const char* t, ...) {
    std::va_list arguments;
    va_start(arguments, t);
    const int result = posix::vdprintf(f, t, arguments);
    va_end(arguments);
    return result;
}
EXPORT int sockatmark(int f) noexcept {
    int at_mark = 0;
    return posix::ioctl(f, SIOCATMARK, &at_mark) < 0 ? -1 : at_mark;
}

EXPORT int close(int f) { return posix::close(f); }
EXPORT int fclose(FILE* f) { return posix::fclose(f); }
EXPORT int close_range(unsigned a, unsigned b, int m) noexcept {
    return posix::close_range(a, b, m);
}
EXPORT void closefrom(int f) noexcept { posix::closefrom(f); }
EXPORT int dup(int f) noexcept { return posix::dup(f); }
EXPORT int dup2(int f, int t) noexcept { return posix::dup2(f, t); }
EXPORT int dup3(int f, int t, int m) noexcept { return posix::dup3(f, t, m); }

EXPORT int fcntl(int f, int command, ...) {
    std::va_list arguments;
    va_start(arguments, command);
    const long argument = va_arg(arguments, long);  // as the kernel takes it, there or not
    va_end(arguments);
    return posix::fcntl(f, command, argument);
}
EXPORT int fcntl64(int f, int command, ...) {
    std::va_list arguments;
    va_start(arguments, command);
    const long argument = va_arg(arguments, long);
    va_end(arguments);
    return posix::fcntl(f, command, argument);
}
EXPORT int ioctl(int f, unsigned long request, ...) noexcept {
    std::va_list arguments;
    va_start(arguments, request);
    void* argument = va_arg(arguments, void*);
    va_end(arguments);
    return posix::ioctl(f, request, argument);
}

EXPORT int epoll_create(int n) noexcept { return posix::epoll_create(n); }
EXPORT int epoll_create1(int m) noexcept { return posix::epoll_create1(m); }
EXPORT int epoll_ctl(int e, int o, int f, epoll_event* v) noexcept {
    return posix::epoll_ctl(e, o, f, v);
}
EXPORT int epoll_wait(int e, epoll_event* v, int n, int t) { return posix::epoll_wait(e, v, n, t); }
EXPORT int epoll_pwait(int e, epoll_event* v, int n, int t, const sigset_t* s) {
    return posix::epoll_pwait(e, v, n, t, s);
}
EXPORT int epoll_pwait2(int e, epoll_event* v, int n, const timespec* t, const sigset_t* s) {
    return posix::epoll_pwait2(e, v, n, t, s);
}
EXPORT int poll(pollfd* p, nfds_t n, int t) { return posix::poll(p, n, t); }
EXPORT int ppoll(pollfd* p, nfds_t n, const timespec* t, const sigset_t* s) {
    return posix::ppoll(p, n, t, s);
}
EXPORT int select(int n, fd_set* r, fd_set* w, fd_set* x, timeval* t) {
    return posix::select(n, r, w, x, t);
}
EXPORT int pselect(int n, fd_set* r, fd_set* w, fd_set* x, const timespec* t, const sigset_t* s) {
    return posix::pselect(n, r, w, x, t, s);
}

namespace {

/// Nothing expensive: the settings, while the environment is as the launcher left it.
__attribute__((constructor)) void start() {
    posix::start();
    at_quick_exit(posix::finish);
}

/// exit() and the return from main() end here; _exit() does not.
__attribute__((destructor)) void finish() { posix::finish(); }

/// The C library's check, which ends the program.
template <class Function>
Function* fortified(const char* name) {
    return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

EXPORT void _exit(int status) {
    posix::finish();
    syscall(SYS_exit_group, status);
    __builtin_unreachable();
}
EXPORT void _Exit(int status) noexcept { _exit(status); }

EXPORT ssize_t __read_chk(int f, void* b, size_t n, size_t room) {
    if (n > room) return fortified<decltype(__read_chk)>("__read_chk")(f, b, n, room);
    return posix::read(f, b, n);
}
EXPORT ssize_t __recv_chk(int f, void* b, size_t n, size_t room, int m) {
    if (n > room) return fortified<decltype(__recv_chk)>("__recv_chk")(f, b, n, room, m);
    return posix::recv(f, b, n, m);
}
EXPORT ssize_t __recvfrom_chk(int f, void* b, size_t n, size_t room, int m, sockaddr* a,
                              socklen_t* l) {
    if (n > room)
        return fortified<decltype(__recvfrom_chk)>("__recvfrom_chk")(f, b, n, room, m, a, l);
    return posix::recvfrom(f, b, n, m, a, l);
}
EXPORT int __poll_chk(pollfd* p, nfds_t n, int t, size_t room) {
    if (n * sizeof *p > room) return fortified<decltype(__poll_chk)>("__poll_chk")(p, n, t, room);
    return posix::poll(p, n, t);
}
EXPORT int __ppoll_chk(pollfd* p, nfds_t n, const timespec* t, const sigset_t* s, size_t room) {
    if (n * sizeof *p > room)
        return fortified<decltype(__ppoll_chk)>("__ppoll_chk")(p, n, t, s, room);
    return posix::ppoll(p, n, t, s);
}
// What it checks of the format, whether it may write, is not worth more than the socket's bytes.
EXPORT int __vdprintf_chk(int f, int, const char* t, std::va_list a) {
    return posix::vdprintf(f, t, a);
}
EXPORT int __dprintf_chk(int f, int, const char* t, ...) {
    std::va_list arguments;
    va_start(arguments, t);
    const int result = posix::vdprintf(f, t, arguments);
    va_end(arguments);
    return result;
}

// Other names of the same, which old programs and some languages' libraries were linked with.
#define ALSO(name) \
    extern "C" __attribute__((alias(#name), copy(name))) decltype(name) __##name;
ALSO(close)
ALSO(connect)
ALSO(dup2)
ALSO(fcntl)
ALSO(poll)
ALSO(read)
ALSO(select)
ALSO(send)
ALSO(write)
