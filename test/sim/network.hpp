// SPDX-License-Identifier: Apache-2.0
//
// Two hosts, a link each way, what happens to the links in the course of time, and a clock that
// jumps from event to event.
#pragma once

#include "test/sim/application.hpp"
#include "test/sim/host.hpp"
#include "test/sim/link.hpp"
#include "test/sim/watch.hpp"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <utility>
#include <vector>

namespace chiru::sim {

class Network {
public:
    Network(const HostOptions& a, const HostOptions& b, const LinkOptions& there,
            const LinkOptions& back, std::uint64_t ring_bytes = Application::kRingBytes)
        : left(a), right(b), left_app(left, a.seed, ring_bytes),
          right_app(right, b.seed, ring_bytes), there_(there), back_(back) {
        there_.on_refusal([this](Frame f) { left_mail_.push_back(std::move(f)); });
        back_.on_refusal([this](Frame f) { right_mail_.push_back(std::move(f)); });
    }
    Network(const Network&) = delete;
    Network& operator=(const Network&) = delete;

    /// Runs until `done()` or for `limit`. Returns whether it was done.
    template <class Done>
    bool run(Micros limit, Done&& done) {
        const Instant end = now + limit;
        while (!done()) {
            if (now >= end) return false;
            step(end);
        }
        return true;
    }
    void run(Micros time) {
        run(time, [] { return false; });
    }

    /// Does something once that time has come.
    void at(Instant when, std::function<void()> what) { events_.emplace(when, std::move(what)); }

    Link& there() { return there_; }
    Link& back() { return back_; }
    /// Somebody else plays the left host's client.
    void without_left_app() { left_plays_ = false; }
    /// Prints every frame as it is sent and as it arrives.
    void trace(bool on) { trace_ = on; }

    /// Empty, or the first thing that went wrong, wherever it was seen.
    std::string fault() const {
        for (const std::string* text : {&left_app.fault(), &right_app.fault(), &left.fault(),
                                        &right.fault(), &watch_.fault()})
            if (!text->empty()) return *text;
        return {};
    }

    Host left;
    Host right;
    Application left_app;
    Application right_app;
    Instant now{};

private:
    void say(const char* what, const Frame& frame) const {
        if (trace_)
            std::printf("%10lld %s %s\n", static_cast<long long>(now.time_since_epoch().count()),
                        what, to_text(frame).c_str());
    }

    void deliver(Link& link, std::vector<Frame>& mail, Host& host, const char* name) {
        std::vector<Frame> frames = std::exchange(mail, {});
        link.deliver(now, [&](Frame f) { frames.push_back(std::move(f)); });
        for (const Frame& frame : frames) {
            say(name, frame);
            watch_.arrived(frame);
        }
        if (!frames.empty()) host.receive(frames, now);
    }

    void send(Host& host, Link& link, const char* name) {
        for (Frame& frame : host.turn(now)) {
            say(name, frame);
            watch_.sent(frame);
            link.send(std::move(frame), now);
        }
    }

    void step(Instant end) {
        const bool busy = left_app.open_sockets() + right_app.open_sockets() > 0;
        for (; !events_.empty() && events_.begin()->first <= now; events_.erase(events_.begin()))
            events_.begin()->second();
        deliver(there_, right_mail_, right, "  -> right");
        deliver(back_, left_mail_, left, "left <-   ");
        if (left_plays_) left_app.turn(now);
        right_app.turn(now);
        send(left, there_, "left ->   ");
        send(right, back_, "  <- right");
        Instant next = std::min({left.next_deadline(), right.next_deadline(),
                                 there_.next_arrival(), back_.next_arrival()});
        // Programs look again after a while, whatever happens on the wire.
        if (busy || left_app.open_sockets() + right_app.open_sockets() + left_app.opening() > 0)
            next = std::min(next, now + Micros(5000));
        if (!events_.empty()) next = std::min(next, events_.begin()->first);
        if (!left_mail_.empty() || !right_mail_.empty()) next = now;
        now = std::min(end, std::max(next, now + Micros(1)));
    }

    Link there_;
    Link back_;
    std::vector<Frame> left_mail_;   ///< from the router, for the left host
    std::vector<Frame> right_mail_;
    std::multimap<Instant, std::function<void()>> events_;
    Watch watch_;
    bool left_plays_ = true;
    bool trace_ = false;
};

}  // namespace chiru::sim
