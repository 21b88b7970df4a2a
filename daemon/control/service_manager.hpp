// SPDX-License-Identifier: Apache-2.0
//
// What systemd is told (sd_notify(3)), if it started us: ready, alive, stopping.
#pragma once

#include <string>

namespace chiru::daemon {

void notify_ready(const std::string& status);
void notify_stopping();
/// Call about once a second while all is well; without it systemd starts us again (WatchdogSec).
void notify_alive();

}  // namespace chiru::daemon
