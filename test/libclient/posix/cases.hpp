// SPDX-License-Identifier: Apache-2.0
//
// What the cases share: calls whose results are printed, addresses, pairs of sockets. One file a
// subject holds the cases themselves.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace cases {

inline std::string address_text;
inline int family = AF_INET;

inline void print(const char* format, ...) __attribute__((format(printf, 1, 2)));
inline void print(const char* format, ...) {
    std::va_list arguments;
    va_start(arguments, format);
    std::vprintf(format, arguments);
    va_end(arguments);
    std::fflush(stdout);
}

/// A call's result and, if it failed, why.
template <class T>
T say(const char* what, T result) {
    const int error = errno;
    if (result < 0) print("  %s = %s\n", what, strerrorname_np(error));
    else print("  %s = %lld\n", what, static_cast<long long>(result));
    return result;
}

struct Address {
    sockaddr_storage storage{};
    socklen_t length = sizeof storage;
    sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
    std::uint16_t port() const {
        return ntohs(reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
    }
};

inline Address make_address(std::uint16_t port, const std::string& text = address_text) {
    Address address;
    if (family == AF_INET) {
        auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        inet_pton(AF_INET, text.c_str(), &v4->sin_addr);
        address.length = sizeof *v4;
    } else {
        auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        inet_pton(AF_INET6, text.c_str(), &v6->sin6_addr);
        address.length = sizeof *v6;
    }
    return address;
}

inline Address name_of(int fd) {
    Address address;
    getsockname(fd, address.get(), &address.length);
    return address;
}

inline int listener(int backlog = 16) {
    const int fd = socket(family, SOCK_STREAM, 0);
    Address any_port = make_address(0);
    if (bind(fd, any_port.get(), any_port.length) != 0 || listen(fd, backlog) != 0)
        print("  no listener: %s\n", strerror(errno));
    return fd;
}

inline int connected_to(int server, int type = 0) {
    const int fd = socket(family, SOCK_STREAM | type, 0);
    Address to = name_of(server);
    if (connect(fd, to.get(), to.length) != 0 && errno != EINPROGRESS)
        print("  no connection: %s\n", strerror(errno));
    return fd;
}

struct Pair {
    int server = listener();
    int near = connected_to(server);
    int far = accept(server, nullptr, nullptr);
    ~Pair() {
        for (const int fd : {server, near, far}) close(fd);
    }
};

inline std::string events_text(unsigned events) {
    std::string text;
    const std::pair<unsigned, const char*> names[] = {
        {EPOLLIN, "IN "}, {EPOLLOUT, "OUT "}, {EPOLLRDHUP, "RDHUP "},
        {EPOLLHUP, "HUP "}, {EPOLLERR, "ERR "}, {EPOLLPRI, "PRI "}};
    for (const auto& [bit, name] : names)
        if ((events & bit) != 0) text += name;
    return text.empty() ? "-" : text;
}

inline void say_poll(const char* what, int fd, short events, int timeout) {
    pollfd one{.fd = fd, .events = events, .revents = 0};
    const int count = poll(&one, 1, timeout);
    print("  %s: poll = %d %s\n", what, count,
          events_text(static_cast<unsigned short>(one.revents)).c_str());
}

inline void say_epoll(const char* what, int epoll, int timeout) {
    epoll_event events[8];
    const int count = epoll_wait(epoll, events, 8, timeout);
    std::vector<std::string> lines;
    for (int i = 0; i < count; ++i)
        lines.push_back(std::to_string(events[i].data.u32) + ":" + events_text(events[i].events));
    std::sort(lines.begin(), lines.end());
    print("  %s: epoll_wait = %d", what, count);
    for (const std::string& line : lines) print(" [%s]", line.c_str());
    print("\n");
}

inline int add(int epoll, int fd, std::uint32_t events, std::uint32_t data,
        int operation = EPOLL_CTL_ADD) {
    epoll_event event{.events = events, .data = {.u32 = data}};
    return epoll_ctl(epoll, operation, fd, &event);
}

inline void rest(int milliseconds) {
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
}

struct Case {
    const char* name;
    void (*run)();
};

extern const std::vector<Case> kSocketsCases;
extern const std::vector<Case> kOptionsCases;
extern const std::vector<Case> kDataCases;
extern const std::vector<Case> kReadinessCases;
extern const std::vector<Case> kProcessesCases;

}  // namespace cases
