// SPDX-License-Identifier: Apache-2.0
//
// A listener that several share: what one of them was given and did not take is not lost with it.
#include "test/sim/host.hpp"
#include "test/stack/tcp/client.hpp"

#include <catch2/catch.hpp>

#include <cerrno>
#include <optional>
#include <vector>

using namespace chiru;
using shm::Completion;
using shm::CompletionOp;
using test::Client;

namespace {

constexpr shm::ListenerId kListener{1};
constexpr std::uint32_t kText = 700;

/// Two workers at one listener, of which the first has credit, and a peer.
struct Workers {
    Workers() {
        host.stack().listen(kListener, {host.v4(), 80}, 0, {.backlog = 64});
        for (const auto session : {SessionIndex{10}, SessionIndex{11}})
            host.stack().share_listener(kListener, session);
        first.credit(kListener, 8);
    }

    /// The peer's names of `count` new connections, each of which brought some text.
    void connect(int count) {
        for (int i = 0; i < count; ++i) peer.connect({host.v4(), 80});
        peer.turn();
        for (const Completion& told : peer.take())
            if (told.op == CompletionOp::Connected) peer.send(told.connection, kText);
        peer.turn();
    }
    int resets_seen() {
        peer.turn();
        int resets = 0;
        for (const Completion& told : peer.take())
            resets += told.op == CompletionOp::Closed && told.error == ECONNRESET;
        return resets;
    }

    sim::Host host{{}};
    Client first{host, 10}, second{host, 11}, peer{host, 12};
};

/// What a client was told, by kind.
struct Told {
    explicit Told(const std::vector<Completion>& all) {
        for (const Completion& each : all) {
            if (each.op == CompletionOp::Accepted) accepted.push_back(each.connection);
            if (each.op == CompletionOp::Closed) closed.push_back(each);
            if (each.op != CompletionOp::Received) continue;
            for (std::size_t i = 0; i < each.count; ++i) {
                text += each.slices[i].length;
                slices.push_back(each.slices[i]);
            }
        }
    }
    std::vector<shm::ConnectionId> accepted;
    std::vector<Completion> closed;
    std::vector<shm::Slice> slices;
    std::uint32_t text = 0;
};

void submit(Client& client, shm::SubmissionOp op, shm::ConnectionId connection) {
    shm::Submission s;
    s.op = op;
    s.connection = connection;
    client.submit(s);
}

}  // namespace

TEST_CASE("What a worker that dies had not taken goes to another, with its text",
          "[tcp][listener]") {
    Workers w;
    w.connect(3);
    const Told told(w.first.take());
    REQUIRE(told.accepted.size() == 3);
    CHECK(told.text == 3 * kText);
    w.first.credit(kListener, 1, 1);  // accept() returned the first of them
    w.connect(1);                     // and this one was never told

    w.host.stack().detach_session(10, Client::now(), Parting::Lost);
    w.second.credit(kListener, 8);
    const Told others(w.second.take());
    CHECK(others.accepted.size() == 3);
    CHECK(others.text == 3 * kText);
    CHECK(w.resets_seen() == 1);
    CHECK(w.host.stack().session_gone(10));
}

TEST_CASE("A worker that leaves and ends at once has not looked at what it was told",
          "[tcp][listener]") {
    Workers w;
    w.connect(2);
    CHECK(Told(w.first.take()).accepted.size() == 2);  // on its ring, when it closed the listener
    w.connect(1);                                      // not told yet
    w.host.stack().leave_listener(kListener, 10, Client::now());
    w.second.credit(kListener, 8);
    CHECK(Told(w.second.take()).accepted.size() == 1);
    w.host.stack().detach_session(10, Client::now(), Parting::Orderly);
    CHECK(Told(w.second.take()).accepted.size() == 2);
    CHECK(w.resets_seen() == 0);
}

TEST_CASE("A connection that was read from or sent on is not given to another", "[tcp][listener]") {
    Workers w;
    w.connect(3);
    const Told told(w.first.take());
    REQUIRE(told.accepted.size() == 3);
    w.first.submit(sim::Host::release_of(told.slices[0]));
    w.first.send(told.accepted[1], 10);
    w.first.turn();
    w.host.stack().detach_session(10, Client::now(), Parting::Lost);
    w.second.credit(kListener, 8);
    CHECK(Told(w.second.take()).accepted.size() == 1);
    CHECK(w.resets_seen() == 2);
}

TEST_CASE("A worker that leaves a listener returns what its program did not take",
          "[tcp][listener]") {
    Workers w;
    w.connect(2);
    const Told told(w.first.take());
    REQUIRE(told.accepted.size() == 2);
    submit(w.first, shm::SubmissionOp::Return, told.accepted[0]);
    const Told answer(w.first.take());
    REQUIRE(answer.closed.size() == 1);  // and not the same connection again
    CHECK(answer.accepted.empty());
    CHECK(answer.closed[0].connection == told.accepted[0]);
    CHECK(answer.closed[0].count == 1);
    const shm::Submission late = sim::Host::release_of(told.slices[0]);
    CHECK(w.host.stack().submit(10, std::span(&late, 1), Client::now()) == Violation::NotItsSlot);

    w.second.credit(kListener, 8);
    const Told others(w.second.take());
    REQUIRE(others.accepted.size() == 1);
    CHECK(others.text == kText);
    w.second.submit(sim::Host::release_of(others.slices[0]));
    CHECK(w.resets_seen() == 0);

    // One that was touched cannot be returned: it is reset.
    w.first.send(told.accepted[1], 10);
    submit(w.first, shm::SubmissionOp::Return, told.accepted[1]);
    CHECK(w.resets_seen() == 1);
    const Told end(w.first.take());
    REQUIRE(end.closed.size() == 1);
    CHECK(end.closed[0].count == 0);
}

TEST_CASE("What returns to a listener that nobody shares any longer is reset with it",
          "[tcp][listener]") {
    Workers w;
    w.connect(1);
    const Told told(w.first.take());
    REQUIRE(told.accepted.size() == 1);
    submit(w.first, shm::SubmissionOp::Return, told.accepted[0]);
    w.host.stack().unlisten(kListener, Client::now());
    CHECK(w.resets_seen() == 1);
    submit(w.first, shm::SubmissionOp::Return, told.accepted[0]);  // a stale name
    CHECK(w.host.count(shm::Counter::StaleNames) == 1);
}

TEST_CASE("The last of those who shared a listener leaves nothing waiting at it",
          "[tcp][listener]") {
    Workers w;
    w.host.stack().detach_session(11, Client::now(), Parting::Lost);
    w.connect(2);
    CHECK(Told(w.first.take()).accepted.size() == 2);
    w.host.stack().detach_session(10, Client::now(), Parting::Lost);
    CHECK(w.resets_seen() == 2);
    CHECK(w.host.stack().session_gone(10));
}

TEST_CASE("A channel that is destroyed gives back what it had not taken", "[tcp][listener]") {
    Workers w;
    w.connect(2);
    w.first.credit(kListener, 1, 1);
    w.second.credit(kListener, 8);
    w.host.stack().detach_channel(10, Client::now());
    CHECK(Told(w.second.take()).accepted.size() == 1);
    CHECK(w.resets_seen() == 1);
}
