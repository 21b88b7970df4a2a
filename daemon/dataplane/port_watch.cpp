// SPDX-License-Identifier: Apache-2.0
#include "daemon/dataplane/port_watch.hpp"

#include <utility>

namespace chiru::daemon {
namespace {

/// Our tags are told from those of the control thread, which counts from 1, by the highest bit.
constexpr std::uint64_t kOurs = std::uint64_t{1} << 63;
constexpr std::uint64_t kUnheeded = kOurs | 0xffff;  ///< or a port's index: it was paused

}  // namespace

PortWatch::PortWatch(const Ports& ports, const nic::RxArena& arena, const nic::LogSink& log,
                     std::uint32_t shards, std::function<void(const Command&)> post)
    : ports_(ports), arena_(arena), log_(log), shards_(shards), post_(std::move(post)) {
    for (const std::unique_ptr<nic::Port>& port : ports_)
        watched_.push_back({.state = port->is_started() ? State::Serving : State::Away,
                            .link_was_up = port->is_started() && port->link_is_up()});
}

void PortWatch::look() {
    for (PortIndex index = 0; index < ports_.size(); ++index) {
        if (watched_[index].state == State::Serving) look_at_link(index);
        else if (watched_[index].state == State::Away && ports_[index]->peer_answers())
            come_back(index);
    }
}

void PortWatch::look_at_link(PortIndex index) {
    Watched& watched = watched_[index];
    const bool up = ports_[index]->link_is_up();
    if (up != watched.link_was_up) say(index, up ? "its link is up" : "its link is down");
    if (up && !watched.link_was_up) post_({.tag = kUnheeded, .what = LinkUp{index}});
    watched.link_was_up = up;
    if (up || !ports_[index]->needs_restart()) return;
    watched.state = State::Leaving;
    watched.shards_to_leave = shards_;
    post_({.tag = kOurs | index, .what = PausePort{index}});
}

bool PortWatch::takes(std::uint64_t tag) {
    if ((tag & kOurs) == 0) return false;
    if (tag == kUnheeded) return true;
    Watched& watched = watched_[tag & 0xffff];
    if (--watched.shards_to_leave == 0) watched.state = State::Away;
    return true;
}

void PortWatch::come_back(PortIndex index) {
    // Gone again; or somebody else was served. The reason is told once, not every second.
    if (const Result<void, std::string> done = ports_[index]->restart(arena_); !done) {
        if (std::exchange(watched_[index].trouble, done.error()) != done.error())
            say(index, done.error());
        return;
    }
    watched_[index].trouble.clear();
    watched_[index].state = State::Serving;  // the next look tells whether they agreed
    post_({.tag = kUnheeded, .what = ResumePort{index}});
}

void PortWatch::say(PortIndex index, const std::string& text) const {
    if (log_)
        log_(nic::LogLevel::Info,
             "port " + std::string(ports_[index]->info().name.view()) + ": " + text);
}

}  // namespace chiru::daemon
