// SPDX-License-Identifier: Apache-2.0
//
// What programs rely on, call by call, with results and errno values printed. It knows nothing of
// chiru: run on the kernel and under the shim it must print the same (see the `differential` test).
//
//   cases ADDRESS [CASE]...     talks to itself over ADDRESS, IPv4 or IPv6
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

std::string address_text;
int family = AF_INET;

void print(const char* format, ...) __attribute__((format(printf, 1, 2)));
void print(const char* format, ...) {
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

Address make_address(std::uint16_t port, const std::string& text = address_text) {
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

Address name_of(int fd) {
    Address address;
    getsockname(fd, address.get(), &address.length);
    return address;
}

int listener(int backlog = 16) {
    const int fd = socket(family, SOCK_STREAM, 0);
    Address any_port = make_address(0);
    if (bind(fd, any_port.get(), any_port.length) != 0 || listen(fd, backlog) != 0)
        print("  no listener: %s\n", strerror(errno));
    return fd;
}

int connected_to(int server, int type = 0) {
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

std::string events_text(unsigned events) {
    std::string text;
    const std::pair<unsigned, const char*> names[] = {
        {EPOLLIN, "IN "}, {EPOLLOUT, "OUT "}, {EPOLLRDHUP, "RDHUP "},
        {EPOLLHUP, "HUP "}, {EPOLLERR, "ERR "}, {EPOLLPRI, "PRI "}};
    for (const auto& [bit, name] : names)
        if ((events & bit) != 0) text += name;
    return text.empty() ? "-" : text;
}

void say_poll(const char* what, int fd, short events, int timeout) {
    pollfd one{.fd = fd, .events = events, .revents = 0};
    const int count = poll(&one, 1, timeout);
    print("  %s: poll = %d %s\n", what, count,
          events_text(static_cast<unsigned short>(one.revents)).c_str());
}

void say_epoll(const char* what, int epoll, int timeout) {
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

int add(int epoll, int fd, std::uint32_t events, std::uint32_t data,
        int operation = EPOLL_CTL_ADD) {
    epoll_event event{.events = events, .data = {.u32 = data}};
    return epoll_ctl(epoll, operation, fd, &event);
}

void rest(int milliseconds) {
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
}

// ---- cases ---------------------------------------------------------------------------------

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

void case_vectors() {
    Pair pair;
    char one[] = "abc", two[] = "", three[] = "defgh";
    iovec out[] = {{one, 3}, {two, 0}, {three, 5}};
    say("writev", writev(pair.near, out, 3));
    char a[2], b[4], c[9];
    iovec in[] = {{a, sizeof a}, {b, sizeof b}, {c, sizeof c}};
    rest(5);
    say("readv", readv(pair.far, in, 3));
    print("  %.2s|%.4s|%.2s\n", a, b, c);
    msghdr message{};
    message.msg_iov = out;
    message.msg_iovlen = 3;
    say("sendmsg", sendmsg(pair.near, &message, 0));
    sockaddr_storage from{};
    message.msg_name = &from;
    message.msg_namelen = sizeof from;
    message.msg_iov = in;
    rest(5);
    say("recvmsg", recvmsg(pair.far, &message, 0));
    print("  name %u control %zu flags %d\n", message.msg_namelen, message.msg_controllen,
          message.msg_flags);
    mmsghdr messages[2] = {};
    for (mmsghdr& each : messages) each.msg_hdr.msg_iov = out, each.msg_hdr.msg_iovlen = 1;
    say("sendmmsg", sendmmsg(pair.near, messages, 2, 0));
    rest(5);
    say("MSG_TRUNC drops", recv(pair.far, nullptr, 6, MSG_TRUNC));
    volatile int bad = -1;  // hidden from the compiler, which would refuse it
    say("readv with a bad count", readv(pair.far, in, bad));
}

void case_bulk() {
    Pair pair;
    constexpr std::size_t kBytes = 6'000'000;
    std::vector<unsigned char> sent(kBytes), got(kBytes);
    for (std::size_t i = 0; i < kBytes; ++i) sent[i] = static_cast<unsigned char>(i * 31 + i / 977);
    std::thread writer([&] {
        std::size_t done = 0;
        while (done < kBytes) {
            const std::size_t part = std::min<std::size_t>(100'000, kBytes - done);
            const ssize_t n = write(pair.near, sent.data() + done, part);
            if (n <= 0) break;
            done += static_cast<std::size_t>(n);
        }
        shutdown(pair.near, SHUT_WR);
    });
    std::size_t done = 0;
    while (done < kBytes) {
        const ssize_t n = read(pair.far, got.data() + done, kBytes - done);
        if (n <= 0) break;
        done += static_cast<std::size_t>(n);
    }
    writer.join();
    print("  bytes %zu equal %d\n", done, sent == got ? 1 : 0);
    char byte;
    say("end", read(pair.far, &byte, 1));
}

void case_full() {
    Pair pair;
    fcntl(pair.near, F_SETFL, O_NONBLOCK);
    std::vector<char> chunk(65'536, 'x');
    std::size_t total = 0;
    ssize_t n;
    while ((n = write(pair.near, chunk.data(), chunk.size())) > 0)
        total += static_cast<std::size_t>(n);
    print("  full: %s\n", strerrorname_np(errno));
    say_poll("full", pair.near, POLLOUT, 0);
    const int epoll = epoll_create1(0);
    add(epoll, pair.near, EPOLLOUT | EPOLLET, 1);
    say_epoll("full", epoll, 10);
    std::size_t got = 0;
    fcntl(pair.far, F_SETFL, O_NONBLOCK);
    for (int quiet = 0; got < total && quiet < 200;) {
        n = read(pair.far, chunk.data(), chunk.size());
        if (n > 0) got += static_cast<std::size_t>(n), quiet = 0;
        else rest(1), ++quiet;
    }
    print("  all came: %d\n", got == total ? 1 : 0);
    say_epoll("room again", epoll, 1000);
    say("write", write(pair.near, "y", 1));
    close(epoll);
}

void case_epoll_level() {
    Pair pair;
    const int epoll = epoll_create1(0);
    int pipes[2];
    static_cast<void>(!pipe(pipes));
    say("add", add(epoll, pair.far, EPOLLIN, 1));
    say("add again", add(epoll, pair.far, EPOLLIN, 1));
    say("add a pipe", add(epoll, pipes[0], EPOLLIN, 2));
    say_epoll("quiet", epoll, 0);
    say("write", write(pair.near, "abc", 3));
    say_epoll("data", epoll, 1000);
    say_epoll("still", epoll, 1000);
    static_cast<void>(!write(pipes[1], "p", 1));
    rest(5);
    say_epoll("both", epoll, 1000);
    char buffer[8];
    say("read", read(pair.far, buffer, 8));
    say_epoll("the pipe", epoll, 1000);
    static_cast<void>(!read(pipes[0], buffer, 8));
    say_epoll("quiet", epoll, 10);
    say("modify", add(epoll, pair.far, EPOLLIN | EPOLLOUT, 3, EPOLL_CTL_MOD));
    say_epoll("writable", epoll, 1000);
    say("delete", add(epoll, pair.far, 0, 0, EPOLL_CTL_DEL));
    say("delete again", add(epoll, pair.far, 0, 0, EPOLL_CTL_DEL));
    say("modify what is not there", add(epoll, pair.far, EPOLLIN, 0, EPOLL_CTL_MOD));
    say_epoll("quiet", epoll, 10);
    std::thread late([&] { rest(30); static_cast<void>(!write(pipes[1], "p", 1)); });
    add(epoll, pair.far, EPOLLIN, 1);
    say_epoll("woken by a pipe", epoll, 2000);
    late.join();
    static_cast<void>(!read(pipes[0], buffer, 8));
    std::thread later([&] { rest(30); static_cast<void>(!write(pair.near, "p", 1)); });
    say_epoll("woken by a socket", epoll, 2000);
    later.join();
    for (const int fd : {epoll, pipes[0], pipes[1]}) close(fd);
}

void case_epoll_edge() {
    Pair pair;
    const int epoll = epoll_create1(0);
    add(epoll, pair.far, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, 1);
    say_epoll("first", epoll, 1000);
    say_epoll("no edge", epoll, 10);
    static_cast<void>(!write(pair.near, "abc", 3));
    say_epoll("edge", epoll, 1000);
    say_epoll("no edge", epoll, 10);
    static_cast<void>(!write(pair.near, "def", 3));
    say_epoll("new data, new edge", epoll, 1000);
    char buffer[16];
    read(pair.far, buffer, 2);
    say_epoll("no edge", epoll, 10);
    shutdown(pair.near, SHUT_WR);
    say_epoll("the end", epoll, 1000);
    add(epoll, pair.far, EPOLLIN | EPOLLET | EPOLLONESHOT, 2, EPOLL_CTL_MOD);
    say_epoll("one shot", epoll, 1000);
    static_cast<void>(!write(pair.near, "x", 1));
    say_epoll("spent", epoll, 10);
    add(epoll, pair.far, EPOLLIN | EPOLLONESHOT, 3, EPOLL_CTL_MOD);
    say_epoll("loaded", epoll, 1000);
    close(epoll);
}

void case_epoll_accept() {
    const int server = listener();
    fcntl(server, F_SETFL, O_NONBLOCK);
    const int epoll = epoll_create1(EPOLL_CLOEXEC);
    add(epoll, server, EPOLLIN, 1);
    say("accept", accept(server, nullptr, nullptr));
    const int near = connected_to(server);
    say_epoll("a connection", epoll, 1000);
    const int far = accept4(server, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    print("  accepted %d nonblocking %d cloexec %d\n", far >= 0,
          fcntl(far, F_GETFL) & O_NONBLOCK ? 1 : 0, fcntl(far, F_GETFD) & FD_CLOEXEC ? 1 : 0);
    say_epoll("quiet", epoll, 10);
    add(epoll, far, EPOLLIN | EPOLLRDHUP, 2);
    linger hard{.l_onoff = 1, .l_linger = 0};
    setsockopt(near, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(near);
    say_epoll("reset", epoll, 1000);
    char byte;
    say("recv", recv(far, &byte, 1, 0));
    say("recv after it", recv(far, &byte, 1, 0));
    say("send after it", send(far, &byte, 1, MSG_NOSIGNAL));
    close(far);
    say_epoll("closed ones are gone", epoll, 10);
    const int refused = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    say("accept4 with bad flags", accept4(server, nullptr, nullptr, 1));
    close(refused);
    close(server);
    close(epoll);
}

void case_early_epoll() {
    const int server = listener();
    const int epoll = epoll_create1(0);
    const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    say("add before connect", add(epoll, fd, EPOLLIN | EPOLLOUT, 7));
    Address to = name_of(server);
    connect(fd, to.get(), to.length);
    say_epoll("connected", epoll, 1000);
    const int far = accept(server, nullptr, nullptr);
    static_cast<void>(!write(far, "x", 1));
    rest(20);
    say_epoll("data", epoll, 1000);
    for (const int each : {fd, far, server, epoll}) close(each);
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

void case_ioctl() {
    Pair pair;
    int count = -1;
    static_cast<void>(!write(pair.near, "12345", 5));
    say_poll("data", pair.far, POLLIN, 1000);
    say("FIONREAD", ioctl(pair.far, FIONREAD, &count));
    print("  %d bytes\n", count);
    int on = 1;
    say("FIONBIO", ioctl(pair.far, FIONBIO, &on));
    print("  nonblocking %d\n", fcntl(pair.far, F_GETFL) & O_NONBLOCK ? 1 : 0);
    char buffer[8];
    say("read", read(pair.far, buffer, 8));
    say("read", read(pair.far, buffer, 8));
    say("lseek", static_cast<long>(lseek(pair.far, 0, SEEK_SET)));
}

void case_sendfile() {
    Pair pair;
    char name[] = "/tmp/chiru-cases-XXXXXX";
    const int file = mkstemp(name);
    unlink(name);
    std::vector<char> content(200'000);
    for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i % 251);
    static_cast<void>(!write(file, content.data(), content.size()));
    off_t offset = 100;
    std::vector<char> got(content.size());
    std::thread reader([&] {
        say("read all", recv(pair.far, got.data(), content.size() - 100, MSG_WAITALL));
    });
    say("sendfile", sendfile(pair.near, file, &offset, content.size()));
    reader.join();
    print("  offset %ld equal %d\n", static_cast<long>(offset),
          std::equal(content.begin() + 100, content.end(), got.begin()) ? 1 : 0);
    say("sendfile at the end", sendfile(pair.near, file, &offset, 10));
    close(file);
}

void case_signals() {
    Pair pair;
    struct sigaction action {};
    action.sa_handler = [](int) {};
    sigaction(SIGALRM, &action, nullptr);
    itimerval timer{.it_interval = {}, .it_value = {.tv_sec = 0, .tv_usec = 40'000}};
    char byte;
    setitimer(ITIMER_REAL, &timer, nullptr);
    say("recv", recv(pair.near, &byte, 1, 0));
    setitimer(ITIMER_REAL, &timer, nullptr);
    say("accept", accept(pair.server, nullptr, nullptr));
    const int epoll = epoll_create1(0);
    add(epoll, pair.near, EPOLLIN, 1);
    setitimer(ITIMER_REAL, &timer, nullptr);
    epoll_event event;
    say("epoll_wait", epoll_wait(epoll, &event, 1, 2000));
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, nullptr);
    std::thread writer([&] { rest(120); static_cast<void>(!write(pair.far, "x", 1)); });
    setitimer(ITIMER_REAL, &timer, nullptr);
    say("recv, restarted", recv(pair.near, &byte, 1, 0));
    writer.join();
    close(epoll);
}

void case_threads() {
    const int server = listener();
    std::atomic<int> answered{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] {
            for (int k = 0; k < 50; ++k) {
                const int fd = connected_to(server);
                char byte = 'q';
                if (write(fd, &byte, 1) == 1 && read(fd, &byte, 1) == 1 && byte == 'a') ++answered;
                close(fd);
            }
        });
    for (int i = 0; i < 2; ++i)
        threads.emplace_back([&] {
            for (int k = 0; k < 100; ++k) {
                const int fd = accept(server, nullptr, nullptr);
                char byte = 0;
                if (read(fd, &byte, 1) == 1) {
                    byte = 'a';
                    static_cast<void>(!write(fd, &byte, 1));
                }
                read(fd, &byte, 1);
                close(fd);
            }
        });
    for (std::thread& each : threads) each.join();
    print("  answered %d\n", answered.load());
    close(server);
}

void case_fork() {
    const int server = listener();
    int ready[2];
    static_cast<void>(!pipe(ready));
    const pid_t child = fork();
    if (child == 0) {  // serves the listener it inherited
        const int fd = accept(server, nullptr, nullptr);
        char buffer[8];
        const ssize_t got = read(fd, buffer, sizeof buffer);
        static_cast<void>(!write(fd, buffer, static_cast<std::size_t>(std::max<ssize_t>(got, 0))));
        close(fd);
        _exit(got == 4 ? 0 : 1);
    }
    const int fd = connected_to(server);
    say("write", write(fd, "ping", 4));
    char buffer[8];
    say("read", recv(fd, buffer, 4, MSG_WAITALL));
    int status = 0;
    waitpid(child, &status, 0);
    print("  child %d\n", WEXITSTATUS(status));
    close(fd);

    Pair pair;  // a child that only closes what it inherited disturbs nobody
    const pid_t other = fork();
    if (other == 0) {
        close(pair.near);
        close(pair.server);
        _exit(0);
    }
    waitpid(other, &status, 0);
    say("write", write(pair.near, "abc", 3));
    say("read", read(pair.far, buffer, 8));
    const pid_t quick = vfork();
    if (quick == 0) {
        close(pair.near);
        execl("/bin/true", "true", nullptr);
        _exit(1);
    }
    waitpid(quick, &status, 0);
    print("  after vfork %d\n", WEXITSTATUS(status));
    say("write", write(pair.near, "abc", 3));
    say("read", read(pair.far, buffer, 8));
    close(server);
    close(ready[0]);
    close(ready[1]);
}

void case_daemon() {  // opens a listener, forks, and the parent is gone before the child uses it
    int report[2];
    static_cast<void>(!pipe(report));
    const pid_t parent = fork();
    if (parent == 0) {
        const int server = listener();
        const std::uint16_t port = name_of(server).port();
        if (fork() == 0) {
            rest(100);
            static_cast<void>(!write(report[1], &port, sizeof port));
            const int fd = accept(server, nullptr, nullptr);
            static_cast<void>(!write(fd, "daemon", 6));
            close(fd);
        }
        _exit(0);
    }
    waitpid(parent, nullptr, 0);
    std::uint16_t port = 0;
    static_cast<void>(!read(report[0], &port, sizeof port));
    const int fd = socket(family, SOCK_STREAM, 0);
    Address to = make_address(port);
    say("connect", connect(fd, to.get(), to.length));
    char buffer[8];
    say("read", recv(fd, buffer, 6, MSG_WAITALL));
    close(fd);
    close(report[0]);
    close(report[1]);
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

void case_many() {
    const int server = listener(512);
    std::vector<int> fds;
    for (int i = 0; i < 300; ++i) {
        fds.push_back(connected_to(server));
        fds.push_back(accept(server, nullptr, nullptr));
    }
    const int epoll = epoll_create1(0);
    for (std::size_t i = 1; i < fds.size(); i += 2)
        add(epoll, fds[i], EPOLLIN, static_cast<std::uint32_t>(i));
    for (std::size_t i = 0; i < fds.size(); i += 2) static_cast<void>(!write(fds[i], "x", 1));
    std::size_t seen = 0;
    epoll_event events[64];
    while (seen < 300) {
        const int count = epoll_wait(epoll, events, 64, 1000);
        if (count <= 0) break;
        for (int i = 0; i < count; ++i) {
            char byte;
            if (read(fds[events[i].data.u32], &byte, 1) == 1) ++seen;
        }
    }
    print("  seen %zu\n", seen);
    for (const int fd : fds) close(fd);
    close(server);
    close(epoll);
}

const std::vector<std::pair<const char*, void (*)()>> kCases = {
    {"echo", case_echo},
    {"names", case_names},
    {"errors", case_errors},
    {"shutdown", case_shutdown},
    {"sigpipe", case_sigpipe},
    {"nonblocking connect", case_nonblocking_connect},
    {"options", case_options},
    {"timeouts", case_timeouts},
    {"vectors", case_vectors},
    {"bulk", case_bulk},
    {"full", case_full},
    {"epoll level", case_epoll_level},
    {"epoll edge", case_epoll_edge},
    {"epoll accept", case_epoll_accept},
    {"early epoll", case_early_epoll},
    {"dup", case_dup},
    {"ioctl", case_ioctl},
    {"sendfile", case_sendfile},
    {"signals", case_signals},
    {"threads", case_threads},
    {"fork", case_fork},
    {"daemon", case_daemon},
    {"any address", case_any_address},
    {"many", case_many},
};

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fputs("usage: cases ADDRESS [CASE]...\n", stderr);
        return 2;
    }
    address_text = argv[1];
    family = address_text.find(':') == std::string::npos ? AF_INET : AF_INET6;
    for (const auto& [name, run] : kCases) {
        bool asked = argc == 2;
        for (int i = 2; i < argc; ++i) asked |= std::strcmp(argv[i], name) == 0;
        if (!asked) continue;
        print("%s\n", name);
        run();
    }
}
