// SPDX-License-Identifier: Apache-2.0
//
// What the daemon says to its operator, on stderr. Lines are written by a thread of their own, so
// nobody waits for a terminal or a journal; when more come than it can write, the oldest are
// dropped. Shards never log: what they have to say they count.
//
// Under systemd each line carries its priority ("<4>"), as sd-daemon(3) has it.
#pragma once

#include <cstdint>
#include <string_view>

namespace chiru::daemon {

enum class LogLevel : std::uint8_t { Debug, Info, Warning, Error };

/// From here to its end the functions below write; before and after they do nothing. One at a time.
class Logging {
public:
    explicit Logging(LogLevel level);
    ~Logging();  ///< writes what is still queued
    Logging(const Logging&) = delete;
    Logging& operator=(const Logging&) = delete;
};

/// `text` is one line. Control characters in it, which may come from a client, are shown as '?'.
void log(LogLevel level, std::string_view text);
inline void log_debug(std::string_view text) { log(LogLevel::Debug, text); }
inline void log_info(std::string_view text) { log(LogLevel::Info, text); }
inline void log_warning(std::string_view text) { log(LogLevel::Warning, text); }
inline void log_error(std::string_view text) { log(LogLevel::Error, text); }

/// For what clients can cause at will: beyond some lines a second they are counted instead, and
/// the count is told later. Called by the control thread alone.
void log_client(LogLevel level, std::string_view text);

}  // namespace chiru::daemon
