// SPDX-License-Identifier: Apache-2.0
//
// Rings, edges and sleep: what every other part of a channel stands on.
#include "libclient/channel.hpp"

#include "libclient/lane.hpp"

#include <sched.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <memory>
#include <new>
#include <utility>

namespace chiru::client {
namespace {

/// While a ring or the arena is full, nobody tells us of the room to come: look again so often.
constexpr Micros kPressedSleep{1'000};
/// A program that polls and never sleeps has the kernel asked about the daemon every so many
/// empty polls: some milliseconds.
constexpr std::uint32_t kPollsBetweenChecks = 16'384;
/// Senders woken at once when room came back; the others are next.
constexpr std::uint32_t kWokenAtOnce = 64;

std::chrono::steady_clock::time_point now() { return std::chrono::steady_clock::now(); }

void pause_cpu() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb" ::: "memory");
#endif
}

std::uint32_t this_cpu() {
    const int cpu = sched_getcpu();
    return cpu < 0 ? shm::kNoCpu : static_cast<std::uint32_t>(cpu);
}

}  // namespace

Result<std::unique_ptr<Channel>, int> Channel::open(std::shared_ptr<Session> session) {
    Result<ChannelParts, int> parts = session->create_channel();
    if (!parts) return std::unexpected(parts.error());
    return open(std::move(session), std::move(*parts));
}

Result<std::unique_ptr<Channel>, int> Channel::open(std::shared_ptr<Session> session,
                                                    ChannelParts parts) {
    if (parts.shard_doorbells.size() != parts.shard_count) return std::unexpected(EPROTO);
    std::unique_ptr<Channel> channel(new Channel(std::move(session), std::move(parts)));
    if (channel->shared_ == nullptr) return std::unexpected(EPROTO);
    if (const int error = channel->watch(); error != 0) return std::unexpected(error);
    return channel;
}

Channel::Channel(std::shared_ptr<Session> session, ChannelParts parts)
    : session_(std::move(session)),
      number_(parts.channel),
      region_(std::move(parts.region)),
      doorbell_(std::move(parts.client_doorbell)),
      shared_(shm::Channel::attach(region_.bytes(), parts.shard_count)),
      arena_(session_->tx_blocks()) {
    if (shared_ == nullptr) return;
    // One socket may fill a quarter of the send memory.
    const std::uint64_t quarter = session_->terms().tx_arena_bytes / 4;
    most_room_ = static_cast<std::uint32_t>(std::clamp<std::uint64_t>(quarter, kFirstRoom,
                                                                      1u << 30));
    sleeper_.emplace(shared_->client_doorbell);
    for (std::uint32_t i = 0; i < parts.shard_count; ++i)
        lanes_.push_back(std::make_unique<Lane>(shared_->lane(i), static_cast<std::uint8_t>(i),
                                                session_->directory().shards[i].doorbell,
                                                std::move(parts.shard_doorbells[i])));
}

int Channel::watch() {
    epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
    if (!epoll_) return errno;
    epoll_event doorbell{.events = EPOLLIN | EPOLLET, .data = {.u64 = 0}};
    epoll_event control{.events = EPOLLRDHUP, .data = {.u64 = 1}};
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, doorbell_.get(), &doorbell) != 0 ||
        epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, session_->control_fd(), &control) != 0)
        return errno;
    return 0;
}

Channel::~Channel() {
    if (shared_ != nullptr && !session_->lost())
        static_cast<void>(session_->destroy_channel(number_));
}

// ---- submissions ---------------------------------------------------------------------------

bool Channel::submit(Lane& lane, const shm::Submission& submission) {
    if (lane.releases.count != 0) push_releases(lane);
    if (!lane.backlog.empty() || lane.submissions.push({&submission, 1}) == 0) return false;
    lane.dirty = true;
    return true;
}

void Channel::submit_surely(Lane& lane, const shm::Submission& submission) {
    if (submit(lane, submission)) return;
    try {
        lane.backlog.push_back(submission);
    } catch (const std::bad_alloc&) {
        session_->give_up();  // a lost Close or Release would leak the daemon's memory for ever
    }
}

void Channel::push_backlog(Lane& lane) {
    while (!lane.backlog.empty() && lane.submissions.push({&lane.backlog.front(), 1}) != 0) {
        lane.backlog.pop_front();
        lane.dirty = true;
    }
}

void Channel::flush() {
    for (const std::unique_ptr<Lane>& lane : lanes_) {
        if (!lane->backlog.empty()) push_backlog(*lane);
        if (lane->releases.count != 0) push_releases(*lane);
        if (!lane->dirty) continue;
        lane->dirty = false;
        lane->ringer.ring();
    }
}

void Channel::say_farewell(Micros limit) {
    constexpr Micros kLook{500};
    const auto behind = [](const std::unique_ptr<Lane>& lane) { return !lane->backlog.empty(); };
    for (Micros waited{0}; !failed_; waited += kLook) {
        flush();
        if (std::ranges::none_of(lanes_, behind)) return session_->say_farewell();
        if (waited >= limit) return;
        const timespec rest{.tv_sec = 0, .tv_nsec = kLook.count() * 1000};
        nanosleep(&rest, nullptr);
    }
}

// ---- progress ------------------------------------------------------------------------------

std::size_t Channel::process() {
    std::size_t processed = 0;
    if (!failed_)
        for (const std::unique_ptr<Lane>& lane : lanes_) processed += process_lane(*lane);
    if (waiting_first_ != kNone) wake_waiting();
    flush();
    if (processed != 0) {
        empty_polls_ = 0;
    } else if (++empty_polls_ >= kPollsBetweenChecks) {
        empty_polls_ = 0;
        session_->check_alive();
    }
    if (session_->lost() && !failed_) fail_all();
    return processed;
}

std::size_t Channel::process_lane(Lane& lane) {
    std::size_t processed = 0;
    // At most one ringful a call: a shard that produces as fast as we consume must not keep us.
    while (processed < shm::CompletionRing::kSlots) {
        const std::size_t count = lane.completions.pop(lane.burst);
        for (std::size_t i = 0; i < count; ++i) handle(lane, lane.burst[i]);
        processed += count;
        if (count < Lane::kBurst) break;
    }
    if (lane.completions.peer_is_corrupt() || lane.submissions.peer_is_corrupt())
        session_->give_up();
    return processed;
}

void Channel::fail_all() {
    failed_ = true;
    for (const std::unique_ptr<Lane>& lane : lanes_) {
        lane->backlog.clear();
        lane->releases.count = 0;
    }
    for (std::uint32_t i = 0; i < sockets_.high(); ++i) {
        Socket& socket = sockets_[i];
        switch (socket.state) {
            case SocketState::Free:
            case SocketState::Open:
            case SocketState::Over: break;
            case SocketState::Lingering: free_socket(socket); break;
            case SocketState::Connecting:
            case SocketState::Connected:
            case SocketState::Listening: fail(socket, ECONNRESET); break;
            case SocketState::Datagrams:
                drop_datagrams(socket);
                fail(socket, ECONNRESET);
                break;
        }
    }
}

void Channel::mark(Socket& socket, std::uint8_t edges) {
    socket.edges |= edges;
    if ((socket.flags & (kInChanged | kUnaccepted)) != 0) return;
    socket.flags |= kInChanged;
    socket.next_changed = kNone;
    if (changed_last_ == kNone) changed_first_ = socket.name.index;
    else sockets_[changed_last_].next_changed = socket.name.index;
    changed_last_ = socket.name.index;
}

Socket* Channel::next_changed() {
    while (changed_first_ != kNone) {
        Socket& socket = sockets_[changed_first_];
        changed_first_ = socket.next_changed;
        if (changed_first_ == kNone) changed_last_ = kNone;
        leave_list(socket, kInChanged);
        if (socket.state != SocketState::Free && socket.state != SocketState::Lingering)
            return &socket;
    }
    return nullptr;
}

void Channel::wait_for_room(Socket& socket) {
    socket.flags |= kWantsRoom;
    if ((socket.flags & kInWaiting) != 0) return;
    socket.flags |= kInWaiting;
    socket.next_waiting = kNone;
    if (waiting_last_ == kNone) waiting_first_ = socket.name.index;
    else sockets_[waiting_last_].next_waiting = socket.name.index;
    waiting_last_ = socket.name.index;
}

void Channel::wake_waiting() {
    for (std::uint32_t i = 0; waiting_first_ != kNone && i < kWokenAtOnce; ++i) {
        if (!failed_ && !arena_.has_room()) return;
        Socket& socket = sockets_[waiting_first_];
        waiting_first_ = socket.next_waiting;
        if (waiting_first_ == kNone) waiting_last_ = kNone;
        leave_list(socket, kInWaiting);
        const bool sends =
            socket.state == SocketState::Connected || socket.state == SocketState::Datagrams;
        if (!sends) continue;
        if (!lanes_[socket.shard]->has_room()) {
            wait_for_room(socket);  // behind the others: their shards may have room
            continue;
        }
        socket.flags &= static_cast<std::uint16_t>(~kWantsRoom);
        mark(socket, kWritable);
    }
}

void Channel::leave_list(Socket& socket, SocketFlag list) {
    socket.flags &= static_cast<std::uint16_t>(~list);
    const bool listed = (socket.flags & (kInChanged | kInWaiting)) != 0;
    if (socket.state == SocketState::Free && !listed) sockets_.put(socket.name.index);
}

// ---- sleep ---------------------------------------------------------------------------------

bool Channel::arm() {
    // A sleeper before us may have been rung for in this epoch already; we need one of our own.
    if (sleepers_++ != 0) sleeper_->disarm();
    if (const std::uint32_t cpu = this_cpu(); cpu != cpu_) sleeper_->runs_on(cpu_ = cpu);
    process();
    sleeper_->arm();
    if (process() == 0 && changed_first_ == kNone && !failed_) return true;
    leave_sleepers();
    return false;
}

void Channel::leave_sleepers() {
    sleeper_->disarm();
    if (--sleepers_ == 0) return;
    // This epoch was rung for, and perhaps only we heard it: of the threads that sleep in one
    // epoll set an edge wakes one. The others need an epoch that was not, and so a look.
    sleeper_->arm();
    process();
}

void Channel::disarm() {
    leave_sleepers();
    empty_polls_ = kPollsBetweenChecks;  // a wake-up for nothing may be the daemon's end
}

void Channel::settle_poll_fd() {
    epoll_event events[2];
    static_cast<void>(epoll_wait(epoll_.get(), events, 2, 0));
}

Micros Channel::sleep_limit() const {
    bool pressed = waiting_first_ != kNone;
    for (const std::unique_ptr<Lane>& lane : lanes_) pressed |= !lane->backlog.empty();
    return pressed ? kPressedSleep : kForever;
}

bool Channel::spinning_helps() const {
    const std::uint32_t cpu = this_cpu();
    return std::ranges::none_of(lanes_, [cpu](const std::unique_ptr<Lane>& lane) {
        return lane->ringer.consumer_cpu() == cpu;
    });
}

std::size_t Channel::spin(Micros limit) {
    constexpr int kPollsBetweenClocks = 32;
    const auto end = now() + std::min(limit, spin_);
    do {
        for (int i = 0; i < kPollsBetweenClocks; ++i) {
            const std::size_t processed = process();
            if (processed != 0 || failed_) return processed;
            pause_cpu();
        }
    } while (now() < end);
    return 0;
}

int Channel::sleep(Micros limit) {
    epoll_event events[2];
    const std::int64_t us = std::max<std::int64_t>(limit.count(), 0);
    const timespec span{.tv_sec = us / 1'000'000, .tv_nsec = us % 1'000'000 * 1'000};
    const timespec* end = limit == kForever ? nullptr : &span;
    int woken = epoll_pwait2(epoll_.get(), events, 2, end, nullptr);
    if (woken < 0 && errno == ENOSYS) {  // before Linux 5.11
        const std::int64_t ms = std::min<std::int64_t>((us + 999) / 1'000, 1'000'000);
        woken = epoll_wait(epoll_.get(), events, 2, end == nullptr ? -1 : static_cast<int>(ms));
    }
    return woken < 0 ? errno : 0;
}

Result<std::size_t, int> Channel::wait(Micros timeout) {
    const auto start = now();
    std::size_t processed = process();
    bool first = true;
    while (processed == 0 && changed_first_ == kNone) {
        if (failed_) return std::unexpected(EPIPE);
        Micros left = kForever;
        if (timeout >= Micros(0)) {
            const auto past = std::chrono::duration_cast<Micros>(now() - start);
            if (past >= timeout) break;
            left = timeout - past;
        }
        if (std::exchange(first, false) && spin_ > Micros(0) && spinning_helps()) {
            processed = spin(left);
            continue;
        }
        if (!arm()) return 1;  // arm() processed something
        const int error = sleep(std::min(left, sleep_limit()));
        disarm();
        processed = process();
        if (error != 0 && processed == 0 && changed_first_ == kNone)
            return std::unexpected(error);
    }
    return processed;
}

}  // namespace chiru::client
