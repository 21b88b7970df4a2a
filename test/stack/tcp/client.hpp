// SPDX-License-Identifier: Apache-2.0
//
// A client for tests of several on one stack, submission by submission.
#pragma once

#include "shm/counters.hpp"
#include "shm/descriptor.hpp"
#include "test/sim/host.hpp"

#include <catch2/catch.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace chiru::test {

/// A session with one channel, on a host that may have several.
class Client {
public:
    Client(sim::Host& host, std::uint16_t number, std::uint32_t max_rx_slots = 4096,
           std::uint16_t first_port = 0)
        : host_(host), number_(number), arena_(1u << 20) {
        SessionConfig session;
        session.id = 100u + number;
        session.tx_arena = {arena_.data(), arena_.size(), 0};
        session.max_connections = 4096;
        session.max_rx_slots = max_rx_slots;
        session.first_port = first_port;
        session.counters = &counters_;
        host_.stack().attach_session(number_, session);
        host_.stack().attach_channel(number_, number_);
    }

    std::size_t room() const { return host_.stack().submission_room(number_); }

    void submit(const shm::Submission& submission) {
        REQUIRE(host_.stack().submit(number_, std::span(&submission, 1), now()) ==
                Violation::None);
    }

    /// Credit for `count` more at a listener, `taken` of those before having been accepted.
    void credit(shm::ListenerId listener, std::uint32_t count, std::uint32_t taken = 0) {
        shm::Submission s;
        s.op = shm::SubmissionOp::AcceptCredit;
        s.credit = shm::CreditBody{listener, count, taken};
        submit(s);
    }

    void connect(const Endpoint& to) {
        shm::Submission s;
        s.op = shm::SubmissionOp::Connect;
        s.connect = shm::ConnectBody{to, {}, 0};
        submit(s);
    }

    /// Everything that was told since; nothing is released.
    std::vector<shm::Completion> take() {
        std::vector<shm::Completion> all(64);
        all.resize(host_.stack().complete(number_, all));
        return all;
    }

    /// Connects to itself over the local path and leaves the accepted end unread.
    shm::ConnectionId connect_to_itself(std::uint16_t port) {
        const auto id = static_cast<shm::ListenerId>(port);
        host_.stack().listen(id, {host_.v4(), port}, 0, {.backlog = 16});
        host_.stack().share_listener(id, number_);
        credit(id, 1);
        connect({host_.v4(), port});
        turn();
        for (const shm::Completion& told : take())
            if (told.op == shm::CompletionOp::Connected) return told.connection;
        FAIL("not connected");
        return {};
    }

    void send(shm::ConnectionId connection, std::uint32_t bytes) {
        shm::Submission s;
        s.op = shm::SubmissionOp::Send;
        s.connection = connection;
        s.count = 1;
        s.slices[0] = {0, bytes, shm::kTxArena, 0};
        submit(s);
    }

    void turn() {
        for (int i = 0; i < 8; ++i) static_cast<void>(host_.turn(now()));
    }
    static Instant now() { return Instant(std::chrono::seconds(1)); }
    const shm::SessionCounters& counters() const { return counters_; }

private:
    sim::Host& host_;
    std::uint16_t number_;
    std::vector<std::byte> arena_;
    shm::SessionCounters counters_;
};

}  // namespace chiru::test
