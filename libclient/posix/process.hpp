// SPDX-License-Identifier: Apache-2.0
//
// What one process has of chiru under the shim: the table of descriptors, the session and its
// channel, and the lock around them.
//
// Nothing happens before the program first asks for an address that might be chiru's. Then the
// process attaches; if there is no daemon it says so once and goes on with the kernel. One channel
// serves all threads, under one lock that costs a single-threaded program no atomic operation.
//
// A fork leaves the session to the parent: the child closes its copies, keeps only listeners (by
// their tokens), and attaches anew when it first needs to. A page that the kernel wipes on fork
// tells even a child that was made behind the C library's back.
//
// When the daemon dies, every socket of the channel has failed; the sockets keep that channel
// until they are closed, and the next connect or bind attaches anew.
#pragma once

#include "base/time.hpp"
#include "libclient/channel.hpp"
#include "libclient/posix/biased_lock.hpp"
#include "libclient/posix/fd_table.hpp"
#include "libclient/posix/policy.hpp"
#include "libclient/session.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

namespace chiru::posix {

class Epoll;
class Socket;

/// From the environment, where the launcher puts it. Read when the program starts: some, like
/// nginx, clear their environment later, before they fork their workers.
struct Settings {
    std::string socket_path;  ///< CHIRU_SOCKET: which daemon
    bool loopback = false;  ///< CHIRU_LOOPBACK: 127.0.0.0/8 and ::1 are chiru's
    bool required = false;  ///< CHIRU_REQUIRED: without a daemon, fail instead of using the kernel
    bool verbose = false;   ///< CHIRU_VERBOSE: say on stderr which stack a socket goes to
    Micros spin{20};        ///< CHIRU_SPIN_US: how long to poll before a sleep

    static Settings from_environment();
};

/// A descriptor that becomes readable when a sleeping call must look again: the daemon rang, it
/// died, or another thread took completions that this one waits for. Each sleeper needs its own,
/// because each must see every edge.
struct Waiter {
    int fd = -1;
    std::weak_ptr<client::Channel> channel;
};

class Process {
public:
    static Process& get();

    BiasedLock lock;

    // All that follows: under the lock.

    const Settings& settings() const { return settings_; }
    const Policy& policy() const { return policy_; }

    /// The channel, attaching if need be; nullptr if there is no daemon.
    const std::shared_ptr<client::Channel>& attach();
    const std::shared_ptr<client::Channel>& channel() const { return channel_; }

    /// Takes what the shards say and tells sockets, sets and sleepers.
    void process();
    /// How long to poll before a sleep: not at all while a shard shares our CPU, less after
    /// polling that was in vain.
    Micros spin_limit() const;
    bool spun(bool successfully);

    /// Somebody may sleep in this; wakes all of them when the lock is let go.
    void wake_sleepers() { wake_needed_ = sleepers_ != 0; }
    bool wake_needed() const { return wake_needed_; }
    /// Tells the daemon what was submitted, if it sleeps. Ends every call that sends something.
    void flush() { channel_->flush(); }
    void wake_now();
    /// So many of this process and of those it came from: what was made before is shared.
    std::uint32_t forks() const { return forks_; }
    /// The program ends in order.
    void say_farewell();

    /// How long a Nap may last.
    Micros sleep_limit() const;
    Waiter take_waiter();
    void give_waiter(const Waiter& waiter);

    /// Puts what wakes a sleeper into a kernel epoll set, with `mark` as its data.
    /// (and mark + 1 for the control socket's end).
    void watch(int epoll_fd, std::uint64_t mark);
    void watch_nudge(int epoll_fd, std::uint64_t mark);
    void unwatch(int epoll_fd);
    /// The control socket stirred: is the daemon still there?
    void check_daemon();
    void add_epoll(Epoll& epoll) { active_epolls_.push_back(&epoll); }
    void remove_epoll(Epoll& epoll);

    /// A fresh unconnected kernel socket's number, to stand for a connection.
    int placeholder(bool close_on_exec);
    /// Where this library's own descriptors go, out of the program's way.
    int raised(int fd);
    /// Descriptor 2 is where messages go, as of now.
    void note_stderr() { has_stderr_ = ::fstat(STDERR_FILENO, &stderr_) == 0; }

    /// Has this process (not a child that shares our memory, as after vfork) the table?
    bool is_mine() const;
    bool forked() const { return *alive_ == 0; }
    /// An inherited listener was adopted or closed.
    void listener_settled();
    void before_fork();
    void after_fork_in_parent();
    void after_fork_in_child();

    /// Says it on stderr, if it was never said before.
    void warn_once(bool& said, const char* text);
    void say(const char* format, ...) __attribute__((format(printf, 2, 3)));

    bool warned_inherited = false;

private:
    friend class Nap;
    Process();
    int open_channel();
    void detach();
    /// `fd` is this library's own: the program can neither close nor replace it.
    void own(int fd);
    void close_own(int fd);
    void spread_edges();
    void connect_early();
    void leave_to_parent(client::Channel& parents);

    Settings settings_;
    Policy policy_;
    std::shared_ptr<client::Channel> channel_;
    std::vector<Epoll*> active_epolls_;
    std::vector<Waiter> free_waiters_;
    Object* internal_;  ///< what our own descriptors name in the table
    int nudge_ = -1;        ///< eventfd by which threads wake each other
    int placeholder_ = -1;
    int early_control_ = -1;  ///< connected at the fork, not yet attached
    /// Control sockets of parents: they keep inherited listeners alive until all are adopted.
    std::vector<int> leases_;
    std::uint32_t inherited_listeners_ = 0;
    bool is_stderr_as_noted() const;

    bool fork_locked_ = false;
    bool has_stderr_ = false;
    struct stat stderr_ {};  ///< what descriptor 2 was at the start, or since a dup2() onto it
    std::uint32_t forks_ = 0;
    std::uint32_t sleepers_ = 0;
    bool wake_needed_ = false;
    bool warned_absent_ = false;
    pid_t pid_ = 0;
    Micros spin_now_{20};
    std::uint32_t spins_skipped_ = 0;
    std::uint32_t* alive_ = nullptr;  ///< 1; in a child the kernel makes it 0
};

/// A sleep, announced to the daemon and other threads while this lives. Give the lock away, sleep
/// on a waiter (or in a watched epoll set) no longer than sleep_limit(), and process() afterwards.
class Nap {
public:
    explicit Nap(Process& process);
    ~Nap();
    Nap(const Nap&) = delete;
    Nap& operator=(const Nap&) = delete;

    /// False: do not, there is something to do.
    bool may_sleep() const { return may_sleep_; }

private:
    Process& process_;
    std::shared_ptr<client::Channel> channel_;  ///< whose shards were told
    bool may_sleep_;
};

/// Holds the process's lock. False inside a signal handler that interrupted this library: then
/// nothing may be touched, and the call must fail.
class Guard {
public:
    Guard() : process_(Process::get()), held_(!BiasedLock::held_by_me()) {
        if (!held_) return;
        if (process_.forked()) [[unlikely]] process_.after_fork_in_child();
        process_.lock.lock();
    }
    ~Guard() {
        if (!held_) return;
        if (process_.wake_needed()) [[unlikely]] process_.wake_now();
        process_.lock.unlock();
    }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

    explicit operator bool() const { return held_; }
    Process& process() { return process_; }

private:
    friend class Away;
    Process& process_;
    bool held_;
};

/// Gives the lock away, around a sleep. If pthread_cancel() ends it, the lock is back before
/// anything else of the call is taken down.
class Away {
public:
    explicit Away(Guard& guard) : process_(guard.process_) {
        if (process_.wake_needed()) [[unlikely]] process_.wake_now();
        process_.lock.unlock();
    }
    ~Away() { process_.lock.lock(); }
    Away(const Away&) = delete;
    Away& operator=(const Away&) = delete;

private:
    Process& process_;
};

}  // namespace chiru::posix
