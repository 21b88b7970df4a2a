// SPDX-License-Identifier: Apache-2.0
#include "libclient/channel.hpp"

#include "test/libclient/fake_daemon.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <cerrno>
#include <string>
#include <thread>

#include <fcntl.h>
#include <sys/resource.h>

using namespace chiru;
using namespace chiru::client;
using namespace chiru::test;
using shm::CompletionOp;
using shm::SubmissionOp;

namespace {

constexpr shm::ConnectionId kFirst{.index = 5, .generation = 1};
constexpr shm::ConnectionId kSecond{.index = 6, .generation = 3};

struct Bench {
    explicit Bench(std::uint32_t shards = 1, std::size_t tx_bytes = 1u << 20)
        : daemon(shards, tx_bytes), session(daemon.attach()), channel(daemon.open(session)) {}
    ~Bench() { session->disown(); }  // nobody answers a goodbye

    /// The edges of the one socket that has some.
    std::uint8_t edges(Socket& socket) {
        Socket* changed = channel->next_changed();
        return changed == &socket ? Channel::take_edges(socket) : std::uint8_t{0};
    }
    shm::BindReply bound(std::uint32_t id = 9) {
        shm::BindReply reply;
        reply.listener = shm::ListenerId{id};
        reply.endpoint = FakeDaemon::local();
        return reply;
    }

    FakeDaemon daemon;
    std::shared_ptr<Session> session;
    std::unique_ptr<Channel> channel;
};

}  // namespace

TEST_CASE("a connect becomes writable, or fails with the shard's error", "[client]") {
    Bench b;
    Socket* socket = b.channel->create(11);
    REQUIRE(b.channel->connect(*socket, FakeDaemon::remote()));
    const shm::Submission asked = b.daemon.take(SubmissionOp::Connect);
    CHECK(asked.connect.remote == FakeDaemon::remote());
    CHECK(b.channel->connect(*socket, FakeDaemon::remote()).error() == EALREADY);
    CHECK(b.channel->send(*socket, bytes_of("x")).error() == EAGAIN);
    b.daemon.complete(FakeDaemon::connected_to(asked.user, kFirst));
    CHECK(b.channel->process() == 1);
    CHECK(b.edges(*socket) == kWritable);
    CHECK(socket->readiness() == kWritable);
    CHECK(socket->local == FakeDaemon::local());
    CHECK(b.channel->connect(*socket, FakeDaemon::remote()).error() == EISCONN);

    Socket* refused = b.channel->create(12);
    REQUIRE(b.channel->connect(*refused, FakeDaemon::remote()));
    shm::Completion no = FakeDaemon::about(CompletionOp::Closed, shm::kNoConnection, ECONNREFUSED);
    no.user = b.daemon.take(SubmissionOp::Connect).user;
    b.daemon.complete(no);
    b.channel->process();
    CHECK((b.edges(*refused) & (kError | kHangup | kWritable)) == (kError | kHangup | kWritable));
    CHECK(b.channel->take_error(*refused) == ECONNREFUSED);
    CHECK(b.channel->take_error(*refused) == 0);
    CHECK(b.channel->send(*refused, bytes_of("x")).error() == EPIPE);
}

TEST_CASE("a connect that belongs to another shard is repeated there, not for ever", "[client]") {
    Bench b(2);
    Socket* socket = b.channel->create(0);
    REQUIRE(b.channel->connect(*socket, FakeDaemon::remote(), FakeDaemon::local()));
    shm::Completion elsewhere =
        FakeDaemon::about(CompletionOp::Closed, shm::kNoConnection, EXDEV);
    elsewhere.count = 1;
    elsewhere.user = b.daemon.take(SubmissionOp::Connect, 0).user;
    b.daemon.complete(elsewhere, 0);
    b.channel->process();
    CHECK(b.channel->next_changed() == nullptr);
    const shm::Submission again = b.daemon.take(SubmissionOp::Connect, 1);
    CHECK(again.connect.local == FakeDaemon::local());
    elsewhere.count = 0;
    b.daemon.complete(elsewhere, 1);
    b.channel->process();
    b.daemon.take(SubmissionOp::Connect, 0);
    elsewhere.count = 1;
    b.daemon.complete(elsewhere, 0);
    b.channel->process();
    CHECK(b.channel->take_error(*socket) == EADDRNOTAVAIL);
}

TEST_CASE("received text is read in order and its slots go back when it is read", "[client]") {
    Bench b;
    Socket& socket = b.daemon.connected(*b.channel, kFirst);
    b.daemon.complete(b.daemon.received(kFirst, 3, "hello "));
    b.daemon.complete(b.daemon.received(kFirst, 4, "world"));
    b.channel->process();
    CHECK(b.edges(socket) == kReadable);
    std::array<std::byte, 3> some;
    CHECK(b.channel->peek(socket, some, 4) == 3);
    CHECK(static_cast<char>(some[0]) == 'o');
    CHECK(b.channel->receive(socket, some) == 3);
    b.channel->flush();
    CHECK(b.daemon.silent());  // the slot is still half full
    CHECK(read(*b.channel, socket) == "lo world");
    CHECK(b.channel->receive(socket, some).error() == EAGAIN);
    b.channel->flush();
    const shm::Submission release = b.daemon.take(SubmissionOp::Release);
    REQUIRE(release.count == 2);
    CHECK(release.release.slots[0] == 3);
    CHECK(release.release.slots[1] == 4);
}

TEST_CASE("the end of data comes after the data, and a reset after both", "[client]") {
    Bench b;
    Socket& socket = b.daemon.connected(*b.channel, kFirst);
    b.daemon.complete(b.daemon.received(kFirst, 3, "last words"));
    b.daemon.complete(FakeDaemon::about(CompletionOp::PeerClosed, kFirst));
    b.daemon.complete(FakeDaemon::about(CompletionOp::Closed, kFirst, ECONNRESET));
    b.channel->process();
    CHECK((b.edges(socket) & (kReadable | kPeerClosed | kHangup | kError)) ==
          (kReadable | kPeerClosed | kHangup | kError));
    CHECK(read(*b.channel, socket) == "last words");
    std::array<std::byte, 3> some;
    CHECK(b.channel->receive(socket, some).error() == ECONNRESET);
    CHECK(b.channel->receive(socket, some) == 0);
    CHECK(b.channel->send(socket, some).error() == EPIPE);
    const SocketName name = socket.name;
    b.channel->close(socket);
    CHECK(b.channel->find(name) == nullptr);
    CHECK(b.channel->socket_count() == 0);
}

TEST_CASE("small sends share a piece of memory, and it comes back with the last byte", "[client]") {
    Bench b(1, kTxBlockBytes);
    Socket& socket = b.daemon.connected(*b.channel, kFirst);
    CHECK(b.channel->send(socket, bytes_of("one")) == 3);
    CHECK(b.channel->send(socket, bytes_of("two")) == 3);
    const shm::Submission one = b.daemon.take(SubmissionOp::Send);
    const shm::Submission two = b.daemon.take(SubmissionOp::Send);
    CHECK(b.daemon.text(one.slices[0]) == "one");
    CHECK(b.daemon.text(two.slices[0]) == "two");
    CHECK(two.slices[0].offset == one.slices[0].offset + 3);
    b.daemon.complete(FakeDaemon::sent(kFirst, 4));
    b.channel->process();
    CHECK(socket.unsent_bytes() == 2);
    CHECK(socket.tx_first != kNone);
    b.daemon.complete(FakeDaemon::sent(kFirst, 2));
    b.channel->process();
    CHECK(socket.tx_first == kNone);
    CHECK(b.channel->allocate(kTxBlockBytes));  // the whole arena is free again
}

TEST_CASE("without memory send says EAGAIN, and an edge tells when there is some", "[client]") {
    Bench b(1, kTxBlockBytes);
    Socket& socket = b.daemon.connected(*b.channel, kFirst);
    const std::string much(100'000, 'x');
    CHECK(b.channel->send(socket, bytes_of(much)) == kTxBlockBytes);
    CHECK((socket.readiness() & kWritable) == 0);
    CHECK(b.channel->send(socket, bytes_of(much)).error() == EAGAIN);
    CHECK(b.channel->sleep_limit() < Channel::kForever);
    b.channel->process();
    CHECK(b.channel->next_changed() == nullptr);
    b.daemon.complete(FakeDaemon::sent(kFirst, kTxBlockBytes));
    b.channel->process();
    CHECK(b.edges(socket) == kWritable);
    CHECK(b.channel->send(socket, bytes_of("more")) == 4);
}

TEST_CASE("a socket at its limit is woken when a quarter of it is free", "[client]") {
    Bench b;
    Socket& socket = b.daemon.connected(*b.channel, kFirst);
    b.channel->set_send_limit(socket, 8'000);
    const std::string much(10'000, 'x');
    CHECK(b.channel->send(socket, bytes_of(much)) == 8'000);
    b.daemon.complete(FakeDaemon::sent(kFirst, 1'999));
    b.channel->process();
    CHECK(b.channel->next_changed() == nullptr);
    b.daemon.complete(FakeDaemon::sent(kFirst, 1));
    b.channel->process();
    CHECK(b.edges(socket) == kWritable);
    CHECK(b.channel->send(socket, bytes_of(much)) == 2'000);
}

TEST_CASE("at the mark of unsent bytes send says EAGAIN, and below half of it an edge comes",
          "[client]") {
    Bench b;
    Socket& socket = b.daemon.connected(*b.channel, kFirst);
    REQUIRE(b.channel->set_option(socket, shm::ConnectionOption::UnsentLowWater, 20'000));
    CHECK(b.daemon.take(SubmissionOp::SetOption).option.value == 20'000);
    const auto left = [&](std::int32_t bytes) {
        shm::Completion told = FakeDaemon::about(shm::CompletionOp::Sent, kFirst);
        told.sent.left_bytes = bytes;
        b.daemon.complete(told);
        b.channel->process();
    };
    left(-4'000);  // queued before the option was set
    const std::string much(10'000, 'x');
    CHECK(b.channel->send(socket, bytes_of(much)) == 10'000);
    CHECK((socket.readiness() & kWritable) == 0);
    CHECK(b.channel->send(socket, bytes_of(much)) == 10'000);  // 14'000 are below the mark
    CHECK(b.channel->send(socket, bytes_of(much)).error() == EAGAIN);
    left(10'000);
    CHECK(b.channel->next_changed() == nullptr);
    CHECK((socket.readiness() & kWritable) == 0);
    left(4'001);
    CHECK(b.edges(socket) == kWritable);
    CHECK(b.channel->send(socket, bytes_of("y")) == 1);  // half of it again
    CHECK((socket.readiness() & kWritable) == 0);
    REQUIRE(b.channel->set_option(socket, shm::ConnectionOption::UnsentLowWater, 0));
    CHECK(b.edges(socket) == kWritable);
}

TEST_CASE("a full ring refuses payload, keeps everything else, and loses nothing", "[client]") {
    Bench b;
    Socket& socket = b.daemon.connected(*b.channel, kFirst);
    std::size_t sent = 0;
    while (b.channel->send(socket, bytes_of("z"))) ++sent;
    CHECK(sent >= shm::SubmissionRing::kSlots - 2);
    REQUIRE(b.channel->shutdown_send(socket));
    for (int i = 0; i < 5; ++i)
        REQUIRE(b.channel->connect(*b.channel->create(0), FakeDaemon::remote()));
    CHECK(b.channel->sleep_limit() < Channel::kForever);
    std::size_t taken = 0;
    for (; taken < sent; ++taken) b.daemon.take(SubmissionOp::Send);
    b.channel->process();
    b.daemon.take(SubmissionOp::Shutdown);
    for (int i = 0; i < 5; ++i) b.daemon.take(SubmissionOp::Connect);
    CHECK(b.daemon.silent());
}

TEST_CASE("a ring that is emptied all the time never looks full", "[client]") {
    Bench b;
    Socket& socket = b.daemon.connected(*b.channel, kFirst);
    for (std::uint32_t i = 0; i < 3 * shm::SubmissionRing::kSlots; ++i) {
        REQUIRE(b.channel->send(socket, bytes_of("z")) == 1);
        b.daemon.take(SubmissionOp::Send);
        b.daemon.complete(FakeDaemon::sent(kFirst, 1));
        b.channel->process();
    }
}

TEST_CASE("a program's buffer goes to many sockets and is free when all have sent it", "[client]") {
    Bench b(1, kTxBlockBytes);
    Socket& one = b.daemon.connected(*b.channel, kFirst);
    Socket& two = b.daemon.connected(*b.channel, kSecond);
    const Result<Room, int> room = b.channel->allocate(5'000);
    REQUIRE(room);
    std::memset(room->bytes.data(), 'r', 5'000);
    CHECK(b.channel->send_buffer(one, room->token, 10, 4'000));
    CHECK(b.channel->send_buffer(two, room->token, 0, 5'000));
    CHECK(b.channel->send_buffer(two, room->token, 5'000, 121).error() == EINVAL);
    CHECK(b.channel->free_buffer(room->token));
    CHECK(b.channel->free_buffer(room->token).error() == EINVAL);
    CHECK(b.channel->send_buffer(two, room->token, 0, 1).error() == EINVAL);
    CHECK(b.daemon.text(b.daemon.take(SubmissionOp::Send).slices[0]) == std::string(4'000, 'r'));
    b.daemon.complete(FakeDaemon::sent(kFirst, 4'000));
    b.channel->process();
    CHECK(b.channel->allocate(kTxBlockBytes).error() == ENOBUFS);
    b.daemon.complete(FakeDaemon::about(CompletionOp::Closed, kSecond, ETIMEDOUT));
    b.channel->process();
    CHECK(b.channel->allocate(kTxBlockBytes));
}

TEST_CASE("lent payload outlives its socket, and goes back once", "[client]") {
    Bench b;
    Socket& socket = b.daemon.connected(*b.channel, kFirst);
    b.daemon.complete(b.daemon.received(kFirst, 8, "in place"));
    b.channel->process();
    std::array<Lent, 4> pieces;
    CHECK(b.channel->borrow(socket, pieces) == 1);
    CHECK(b.channel->borrow(socket, pieces).error() == EAGAIN);
    b.channel->close(socket);
    b.daemon.take(SubmissionOp::Close);
    CHECK(std::memcmp(pieces[0].bytes.data(), "in place", 8) == 0);
    CHECK(b.channel->give_back(pieces[0].token));
    CHECK(b.channel->give_back(pieces[0].token).error() == EINVAL);
    b.channel->flush();
    CHECK(b.daemon.take(SubmissionOp::Release).release.slots[0] == 8);
}

TEST_CASE("a listener accepts by credit, and gives credit back as the program accepts",
          "[client]") {
    Bench b(2);
    Socket* listener = b.channel->create(0);
    REQUIRE(b.channel->listen(*listener, b.bound(), 4));
    for (const std::uint32_t shard : {0u, 1u}) {
        const shm::Submission credit = b.daemon.take(SubmissionOp::AcceptCredit, shard);
        CHECK(credit.credit.listener == shm::ListenerId{9});
        CHECK(credit.credit.count == 4);
    }
    CHECK(b.channel->accept(*listener).error() == EAGAIN);
    b.daemon.complete(FakeDaemon::accepted(9, kFirst), 1);
    b.daemon.complete(b.daemon.received(kFirst, 2, "early"), 1);
    b.daemon.complete(FakeDaemon::accepted(9, kSecond), 1);
    b.channel->process();
    CHECK(b.edges(*listener) == kReadable);
    CHECK(b.channel->next_changed() == nullptr);  // nobody knows the new ones yet
    const Result<Socket*, int> first = b.channel->accept(*listener);
    REQUIRE(first);
    CHECK((*first)->remote == FakeDaemon::remote());
    CHECK(b.edges(**first) == (kReadable | kWritable));
    CHECK(read(*b.channel, **first) == "early");
    CHECK((listener->readiness() & kReadable) != 0);
    REQUIRE(b.channel->accept(*listener));
    CHECK((listener->readiness() & kReadable) == 0);
    b.channel->flush();
    std::uint32_t taken = 0, credit = 0;
    shm::Submission next;
    while (b.daemon.submissions[1].pop({&next, 1}) == 1) {
        if (next.op != SubmissionOp::AcceptCredit) continue;
        credit += next.credit.count;
        taken += next.credit.taken;
    }
    CHECK(credit == 2);
    CHECK(taken == 2);
    CHECK(b.daemon.silent(0));
}

TEST_CASE("a listener that closes gives back whom nobody accepted", "[client]") {
    Bench b;
    Socket* listener = b.channel->create(0);
    REQUIRE(b.channel->listen(*listener, b.bound(), 4));
    b.daemon.take(SubmissionOp::AcceptCredit);
    b.daemon.complete(FakeDaemon::accepted(9, kFirst));
    b.daemon.complete(b.daemon.received(kFirst, 2, "early"));
    b.channel->process();
    b.channel->close(*listener);
    CHECK(b.daemon.take(SubmissionOp::Return).connection == kFirst);
    b.daemon.complete(FakeDaemon::accepted(9, kSecond));  // crossed with the close
    b.daemon.complete(b.daemon.received(kFirst, 3, "too"));
    b.daemon.complete(b.daemon.received(kSecond, 4, "late"));
    b.channel->process();
    CHECK(b.daemon.take(SubmissionOp::Return).connection == kSecond);
    shm::Completion granted = FakeDaemon::about(CompletionOp::Closed, kFirst);
    granted.count = 1;  // another's now, and its slots with it
    b.daemon.complete(granted);
    b.channel->process();
    CHECK(b.daemon.silent());
    b.daemon.complete(FakeDaemon::about(CompletionOp::Closed, kSecond));  // reset
    b.channel->process();
    const shm::Submission release = b.daemon.take(SubmissionOp::Release);
    CHECK(release.count == 1);
    CHECK(release.release.slots[0] == 4);
    CHECK(b.channel->socket_count() == 1);  // the listener, until its edges are taken
    CHECK(b.channel->next_changed() == nullptr);
    CHECK(b.channel->socket_count() == 0);
}

TEST_CASE("options set early, also on a listener, follow when the connection is there",
          "[client]") {
    Bench b;
    using enum shm::ConnectionOption;
    Socket* socket = b.channel->create(0);
    CHECK(b.channel->set_option(*socket, NoDelay, 1));
    CHECK(b.channel->set_option(*socket, NoDelay, 0));
    CHECK(b.channel->set_option(*socket, NoDelay, 2).error() == EINVAL);
    CHECK(b.channel->set_option(*socket, shm::ConnectionOption{99}, 0).error() == EINVAL);
    REQUIRE(b.channel->connect(*socket, FakeDaemon::remote()));
    const std::uint64_t user = b.daemon.take(SubmissionOp::Connect).user;
    CHECK(b.daemon.silent());
    b.daemon.complete(FakeDaemon::connected_to(user, kFirst));
    b.channel->process();
    const shm::Submission option = b.daemon.take(SubmissionOp::SetOption);
    CHECK(option.connection == kFirst);
    CHECK(option.option.option == NoDelay);
    CHECK(option.option.value == 0);

    Socket* listener = b.channel->create(0);
    CHECK(b.channel->set_option(*listener, KeepIdle, 30));
    REQUIRE(b.channel->listen(*listener, b.bound()));
    b.daemon.take(SubmissionOp::AcceptCredit);
    b.daemon.complete(FakeDaemon::accepted(9, kSecond));
    b.channel->process();
    CHECK(b.daemon.take(SubmissionOp::SetOption).option.value == 30);
}

TEST_CASE("a closed socket lingers until its data is acknowledged, unseen", "[client]") {
    Bench b(1, kTxBlockBytes);
    Socket& socket = b.daemon.connected(*b.channel, kFirst);
    const SocketName name = socket.name;
    CHECK(b.channel->send(socket, bytes_of("bye")) == 3);
    b.channel->close(socket);
    b.daemon.complete(b.daemon.received(kFirst, 1, "crossing"));
    CHECK(b.channel->find(name) == nullptr);
    b.daemon.take(SubmissionOp::Send);
    b.daemon.take(SubmissionOp::Close);
    b.channel->process();
    CHECK(b.daemon.take(SubmissionOp::Release).release.slots[0] == 1);
    CHECK(b.channel->allocate(kTxBlockBytes).error() == ENOBUFS);
    b.daemon.complete(FakeDaemon::about(CompletionOp::Closed, kFirst));
    b.channel->process();
    CHECK(b.channel->next_changed() == nullptr);
    CHECK(b.channel->socket_count() == 0);
    CHECK(b.channel->allocate(kTxBlockBytes));
    CHECK(b.channel->create(0)->name.generation != name.generation);
}

TEST_CASE("closing with unread data resets the connection", "[client][rfc2525]") {
    Bench b;
    Socket& socket = b.daemon.connected(*b.channel, kFirst);
    b.daemon.complete(b.daemon.received(kFirst, 1, "unread"));
    b.channel->process();
    b.channel->close(socket);
    b.channel->flush();
    b.daemon.take(SubmissionOp::Release);
    b.daemon.take(SubmissionOp::Abort);
}

TEST_CASE("data that lies on the ring is unread as well when its socket is closed",
          "[client][rfc2525]") {
    Bench b;
    Socket& socket = b.daemon.connected(*b.channel, kFirst);
    b.daemon.complete(b.daemon.received(kFirst, 1, "unread"));
    b.channel->close(socket);
    b.channel->flush();
    b.daemon.take(SubmissionOp::Release);
    b.daemon.take(SubmissionOp::Abort);
}

TEST_CASE("a socket closed while it connects is reset once it is connected", "[client]") {
    Bench b;
    Socket* socket = b.channel->create(0);
    REQUIRE(b.channel->connect(*socket, FakeDaemon::remote()));
    const std::uint64_t user = b.daemon.take(SubmissionOp::Connect).user;
    b.channel->close(*socket);
    b.daemon.complete(FakeDaemon::connected_to(user, kFirst));
    b.channel->process();
    CHECK(b.daemon.take(SubmissionOp::Abort).connection == kFirst);
    b.daemon.complete(FakeDaemon::about(CompletionOp::Closed, kFirst));
    b.channel->process();
    CHECK(b.channel->socket_count() == 0);
}

TEST_CASE("a connect with Fast Open sends once before it is connected", "[client][rfc7413]") {
    Bench b;
    const auto open = [&](shm::ConnectionId id, std::uint32_t room) {
        Socket* socket = b.channel->create(0);
        REQUIRE(b.channel->set_option(*socket, shm::ConnectionOption::FastOpen, 1));
        REQUIRE(b.channel->connect(*socket, FakeDaemon::remote()));
        const shm::Submission asked = b.daemon.take(SubmissionOp::Connect);
        CHECK(asked.connect.options ==
              1u << static_cast<unsigned>(shm::ConnectionOption::FastOpen));
        CHECK(b.channel->send(*socket, bytes_of("x")).error() == EAGAIN);
        shm::Completion opening = FakeDaemon::connected_to(asked.user, id);
        opening.op = CompletionOp::Opening;
        opening.endpoints.syn_room = room;
        b.daemon.complete(opening);
        b.channel->process();
        return socket;
    };
    const auto complete = [&](CompletionOp op, shm::ConnectionId id, std::uint64_t user) {
        shm::Completion completion = FakeDaemon::connected_to(user, id);
        completion.op = op;
        b.daemon.complete(completion);
        b.channel->process();
    };

    SECTION("as much as the SYN takes along") {
        Socket* socket = open(kFirst, 3);
        CHECK(b.edges(*socket) == kWritable);
        CHECK((socket->readiness() & kWritable) != 0);
        CHECK(b.channel->send(*socket, bytes_of("hello")) == 3u);
        const shm::Submission sent = b.daemon.take(SubmissionOp::Send);
        CHECK(sent.connection == kFirst);
        CHECK((socket->readiness() & kWritable) == 0);
        CHECK(b.channel->send(*socket, bytes_of("lo")).error() == EAGAIN);
        complete(CompletionOp::Connected, kFirst, 0);
        CHECK(b.edges(*socket) == kWritable);
        CHECK(b.channel->send(*socket, bytes_of("lo")) == 2u);
    }
    SECTION("nothing, and the SYN goes") {
        Socket* socket = open(kFirst, 3);
        CHECK(b.channel->send(*socket, {}) == 0u);
        const shm::Submission sent = b.daemon.take(SubmissionOp::Send);
        CHECK(sent.slices[0].length == 0);
        CHECK(b.channel->send(*socket, bytes_of("x")).error() == EAGAIN);
    }
    SECTION("without a cookie it waits as every other") {
        Socket* socket = open(kFirst, 0);
        CHECK(b.edges(*socket) == 0);
        CHECK(b.channel->send(*socket, bytes_of("x")).error() == EAGAIN);
        complete(CompletionOp::Connected, kFirst, 0);
        CHECK(b.edges(*socket) == kWritable);
    }
    SECTION("the handshake may fail") {
        Socket* socket = open(kFirst, 3);
        CHECK(b.channel->send(*socket, bytes_of("abc")) == 3u);
        b.daemon.complete(FakeDaemon::about(CompletionOp::Closed, kFirst, ECONNREFUSED));
        b.channel->process();
        CHECK(b.channel->take_error(*socket) == ECONNREFUSED);
        CHECK(socket->unsent_bytes() == 0);
    }
    SECTION("it is closed before the SYN went") {
        Socket* socket = open(kFirst, 3);
        CHECK(b.edges(*socket) == kWritable);
        b.channel->close(*socket);
        CHECK(b.daemon.take(SubmissionOp::Abort).connection == kFirst);
        complete(CompletionOp::Connected, kFirst, 0);  // they crossed
        CHECK_FALSE(b.channel->lost());
        b.daemon.complete(FakeDaemon::about(CompletionOp::Closed, kFirst));
        b.channel->process();
        CHECK(b.channel->socket_count() == 0);
    }
    SECTION("it is closed before it is answered") {
        Socket* socket = b.channel->create(0);
        REQUIRE(b.channel->set_option(*socket, shm::ConnectionOption::FastOpen, 1));
        REQUIRE(b.channel->connect(*socket, FakeDaemon::remote()));
        const std::uint64_t user = b.daemon.take(SubmissionOp::Connect).user;
        b.channel->close(*socket);
        complete(CompletionOp::Opening, kFirst, user);
        CHECK(b.daemon.take(SubmissionOp::Abort).connection == kFirst);
        complete(CompletionOp::Connected, kFirst, user);
        CHECK_FALSE(b.channel->lost());
        b.daemon.complete(FakeDaemon::about(CompletionOp::Closed, kFirst));
        b.channel->process();
        CHECK(b.channel->socket_count() == 0);
    }
    SECTION("a connection cannot be connected twice") {
        open(kFirst, 0);
        complete(CompletionOp::Connected, kFirst, 0);
        complete(CompletionOp::Connected, kFirst, 0);
        CHECK(b.channel->lost());
    }
}

TEST_CASE("a sleeper is woken by the doorbell, and its shards before it sleeps", "[client]") {
    Bench b;
    Socket& socket = b.daemon.connected(*b.channel, kFirst);
    shm::DoorbellSleeper shard(b.daemon.directory->shards[0].doorbell);
    shard.arm();
    CHECK(b.channel->send(socket, bytes_of("ping")) == 4);
    std::thread answerer([&] {
        std::uint64_t rings = 0;
        while (::read(b.daemon.shard_doorbells[0].get(), &rings, sizeof rings) < 0)
            std::this_thread::yield();
        shard.disarm();
        b.daemon.complete(b.daemon.received(kFirst, 0, "pong"));
    });
    while (socket.unread_bytes() == 0) REQUIRE(b.channel->wait(std::chrono::seconds(10)));
    answerer.join();
    CHECK(read(*b.channel, socket) == "pong");
    CHECK(b.channel->wait(Micros(-1)) == 0);  // at once: its edge is still to be taken
    b.channel->next_changed();
    CHECK(b.channel->wait(Micros(100)) == 0);
}

TEST_CASE("each of several sleepers gets an epoch of its own", "[client]") {
    Bench b;
    REQUIRE(b.channel->arm());
    const std::uint32_t first = b.daemon.layout->client_doorbell.epoch;
    REQUIRE(b.channel->arm());
    const std::uint32_t second = b.daemon.layout->client_doorbell.epoch;
    CHECK((first & 1) == 1);
    CHECK((second & 1) == 1);
    CHECK(first != second);
    b.channel->disarm();
    CHECK((b.daemon.layout->client_doorbell.epoch & 1) == 1);
    b.channel->disarm();
    CHECK((b.daemon.layout->client_doorbell.epoch & 1) == 0);
}

TEST_CASE("a channel that finds no descriptors costs the session nothing", "[client]") {
    Bench b;
    b.daemon.answer_channel();
    shm::Message destroyed;
    destroyed.type = shm::MessageType::DestroyChannel;
    b.daemon.answer(destroyed);
    const shm::UniqueFd next(open("/dev/null", O_RDONLY | O_CLOEXEC));
    rlimit before{};
    REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
    rlimit full = before;
    full.rlim_cur = static_cast<rlim_t>(next.get()) + 1;
    REQUIRE(setrlimit(RLIMIT_NOFILE, &full) == 0);
    const auto second = b.session->create_channel();
    REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
    REQUIRE_FALSE(second);
    CHECK(second.error() == EMFILE);
    CHECK_FALSE(b.session->lost());
    CHECK(b.daemon.connected(*b.channel, kFirst).state == SocketState::Connected);
}

TEST_CASE("a hundred thousand idle sockets cost about 128 bytes each", "[client]") {
    Bench b;
    constexpr std::uint32_t kCount = 100'000;
    for (std::uint32_t i = 0; i < kCount; ++i) {
        REQUIRE(b.channel->connect(*b.channel->create(i), FakeDaemon::remote()));
        const shm::Submission asked = b.daemon.take(SubmissionOp::Connect);
        b.daemon.complete(FakeDaemon::connected_to(asked.user, {.index = i, .generation = 1}));
        b.channel->process();
        CHECK(b.channel->next_changed() != nullptr);
    }
    CHECK(b.channel->socket_count() == kCount);
    CHECK(sizeof(Socket) == 128);
    b.daemon.complete(b.daemon.received({.index = 77'777, .generation = 1}, 0, "you"));
    b.channel->process();
    CHECK(b.channel->next_changed()->user == 77'777);
}
