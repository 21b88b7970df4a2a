// SPDX-License-Identifier: Apache-2.0
//
// The command line of chirud.
#pragma once

#include "base/result.hpp"
#include "daemon/telemetry/log.hpp"

#include <optional>
#include <string>

namespace chiru::daemon {

// How the program ends.
inline constexpr int kOk = 0;
inline constexpr int kFailed = 1;   ///< the machine stands in the way
inline constexpr int kMisused = 2;  ///< the arguments or the configuration are wrong

struct Arguments {
    std::string file;
    bool check_only = false;
    std::string socket;  ///< empty: as configured
    std::optional<LogLevel> level;
};

/// If there is nothing to run (--help, or a mistake, which was told by then), the exit status.
Result<Arguments, int> parse_arguments(int argc, const char* const* argv);

}  // namespace chiru::daemon
