// SPDX-License-Identifier: Apache-2.0
//
// Readiness: poll, select and epoll, and signals that interrupt them.
#include "cases.hpp"

#include <csignal>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

namespace cases {
namespace {

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

void case_signals() {
    Pair pair;
    struct sigaction action {};
    action.sa_handler = [](int) {};
    sigaction(SIGALRM, &action, nullptr);
    // Again and again: the first may come before the call that it is to interrupt.
    const timeval each{.tv_sec = 0, .tv_usec = 40'000};
    const itimerval ticks{.it_interval = each, .it_value = each};
    setitimer(ITIMER_REAL, &ticks, nullptr);
    char byte;
    say("recv", recv(pair.near, &byte, 1, 0));
    say("accept", accept(pair.server, nullptr, nullptr));
    const int epoll = epoll_create1(0);
    add(epoll, pair.near, EPOLLIN, 1);
    epoll_event event;
    say("epoll_wait", epoll_wait(epoll, &event, 1, 2000));
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, nullptr);
    std::thread writer([&] { rest(120); static_cast<void>(!write(pair.far, "x", 1)); });
    say("recv, restarted", recv(pair.near, &byte, 1, 0));
    writer.join();
    const itimerval no_ticks{};
    setitimer(ITIMER_REAL, &no_ticks, nullptr);
    close(epoll);
}

/// One thread's epoll_wait() in a set that several share, for one event.
struct SharedWait {
    explicit SharedWait(int epoll, int timeout = 5000) {
        thread = std::thread([this, epoll, timeout] {
            epoll_event event{};
            const int count = epoll_wait(epoll, &event, 1, timeout);
            seen = count == 1 ? static_cast<int>(event.data.u32) : -1;
        });
    }
    int get() {
        thread.join();
        return seen;
    }
    std::thread thread;
    int seen = 0;
};

void case_shared_epoll() {
    const int server = listener();
    const pid_t child = fork();
    if (child == 0) {  // the peer: nothing in this process stirs but by its words
        const int one = connected_to(server);
        const int two = connected_to(server);
        rest(60);
        static_cast<void>(!write(one, "a", 1));
        rest(60);  // a thread has taken that, and does not come back
        static_cast<void>(!write(two, "b", 1));
        char byte;
        read(one, &byte, 1);
        _exit(0);
    }
    const int one = accept(server, nullptr, nullptr);
    const int two = accept(server, nullptr, nullptr);
    const int epoll = epoll_create1(0);
    add(epoll, one, EPOLLIN | EPOLLET, 1);
    add(epoll, two, EPOLLIN | EPOLLET, 2);
    {
        SharedWait first(epoll);
        SharedWait second(epoll);
        print("  each has one: %d\n", first.get() + second.get());
    }
    add(epoll, one, EPOLLIN, 1, EPOLL_CTL_MOD);
    add(epoll, two, EPOLLIN, 2, EPOLL_CTL_MOD);
    SharedWait first(epoll);
    SharedWait second(epoll);
    print("  both wake for what stays ready: %d\n", first.get() > 0 && second.get() > 0);
    for (const int fd : {one, two, epoll, server}) close(fd);
    waitpid(child, nullptr, 0);
}

void case_set_that_fills() {  // while a thread waits in it, as acceptors do with their workers
    Pair pair;
    const int epoll = epoll_create1(0);
    SharedWait first(epoll);
    SharedWait second(epoll);
    rest(30);
    say("add", add(epoll, pair.far, EPOLLIN | EPOLLET, 7));
    rest(30);
    static_cast<void>(!write(pair.near, "x", 1));
    rest(30);
    say("add another", add(epoll, pair.near, EPOLLOUT | EPOLLET, 8));
    print("  each has one: %d\n", first.get() + second.get());
    close(epoll);
}

}  // namespace

const std::vector<Case> kReadinessCases = {
    {"epoll level", case_epoll_level},
    {"epoll edge", case_epoll_edge},
    {"epoll accept", case_epoll_accept},
    {"early epoll", case_early_epoll},
    {"signals", case_signals},
    {"shared epoll", case_shared_epoll},
    {"set that fills", case_set_that_fills},
};

}  // namespace cases
