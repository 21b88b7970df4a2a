// SPDX-License-Identifier: Apache-2.0
//
// An echo server on nothing but POSIX: one thread, one epoll set, non-blocking sockets. The same
// binary is measured on the kernel's TCP and, started under `chiru`, on chiru's.
//
//   bench_echo_server ADDRESS PORT

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <unordered_map>

namespace {

/// What could not be written back at once, by socket. Empty while clients read what they asked for.
using Unsent = std::unordered_map<int, std::string>;

bool watch(int epoll, int operation, int socket, std::uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.fd = socket;
    return epoll_ctl(epoll, operation, socket, &event) == 0;
}

int listen_on(const char* address, std::uint16_t port) {
    sockaddr_in v4{};
    sockaddr_in6 v6{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    const bool is_v4 = inet_pton(AF_INET, address, &v4.sin_addr) == 1;
    if (!is_v4 && inet_pton(AF_INET6, address, &v6.sin6_addr) != 1) {
        errno = EINVAL;
        return -1;
    }
    const int listener = socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (listener < 0) return -1;
    const int on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    const auto* name = is_v4 ? reinterpret_cast<const sockaddr*>(&v4)
                             : reinterpret_cast<const sockaddr*>(&v6);
    const auto length = static_cast<socklen_t>(is_v4 ? sizeof v4 : sizeof v6);
    if (bind(listener, name, length) != 0 || listen(listener, 4096) != 0) return -1;
    return listener;
}

void accept_all(int epoll, int listener) {
    for (;;) {
        const int peer = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
        if (peer < 0) return;
        const int on = 1;
        setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (!watch(epoll, EPOLL_CTL_ADD, peer, EPOLLIN)) close(peer);
    }
}

void drop(int peer, Unsent& unsent) {
    unsent.erase(peer);
    close(peer);
}

/// Writes what waits for `peer`; true once nothing does.
bool flush(int peer, Unsent& unsent) {
    const auto waiting = unsent.find(peer);
    if (waiting == unsent.end()) return true;
    std::string& text = waiting->second;
    const ssize_t written = send(peer, text.data(), text.size(), MSG_NOSIGNAL);
    if (written > 0) text.erase(0, static_cast<std::size_t>(written));
    if (!text.empty()) return false;
    unsent.erase(waiting);
    return true;
}

void echo(int epoll, int peer, Unsent& unsent) {
    std::array<char, 65'536> buffer;
    const ssize_t got = recv(peer, buffer.data(), buffer.size(), 0);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return drop(peer, unsent);
    if (got < 0) return;
    const auto bytes = static_cast<std::size_t>(got);
    const ssize_t put = send(peer, buffer.data(), bytes, MSG_NOSIGNAL);
    if (put < 0 && errno != EAGAIN && errno != EINTR) return drop(peer, unsent);
    const std::size_t sent = put < 0 ? 0 : static_cast<std::size_t>(put);
    if (sent == bytes) return;
    // Reading stops until the peer takes its answer: the window closes, memory does not grow.
    unsent[peer].assign(buffer.data() + sent, bytes - sent);
    watch(epoll, EPOLL_CTL_MOD, peer, EPOLLOUT);
}

int serve(int listener) {
    const int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0 || !watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN)) return 1;
    Unsent unsent;
    std::array<epoll_event, 256> events;
    for (;;) {
        const int ready = epoll_wait(epoll, events.data(), static_cast<int>(events.size()), -1);
        if (ready < 0 && errno != EINTR) return 1;
        for (int i = 0; i < ready; ++i) {
            const epoll_event& event = events[static_cast<std::size_t>(i)];
            const int socket = event.data.fd;
            if (socket == listener) {
                accept_all(epoll, listener);
            } else if ((event.events & EPOLLOUT) != 0 &&
                       (event.events & (EPOLLERR | EPOLLHUP)) == 0) {
                if (flush(socket, unsent)) watch(epoll, EPOLL_CTL_MOD, socket, EPOLLIN);
            } else {
                echo(epoll, socket, unsent);
            }
        }
    }
}

}  // namespace

int main(int count, char** arguments) {
    std::uint16_t port = 0;
    if (count == 3) {
        const std::string_view text = arguments[2];
        std::from_chars(text.data(), text.data() + text.size(), port);
    }
    if (port == 0) {
        std::fprintf(stderr, "usage: %s ADDRESS PORT\n", arguments[0]);
        return 2;
    }
    const int listener = listen_on(arguments[1], port);
    if (listener < 0) {
        std::fprintf(stderr, "%s: %s port %u: %s\n", arguments[0], arguments[1],
                     static_cast<unsigned>(port), std::strerror(errno));
        return 1;
    }
    return serve(listener);
}
