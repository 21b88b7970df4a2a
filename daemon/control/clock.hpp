// SPDX-License-Identifier: Apache-2.0
//
// The control thread's time: CLOCK_MONOTONIC, as the shards'.
#pragma once

#include "base/time.hpp"

#include <chrono>

namespace chiru::daemon {

inline Instant monotonic_now() {
    return Instant(std::chrono::duration_cast<Micros>(
        std::chrono::steady_clock::now().time_since_epoch()));
}

}  // namespace chiru::daemon
