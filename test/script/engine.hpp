// SPDX-License-Identifier: Apache-2.0
//
// The engine as a script's target: one Stack in virtual time, with a client that makes the socket
// calls by submissions. Nothing waits; an hour passes at once.
#pragma once

#include "test/script/player.hpp"
#include "test/sim/host.hpp"

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace chiru::script {

/// The twins of a script: the same lines over another kind of wire.
struct Wire {
    unsigned family = 4;
    std::uint16_t vlan = 0;
};

class EngineTarget : public Target {
public:
    EngineTarget(const Wire& wire, const std::vector<Setting>& settings);

    const Ends& ends() const override { return ends_; }
    Tolerance tolerance() const override;
    std::uint16_t listen_port() const override { return kPort; }
    std::uint16_t peer_port() const override { return 40'000; }
    Instant now() override { return now_; }
    void inject(const Frame& frame) override;
    std::optional<Arrived> next_frame(Instant deadline) override;
    std::string call(const std::vector<std::string>& words, std::uint16_t peer_port) override;
    std::string look(const std::vector<std::string>& words) override;

    /// Ends everything, and tells what was not given back.
    std::string leftovers();

private:
    static constexpr std::uint16_t kPort = 80;

    /// One connection as its program sees it.
    struct Socket {
        shm::ConnectionId name;
        bool named = false;
        bool accepted = false;      ///< by the script, too
        bool passive = false;
        bool peer_closed = false;
        bool shut_down = false;
        std::optional<int> closed;  ///< the errno of Closed
        std::deque<shm::Slice> unread;
        std::uint32_t slice_done = 0;  ///< bytes of the oldest slice that were read
        std::uint64_t read = 0;
        std::uint64_t written = 0;
        std::vector<shm::OptionBody> wishes;  ///< options set before there was a connection
    };

    void pump();
    /// Lets time pass; what is sent meanwhile is nobody's concern.
    void pass(Micros time);
    void take_completions();
    void submit(shm::Submission& submission);
    void submit(Socket& socket, shm::SubmissionOp op);
    Socket& socket_of(const shm::Completion& completion);
    Socket& current();
    void start_listening();
    void connect(std::uint16_t peer_port);
    std::string accept(const std::string& result);
    std::string connected(const std::string& result);
    std::string send(const std::vector<std::string>& words);
    std::string receive(const std::string& result);
    std::string consume(Socket& socket, std::size_t bytes);
    void set_option(const std::string& name, std::uint64_t value);

    Ends ends_;
    std::unique_ptr<sim::Host> host_;
    Instant now_{};
    std::deque<Arrived> sent_;
    std::deque<Socket> sockets_;
    std::size_t current_ = 0;
    std::vector<shm::OptionBody> listener_wishes_;
};

/// Plays a script on an engine of its own. Nothing, or what went wrong.
std::optional<std::string> play_on_engine(const Script& script, const Wire& wire);

}  // namespace chiru::script
