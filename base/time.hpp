// SPDX-License-Identifier: Apache-2.0
//
// Durations and points in time. There is no now() here: whoever drives the stack passes the
// time in, so the same code runs on a core and in virtual time.
#pragma once

#include <chrono>
#include <cstdint>

namespace chiru {

using Micros = std::chrono::duration<std::int64_t, std::micro>;

/// The clock that is passed in. On a real core it is CLOCK_MONOTONIC, in the simulator it
/// starts at zero; nothing in the stack can tell.
struct StackClock {
    using duration = Micros;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::time_point<StackClock>;
    static constexpr bool is_steady = true;
};

using Instant = StackClock::time_point;

/// Later than anything: "no deadline".
inline constexpr Instant kNever = Instant::max();

}  // namespace chiru
