// SPDX-License-Identifier: Apache-2.0
//
// A set of epoll that holds chiru's sockets beside the kernel's descriptors.
//
// The program's epoll descriptor is a real one, and the kernel's descriptors are in it as ever;
// a set without chiru's sockets is the kernel's alone and its calls go straight there. The first
// socket of ours activates the set:
//
//   kernel set     the program's kernel descriptors, and what wakes us: doorbell, control, nudge
//   interests      our sockets, each with its events and data
//   ready list     interests that may have something to tell, the longest waiting first
//
// Waiting takes O(ready) from the ready list, as the kernel does it: a level-triggered interest
// goes back to the list's end while its condition holds, an edge-triggered one waits for the
// next edge, a one-shot one for EPOLL_CTL_MOD. The kernel's part is asked without waiting, often
// enough that nobody there starves; and when there is nothing anywhere, one epoll_wait in the
// kernel sleeps for both.
//
// After a fork the kernel's set is shared: what wakes us must not be in it, for an edge could come
// to the other process. A sleep is then one ppoll() on the set and on a waiter beside it.
// A process takes part in its listeners when it first waits, not when it makes the set: a master
// that makes the set for its workers takes no connections.
#pragma once

#include "base/time.hpp"
#include "libclient/posix/fd_table.hpp"
#include "libclient/posix/list.hpp"
#include "libclient/posix/process.hpp"
#include "libclient/posix/wait.hpp"

#include <cstdint>
#include <span>

#include <sys/epoll.h>

namespace chiru::posix {

/// One socket in one set under one descriptor: what EPOLL_CTL_ADD made.
struct Interest {
    Epoll* epoll = nullptr;
    Socket* socket = nullptr;
    int fd = -1;
    epoll_event event{};     ///< as the program gave it
    bool disabled = false;   ///< a one-shot that fired
    bool in_kernel = false;  ///< also in the kernel's set: fresh, or listening in both stacks
    Link<Interest> in_ready;
    Link<Interest> in_set;
    Link<Interest> in_socket;
};

class Epoll final : public Object {
public:
    explicit Epoll(int fd);
    ~Epoll() override;
    void last_descriptor_closed() override;

    /// Does it hold a socket of ours, or did it once? Else it is the kernel's alone.
    bool active() const { return active_; }
    /// wait() for a set that is not: what the kernel says, until a socket of ours comes.
    int wait_for_kernel(Guard& guard, int epoll_fd, epoll_event* events, int room,
                        const Deadline& deadline, const sigset_t* mask);

    /// For a socket in the table, through the program's descriptor `epoll_fd`: 0 or a negative
    /// errno value.
    int control(int epoll_fd, int operation, int fd, Socket& socket, epoll_event* event);
    /// A kernel descriptor was added: the kernel's part is worth asking.
    void kernel_descriptor_added() { has_kernel_ = true; }

    /// The count of events, 0 when the time is up, or a negative errno value. `room` > 0.
    int wait(Guard& guard, int epoll_fd, epoll_event* events, int room, const Deadline& deadline,
             const sigset_t* mask);

    /// Something happened to the interest's socket.
    void touch(Interest& interest);
    /// Forgets an interest; the kernel's part of it is the kernel's to forget.
    void drop(Interest& interest);
    /// The interest's socket turned from the kernel's into chiru's.
    void take_over(Interest& interest, bool keep_in_kernel);
    /// And back: the kernel's part of it counts again.
    void give_back(Interest& interest);
    /// Takes part in the interest's listener, now or as soon as somebody waits.
    void show(Interest& interest);

    /// The session's descriptors, which wake us, come and go.
    void session_came();
    void session_gone();
    /// In a forked child, which shares the kernel's set with its parent: leave it alone.
    void forget_session();
    /// Before a fork, after which the kernel's set is the child's as well: takes out what wakes us.
    void share();

private:
    int add(int fd, Socket& socket, const epoll_event& event);
    int modify(Interest& interest, const epoll_event& event);
    int remove(Interest& interest);
    void activate();
    bool shared() const;
    void show_all();
    int collect(epoll_event* events, int room);
    bool kernel_is_due();
    void pass_on();
    int ask_kernel(epoll_event* events, int room);
    int sleep(Guard& guard, std::span<epoll_event> events, const Deadline& deadline,
              const sigset_t* mask);
    int sleep_beside(Guard& guard, std::span<epoll_event> events, const Deadline& deadline,
                     const sigset_t* mask);
    int wait_counted(Guard& guard, epoll_event* events, int room, const Deadline& deadline,
                     const sigset_t* mask);
    /// Takes out what only woke us.
    int without_marks(epoll_event* events, int count);

    int fd_;  ///< the program's, as it used it last
    bool active_ = false;
    bool watching_ = false;
    bool unshown_ = false;  ///< holds listeners that wait() has to take part in
    std::uint32_t forks_at_birth_;
    bool has_kernel_ = false;
    std::uint32_t waiters_ = 0;  ///< threads in wait()
    std::uint32_t unaware_ = 0;  ///< threads in wait_for_kernel()
    std::uint32_t calls_since_kernel_ = 0;
    Instant kernel_asked_{};
    List<Interest, &Interest::in_ready> ready_;
    List<Interest, &Interest::in_set> set_;
};

}  // namespace chiru::posix
