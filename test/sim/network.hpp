// SPDX-License-Identifier: Apache-2.0
//
// Two hosts, a link each way, and a clock that jumps from event to event.
#pragma once

#include "test/sim/application.hpp"
#include "test/sim/host.hpp"
#include "test/sim/link.hpp"

#include <algorithm>

namespace chiru::sim {

class Network {
public:
    Network(const HostOptions& a, const HostOptions& b, const LinkOptions& there,
            const LinkOptions& back)
        : left(a), right(b), left_app(left, a.seed), right_app(right, b.seed), there_(there),
          back_(back) {}

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

    Link& there() { return there_; }
    Link& back() { return back_; }

    Host left;
    Host right;
    Application left_app;
    Application right_app;
    Instant now{};

private:
    void step(Instant end) {
        there_.deliver(now, [&](const Frame& f) { right.receive(f, now); });
        back_.deliver(now, [&](const Frame& f) { left.receive(f, now); });
        left_app.turn(now);
        right_app.turn(now);
        for (Frame& f : left.turn(now)) there_.send(std::move(f), now);
        for (Frame& f : right.turn(now)) back_.send(std::move(f), now);
        // Programs look again after a while, whatever happens on the wire.
        const Instant next = std::min({left.next_deadline(), right.next_deadline(),
                                       there_.next_arrival(), back_.next_arrival(),
                                       now + Micros(5000)});
        now = std::min(end, std::max(next, now + Micros(1)));
    }

    Link there_;
    Link back_;
};

}  // namespace chiru::sim
