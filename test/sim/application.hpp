// SPDX-License-Identifier: Apache-2.0
//
// A model of a program on a simulated host: each of its sockets sends a pseudo-random stream of
// its own and checks every byte that comes. Both ends of a connection know the other's stream by
// the client's port number, so a byte in the wrong place, or twice, or of another connection,
// shows.
#pragma once

#include "test/sim/host.hpp"

#include <cstdint>
#include <deque>
#include <map>
#include <random>
#include <string>

namespace chiru::sim {

struct SocketPlan {
    std::uint64_t send_bytes = 0;    ///< then Shutdown
    std::uint64_t expect_bytes = 0;  ///< checked when the peer closes
    std::uint32_t largest_send = 20'000;
    bool slow_reader = false;        ///< keeps a few slots for a while
    bool no_delay = true;
};

class Application {
public:
    Application(Host& host, std::uint64_t seed) : host_(host), random_(seed) {}

    void listen(std::uint16_t port, const SocketPlan& plan);
    void connect(const Endpoint& remote, const SocketPlan& plan, Instant now);
    /// Takes completions, and does what the plans say.
    void turn(Instant now);

    std::size_t open_sockets() const { return sockets_.size(); }
    std::size_t finished() const { return finished_; }
    std::size_t failed() const { return failed_; }
    std::uint16_t last_error() const { return last_error_; }
    /// Empty, or what went wrong.
    const std::string& fault() const { return fault_; }
    /// Abort everything.
    void abort_all(Instant now);

private:
    struct Socket {
        shm::ConnectionId id;
        SocketPlan plan;
        std::uint64_t out_key = 0;
        std::uint64_t in_key = 0;
        std::uint64_t sent = 0;       ///< submitted
        std::uint64_t returned = 0;   ///< of these, given back
        std::uint64_t received = 0;
        std::uint64_t ring_base = 0;  ///< its part of the TX arena
        bool shut = false;
        bool peer_closed = false;
        bool closed = false;  ///< Close is submitted
        std::deque<shm::Slice> kept;
    };

    void take(const shm::Completion& completion, Instant now);
    void opened(const shm::Completion& completion, bool accepted);
    void received(Socket& socket, const shm::Completion& completion);
    void work(Socket& socket, Instant now);
    void send_some(Socket& socket, Instant now);
    void submit(const shm::Submission& submission, Instant now);
    void complain(const std::string& what) {
        if (fault_.empty()) fault_ = what;
    }

    static constexpr std::uint64_t kRingBytes = 262'144;

    Host& host_;
    std::mt19937_64 random_;
    std::map<std::uint32_t, Socket> sockets_;  ///< by block index
    std::map<std::uint64_t, SocketPlan> opening_;  ///< by user word
    SocketPlan accept_plan_;
    std::uint64_t next_user_ = 1000;
    std::vector<std::uint64_t> free_rings_;
    std::uint64_t rings_ = 0;
    std::size_t finished_ = 0;
    std::size_t failed_ = 0;
    std::uint16_t last_error_ = 0;
    std::string fault_;
};

}  // namespace chiru::sim
