// SPDX-License-Identifier: Apache-2.0
//
// The notation of packet scripts, as README.md beside this file describes it for people: a
// file becomes a Script, a list of steps that a Player walks through.
#pragma once

#include "base/result.hpp"
#include "base/time.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace chiru::script {

/// An option as it is written: its name and what follows, "sack" with {"1:101", "301:401"}.
struct Option {
    std::string name;
    std::vector<std::string> words;
};

/// One segment, with numbers relative to the initial sequence numbers of its sender.
struct Segment {
    std::uint8_t flags = 0;  ///< wire::TcpFlag bits
    bool ack_flag_free = false;  ///< expected: with or without ACK
    std::uint32_t first = 0;
    std::uint32_t length = 0;
    std::optional<std::uint32_t> ack;
    std::optional<std::uint32_t> window_least;  ///< as it stands in the header
    std::optional<std::uint32_t> window_most;
    std::optional<std::uint32_t> urgent;
    std::optional<std::uint32_t> ecn;  ///< the two bits of the IP header
    std::optional<std::uint32_t> header_words;  ///< a data offset that may lie
    std::optional<std::uint32_t> reserved;      ///< reserved bits of the header
    bool bad_checksum = false;
    bool altered = false;  ///< its text is not what belongs there
    bool from_stack_address = false;  ///< LAND: the source is the destination
    bool new_isn = false;  ///< expected: the stack may begin anew with another number
    std::vector<Option> options;
};

/// An ICMP error about a segment that the stack sent, or is said to have sent.
struct IcmpError {
    std::string what;  ///< "port_unreachable", "too_big", ...
    std::uint32_t first = 0;
    std::uint32_t mtu = 0;
};

enum class Action : std::uint8_t {
    Inject,   ///< the peer sends `segment`
    Expect,   ///< the stack must send `segment` next
    Icmp,     ///< somebody on the path sends `icmp`
    Quiet,    ///< the stack has sent nothing that was not expected
    Call,     ///< the program makes a socket call: words[0]
    Look,     ///< at counters and states, where the stack can be looked into
};

/// When a step happens, measured from the end of the step before.
struct When {
    bool given = false;
    Micros least{};
    Micros most{};
};

struct Step {
    unsigned line = 0;
    std::string text;
    Action action{};
    When when;
    unsigned peer = 0;  ///< which of the peer's ports
    Segment segment;
    IcmpError icmp;
    std::vector<std::string> words;
};

struct Setting {
    std::string name;
    std::string value;
};

struct Script {
    std::string name;   ///< "5961/reset_in_window"
    std::string rule;   ///< "RFC 5961 3.2"
    std::string title;
    std::string differs_from_linux;  ///< the reason, if it does
    std::string engine_only;         ///< the reason, if no other target can play it
    unsigned family = 0;             ///< 4 or 6, if it is about one of them
    std::vector<Setting> settings;
    std::vector<Step> steps;

    /// How long it takes at least, in its own time.
    Micros duration() const;
};

/// Reads a script. On failure: "line N: what is wrong".
Result<Script, std::string> parse_script(std::string_view name, std::string_view text);

/// "40ms", "1.5s", "2h".
std::optional<Micros> parse_duration(std::string_view text);

/// Flag letters in the order they are written: "S.", "FP.".
std::string flag_letters(std::uint8_t flags);

}  // namespace chiru::script
