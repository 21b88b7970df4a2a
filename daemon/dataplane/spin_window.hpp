// SPDX-License-Identifier: Apache-2.0
//
// How long a shard polls before it sleeps. To be woken takes the kernel tens of microseconds where
// the core went idle, more than a peer on the same switch takes to answer; to poll while nothing
// comes keeps the core from others. So the window follows what the last idle times would have
// needed: it grows as long as polling pays, or would have, and falls to nothing once it does not.
#pragma once

#include "base/time.hpp"

#include <algorithm>

namespace chiru::daemon {

class SpinWindow {
public:
    /// `limit`: the longest window; zero never polls.
    explicit SpinWindow(Micros limit) : limit_(limit) {}

    /// Poll at most so long from the beginning of an idle time.
    Micros length() const { return length_; }

    /// An idle time of `gap` ended at `now` with work; `slept`: polling had been given up before.
    void idle_ended(Micros gap, bool slept, Instant now) {
        if (!slept || (gap < limit_ && now >= grow_again_)) {
            length_ = std::min(limit_, std::max(kFirst, length_ * 2));
        } else if (gap >= limit_) {
            length_ = Micros::zero();
            grow_again_ = now + kHoldOff;
        }
    }

private:
    static constexpr Micros kFirst{10};
    /// A wake-up that comes however long one polled, and soon after, is the other's who got the
    /// core at last. Such a one would grow the window for ever; now it does so rarely.
    static constexpr Micros kHoldOff{10'000};

    Micros limit_;
    Micros length_ = Micros::zero();
    Instant grow_again_{};
};

}  // namespace chiru::daemon
