// SPDX-License-Identifier: Apache-2.0
//
// Threads, forks, many sockets, and how programs end.
#include "cases.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

namespace cases {
namespace {

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

/// Answers whoever connects to `server`, as `epoll` tells, until `stop` becomes readable.
int serve(int epoll, int server, int stop) {
    int answered = 0;
    add(epoll, stop, EPOLLIN, 2);
    for (;;) {
        epoll_event event{};
        if (epoll_wait(epoll, &event, 1, 5000) <= 0 || event.data.u32 == 2) return answered;
        const int fd = accept4(server, nullptr, nullptr, 0);
        if (fd < 0) continue;  // the other process had it
        char byte = 0;
        if (read(fd, &byte, 1) == 1 && write(fd, "a", 1) == 1) ++answered;
        read(fd, &byte, 1);
        close(fd);
    }
}

int ask(int server) {
    const int fd = connected_to(server);
    const timeval patience{.tv_sec = 3, .tv_usec = 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    char byte = 'q';
    const bool answered = write(fd, &byte, 1) == 1 && read(fd, &byte, 1) == 1 && byte == 'a';
    close(fd);
    return answered ? 1 : 0;
}

/// A master makes listener and set, and its worker waits in that set.
void case_set_before_fork() {
    const int server = listener();
    const int epoll = epoll_create1(0);
    say("add", add(epoll, server, EPOLLIN, 1));
    int stop[2];
    static_cast<void>(!pipe(stop));
    const pid_t child = fork();
    if (child == 0) {
        close(stop[1]);
        _exit(serve(epoll, server, stop[0]) == 20 ? 0 : 1);
    }
    int answered = 0;
    for (int i = 0; i < 20; ++i) answered += ask(server);
    print("  by the worker: %d\n", answered);
    close(stop[1]);
    int status = 0;
    waitpid(child, &status, 0);
    print("  child %d\n", WEXITSTATUS(status));
    for (const int fd : {server, epoll, stop[0]}) close(fd);
}

/// Both wait in the set: what wakes one must not be lost to the other.
void case_set_of_two_processes() {
    const int server = listener();
    fcntl(server, F_SETFL, O_NONBLOCK);
    const int epoll = epoll_create1(0);
    add(epoll, server, EPOLLIN, 1);
    int stop[2];
    static_cast<void>(!pipe(stop));
    const pid_t child = fork();
    if (child == 0) {
        close(stop[1]);
        serve(epoll, server, stop[0]);
        _exit(0);
    }
    std::thread master([&] { serve(epoll, server, stop[0]); });
    int answered = 0;
    for (int i = 0; i < 100; ++i) answered += ask(server);
    print("  by either: %d\n", answered);
    close(stop[1]);
    master.join();
    int status = 0;
    waitpid(child, &status, 0);
    print("  child %d\n", WEXITSTATUS(status));
    for (const int fd : {server, epoll, stop[0]}) close(fd);
}

/// A program that closed descriptor 2 opens a file: nothing may write into that but the program.
void case_file_as_stderr() {
    Pair pair;
    char path[] = "/tmp/posix_cases_XXXXXX";
    close(mkstemp(path));
    const pid_t child = fork();
    if (child == 0) {
        close(STDERR_FILENO);
        const int file = open(path, O_WRONLY);
        char byte;
        static_cast<void>(!recv(pair.near, &byte, 1, MSG_DONTWAIT));  // chiru has a word to say
        _exit(file == STDERR_FILENO ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    struct stat file {};
    stat(path, &file);
    print("  child %d, the file's bytes: %ld\n", WEXITSTATUS(status),
          static_cast<long>(file.st_size));
    unlink(path);
}

/// A thread closes what another one writes to: the writer ends with the connection, and touches
/// nothing that went with the socket.
void case_close_under_writer() {
    Pair pair;
    std::thread writer([&] {
        const std::vector<char> text(32u << 20, 'w');
        static_cast<void>(!send(pair.near, text.data(), text.size(), MSG_NOSIGNAL));
    });
    rest(50);
    say("close", close(pair.near));
    pair.near = -1;
    rest(50);
    say("close its peer", close(pair.far));
    pair.far = -1;
    writer.join();
    print("  the writer ended\n");
}

enum class Parent { Reads, LeavesUnread, AcceptsLate };

/// A child connects, writes and ends without a word of goodbye; the parent reads on.
void end_of_child(const char* how, void (*leave)(), Parent parent) {
    const bool with_unread = parent == Parent::LeavesUnread;
    const int server = listener();
    const pid_t child = fork();
    if (child == 0) {
        const int fd = connected_to(server);
        pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
        if (with_unread) poll(&one, 1, 2000);
        static_cast<void>(!write(fd, "last words", 10));
        leave();
    }
    if (parent == Parent::AcceptsLate)
        waitid(P_PID, static_cast<id_t>(child), nullptr, WEXITED | WNOWAIT);
    const int far = accept(server, nullptr, nullptr);
    if (with_unread) static_cast<void>(!write(far, "unread", 6));
    print("  %s\n", how);
    int status = -1;
    waitpid(child, &status, 0);
    print("  child %d\n", WEXITSTATUS(status));
    rest(20);
    char buffer[16];
    if (!with_unread) say("read", read(far, buffer, sizeof buffer));
    if (!with_unread) say("read the end", read(far, buffer, sizeof buffer));
    if (with_unread) say_poll("over", far, POLLIN | POLLRDHUP, 1000);
    close(far);
    close(server);
}

void case_exit() {
    end_of_child("exit", [] { std::exit(3); }, Parent::Reads);
    end_of_child("_exit", [] { _exit(4); }, Parent::Reads);
    end_of_child("quick_exit", [] { std::quick_exit(5); }, Parent::Reads);
    end_of_child("exit with unread data", [] { std::exit(6); }, Parent::LeavesUnread);
    end_of_child("exit before it is accepted", [] { std::exit(7); }, Parent::AcceptsLate);
}

/// Cancels a thread that sleeps in `call`; whether it ended by that.
bool cancelled(void* (*call)(void*), Pair& pair) {
    pthread_t thread;
    if (pthread_create(&thread, nullptr, call, &pair) != 0) return false;
    rest(30);
    pthread_cancel(thread);
    void* result = nullptr;
    pthread_join(thread, &result);
    return result == PTHREAD_CANCELED;
}

void case_cancel() {
    Pair pair;
    using Call = void* (*)(void*);
    const auto in = [&](const char* what, Call call) {
        print("  cancelled in %s: %d\n", what, cancelled(call, pair));
    };
    in("recv", [](void* p) -> void* {
        char byte;
        recv(static_cast<Pair*>(p)->far, &byte, 1, 0);
        return nullptr;
    });
    in("accept", [](void* p) -> void* {
        accept(static_cast<Pair*>(p)->server, nullptr, nullptr);
        return nullptr;
    });
    in("poll", [](void* p) -> void* {
        pollfd one{.fd = static_cast<Pair*>(p)->far, .events = POLLIN, .revents = 0};
        poll(&one, 1, -1);
        return nullptr;
    });
    in("epoll_wait", [](void* p) -> void* {
        const int epoll = epoll_create1(0);
        add(epoll, static_cast<Pair*>(p)->far, EPOLLIN, 1);
        epoll_event event;
        epoll_wait(epoll, &event, 1, -1);
        return nullptr;
    });
    say("write", write(pair.near, "abc", 3));
    char buffer[8];
    say("read", recv(pair.far, buffer, 3, MSG_WAITALL));
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

}  // namespace

const std::vector<Case> kProcessesCases = {
    {"threads", case_threads},
    {"fork", case_fork},
    {"daemon", case_daemon},
    {"exit", case_exit},
    {"many", case_many},
    {"file_as_stderr", case_file_as_stderr},
    {"set_before_fork", case_set_before_fork},
    {"set_of_two_processes", case_set_of_two_processes},
    {"close_under_writer", case_close_under_writer},
    {"cancel", case_cancel},
};

}  // namespace cases
