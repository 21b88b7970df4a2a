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
#include <utility>
#include <vector>

namespace chiru::sim {

inline constexpr std::uint64_t kAtNoByte = UINT64_MAX;

struct SocketPlan {
    std::uint64_t send_bytes = 0;    ///< then Shutdown
    std::uint64_t expect_bytes = 0;  ///< checked when the peer closes
    std::uint32_t largest_send = 20'000;
    bool slow_reader = false;        ///< keeps a few slots for a while
    bool no_delay = true;
    Micros pause{0};                 ///< at least so long between two sends
    std::uint64_t stall_at = kAtNoByte;  ///< having received so many, reads nothing `stall_for`
    Micros stall_for{0};
    std::uint64_t reset_at = kAtNoByte;  ///< Abort once it has submitted and received so many
    /// Close as soon as all is sent and received, without waiting for the peer's end.
    bool hasty = false;
    bool may_fail = false;           ///< an error is no fault, for the network or a peer makes one
    /// Nor is one of a connection whose peer perhaps never knew of it: the network is that bad.
    bool may_fail_early = false;
    std::uint16_t local_port = 0;    ///< of connect(); 0: the stack's choice
    std::uint16_t stream = 0;        ///< names the streams; 0: the client's port number does
    bool fast_open = false;          ///< text in the SYN, where there is a cookie
    bool second = false;             ///< sends the second of the two streams; the client the first
};

class Application {
public:
    static constexpr std::uint64_t kRingBytes = 262'144;

    /// Each socket sends from `ring_bytes` of the TX arena.
    Application(Host& host, std::uint64_t seed, std::uint64_t ring_bytes = kRingBytes)
        : host_(host), random_(seed), ring_bytes_(ring_bytes) {}

    void listen(std::uint16_t port, const SocketPlan& plan, std::uint32_t backlog = 128);
    void connect(const Endpoint& remote, const SocketPlan& plan, Instant now,
                 std::uint32_t shard = 0);
    /// Takes completions, and does what the plans say.
    void turn(Instant now);

    std::size_t open_sockets() const { return sockets_.size(); }
    /// Connects that nothing is known about yet.
    std::size_t opening() const { return opening_.size(); }
    std::size_t finished() const { return finished_; }
    /// Sockets that ended with an error, or never opened.
    std::size_t failed() const { return failed_; }
    std::uint16_t last_error() const { return last_error_; }
    /// Receive slots that were given to it and not released.
    std::size_t kept_slots() const;
    /// Empty, or what went wrong.
    const std::string& fault() const { return fault_; }
    /// Abort everything.
    void abort_all(Instant now);

private:
    struct Socket {
        shm::ConnectionId id;
        std::uint32_t shard = 0;
        SocketPlan plan;
        std::uint64_t out_key = 0;
        std::uint64_t in_key = 0;
        std::uint64_t sent = 0;       ///< submitted
        std::uint64_t returned = 0;   ///< of these, given back
        std::uint64_t received = 0;
        std::uint64_t ring_base = 0;  ///< its part of the TX arena
        bool connected = false;
        bool syn_waits = false;  ///< for the first send
        bool shut = false;
        bool peer_closed = false;
        bool closed = false;  ///< Close is submitted
        bool aborted = false;
        Instant stalled_until{};
        Instant next_send{};
        std::deque<shm::Slice> kept;
    };
    using Name = std::pair<std::uint32_t, std::uint32_t>;  ///< shard, block index

    void take(const shm::Completion& completion, std::uint32_t shard, Instant now);
    void opened(const shm::Completion& completion, std::uint32_t shard);
    void begin(Socket& socket, Instant now);
    void received(Socket& socket, const shm::Completion& completion);
    void returned(Socket& socket, std::uint32_t bytes);
    void ended(Socket& socket, std::uint16_t error, Instant now);
    void failed_to_open(const shm::Completion& completion);
    void work(Socket& socket, Instant now);
    void send_some(Socket& socket, Instant now);
    void read_some(Socket& socket, Instant now);
    void tell(Socket& socket, shm::SubmissionOp op, Instant now);
    void submit(const shm::Submission& submission, std::uint32_t shard, Instant now);
    void complain(const std::string& what) {
        if (fault_.empty()) fault_ = what;
    }

    Host& host_;
    std::mt19937_64 random_;
    std::uint64_t ring_bytes_;
    std::map<Name, Socket> sockets_;
    std::map<std::uint64_t, SocketPlan> opening_;  ///< by user word
    std::map<std::uint16_t, SocketPlan> accept_plans_;  ///< by port
    std::uint64_t next_user_ = 1000;
    std::vector<std::uint64_t> free_rings_;
    std::uint64_t rings_ = 0;
    std::size_t finished_ = 0;
    std::size_t failed_ = 0;
    std::uint16_t last_error_ = 0;
    std::string fault_;
};

}  // namespace chiru::sim
