// SPDX-License-Identifier: Apache-2.0
//
// What the daemon asks of the kernel for itself as a process.
#pragma once

#include "base/siphash.hpp"
#include "daemon/config/config.hpp"
#include "daemon/control/control_socket.hpp"
#include "shm/unique_fd.hpp"

#include <cstdint>

namespace chiru::daemon {

/// Blocks SIGTERM, SIGINT and SIGHUP for this thread and those it starts, ignores SIGPIPE, and
/// returns a signalfd (non-blocking) that tells of the first three.
shm::UniqueFd take_over_signals();

/// As many descriptors as the machine lets us have: each channel needs some.
void raise_descriptor_limit();

/// From getrandom().
std::uint64_t random_64();
SipKey random_key();

/// Who may connect.
SocketAccess socket_access(const ControlSettings& settings);

}  // namespace chiru::daemon
