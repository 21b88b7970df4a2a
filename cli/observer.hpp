// SPDX-License-Identifier: Apache-2.0
//
// How chiructl gets at the daemon's memory: it asks once on the control socket for descriptors and
// maps them read-only. A daemon that hangs cannot answer; then root takes the same memory from
// /proc/<pid>/fd.
#pragma once

#include "base/result.hpp"
#include "base/time.hpp"
#include "cli/view.hpp"
#include "shm/region.hpp"
#include "shm/unique_fd.hpp"

#include <string>
#include <vector>

namespace chiru::cli {

struct Observed {
    shm::UniqueFd socket;  ///< its end is the end of this observer
    shm::Region directory;
    std::vector<shm::Region> tables;
    bool daemon_answers = true;
    View view;  ///< of the regions above
};

/// What to tell the user if it cannot be had is in the error, in whole sentences.
Result<Observed, std::string> observe(const std::string& socket_path, Micros timeout);

/// Why the tables are not there: they are for root and the operators' group.
std::string tables_missing(const Observed& observed);

/// CLOCK_MONOTONIC, the clock of all times in shared memory.
std::int64_t monotonic_us();

}  // namespace chiru::cli
