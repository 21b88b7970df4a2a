// SPDX-License-Identifier: Apache-2.0
//
// Options: what can be set, what is told, and what it changes.
#include "cases.hpp"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

namespace cases {
namespace {

void case_options() {
    Pair pair;
    const auto get = [&](const char* what, int fd, int level, int name) {
        int value = -1;
        socklen_t length = sizeof value;
        const int result = getsockopt(fd, level, name, &value, &length);
        print("  %s: %s %d (%u)\n", what, result == 0 ? "ok" : strerrorname_np(errno), value,
              length);
    };
    const auto set = [&](const char* what, int fd, int level, int name, int value) {
        say(what, setsockopt(fd, level, name, &value, sizeof value));
    };
    get("SO_TYPE", pair.near, SOL_SOCKET, SO_TYPE);
    get("SO_DOMAIN", pair.near, SOL_SOCKET, SO_DOMAIN);
    get("SO_PROTOCOL", pair.near, SOL_SOCKET, SO_PROTOCOL);
    get("SO_ACCEPTCONN", pair.near, SOL_SOCKET, SO_ACCEPTCONN);
    get("SO_ACCEPTCONN", pair.server, SOL_SOCKET, SO_ACCEPTCONN);
    get("SO_ERROR", pair.near, SOL_SOCKET, SO_ERROR);
    get("TCP_NODELAY", pair.near, IPPROTO_TCP, TCP_NODELAY);
    set("TCP_NODELAY", pair.near, IPPROTO_TCP, TCP_NODELAY, 1);
    get("TCP_NODELAY", pair.near, IPPROTO_TCP, TCP_NODELAY);
    set("SO_KEEPALIVE", pair.near, SOL_SOCKET, SO_KEEPALIVE, 1);
    get("SO_KEEPALIVE", pair.near, SOL_SOCKET, SO_KEEPALIVE);
    set("TCP_KEEPIDLE", pair.near, IPPROTO_TCP, TCP_KEEPIDLE, 60);
    get("TCP_KEEPIDLE", pair.near, IPPROTO_TCP, TCP_KEEPIDLE);
    set("TCP_KEEPIDLE 0", pair.near, IPPROTO_TCP, TCP_KEEPIDLE, 0);
    set("SO_RCVBUF", pair.near, SOL_SOCKET, SO_RCVBUF, 65536);
    get("SO_RCVBUF", pair.near, SOL_SOCKET, SO_RCVBUF);
    set("no such option", pair.near, IPPROTO_TCP, 9999, 1);
    get("no such option", pair.near, IPPROTO_TCP, 9999);
    int small = 0;
    say("short value", setsockopt(pair.near, IPPROTO_TCP, TCP_NODELAY, &small, 1));
    linger lingers{.l_onoff = 1, .l_linger = 7};
    say("SO_LINGER", setsockopt(pair.near, SOL_SOCKET, SO_LINGER, &lingers, sizeof lingers));
    socklen_t length = sizeof lingers;
    lingers = {};
    getsockopt(pair.near, SOL_SOCKET, SO_LINGER, &lingers, &length);
    print("  linger %d %d\n", lingers.l_onoff, lingers.l_linger);
    lingers = {};
    setsockopt(pair.near, SOL_SOCKET, SO_LINGER, &lingers, sizeof lingers);
    int fresh = socket(family, SOCK_STREAM, 0);  // set before it is known whose it will be
    set("early TCP_NODELAY", fresh, IPPROTO_TCP, TCP_NODELAY, 1);
    Address to = name_of(pair.server);
    connect(fresh, to.get(), to.length);
    get("and later", fresh, IPPROTO_TCP, TCP_NODELAY);
    close(fresh);
    tcp_info info{};
    length = sizeof info;
    say("TCP_INFO", getsockopt(pair.near, IPPROTO_TCP, TCP_INFO, &info, &length));
}

void say_option(const char* what, int fd, int level, int name) {
    int value = -1;
    socklen_t length = sizeof value;
    const int result = getsockopt(fd, level, name, &value, &length);
    print("  %s: %s %d\n", what, result == 0 ? "ok" : strerrorname_np(errno), value);
}

void set_option(const char* what, int fd, int level, int name, int value) {
    say(what, setsockopt(fd, level, name, &value, sizeof value));
    say_option(what, fd, level, name);
}

void case_more_options() {
    Pair pair;
    for (const int seconds : {0, 1, 2, 3, 5, 8, -1})
        set_option("TCP_DEFER_ACCEPT", pair.server, IPPROTO_TCP, TCP_DEFER_ACCEPT, seconds);
    set_option("TCP_FASTOPEN", pair.server, IPPROTO_TCP, TCP_FASTOPEN, 16);
    set_option("TCP_FASTOPEN of a connection", pair.near, IPPROTO_TCP, TCP_FASTOPEN, 16);
    set_option("TCP_FASTOPEN_CONNECT", pair.near, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1);
    set_option("SO_OOBINLINE", pair.near, SOL_SOCKET, SO_OOBINLINE, 1);
    set_option("SO_RCVLOWAT", pair.near, SOL_SOCKET, SO_RCVLOWAT, 100);
    set_option("SO_RCVLOWAT 0", pair.near, SOL_SOCKET, SO_RCVLOWAT, 0);
    set_option("SO_RCVBUF 1", pair.near, SOL_SOCKET, SO_RCVBUF, 1);
    set_option("SO_SNDBUF 1", pair.near, SOL_SOCKET, SO_SNDBUF, 1);
    set_option("TCP_CORK", pair.near, IPPROTO_TCP, TCP_CORK, 1);
    set_option("TCP_QUICKACK", pair.near, IPPROTO_TCP, TCP_QUICKACK, 1);
    set_option("TCP_USER_TIMEOUT", pair.near, IPPROTO_TCP, TCP_USER_TIMEOUT, 5000);
    const int fresh = socket(family, SOCK_STREAM, 0);
    set_option("TCP_FASTOPEN_CONNECT", fresh, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1);
    set_option("TCP_FASTOPEN_CONNECT 2", fresh, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 2);
    close(fresh);
}

void case_low_water() {
    Pair pair;
    const int least = 5;
    setsockopt(pair.far, SOL_SOCKET, SO_RCVLOWAT, &least, sizeof least);
    char buffer[32];
    static_cast<void>(!write(pair.near, "abc", 3));
    rest(20);
    say_poll("three bytes", pair.far, POLLIN, 20);
    say("but there they are", recv(pair.far, buffer, sizeof buffer, MSG_DONTWAIT | MSG_PEEK));
    std::thread later([&] { rest(40); static_cast<void>(!write(pair.near, "defghi", 6)); });
    say("recv waits for five", recv(pair.far, buffer, sizeof buffer, 0));
    later.join();
    const int epoll = epoll_create1(0);
    add(epoll, pair.far, EPOLLIN, 1);
    static_cast<void>(!write(pair.near, "hi", 2));
    rest(20);
    say_epoll("two bytes", epoll, 20);
    shutdown(pair.near, SHUT_WR);
    say_epoll("and the end", epoll, 1000);
    say("recv", recv(pair.far, buffer, sizeof buffer, 0));
    close(epoll);
}

/// Writes until there is no room for a while.
std::size_t fill(int fd) {
    const std::vector<char> chunk(65'536, 'x');
    std::size_t total = 0;
    for (int quiet = 0; quiet < 20;) {
        const ssize_t n = write(fd, chunk.data(), chunk.size());
        if (n > 0) total += static_cast<std::size_t>(n), quiet = 0;
        else rest(2), ++quiet;
    }
    return total;
}

std::size_t drain(int fd, std::size_t bytes) {
    std::vector<char> chunk(65'536);
    std::size_t got = 0;
    while (got < bytes) {
        const ssize_t n = read(fd, chunk.data(), chunk.size());
        if (n <= 0) break;
        got += static_cast<std::size_t>(n);
    }
    return got;
}

int unsent(int fd) {
    int bytes = -1;
    ioctl(fd, SIOCOUTQNSD, &bytes);
    return bytes;
}

void case_unsent_low_water() {
    Pair pair;
    fcntl(pair.near, F_SETFL, O_NONBLOCK);
    for (const int mark : {1, -1, 0, 16'384})
        set_option("TCP_NOTSENT_LOWAT", pair.near, IPPROTO_TCP, TCP_NOTSENT_LOWAT, mark);
    say_poll("nothing queued", pair.near, POLLOUT, 0);
    const int epoll = epoll_create1(0);
    add(epoll, pair.near, EPOLLOUT | EPOLLET, 1);
    say_epoll("nothing queued", epoll, 10);
    std::size_t total = fill(pair.near);
    print("  at the mark: %d\n", unsent(pair.near) >= 16'384 && unsent(pair.near) < 150'000);
    say_poll("at the mark", pair.near, POLLOUT, 0);
    say_epoll("at the mark", epoll, 10);
    print("  all came: %d\n", drain(pair.far, total) == total);
    say_epoll("sent", epoll, 1000);
    print("  left: %d\n", unsent(pair.near));

    total = fill(pair.near);
    say_epoll("at the mark again", epoll, 0);
    const int none = -1;
    setsockopt(pair.near, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &none, sizeof none);
    say_epoll("without a mark", epoll, 1000);
    say("write", write(pair.near, "x", 1));
    print("  all came: %d\n", drain(pair.far, total + 1) == total + 1);
    close(epoll);
}

void case_fast_open() {
    const int server = listener();
    const int queue = 8;
    say("TCP_FASTOPEN", setsockopt(server, IPPROTO_TCP, TCP_FASTOPEN, &queue, sizeof queue));
    Address to = name_of(server);
    const int fd = socket(family, SOCK_STREAM, 0);
    say("sendto", sendto(fd, "hello", 5, MSG_FASTOPEN, to.get(), to.length));
    const int far = accept(server, nullptr, nullptr);
    char buffer[16];
    say("recv", recv(far, buffer, 5, MSG_WAITALL));
    say("sendto again", sendto(fd, "hello", 5, MSG_FASTOPEN, to.get(), to.length));
    say("send", send(fd, "x", 1, 0));
    say("recv", recv(far, buffer, 1, MSG_WAITALL));
    for (const int each : {fd, far, server}) close(each);
}

/// SO_ZEROCOPY is refused, or keeps what it promises: a program that waits for its buffers gets
/// them back.
void case_zero_copy() {
    const int server = listener();
    const int fd = socket(family, SOCK_STREAM, 0);
    const int on = 1;
    const bool agreed = setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on) == 0;
    Address to = name_of(server);
    say("connect", connect(fd, to.get(), to.length));
    const std::vector<char> text(1000, 'z');
    const int far = accept(server, nullptr, nullptr);
    say("send", send(fd, text.data(), text.size(), agreed ? MSG_ZEROCOPY : 0));
    char room[1000];
    say("recv", recv(far, room, sizeof room, MSG_WAITALL));
    pollfd back{.fd = fd, .events = 0, .revents = 0};
    print("  kept: %d\n", !agreed || poll(&back, 1, 2000) == 1 ? 1 : 0);
    for (const int each : {fd, far, server}) close(each);
}

void case_timeouts() {
    Pair pair;
    timeval time{.tv_sec = 0, .tv_usec = 60'000};
    say("SO_RCVTIMEO", setsockopt(pair.near, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time));
    const auto start = std::chrono::steady_clock::now();
    char byte;
    say("recv", recv(pair.near, &byte, 1, 0));
    const auto took = std::chrono::steady_clock::now() - start;
    print("  in time: %d\n",
          took >= std::chrono::milliseconds(55) && took < std::chrono::seconds(2));
    socklen_t length = sizeof time;
    time = {};
    getsockopt(pair.near, SOL_SOCKET, SO_RCVTIMEO, &time, &length);
    print("  %ld %ld\n", static_cast<long>(time.tv_sec), static_cast<long>(time.tv_usec));
    say_poll("nothing comes", pair.near, POLLIN, 30);
    time = {.tv_sec = 0, .tv_usec = 50'000};
    setsockopt(pair.server, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
    say("accept", accept(pair.server, nullptr, nullptr));
    fd_set set;
    FD_ZERO(&set);
    FD_SET(pair.near, &set);
    time = {.tv_sec = 0, .tv_usec = 20'000};
    say("select", select(pair.near + 1, &set, nullptr, nullptr, &time));
    print("  bit %d left %ld\n", FD_ISSET(pair.near, &set) ? 1 : 0,
          static_cast<long>(time.tv_usec));
}

/// A call with a time limit is never restarted (signal(7)): so do programs see their stop flag.
void case_timeouts_and_signals() {
    Pair pair;
    struct sigaction action {};
    action.sa_handler = [](int) {};
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, nullptr);
    const timeval limit{.tv_sec = 2, .tv_usec = 0};
    for (const int fd : {pair.far, pair.server, pair.near}) {
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    }
    const itimerval ticks{.it_interval = {}, .it_value = {.tv_sec = 0, .tv_usec = 50'000}};
    char byte = 0;
    setitimer(ITIMER_REAL, &ticks, nullptr);
    say("recv", recv(pair.far, &byte, 1, 0));
    setitimer(ITIMER_REAL, &ticks, nullptr);
    say("accept", accept(pair.server, nullptr, nullptr));
    const std::vector<char> text(1u << 20, 't');
    while (send(pair.near, text.data(), text.size(), MSG_DONTWAIT) > 0) rest(20);
    setitimer(ITIMER_REAL, &ticks, nullptr);
    say("send", send(pair.near, text.data(), text.size(), 0));
    signal(SIGALRM, SIG_DFL);
}

// Times for ever, and IP's own options: a byte will do, and -1 is the default.
void case_odd_values() {
    Pair pair;
    const timeval ever{.tv_sec = std::numeric_limits<time_t>::max(), .tv_usec = 0};
    say("SO_RCVTIMEO for ever", setsockopt(pair.near, SOL_SOCKET, SO_RCVTIMEO, &ever, sizeof ever));
    static_cast<void>(!write(pair.far, "x", 1));
    char byte;
    say("recv", recv(pair.near, &byte, 1, 0));
    const bool v4 = family == AF_INET;
    const int level = v4 ? IPPROTO_IP : IPPROTO_IPV6;
    const int traffic = v4 ? IP_TOS : IPV6_TCLASS;
    const int hops = v4 ? IP_TTL : IPV6_UNICAST_HOPS;
    const auto get = [&](int name) {
        int value = -1;
        socklen_t length = sizeof value;
        say("get", getsockopt(pair.near, level, name, &value, &length));
        print("  %d (%u)\n", value, length);
    };
    for (const int name : {traffic, hops}) {
        for (const int value : {16, 3, 255, 256, -1, -2}) {
            print("  %d\n", value);
            say("set", setsockopt(pair.near, level, name, &value, sizeof value));
            get(name);
        }
        const unsigned char small = 32;
        say("set a byte", setsockopt(pair.near, level, name, &small, sizeof small));
        get(name);
    }
}

}  // namespace

const std::vector<Case> kOptionsCases = {
    {"options", case_options},
    {"more options", case_more_options},
    {"low water", case_low_water},
    {"unsent low water", case_unsent_low_water},
    {"fast open", case_fast_open},
    {"zero_copy", case_zero_copy},
    {"timeouts", case_timeouts},
    {"timeouts_and_signals", case_timeouts_and_signals},
    {"odd values", case_odd_values},
};

}  // namespace cases
