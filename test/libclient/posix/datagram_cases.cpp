// SPDX-License-Identifier: Apache-2.0
//
// What programs with UDP sockets rely on, call by call, with results and errno values printed. Like
// cases.cpp it knows nothing of chiru, and must print the same on the kernel and under the shim.
//
//   posix_datagram_cases ADDRESS        talks to itself over ADDRESS, IPv4 or IPv6
#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

std::string address_text;
int family = AF_INET;

struct Address {
    sockaddr_storage storage{};
    socklen_t length = 0;
    sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
    std::uint16_t port() const {
        return ntohs(family == AF_INET ? v4().sin_port : v6().sin6_port);
    }
    const sockaddr_in& v4() const { return *reinterpret_cast<const sockaddr_in*>(&storage); }
    const sockaddr_in6& v6() const { return *reinterpret_cast<const sockaddr_in6*>(&storage); }
    /// The address that is talked over, any, or another one.
    const char* who() const {
        char text[INET6_ADDRSTRLEN] = {};
        const void* from = &v4().sin_addr;
        if (family == AF_INET6) from = &v6().sin6_addr;
        inet_ntop(family, from, text, sizeof text);
        if (address_text == text) return "us";
        return std::strcmp(text, family == AF_INET ? "0.0.0.0" : "::") == 0 ? "any" : "other";
    }
};

Address at(const char* text, std::uint16_t port) {
    Address made;
    if (family == AF_INET) {
        auto* v4 = reinterpret_cast<sockaddr_in*>(&made.storage);
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        inet_pton(AF_INET, text, &v4->sin_addr);
        made.length = sizeof *v4;
    } else {
        auto* v6 = reinterpret_cast<sockaddr_in6*>(&made.storage);
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        inet_pton(AF_INET6, text, &v6->sin6_addr);
        made.length = sizeof *v6;
    }
    return made;
}
Address us(std::uint16_t port) { return at(address_text.c_str(), port); }
Address any(std::uint16_t port) { return at(family == AF_INET ? "0.0.0.0" : "::", port); }

__attribute__((format(printf, 1, 2))) void print(const char* format, ...) {
    std::va_list arguments;
    va_start(arguments, format);
    std::vprintf(format, arguments);
    va_end(arguments);
    std::fflush(stdout);
}

/// Prints a result as programs see it.
long told(const char* what, long result) {
    if (result >= 0) print("  %s: %ld\n", what, result);
    else print("  %s: %s\n", what, strerrorname_np(errno));
    return result;
}

int open_socket(int type = 0) { return socket(family, SOCK_DGRAM | type, 0); }

Address name_of(int fd) {
    Address made;
    made.length = sizeof made.storage;
    getsockname(fd, made.get(), &made.length);
    return made;
}

int bound(Address local) {
    const int fd = open_socket();
    if (bind(fd, local.get(), local.length) != 0) told("bind", -1);
    timeval patience{.tv_sec = 3, .tv_usec = 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

long send_to(int fd, std::size_t bytes, Address to, int flags = 0) {
    const std::vector<char> text(bytes, 'x');
    return sendto(fd, text.data(), bytes, flags, to.get(), to.length);
}

void wait_readable(int fd) {
    pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
    poll(&one, 1, 3000);
}

/// A port by its number: one that the kernel chose it takes back when the peer is dissolved.
int bound_by_number() {
    const int chosen = bound(us(0));
    const std::uint16_t port = name_of(chosen).port();
    close(chosen);
    return bound(us(port));
}

/// Two sockets, each bound.
struct Pair {
    Pair() : a(bound_by_number()), b(bound(us(0))) {}
    ~Pair() {
        close(a);
        close(b);
    }
    Address name_a() const { return name_of(a); }
    Address name_b() const { return name_of(b); }
    int a, b;
};

void names() {
    const int fd = open_socket();
    print("  fresh: %s, port %s\n", name_of(fd).who(), name_of(fd).port() == 0 ? "0" : "some");
    Address peer;
    peer.length = sizeof peer.storage;
    told("getpeername", getpeername(fd, peer.get(), &peer.length));
    Address local = us(0);
    told("bind", bind(fd, local.get(), local.length));
    print("  bound: %s, port %s\n", name_of(fd).who(), name_of(fd).port() == 0 ? "0" : "some");
    told("bind again", bind(fd, local.get(), local.length));
    const int other = open_socket();
    Address taken = name_of(fd);
    told("bind taken", bind(other, taken.get(), taken.length));
    Address foreign = at(family == AF_INET ? "192.0.2.77" : "2001:db8::77", 0);
    told("bind foreign", bind(other, foreign.get(), foreign.length));
    told("listen", listen(other, 1));
    told("accept", accept(other, nullptr, nullptr));
    told("send to nobody", send(fd, "x", 1, 0));
    int value = 0;
    socklen_t length = sizeof value;
    for (const int option : {SO_TYPE, SO_DOMAIN, SO_PROTOCOL, SO_ACCEPTCONN, SO_ERROR}) {
        getsockopt(fd, SOL_SOCKET, option, &value, &length);
        print("  option: %d\n", option == SO_DOMAIN ? (value == family ? 1 : 0) : value);
    }
    close(fd);
    close(other);
    const int again = open_socket();
    told("bind freed", bind(again, taken.get(), taken.length));
    close(again);
}

void sizes() {
    Pair pair;
    std::vector<char> room(70'000);
    for (const std::size_t bytes : {0u, 1u, 500u, 1472u, 1473u, 9000u, 65'507u}) {
        told("sendto", send_to(pair.a, bytes, pair.name_b()));
        Address from;
        from.length = sizeof from.storage;
        told("recvfrom", recvfrom(pair.b, room.data(), room.size(), 0, from.get(), &from.length));
        print("  from: %s, %s\n", from.who(), from.port() == pair.name_a().port() ? "a" : "?");
    }
    told("too large", send_to(pair.a, 65'536, pair.name_b()));
    told("port 0", send_to(pair.a, 1, us(0)));
}

void truncation() {
    Pair pair;
    char room[8];
    send_to(pair.a, 20, pair.name_b());
    wait_readable(pair.b);
    int waiting = 0;
    ioctl(pair.b, FIONREAD, &waiting);
    print("  waiting: %d\n", waiting);
    told("read of nothing takes nothing", read(pair.b, room, 0));
    told("peek", recv(pair.b, room, sizeof room, MSG_PEEK));
    told("peek all", recv(pair.b, room, sizeof room, MSG_PEEK | MSG_TRUNC));
    iovec pieces[2] = {{room, 3}, {room + 3, 2}};
    msghdr message{};
    message.msg_iov = pieces;
    message.msg_iovlen = 2;
    told("recvmsg", recvmsg(pair.b, &message, 0));
    print("  cut: %d\n", (message.msg_flags & MSG_TRUNC) != 0 ? 1 : 0);
    told("nothing left", recv(pair.b, room, sizeof room, MSG_DONTWAIT));
    send_to(pair.a, 20, pair.name_b());
    told("real size", recv(pair.b, room, sizeof room, MSG_TRUNC));
    iovec out[2] = {{room, 4}, {room, 4}};
    Address to = pair.name_b();
    msghdr gathered{};
    gathered.msg_name = to.get();
    gathered.msg_namelen = to.length;
    gathered.msg_iov = out;
    gathered.msg_iovlen = 2;
    told("sendmsg", sendmsg(pair.a, &gathered, 0));
    told("read", read(pair.b, room, sizeof room));
}

void peers() {
    Pair pair;
    const int stranger = bound(us(0));
    char room[64];
    Address b = pair.name_b(), a = pair.name_a();
    told("connect a", connect(pair.a, b.get(), b.length));
    told("connect b", connect(pair.b, a.get(), a.length));
    Address peer;
    peer.length = sizeof peer.storage;
    told("getpeername", getpeername(pair.a, peer.get(), &peer.length));
    print("  peer: %s, %s\n", peer.who(), peer.port() == b.port() ? "b" : "?");
    told("send", send(pair.a, "12345", 5, 0));
    told("recv", recv(pair.b, room, sizeof room, 0));
    told("write", write(pair.b, "123", 3));
    told("read", read(pair.a, room, sizeof room));
    told("a stranger sends", send_to(stranger, 9, a));
    told("send on", send(pair.b, "1234", 4, 0));
    told("only the peer's", recv(pair.a, room, sizeof room, 0));
    told("nothing else", recv(pair.a, room, sizeof room, MSG_DONTWAIT));
    told("to another", send_to(pair.a, 7, name_of(stranger)));
    told("it got that", recv(stranger, room, sizeof room, 0));
    Address nobody;
    nobody.storage.ss_family = AF_UNSPEC;
    told("dissolve", connect(pair.a, nobody.get(), sizeof nobody.storage));
    told("no peer", getpeername(pair.a, peer.get(), &peer.length));
    told("now heard", send_to(stranger, 11, a));
    told("heard", recv(pair.a, room, sizeof room, 0));
    told("shutdown", shutdown(pair.b, SHUT_WR));
    signal(SIGPIPE, [](int) { print("  SIGPIPE, which is for streams\n"); });
    told("after it", send(pair.b, "x", 1, 0));
    told("write after it", write(pair.b, "x", 1));
    signal(SIGPIPE, SIG_IGN);
    close(stranger);
}

void refusals() {
    const int gone = bound(us(0));
    Address nobody = name_of(gone);
    close(gone);
    const int fd = bound(us(0));
    char room[8];
    told("connect", connect(fd, nobody.get(), nobody.length));
    told("send", send(fd, "x", 1, 0));
    told("recv", recv(fd, room, sizeof room, 0));
    told("told once", recv(fd, room, sizeof room, MSG_DONTWAIT));
    told("send again", send(fd, "x", 1, 0));
    pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
    told("poll", poll(&one, 1, 3000));
    print("  error: %d\n", (one.revents & POLLERR) != 0 ? 1 : 0);
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    print("  SO_ERROR: %s\n", strerrorname_np(error));
    close(fd);
    const int free = bound(us(0));
    told("unconnected", send_to(free, 1, nobody));
    timeval patience{.tv_sec = 0, .tv_usec = 100'000};
    setsockopt(free, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    told("hears nothing", recv(free, room, sizeof room, 0));
    close(free);
}

void waiting() {
    Pair pair;
    char room[64];
    told("dontwait", recv(pair.b, room, sizeof room, MSG_DONTWAIT));
    fcntl(pair.b, F_SETFL, fcntl(pair.b, F_GETFL) | O_NONBLOCK);
    told("nonblocking", recv(pair.b, room, sizeof room, 0));
    pollfd one{.fd = pair.b, .events = POLLIN | POLLOUT, .revents = 0};
    told("poll", poll(&one, 1, 0));
    print("  %x\n", static_cast<unsigned>(one.revents) & (POLLIN | POLLOUT | POLLERR | POLLHUP));
    const int set = epoll_create1(0);
    epoll_event event{.events = EPOLLIN, .data = {.u64 = 7}};
    told("epoll_ctl", epoll_ctl(set, EPOLL_CTL_ADD, pair.b, &event));
    told("epoll empty", epoll_wait(set, &event, 1, 0));
    send_to(pair.a, 5, pair.name_b());
    send_to(pair.a, 6, pair.name_b());
    told("epoll", epoll_wait(set, &event, 1, 3000));
    print("  %u %d\n", static_cast<unsigned>(event.data.u64), event.events == EPOLLIN ? 1 : 0);
    told("first", recv(pair.b, room, sizeof room, 0));
    wait_readable(pair.b);
    fd_set readable;
    FD_ZERO(&readable);
    FD_SET(pair.b, &readable);
    timeval at_once{};
    told("select", select(pair.b + 1, &readable, nullptr, nullptr, &at_once));
    told("second", recv(pair.b, room, sizeof room, 0));
    told("epoll again", epoll_wait(set, &event, 1, 0));
    const int copy = dup(pair.b);
    send_to(pair.a, 8, pair.name_b());
    wait_readable(copy);
    told("through a copy", recv(copy, room, sizeof room, 0));
    close(copy);
    close(set);
}

void batches() {
    Pair pair;
    Address to = pair.name_b();
    char text[4] = {'a', 'b', 'c', 'd'};
    iovec out[4];
    mmsghdr many[4] = {};
    for (std::size_t i = 0; i < 4; ++i) {
        out[i] = {text, i};
        many[i].msg_hdr.msg_name = to.get();
        many[i].msg_hdr.msg_namelen = to.length;
        many[i].msg_hdr.msg_iov = &out[i];
        many[i].msg_hdr.msg_iovlen = 1;
    }
    told("sendmmsg", sendmmsg(pair.a, many, 4, 0));
    char rooms[4][16];
    iovec in[4];
    mmsghdr got[4] = {};
    for (std::size_t i = 0; i < 4; ++i) {
        in[i] = {rooms[i], sizeof rooms[i]};
        got[i].msg_hdr.msg_iov = &in[i];
        got[i].msg_hdr.msg_iovlen = 1;
    }
    told("recvmmsg", recvmmsg(pair.b, got, 4, 0, nullptr));
    for (const mmsghdr& each : got) print("  %u\n", each.msg_len);
    told("none", recvmmsg(pair.b, got, 4, MSG_DONTWAIT, nullptr));
    const int segment = 100;
    told("UDP_SEGMENT", setsockopt(pair.a, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment));
    told("in segments", send_to(pair.a, 250, to));
    char room[300];
    for (int i = 0; i < 3; ++i) told("one", recv(pair.b, room, sizeof room, 0));
}

void ancillary() {
    const int server = bound(any(0));
    const int client = bound(us(0));
    const int on = 1, ttl = 33, tos = 0x28;
    const bool v4 = family == AF_INET;
    told("pktinfo", v4 ? setsockopt(server, IPPROTO_IP, IP_PKTINFO, &on, sizeof on)
                       : setsockopt(server, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on));
    told("recvttl", v4 ? setsockopt(server, IPPROTO_IP, IP_RECVTTL, &on, sizeof on)
                       : setsockopt(server, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &on, sizeof on));
    told("recvtos", v4 ? setsockopt(server, IPPROTO_IP, IP_RECVTOS, &on, sizeof on)
                       : setsockopt(server, IPPROTO_IPV6, IPV6_RECVTCLASS, &on, sizeof on));
    told("ttl", v4 ? setsockopt(client, IPPROTO_IP, IP_TTL, &ttl, sizeof ttl)
                   : setsockopt(client, IPPROTO_IPV6, IPV6_UNICAST_HOPS, &ttl, sizeof ttl));
    told("tos", v4 ? setsockopt(client, IPPROTO_IP, IP_TOS, &tos, sizeof tos)
                   : setsockopt(client, IPPROTO_IPV6, IPV6_TCLASS, &tos, sizeof tos));
    told("sendto", send_to(client, 5, us(name_of(server).port())));
    char room[16], control[256];
    iovec piece{room, sizeof room};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    told("recvmsg", recvmsg(server, &message, 0));
    std::vector<std::string> lines;
    for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
         part = CMSG_NXTHDR(&message, part)) {
        char text[INET6_ADDRSTRLEN] = {};
        if (part->cmsg_type == (v4 ? IP_PKTINFO : IPV6_PKTINFO)) {
            if (v4) inet_ntop(AF_INET, &reinterpret_cast<in_pktinfo*>(CMSG_DATA(part))->ipi_addr,
                              text, sizeof text);
            else inet_ntop(AF_INET6, &reinterpret_cast<in6_pktinfo*>(CMSG_DATA(part))->ipi6_addr,
                           text, sizeof text);
            lines.push_back(std::string("  to ") + (address_text == text ? "us" : text));
        } else {
            lines.push_back("  value " + std::to_string(CMSG_DATA(part)[0]));
        }
    }
    std::sort(lines.begin(), lines.end());
    for (const std::string& line : lines) print("%s\n", line.c_str());
    message.msg_controllen = CMSG_SPACE(1);
    send_to(client, 5, us(name_of(server).port()));
    told("little room", recvmsg(server, &message, 0));
    print("  control cut: %d\n", (message.msg_flags & MSG_CTRUNC) != 0 ? 1 : 0);
    close(server);
    close(client);
}

/// An option holds for the next datagram, by whatever way that comes.
void options_at_once() {
    const bool v4 = family == AF_INET;
    const int on = 1;
    int with_destination = 0;
    for (int i = 0; i < 300; ++i) {
        const int server = bound(any(0));
        const int client = open_socket();
        if (v4) setsockopt(server, IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
        else setsockopt(server, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
        send_to(client, 5, us(name_of(server).port()));
        char room[16], control[64];
        iovec piece{room, sizeof room};
        msghdr message{};
        message.msg_iov = &piece;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        if (recvmsg(server, &message, 0) == 5 && CMSG_FIRSTHDR(&message) != nullptr)
            ++with_destination;
        close(server);
        close(client);
    }
    told("with a destination", with_destination);
}

void sharing() {
    const int on = 1;
    const int first = open_socket(), second = open_socket(), third = open_socket();
    for (const int fd : {first, second})
        told("reuse", setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on));
    Address local = us(0);
    told("first", bind(first, local.get(), local.length));
    Address same = name_of(first);
    told("second", bind(second, same.get(), same.length));
    told("third", bind(third, same.get(), same.length));
    const int client = bound(us(0));
    for (int i = 0; i < 4; ++i) send_to(client, 3, same);
    pollfd both[2] = {{first, POLLIN, 0}, {second, POLLIN, 0}};
    told("one of them", poll(both, 2, 3000));
    for (const int fd : {first, second, third, client}) close(fd);
    const int wide = bound(any(0));
    const int narrow = open_socket();
    Address covered = us(name_of(wide).port());
    told("covered", bind(narrow, covered.get(), covered.length));
    close(narrow);
    char room[16];
    const int sender = open_socket();
    told("to any", send_to(sender, 4, covered));
    print("  sender has a port: %d\n", name_of(sender).port() != 0 ? 1 : 0);
    Address from;
    from.length = sizeof from.storage;
    told("received", recvfrom(wide, room, sizeof room, 0, from.get(), &from.length));
    print("  from %s %d\n", from.who(), from.port() == name_of(sender).port() ? 1 : 0);
    told("answer", sendto(wide, "ok", 2, 0, from.get(), from.length));
    told("answered", recv(sender, room, sizeof room, 0));
    close(wide);
    close(sender);
}

/// A child keeps the kernel's part, which waits as the program asked it to.
void inheritance() {
    const int wide = bound(any(0));
    Address to = at(family == AF_INET ? "127.0.0.1" : "::1", name_of(wide).port());
    print("  blocks: %d\n", (fcntl(wide, F_GETFL) & O_NONBLOCK) == 0 ? 1 : 0);
    const pid_t child = fork();
    if (child == 0) {
        char room[8];
        told("waits and receives", recv(wide, room, sizeof room, 0));
        fcntl(wide, F_SETFL, O_NONBLOCK);
        told("nothing more", recv(wide, room, sizeof room, 0));
        _exit(0);
    }
    usleep(50'000);
    const int sender = open_socket();
    send_to(sender, 5, to);
    waitpid(child, nullptr, 0);
    for (const int fd : {wide, sender}) close(fd);
}

struct Case {
    const char* name;
    void (*run)();
};
constexpr Case kCases[] = {{"names", names},         {"sizes", sizes},
                           {"truncation", truncation}, {"peers", peers},
                           {"refusals", refusals},   {"waiting", waiting},
                           {"batches", batches},     {"ancillary", ancillary},
                           {"options at once", options_at_once},
                           {"sharing", sharing},
                           {"inheritance", inheritance}};

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fputs("usage: posix_datagram_cases ADDRESS [CASE]...\n", stderr);
        return 2;
    }
    address_text = argv[1];
    family = address_text.find(':') == std::string::npos ? AF_INET : AF_INET6;
    for (const Case& each : kCases) {
        bool asked = argc == 2;
        for (int i = 2; i < argc; ++i) asked |= std::strcmp(argv[i], each.name) == 0;
        if (!asked) continue;
        print("%s\n", each.name);
        each.run();
    }
}
