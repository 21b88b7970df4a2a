// SPDX-License-Identifier: Apache-2.0
//
// Where the device layer's messages go. It has no logger of its own: whoever starts it passes a
// function in.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

namespace chiru::daemon::nic {

enum class LogLevel : std::uint8_t { Debug, Info, Warning, Error };

/// One line without its newline. May be called by any thread, never on the path of a packet.
using LogSink = std::function<void(LogLevel, std::string_view)>;

}  // namespace chiru::daemon::nic
