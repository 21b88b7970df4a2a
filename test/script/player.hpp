// SPDX-License-Identifier: Apache-2.0
//
// Plays a script against a target: an engine in virtual time, or a host at the other end of a wire.
//
// A script is strict. Every segment that the stack sends must be expected, in the order in which
// it is sent; and time passes in a script only when nothing unexpected has come.
#pragma once

#include "test/script/notation.hpp"
#include "test/script/packet.hpp"

#include <deque>
#include <optional>
#include <string>
#include <vector>

namespace chiru::script {

struct Arrived {
    Instant at;
    Frame frame;
};

/// How exact the target's clock and ours are.
struct Tolerance {
    Micros at_once;      ///< how late a segment without a time may come
    Micros early;        ///< before its time
    Micros late;         ///< after it
    double share = 0;    ///< and this part of the time itself
    Micros after_end;    ///< how long to listen after the last line
};

/// The host under test, and the program on it that makes the socket calls.
class Target {
public:
    virtual ~Target() = default;

    virtual const Ends& ends() const = 0;
    virtual Tolerance tolerance() const = 0;
    /// The port that `listen` takes.
    virtual std::uint16_t listen_port() const = 0;
    /// The peer's ports begin here: its n-th is so many higher.
    virtual std::uint16_t peer_port() const = 0;
    virtual Instant now() = 0;
    virtual void inject(const Frame& frame) = 0;
    /// The next frame that the host sends, if one comes until then. Time moves no further than to
    /// that frame.
    virtual std::optional<Arrived> next_frame(Instant deadline) = 0;
    /// A socket call. Empty if it went as the script says, else what happened instead.
    virtual std::string call(const std::vector<std::string>& words, std::uint16_t peer_port) = 0;
    /// Counters and states, for targets that can be looked into.
    virtual std::string look(const std::vector<std::string>& words) = 0;
};

class Player {
public:
    Player(const Script& script, Target& target) : script_(script), target_(target) {}

    /// Nothing, or the first line that did not go as written, and what happened instead.
    std::optional<std::string> play();

private:
    std::string play_step(const Step& step);
    std::string expect(const Step& step);
    /// Lets the time of a step come, during which nothing may be heard.
    std::string reach(const Step& step);
    std::optional<std::pair<Instant, Heard>> hear(Instant deadline);
    Flow& flow(unsigned peer);
    std::string unexpected(const Heard& heard);
    Micros slack(Micros time, Micros fixed) const;

    const Script& script_;
    Target& target_;
    std::vector<Flow> flows_;
    Instant mark_{};  ///< when the last step ended
};

}  // namespace chiru::script
