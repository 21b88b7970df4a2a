// SPDX-License-Identifier: Apache-2.0
//
// Scripts one stack packet by packet, in the notation of packetdrill:
//
//     flags  first:last(length)  [ack n]  [win n]  [tos n]  [<option,...>]
//
// Flags are S F R P, E and W for ECE and CWR, '.' for ACK and '-' for none; `tos n` is of the IP
// header; options are mss n, wscale n, sackOK, sack a:b, ts value echo.
// Sequence numbers count from 0 on either side, whatever the initial ones are; the peer's begins
// just below the wrap. Windows are as they stand in the header. A script is strict: a frame that
// was not expected fails the test, at the latest in ~Script. Time moves only in advance(), and a
// failure names the test's line.
#pragma once

#include "test/sim/host.hpp"

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace chiru::sim {

/// The line of the test that made a call. (std::source_location, were clang 14 able to.)
struct Where {
    const char* file;
    unsigned line;
    static constexpr Where here(const char* file = __builtin_FILE(),
                                unsigned line = __builtin_LINE()) {
        return {file, line};
    }
};

class Script {
public:
    explicit Script(TcpConfig tcp = {}, HostOptions options = {});
    ~Script();
    Script(const Script&) = delete;
    Script& operator=(const Script&) = delete;

    void listen(std::uint16_t port, const ListenTerms& terms = {.backlog = 16});
    void connect(std::uint16_t port, std::uint32_t max_segment = 0);
    /// The client takes so many more connections.
    void credit(std::uint32_t connections = 1);
    /// From now on the peer speaks from another port, to whom our ISN is not known yet.
    void from(std::uint16_t port) {
        peer_port_ = port;
        iss_known_ = false;
    }
    /// Listens on port 80 and goes through a handshake with these options of the peer's SYN.
    void establish(const char* options = "<mss 1000,sackOK>", std::uint32_t window = 65'535);

    /// The peer sends this; the stack handles it at once.
    void inject(std::string_view segment, Where where = Where::here());
    /// The same with several that arrive together.
    void inject_burst(std::span<const std::string> segments, Where where = Where::here());
    /// The stack must have sent this next. Fields left out are not compared; `<...>` lists options
    /// that must be there.
    void expect(std::string_view segment, Where where = Where::here());
    /// Whatever the stack has sent so far is of no interest.
    void skip() {
        pump();
        sent_.clear();
    }
    /// The stack must have sent nothing more.
    void expect_silence(Where where = Where::here());
    /// Lets time pass, timer by timer.
    void advance(Micros by);

    // The client's side.
    void write(std::size_t bytes, std::uint16_t flags = 0);
    void shut_down();
    void close();
    void abort();
    /// The client's process ends.
    void part(Parting parting) {
        host_.stack().detach_session(Host::kSession, now_, parting);
        pump();
    }
    void option(shm::ConnectionOption option, std::uint64_t value);
    /// Takes what was told since the last call; returns the bytes received among it, and releases
    /// them unless told to keep them.
    std::size_t read(bool release = true);
    void release_kept();
    bool was_accepted() const { return accepted_; }
    bool was_connected() const { return connected_; }
    bool peer_closed() const { return peer_closed_; }
    /// The errno of Closed, if there was one.
    std::optional<int> closed() const { return closed_; }
    std::size_t given_back() const { return given_back_; }

    std::uint64_t count(shm::Counter counter) const { return host_.count(counter); }
    const shm::ConnectionInfo& block() const { return host_.block(name_.index); }
    Host& host() { return host_; }
    std::uint64_t timestamp() const { return last_timestamp_; }

private:
    struct Parsed;
    Parsed parse(std::string_view text, Where where) const;
    Frame frame_of(std::string_view segment, Where where) const;
    void pump();
    void learn(const Frame& frame);
    void submit(shm::Submission& submission);

    Host host_;
    Instant now_{};
    std::deque<Frame> sent_;
    std::uint32_t our_iss_ = 0;
    std::uint32_t peer_iss_ = 0xffff'ff00;
    bool iss_known_ = false;
    std::uint16_t our_port_ = 80;
    std::uint16_t peer_port_ = 40'000;
    shm::ConnectionId name_;
    std::uint64_t written_ = 0;
    std::vector<shm::Slice> kept_;
    bool accepted_ = false;
    bool connected_ = false;
    bool peer_closed_ = false;
    std::optional<int> closed_;
    std::size_t given_back_ = 0;
    std::uint64_t last_timestamp_ = 0;
};

}  // namespace chiru::sim
