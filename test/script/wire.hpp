// SPDX-License-Identifier: Apache-2.0
//
// A host at the other end of a wire as a script's target: chirud behind its TAP, or the kernel
// behind a veth. We speak raw frames from addresses that nobody else has; a puppet, a small
// program on the host under test, makes the socket calls.
#pragma once

#include "test/script/player.hpp"

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

namespace chiru::script {

/// Where one script is played. Scripts that run at the same time have peers of their own; each
/// script has ports of its own, so that nothing of the one before can reach it.
struct Stage {
    std::string interface;  ///< ours
    Ends ends;
    std::uint16_t listen_port = 0;
    std::uint16_t peer_port = 0;
    std::vector<std::string> puppet;  ///< the command that starts it
};

/// A program that obeys lines. What it prints is the answer to each, as Target::call() has it.
class Puppet {
public:
    explicit Puppet(const std::vector<std::string>& command);
    ~Puppet();
    Puppet(const Puppet&) = delete;
    Puppet& operator=(const Puppet&) = delete;

    void tell(const std::string& line);
    int answers() const { return from_; }  ///< to poll
    /// One whole line, if it is there by now.
    std::optional<std::string> answer();

private:
    int pid_ = -1;
    int to_ = -1;
    int from_ = -1;
    std::string said_;
};

class WireTarget : public Target {
public:
    explicit WireTarget(const Stage& stage);
    ~WireTarget() override;
    WireTarget(const WireTarget&) = delete;
    WireTarget& operator=(const WireTarget&) = delete;

    const Ends& ends() const override { return stage_.ends; }
    Tolerance tolerance() const override;
    std::uint16_t listen_port() const override { return stage_.listen_port; }
    std::uint16_t peer_port() const override { return stage_.peer_port; }
    Instant now() override;
    void inject(const Frame& frame) override;
    std::optional<Arrived> next_frame(Instant deadline) override;
    std::string call(const std::vector<std::string>& words, std::uint16_t peer_port) override;
    std::string look(const std::vector<std::string>&) override { return {}; }

private:
    /// Takes what the socket has; answers for the peer, and keeps what concerns this script.
    void drain();
    void put(const Frame& frame);
    /// Waits until the host has taken what was injected: a call that follows in the script must
    /// not overtake it. Whether it has.
    bool settle();
    std::optional<Arrived> receive();

    Stage stage_;
    int socket_ = -1;
    bool settled_ = true;  ///< nothing was injected since the last echo was answered
    std::deque<Arrived> queue_;
    Puppet puppet_;
};

}  // namespace chiru::script
