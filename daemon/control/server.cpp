// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/server.hpp"

#include "daemon/control/clock.hpp"
#include "daemon/control/process.hpp"
#include "daemon/control/service_manager.hpp"
#include "daemon/control/shard_watch.hpp"
#include "daemon/telemetry/log.hpp"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <system_error>

namespace chiru::daemon {
namespace {

using namespace std::chrono_literals;

// What an epoll event is about; everything below is the number of a session.
constexpr std::uint64_t kSocketSource = ~std::uint64_t{0};
constexpr std::uint64_t kSignalSource = kSocketSource - 1;
constexpr std::uint64_t kTimerSource = kSocketSource - 2;
constexpr std::uint64_t kReportSource = kSocketSource - 3;

constexpr std::size_t kEventsPerTurn = 64;
constexpr std::size_t kReportsPerBurst = 32;
constexpr int kRequestsPerTurn = 16;    // of one session, so that all get their turn
constexpr int kVisitorsPerTurn = 16;
constexpr std::size_t kMaxObservers = 64;  // beside the sessions
constexpr std::size_t kMaxVisitorsOfUser = kMaxObservers / 4;
constexpr Micros kVisitorPatience = 10s;   // to say what it came for

std::string reason(int error) { return std::generic_category().message(error); }

Listeners::Rules listener_rules(const Config& config) {
    Listeners::Rules rules;
    rules.first_port = config.tcp.first_port;
    rules.last_port = config.tcp.last_port;
    rules.max_per_session = config.sessions.max_listeners;
    // The machine's own rule, where it has one.
    std::ifstream("/proc/sys/net/ipv4/ip_unprivileged_port_start") >>
        rules.first_unprivileged_port;
    return rules;
}

}  // namespace

Server::Server(const Config& config, DataPlane& plane, DirectoryPage& page,
               ControlSocket& socket, int signals)
    : config_(config), plane_(plane), page_(page), socket_(socket), signals_(signals),
      daemon_uid_(geteuid()), operators_(socket_access(config.control).group),
      session_slots_(config.sessions.max_sessions),
      channel_slots_(shm::kMaxChannels),
      listeners_(listener_rules(config),
                 [this](const IpAddress& address) {
                     return address.is_loopback() || page_.has_address(address);
                 },
                 random_64),
      datagrams_(listener_rules(config),
                 [this](const IpAddress& address) {
                     return address.is_loopback() || page_.has_address(address);
                 },
                 random_64) {}

Server::~Server() { plane_.stop(); }  // first: shards use the sessions' memory

bool Server::watch(int fd, std::uint32_t events, std::uint64_t source) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = source;
    return epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

Result<void, std::string> Server::watch_sources() {
    epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
    timer_.reset(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
    spare_.reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    itimerspec each_second{};
    each_second.it_interval.tv_sec = 1;
    each_second.it_value.tv_sec = 1;
    if (!epoll_ || !timer_ || timerfd_settime(timer_.get(), 0, &each_second, nullptr) != 0 ||
        !watch(socket_.fd(), EPOLLIN, kSocketSource) ||
        !watch(signals_, EPOLLIN, kSignalSource) ||
        !watch(timer_.get(), EPOLLIN, kTimerSource) ||
        !watch(plane_.report_fd(), EPOLLIN, kReportSource))
        return std::unexpected("cannot set up the control thread: " + reason(errno));
    return {};
}

Result<void, std::string> Server::run() {
    if (const Result<void, std::string> watched = watch_sources(); !watched) return watched;
    notify_ready("serving " + socket_.path());
    log_info("ready; serving " + socket_.path());
    while (!stopping_) {
        std::array<epoll_event, kEventsPerTurn> events;
        const int count = epoll_wait(epoll_.get(), events.data(), events.size(), -1);
        if (count < 0 && errno != EINTR)
            return std::unexpected("epoll_wait: " + reason(errno));
        for (int i = 0; i < count; ++i) {
            const epoll_event& event = events[static_cast<std::size_t>(i)];
            handle(event.data.u64, event.events);
        }
        for (const std::uint64_t number : dead_) sessions_.erase(number);
        dead_.clear();
    }
    page_.say_stopping();
    notify_stopping();
    return {};
}

void Server::handle(std::uint64_t source, std::uint32_t events) {
    if (source == kSocketSource) return accept_visitors();
    if (source == kSignalSource) return take_signals();
    if (source == kTimerSource) return tick();
    if (source == kReportSource) return take_reports();
    const auto found = sessions_.find(source);
    if (found == sessions_.end()) return;
    Session& session = *found->second;
    if (!session.socket) return;  // ended earlier in this turn
    // What was sent before the end is still read: a client may ask and go.
    if ((events & EPOLLIN) != 0 && !session.busy) read_requests(session);
    if (!session.socket || (events & (EPOLLHUP | EPOLLERR)) == 0) return;
    hear_farewell(session);
    end(session, "it is gone");
}

/// It may be behind requests that nobody waits for any longer.
void Server::hear_farewell(Session& session) {
    for (int i = 0; i < kRequestsPerTurn && !session.said_farewell; ++i) {
        const Result<shm::Parcel, int> parcel = shm::receive_request(session.socket.get());
        if (!parcel) return;
        session.said_farewell = parcel->message.type == shm::MessageType::Farewell;
    }
}

void Server::accept_visitors() {
    for (int i = 0; i < kVisitorsPerTurn; ++i) {
        shm::UniqueFd socket(
            accept4(socket_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (!socket) return turn_away(errno);
        if (sessions_.size() >= config_.sessions.max_sessions + kMaxObservers) {
            log_client(LogLevel::Warning, "a client was turned away: too many are connected");
            continue;
        }
        Result<Credentials, int> peer = peer_credentials(socket.get());
        if (!peer) continue;  // it is gone already
        if (peer->uid != daemon_uid_ && count_of_user(peer->uid, false) >= kMaxVisitorsOfUser) {
            log_client(LogLevel::Warning, "a client of uid " + std::to_string(peer->uid) +
                                              " was turned away: too many of its user's wait");
            continue;
        }
        auto session = std::make_unique<Session>();
        session->number = ++last_number_;
        session->socket = std::move(socket);
        session->peer = std::move(*peer);
        session->since = monotonic_now();
        if (!watch(session->socket.get(), EPOLLIN, session->number)) continue;
        sessions_.emplace(session->number, std::move(session));
    }
}

void Server::turn_away(int error) {
    if (error != EMFILE && error != ENFILE) return;
    // The visitor would keep the socket readable, and us awake, for ever.
    log_client(LogLevel::Warning, "a client was turned away: no file descriptor is free; "
                                  "raise LimitNOFILE");
    spare_.reset();
    shm::UniqueFd(accept4(socket_.fd(), nullptr, nullptr, SOCK_CLOEXEC));
    spare_.reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
}

void Server::read_requests(Session& session) {
    for (int i = 0; i < kRequestsPerTurn && session.socket && !session.busy; ++i) {
        const Result<shm::Parcel, int> parcel = shm::receive_request(session.socket.get());
        if (parcel) {
            answer(session, *parcel);
        } else if (parcel.error() == EPROTO) {
            return end(session, "it sent what is no message of version " +
                                    std::to_string(shm::kControlVersion) +
                                    "; is its libchiru of another release?");
        } else if (parcel.error() != EAGAIN) {
            return end(session, parcel.error() == EPIPE ? "it is gone" : reason(parcel.error()));
        } else {
            return;
        }
    }
}

void Server::set_busy(Session& session, bool busy) {
    session.busy = busy;
    epoll_event event{};
    event.events = busy ? 0u : std::uint32_t{EPOLLIN};  // the end (EPOLLHUP) is always told
    event.data.u64 = session.number;
    epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, session.socket.get(), &event);
}

void Server::end(Session& session, const std::string& why) {
    if (!session.socket) return;
    session.socket.reset();  // and out of the epoll set
    if (session.state == Session::State::Visitor) {
        dead_.push_back(session.number);
        return;
    }
    log_client(LogLevel::Info, session.to_string() + " ends: " + why);
    session.state = Session::State::Ending;
    Orders orders = datagrams_.end_session(session.index);
    // Before it leaves its listeners: they get back what its program had not taken.
    orders.push_back(DetachSession{
        .session = session.index,
        .parting = session.said_farewell ? Parting::Orderly : Parting::Lost});
    for (const Order& what : listeners_.end_session(session.index)) orders.push_back(what);
    const std::uint64_t number = session.number;
    const std::uint64_t tag = pending_.expect(orders.size() * plane_.shard_count(),
                                              [this, number](const Report&) { gone(number); });
    for (const Order& what : orders) plane_.post_to_all({.tag = tag, .what = what});
}

void Server::gone(std::uint64_t number) {
    Session& session = *sessions_.at(number);
    for (const auto& [channel, memory] : session.channels) {
        page_.clear_channel(channel);
        channel_slots_.give_back(channel);
    }
    page_.clear_session(session.index);
    session_slots_.give_back(session.index);
    number_of_[session.index] = 0;
    plane_.unmap_for_devices(session.tx_arena.bytes());
    log_debug(session.to_string() + " has given everything back");
    dead_.push_back(number);
}

void Server::take_signals() {
    signalfd_siginfo info{};
    while (read(signals_, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGHUP) {
            log_warning("SIGHUP is ignored: a changed configuration takes effect when the daemon "
                        "is started again");
            continue;
        }
        log_info(std::string("stopping on ") +
                 (info.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT"));
        stopping_ = true;
    }
}

void Server::take_reports() {
    std::array<Report, kReportsPerBurst> reports;
    std::size_t count = 0;
    do {
        count = plane_.take_reports(reports);
        for (std::size_t i = 0; i < count; ++i) {
            if (const auto* news = std::get_if<CookieLearnt>(&reports[i].what)) {
                share(*news, reports[i].shard);
                continue;
            }
            if (const auto* learnt = std::get_if<PathMtuLearnt>(&reports[i].what)) {
                spread(*learnt, reports[i].shard);
                continue;
            }
            const auto* broken = std::get_if<ClientViolation>(&reports[i].what);
            if (broken == nullptr) {
                pending_.answered(reports[i]);
                continue;
            }
            const auto found = sessions_.find(number_of_.at(broken->session));
            if (found == sessions_.end()) continue;
            end(*found->second,
                std::string("it broke the ring protocol: ") +
                    (broken->corrupt_ring ? "impossible ring position"
                                          : chiru::to_string(broken->violation)) +
                    ", channel " + std::to_string(broken->channel));
        }
    } while (count == reports.size());
}

void Server::share(const CookieLearnt& news, std::uint32_t from) {
    for (std::uint32_t shard = 0; shard < plane_.shard_count(); ++shard)
        if (shard != from) plane_.post(shard, {.tag = 0, .what = LearnCookie{news.learnt}});
}

/// A router tells one shard what all that send to the host need to know.
void Server::spread(const PathMtuLearnt& learnt, std::uint32_t from) {
    for (std::uint32_t shard = 0; shard < plane_.shard_count(); ++shard)
        if (shard != from) plane_.post(shard, {.tag = 0, .what = LearnPathMtu{learnt.path}});
}

void Server::tick() {
    std::uint64_t expirations = 0;
    while (read(timer_.get(), &expirations, sizeof expirations) > 0) {
    }
    plane_.watch_ports();
    watch_shards();
    const Instant now = monotonic_now();
    for (const auto& [number, session] : sessions_)
        if (session->state == Session::State::Visitor && !session->observed &&
            now - session->since > kVisitorPatience)
            end(*session, "it did not say what it came for");
}

void Server::watch_shards() {
    bool all_well = true;
    const Instant now = monotonic_now();
    for (std::uint32_t shard = 0; shard < plane_.shard_count(); ++shard) {
        const bool looks_stuck = is_stuck(page_.directory().shards[shard], now);
        const bool stuck = looks_stuck && looked_stuck_[shard];
        looked_stuck_[shard] = looks_stuck;
        all_well = all_well && !stuck;
        if (stuck == stuck_[shard]) continue;
        stuck_[shard] = stuck;
        if (stuck)
            log_error("shard " + std::to_string(shard) + " has not turned for " +
                      std::to_string(kStuckAfter / 1s) +
                      " s; is its core taken by another program?");
        else
            log_info("shard " + std::to_string(shard) + " turns again");
    }
    if (all_well) notify_alive();
}

}  // namespace chiru::daemon
