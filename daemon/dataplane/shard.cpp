// SPDX-License-Identifier: Apache-2.0
//
// The life of a shard, and what control tells it. The loop itself is in shard_loop.cpp.
#include "daemon/dataplane/shard.hpp"

#include "base/check.hpp"
#include "daemon/nic/eal.hpp"

#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <string>
#include <system_error>
#include <type_traits>

namespace chiru::daemon {
namespace {

using shm::Counter;

/// How long the last frames of a stopping daemon may take to leave.
constexpr Micros kWindUp{200'000};

Instant clock_now() {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return Instant(Micros(std::int64_t{time.tv_sec} * 1'000'000 + time.tv_nsec / 1000));
}

shm::UniqueFd checked(int fd) {
    if (fd < 0) throw std::system_error(errno, std::generic_category(), "a shard's descriptors");
    return shm::UniqueFd(fd);
}

}  // namespace

Shard::Lane::Lane(const AttachChannel& command)
    : channel(command.channel),
      session(command.session),
      shard_event_fd(command.shard_event_fd),
      submissions(command.lane->submissions),
      completions(command.lane->completions),
      client(*command.client_doorbell, command.client_event_fd) {}

Shard::Shard(const ShardSetup& setup)
    : setup_(setup),
      counters_(setup.page->counters),
      io_(static_cast<std::uint16_t>(setup.index), *setup.ports, *setup.arena, *setup.pools,
          counters_),
      stack_(setup.stack, setup.tables, setup.arena->view(), io_, counters_, clock_now()),
      wake_fd_(checked(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC))),
      epoll_fd_(checked(epoll_create1(EPOLL_CLOEXEC))),
      sleeper_(setup.page->doorbell),
      spin_window_(setup.spin) {
    io_.tell(&stack_);
    lane_of_.fill(-1);
    lanes_.reserve(shm::kMaxChannels);  // so that the loop never allocates
    active_.reserve(shm::kMaxChannels);
    awake_.reserve(shm::kMaxChannels);
    sessions_.reserve(shm::kMaxSessions);
    leaving_.reserve(shm::kMaxSessions);
    unsent_reports_.reserve(shm::kMaxChannels);
    epoll_event edge{};
    edge.events = EPOLLIN | EPOLLET;
    CHECK(epoll_ctl(epoll_fd_.get(), EPOLL_CTL_ADD, wake_fd_.get(), &edge) == 0);
}

Shard::~Shard() { stop(); }

void Shard::meet(std::span<const std::unique_ptr<Shard>> all) {
    if (all.size() == 1) return;
    others_.resize(all.size());
    steered_.resize(all.size() * nic::kBurst);
    for (std::uint32_t i = 0; i < all.size(); ++i) {
        if (i == setup_.index) continue;
        SteerLane& out = setup_.lanes->between(setup_.index, i);
        SteerLane& in = setup_.lanes->between(i, setup_.index);
        others_[i].emplace(Other{shm::RingProducer(out.received), shm::RingProducer(out.to_send),
                                 shm::RingConsumer(in.received), shm::RingConsumer(in.to_send),
                                 all[i]->ringer()});
    }
}

void Shard::start() {
    sigset_t all, before;
    sigfillset(&all);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) sigdelset(&all, fault);
    pthread_sigmask(SIG_BLOCK, &all, &before);  // signals are the control thread's
    thread_ = std::jthread([this] { run(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Shard::stop() {
    if (!thread_.joinable()) return;
    stopping_.store(true, std::memory_order_relaxed);
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(wake_fd_.get(), &one, sizeof one);
    thread_.join();
}

/// In the thread: name, core, scheduling class, DPDK's caches.
void Shard::settle_in() {
    const std::string name = "chiru-shard" + std::to_string(setup_.index);
    pthread_setname_np(pthread_self(), name.c_str());
    cpu_set_t core;
    CPU_ZERO(&core);
    CPU_SET(setup_.core, &core);
    pinned_ = setup_.pin && sched_setaffinity(0, sizeof core, &core) == 0;
    if (setup_.pin && !pinned_ && *setup_.log)
        (*setup_.log)(nic::LogLevel::Warning,
                      "shard " + std::to_string(setup_.index) + " cannot be pinned to core " +
                          std::to_string(setup_.core) + " (" + std::strerror(errno) +
                          "); it runs where the kernel puts it");
    if (!nic::register_thread() && *setup_.log)
        (*setup_.log)(nic::LogLevel::Warning,
                      "shard " + std::to_string(setup_.index) + " runs without buffer caches");
    cpu_ = static_cast<std::uint32_t>(std::max(sched_getcpu(), 0));
    sleeper_.runs_on(cpu_);
    setup_.page->core.store(cpu_, std::memory_order_relaxed);
    setup_.page->thread.store(static_cast<std::uint32_t>(gettid()), std::memory_order_relaxed);
}

/// Resets what is left and lets the resets leave.
void Shard::wind_up() {
    now_ = clock_now();
    if (armed_) disarm();
    while (!sessions_.empty()) detach_session(sessions_.back(), 0, Parting::Lost);
    const Instant give_up = now_ + kWindUp;
    while (now_ < give_up) {
        now_ = clock_now();
        const bool busy = turn();
        if (!busy && leaving_.empty() && !io_.has_unsent()) break;
    }
    nic::unregister_thread();
}

void Shard::publish_interfaces() {
    interfaces_version_ = stack_.interfaces_version();
    const std::size_t count = std::min(setup_.stack.interfaces.size(), shm::kMaxInterfaces);
    for (std::uint16_t i = 0; i < count; ++i)
        setup_.directory->interfaces[i].publish(stack_.interface_info(i));
    setup_.directory->interfaces_changed.fetch_add(1, std::memory_order_relaxed);  // a hint
}

// ---- what control says ---------------------------------------------------------------------

bool Shard::take_commands() {
    if (!unsent_reports_.empty()) flush_reports();
    if (!unsent_reports_.empty()) return false;  // control is behind: no more until it listens
    std::array<Command, 8> commands;
    const std::size_t count = command_consumer_.pop(commands);
    for (std::size_t i = 0; i < count; ++i) carry_out(commands[i]);
    return count != 0;
}

void Shard::carry_out(const Command& command) {
    Report answer{.shard = setup_.index, .tag = command.tag, .what = Done{}};
    bool answer_now = true;
    std::visit(
        [&](const auto& what) {
            using What = std::decay_t<decltype(what)>;
            if constexpr (std::is_same_v<What, AttachSession>) {
                stack_.attach_session(what.session, what.config);
                sessions_.push_back(what.session);
            } else if constexpr (std::is_same_v<What, DetachSession>) {
                detach_session(what.session, command.tag, what.parting);
                answer_now = false;
            } else if constexpr (std::is_same_v<What, AttachChannel>) {
                attach(what);
            } else if constexpr (std::is_same_v<What, DetachChannel>) {
                stack_.detach_channel(what.channel, now_);
                remove_lane(what.channel);
            } else if constexpr (std::is_same_v<What, Listen>) {
                stack_.listen(what.listener, what.local, what.bind_flags, what.terms);
            } else if constexpr (std::is_same_v<What, ShareListener>) {
                stack_.share_listener(what.listener, what.session);
            } else if constexpr (std::is_same_v<What, LeaveListener>) {
                stack_.leave_listener(what.listener, what.session, now_);
            } else if constexpr (std::is_same_v<What, Unlisten>) {
                stack_.unlisten(what.listener, now_);
            } else if constexpr (std::is_same_v<What, PausePort>) {
                if (armed_) disarm();
                io_.pause(what.port);
            } else if constexpr (std::is_same_v<What, ResumePort>) {
                io_.resume(what.port);
            } else if constexpr (std::is_same_v<What, LinkUp>) {
                stack_.link_up(what.port, now_);
            } else if constexpr (std::is_same_v<What, OpenDatagram>) {
                stack_.open_datagram(what.config, now_);
            } else if constexpr (std::is_same_v<What, ConnectDatagram>) {
                answer.what = connect(what);
            } else if constexpr (std::is_same_v<What, CloseDatagram>) {
                close(what);
            } else if constexpr (std::is_same_v<What, JoinGroup>) {
                const auto joined = stack_.join_group(what.group, what.interface, now_);
                answer.what = GroupJoined{.error = joined ? 0 : joined.error(),
                                          .interface = joined.value_or(std::uint16_t{0})};
            } else if constexpr (std::is_same_v<What, LeaveGroup>) {
                stack_.leave_group(what.group, what.interface, now_);
            } else if constexpr (std::is_same_v<What, LearnCookie>) {
                stack_.learn_cookie(what.learnt, now_);
            } else if constexpr (std::is_same_v<What, LearnPathMtu>) {
                stack_.learn_path_mtu(what.path, now_);
                answer_now = false;
            } else {
                static_assert(std::is_same_v<What, QueryConnection>);
                ConnectionSnapshot snapshot;
                snapshot.found =
                    stack_.connection_info(what.session, what.connection, snapshot.info);
                answer.what = snapshot;
            }
        },
        command.what);
    if (answer_now) report(answer);
}

void Shard::attach(const AttachChannel& command) {
    if (lane_of_[command.channel] >= 0) return;
    stack_.attach_channel(command.channel, command.session);
    lane_of_[command.channel] = static_cast<std::int16_t>(lanes_.size());
    lanes_.emplace_back(command);
    epoll_event edge{};
    edge.events = EPOLLIN | EPOLLET;
    // There already (EEXIST) if the session's channels share one descriptor.
    epoll_ctl(epoll_fd_.get(), EPOLL_CTL_ADD, command.shard_event_fd, &edge);
}

DatagramConnected Shard::connect(const ConnectDatagram& command) {
    const auto route =
        stack_.connect_datagram(command.socket, command.remote, command.interface, now_);
    if (!route) return {.error = route.error(), .path_mtu = 0, .local = {}};
    return {.error = 0, .path_mtu = route->path.mtu, .local = route->local};
}

/// What was sent before it was closed still goes out.
void Shard::close(const CloseDatagram& command) {
    if (const std::int16_t position = lane_of_[command.channel]; position >= 0)
        take_last_submissions(lanes_[static_cast<std::size_t>(position)]);
    stack_.close_datagram(command.socket);
}

void Shard::remove_lane(ChannelIndex channel) {
    const std::int16_t position = lane_of_[channel];
    if (position < 0) return;
    const int fd = lanes_[static_cast<std::size_t>(position)].shard_event_fd;
    lanes_[static_cast<std::size_t>(position)] = lanes_.back();
    lane_of_[lanes_.back().channel] = position;
    lanes_.pop_back();
    lane_of_[channel] = -1;
    std::erase(active_, channel);
    const bool shared = std::any_of(lanes_.begin(), lanes_.end(),
                                    [fd](const Lane& lane) { return lane.shard_event_fd == fd; });
    if (!shared) epoll_ctl(epoll_fd_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

void Shard::detach_session(SessionIndex session, std::uint64_t tag, Parting parting) {
    // A process that sends, closes and exits is gone before we look; what it said still counts.
    // If not all of it can be taken, a FIN would lie about what is missing.
    bool complete = true;
    for (Lane& lane : lanes_)
        if (lane.session == session) complete &= take_last_submissions(lane);
    stack_.detach_session(session, now_, complete ? parting : Parting::Lost);  // a part a turn
    for (std::size_t i = lanes_.size(); i-- > 0;)
        if (lanes_[i].session == session) remove_lane(lanes_[i].channel);
    std::erase(sessions_, session);
    leaving_.push_back({session, tag});
}

bool Shard::see_off_sessions() {
    bool any = false;
    for (std::size_t i = leaving_.size(); i-- > 0;) {
        const Leaving leaving = leaving_[i];
        if (!stack_.session_gone(leaving.session)) continue;
        leaving_.erase(leaving_.begin() + static_cast<std::ptrdiff_t>(i));
        report({.shard = setup_.index, .tag = leaving.tag, .what = SessionGone{leaving.session}});
        any = true;
    }
    return any;
}

void Shard::accuse(Lane& lane, Violation violation, bool corrupt_ring) {
    lane.quiet = true;
    counters_.add(Counter::Violations);
    report({.shard = setup_.index,
            .tag = 0,
            .what = ClientViolation{lane.channel, lane.session, violation, corrupt_ring}});
}

/// What does not fit is only a request more to the peer.
void Shard::share_cookies() {
    CookieLearnt news;
    while (unsent_reports_.size() < unsent_reports_.capacity() &&
           stack_.take_learnt_cookie(news.learnt))
        report({.shard = setup_.index, .tag = 0, .what = news});
}

/// While control is behind, the news wait in the stack, which bounds them.
void Shard::report_path_mtus() {
    if (!unsent_reports_.empty()) return;
    std::array<PathMtu, 8> news;
    const std::size_t count = stack_.take_path_mtus(news);
    for (std::size_t i = 0; i < count; ++i)
        report({.shard = setup_.index, .tag = 0, .what = PathMtuLearnt{news[i]}});
}

void Shard::report(const Report& report) {
    unsent_reports_.push_back(report);
    flush_reports();
}

void Shard::flush_reports() {
    const std::size_t pushed = report_producer_.push(unsent_reports_);
    if (pushed == 0) return;
    unsent_reports_.erase(unsent_reports_.begin(),
                          unsent_reports_.begin() + static_cast<std::ptrdiff_t>(pushed));
    const std::uint64_t one = 1;
    // EAGAIN, a full count: control has been woken.
    [[maybe_unused]] const ssize_t written = write(setup_.report_fd, &one, sizeof one);
}

}  // namespace chiru::daemon
