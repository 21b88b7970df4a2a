// SPDX-License-Identifier: Apache-2.0
//
// Sockets and their names, errors and endings.
#include "cases.hpp"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace cases {
namespace {

void case_echo() {
    Pair pair;
    char buffer[64] = {};
    say("write", write(pair.near, "hello", 5));
    say("read", read(pair.far, buffer, sizeof buffer));
    print("  \"%s\"\n", buffer);
    say("send", send(pair.far, "world", 5, 0));
    say("recv", recv(pair.near, buffer, 3, MSG_PEEK));
    say("recv", recv(pair.near, buffer, 5, MSG_WAITALL));
    print("  \"%s\"\n", buffer);
    say("zero-length send", send(pair.near, "", 0, 0));
    say("zero-length read", read(pair.near, buffer, 0));
    say("zero-length recv", recv(pair.near, buffer, 0, MSG_DONTWAIT));
    say("recv of nothing", recv(pair.near, buffer, 1, MSG_DONTWAIT));
    say("MSG_OOB recv", recv(pair.near, buffer, 1, MSG_OOB | MSG_DONTWAIT));
}

void case_names() {
    Pair pair;
    Address name;
    say("getpeername", getpeername(pair.near, name.get(), &name.length));
    print("  is the server's: %d\n", name.port() == name_of(pair.server).port());
    Address far;
    getpeername(pair.far, far.get(), &far.length);
    print("  ends agree: %d\n", far.port() == name_of(pair.near).port());
    print("  length %u family %d\n", far.length, far.storage.ss_family);
    Address shorter;
    shorter.length = 4;
    say("short getsockname", getsockname(pair.near, shorter.get(), &shorter.length));
    print("  length becomes %u\n", shorter.length);
    const int fresh = socket(family, SOCK_STREAM, 0);
    say("getpeername of a fresh one", getpeername(fresh, name.get(), &name.length));
    say("getpeername of a listener", getpeername(pair.server, name.get(), &name.length));
    close(fresh);
}

void case_errors() {
    char byte = 0;
    const int fresh = socket(family, SOCK_STREAM, 0);
    say("recv on a fresh one", recv(fresh, &byte, 1, 0));
    say("send on a fresh one", send(fresh, &byte, 1, MSG_NOSIGNAL));
    say("shutdown of a fresh one", shutdown(fresh, SHUT_RDWR));
    say("accept on a fresh one", accept(fresh, nullptr, nullptr));
    const int server = listener();
    Address taken = name_of(server);
    say("bind to a taken port", bind(fresh, taken.get(), taken.length));
    say("bind twice", bind(server, taken.get(), taken.length));
    say("recv on a listener", recv(server, &byte, 1, 0));
    say("send on a listener", send(server, &byte, 1, MSG_NOSIGNAL));
    say("connect of a listener", connect(server, taken.get(), taken.length));
    close(server);
    say("connect to nobody", connect(fresh, taken.get(), taken.length));
    close(fresh);
    say("recv on a closed one", recv(fresh, &byte, 1, 0));
    say("close again", close(fresh));
}

void case_shutdown() {
    Pair pair;
    char buffer[16];
    say("write", write(pair.near, "last", 4));
    say("shutdown write", shutdown(pair.near, SHUT_WR));
    signal(SIGPIPE, SIG_IGN);
    say("write after it", write(pair.near, "x", 1));
    say("write of nothing", write(pair.near, "x", 0));
    say("read", read(pair.far, buffer, sizeof buffer));
    say("read the end", read(pair.far, buffer, sizeof buffer));
    say("read the end again", read(pair.far, buffer, sizeof buffer));
    say_poll("at the end", pair.far, POLLIN | POLLOUT | POLLRDHUP, 1000);
    say("the other way", write(pair.far, "still", 5));
    say("read it", read(pair.near, buffer, sizeof buffer));
    close(pair.far);
    pair.far = -1;
    say("and its end", read(pair.near, buffer, sizeof buffer));
    rest(20);
    say_poll("over", pair.near, POLLIN | POLLOUT | POLLRDHUP, 1000);
    say("bad how", shutdown(pair.server, 17));
}

volatile sig_atomic_t signals = 0;

void case_sigpipe() {
    struct sigaction action {};
    action.sa_handler = [](int) { signals = signals + 1; };
    sigaction(SIGPIPE, &action, nullptr);
    Pair pair;
    shutdown(pair.near, SHUT_WR);
    say("write", write(pair.near, "x", 1));
    print("  signals: %d\n", static_cast<int>(signals));
    say("send, no signal", send(pair.near, "x", 1, MSG_NOSIGNAL));
    print("  signals: %d\n", static_cast<int>(signals));
    const int fresh = socket(family, SOCK_STREAM, 0);
    say("write to nobody", write(fresh, "x", 1));
    print("  signals: %d\n", static_cast<int>(signals));
    close(fresh);
    signal(SIGPIPE, SIG_IGN);
}

void case_nonblocking_connect() {
    const int server = listener();
    const int fd = connected_to(server, SOCK_NONBLOCK);
    say_poll("connecting", fd, POLLOUT, 1000);
    int error = -1;
    socklen_t length = sizeof error;
    say("SO_ERROR", getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length));
    print("  is %d\n", error);
    Address to = name_of(server);
    say("connect, once more", connect(fd, to.get(), to.length));
    say("connect, a third time", connect(fd, to.get(), to.length));
    char byte;
    say("recv", recv(fd, &byte, 1, 0));
    print("  flags %d\n", fcntl(fd, F_GETFL) & O_NONBLOCK ? 1 : 0);
    close(fd);
    close(server);
    const int refused = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    const int result = connect(refused, to.get(), to.length);
    print("  refused at once or later: %d\n",
          result < 0 && (errno == EINPROGRESS || errno == ECONNREFUSED));
    pollfd one{.fd = refused, .events = POLLOUT, .revents = 0};
    poll(&one, 1, 1000);
    getsockopt(refused, SOL_SOCKET, SO_ERROR, &error, &length);
    print("  SO_ERROR %s\n", error == ECONNREFUSED || error == 0 ? "fits" : strerror(error));
    close(refused);
}

void case_dup() {
    Pair pair;
    const int copy = dup(pair.near);
    struct stat status {};
    say("fstat", fstat(copy, &status));
    print("  is a socket: %d\n", S_ISSOCK(status.st_mode) ? 1 : 0);
    close(pair.near);
    say("write through the copy", write(copy, "abc", 3));
    char buffer[8];
    say("read", read(pair.far, buffer, 8));
    pair.near = 300;
    say("dup2", dup2(copy, 300));
    say("dup3 onto itself", dup3(copy, copy, 0));
    say("F_DUPFD", fcntl(copy, F_DUPFD, 400));
    say("write", write(400, "abc", 3));
    fcntl(400, F_SETFL, O_NONBLOCK);
    print("  the mode is shared: %d\n", fcntl(copy, F_GETFL) & O_NONBLOCK ? 1 : 0);
    close(copy);
    say("close_range", close_range(400, 500, 0));
    say("write to it", write(400, "abc", 3));
    say("write", write(300, "def", 3));
    say("read", recv(pair.far, buffer, 6, MSG_WAITALL));
    const int null = open("/dev/null", O_RDONLY);
    say("dup2 over it", dup2(null, 300));
    say("the peer sees the end", read(pair.far, buffer, 8));
    close(null);
}

void case_any_address() {
    const int server = socket(family, SOCK_STREAM, 0);
    Address any = make_address(0, family == AF_INET ? "0.0.0.0" : "::");
    say("bind", bind(server, any.get(), any.length));
    say("listen", listen(server, 8));
    const std::uint16_t port = name_of(server).port();
    print("  port %d\n", port != 0);
    const int epoll = epoll_create1(0);
    add(epoll, server, EPOLLIN, 1);
    for (const std::string& text :
         {address_text, std::string(family == AF_INET ? "127.0.0.1" : "::1")}) {
        const int fd = socket(family, SOCK_STREAM, 0);
        Address to = make_address(port, text);
        say("connect", connect(fd, to.get(), to.length));
        say_epoll("a connection", epoll, 1000);
        const int far = accept(server, nullptr, nullptr);
        say("write", write(far, "hello", 5));
        char buffer[8];
        say("read", read(fd, buffer, 8));
        close(fd);
        close(far);
    }
    const int second = socket(family, SOCK_STREAM, 0);
    any = make_address(port, family == AF_INET ? "0.0.0.0" : "::");
    say("the port is taken", bind(second, any.get(), any.length));
    fcntl(server, F_SETFL, O_NONBLOCK);
    say("accept", accept(server, nullptr, nullptr));
    for (const int fd : {second, server, epoll}) close(fd);
}

/// How programs end the threads that accept.
void case_listener_shutdown() {
    const int server = listener();
    say("of writing", shutdown(server, SHUT_WR));
    int accepted = 0;
    std::thread acceptor([&] {
        accepted = accept(server, nullptr, nullptr);
        if (accepted < 0) accepted = -errno;
    });
    rest(50);
    say("of reading", shutdown(server, SHUT_RD));
    acceptor.join();
    print("  the acceptor was told %d\n", accepted);
    say("accept", accept(server, nullptr, nullptr));
    say_poll("the listener", server, POLLIN, 0);
    Address to = name_of(server);
    const int late = socket(family, SOCK_STREAM, 0);
    say("connect", connect(late, to.get(), to.length));
    close(late);
    say("listen again", listen(server, 4));
    const int near = connected_to(server);
    const int far = accept(server, nullptr, nullptr);
    say("write", write(near, "hello", 5));
    char buffer[8];
    say("read", read(far, buffer, sizeof buffer));
    for (const int fd : {near, far, server}) close(fd);
}

/// A number that stdio closed is another file's later.
void case_stdio_close() {
    Pair pair;
    const int copy = dup(pair.far);
    say("close", close(pair.far));
    std::FILE* file = fdopen(copy, "r");
    say("fclose", std::fclose(file));
    char byte = 0;
    say("the peer reads", read(pair.near, &byte, 1));
    pair.far = open("/dev/null", O_RDWR | O_CLOEXEC);
    say("write to a file", write(pair.far, "x", 1));
    say("the peer reads", read(pair.near, &byte, 1));
}

/// glibc takes a second and more in microseconds.
void case_long_select() {
    Pair pair;
    fd_set set;
    FD_ZERO(&set);
    FD_SET(pair.near, &set);
    timeval time{.tv_sec = 0, .tv_usec = 1'050'000};
    say("select", select(pair.near + 1, &set, nullptr, nullptr, &time));
    print("  readable %d\n", FD_ISSET(pair.near, &set) ? 1 : 0);
}

}  // namespace

const std::vector<Case> kSocketsCases = {
    {"echo", case_echo},
    {"names", case_names},
    {"errors", case_errors},
    {"shutdown", case_shutdown},
    {"sigpipe", case_sigpipe},
    {"nonblocking connect", case_nonblocking_connect},
    {"dup", case_dup},
    {"any address", case_any_address},
    {"listener shutdown", case_listener_shutdown},
    {"stdio close", case_stdio_close},
    {"long select", case_long_select},
};

}  // namespace cases
