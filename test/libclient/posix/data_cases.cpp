// SPDX-License-Identifier: Apache-2.0
//
// Moving data: vectors, bulk, files, full buffers.
#include "cases.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

namespace cases {
namespace {

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
    Pair idle;  // to ask for nothing does not wait
    iovec none[] = {{two, 0}, {two, 0}};
    say("read of nothing", read(idle.far, two, 0));
    say("readv of nothing", readv(idle.far, none, 2));
    say("readv of no pieces", readv(idle.far, nullptr, 0));
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
    int error = 0;
    for (int quiet = 0; quiet < 10;) {  // what is on its way makes room for a while
        n = write(pair.near, chunk.data(), chunk.size());
        error = errno;
        if (n > 0) total += static_cast<std::size_t>(n), quiet = 0;
        else rest(2), ++quiet;
    }
    print("  full: %s\n", strerrorname_np(error));
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
    off_t offset = -1;
    errno = 0;
    say("from before the file", sendfile(pair.near, file, &offset, 10));
    offset = 100;
    std::vector<char> got(content.size());
    long all = -1;  // told after the other: who is first is nobody's promise
    std::thread reader([&] {
        all = recv(pair.far, got.data(), content.size() - 100, MSG_WAITALL);
    });
    say("sendfile", sendfile(pair.near, file, &offset, content.size()));
    reader.join();
    say("read all", all);
    print("  offset %ld equal %d\n", static_cast<long>(offset),
          std::equal(content.begin() + 100, content.end(), got.begin()) ? 1 : 0);
    say("sendfile at the end", sendfile(pair.near, file, &offset, 10));
    offset = -1;
    errno = 0;
    say("sendfile from before the beginning", sendfile(pair.near, file, &offset, 10));
    close(file);
}

void case_formatted() {
    Pair pair;
    say("dprintf", dprintf(pair.near, "%d and %s", 17, "more"));
    char got[16] = {};
    say("read", recv(pair.far, got, 11, MSG_WAITALL));
    print("  %s\n", got);
    say("sockatmark", sockatmark(pair.far));
    say("nothing yet", send(pair.near, nullptr, 0, MSG_NOSIGNAL));
    shutdown(pair.near, SHUT_WR);
    say("nothing after shutdown()", send(pair.near, nullptr, 0, MSG_NOSIGNAL));
    say("dprintf after shutdown()", dprintf(pair.near, "lost"));
}

// How much is there, without a place for it.
void case_length_query() {
    Pair pair;
    static_cast<void>(!write(pair.near, "0123456789", 10));
    say_poll("readable", pair.far, POLLIN, 2000);
    say("peek and truncate", recv(pair.far, nullptr, 100, MSG_PEEK | MSG_TRUNC));
    say("a part", recv(pair.far, nullptr, 4, MSG_PEEK | MSG_TRUNC));
    char got[16] = {};
    say("all are there", recv(pair.far, got, 10, 0));
    print("  %s\n", got);
    say("none", recv(pair.far, nullptr, 4, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT));
}

}  // namespace

const std::vector<Case> kDataCases = {
    {"vectors", case_vectors},
    {"bulk", case_bulk},
    {"full", case_full},
    {"ioctl", case_ioctl},
    {"sendfile", case_sendfile},
    {"formatted", case_formatted},
    {"length query", case_length_query},
};

}  // namespace cases
