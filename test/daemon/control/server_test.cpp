// SPDX-License-Identifier: Apache-2.0
//
// The control thread with real sockets and memory, and a data plane that only notes its orders.
#include "daemon/control/process.hpp"
#include "shm/control.hpp"
#include "test/daemon/control/running_server.hpp"

#include <catch2/catch.hpp>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <memory>
#include <vector>

using namespace chiru;
using namespace chiru::daemon;
using shm::MessageType;
using test::fake;
using Running = test::RunningServer;

namespace {

class Client {
public:
    explicit Client(const std::string& path) : socket_(std::move(*shm::connect_control(path))) {}

    shm::Parcel ask(shm::Message message) {
        message.sequence = ++sequence_;
        REQUIRE(shm::send_message(socket_.get(), message) == 0);
        auto answer = shm::receive_message(socket_.get());
        REQUIRE(answer);
        CHECK(answer->message.sequence == sequence_);
        CHECK(answer->message.type == message.type);
        return std::move(*answer);
    }
    shm::Parcel ask(MessageType type) {
        shm::Message message;
        message.type = type;
        if (type == MessageType::Attach) {
            message.attach = {};
            message.attach.program.set("tester");
        }
        return ask(message);
    }
    shm::BindReply bind(std::uint16_t port) {
        shm::Message message;
        message.type = MessageType::Bind;
        message.bind = {.endpoint = {*IpAddress::parse("10.7.0.2"), port}, .flags = 0};
        const shm::Parcel answer = ask(message);
        CHECK(answer.message.error == 0);
        return answer.message.bound;
    }
    int listen(shm::ListenerId listener) {
        shm::Message message;
        message.type = MessageType::Listen;
        message.listen = {.listener = listener, .backlog = 5};
        return ask(message).message.error;
    }
    bool is_dropped() {
        pollfd wait{.fd = socket_.get(), .events = POLLIN, .revents = 0};
        poll(&wait, 1, 2000);
        const auto nothing = shm::receive_message(socket_.get());
        return !nothing && nothing.error() == EPIPE;
    }
    int fd() const { return socket_.get(); }

private:
    shm::UniqueFd socket_;
    std::uint32_t sequence_ = 0;
};

bool eventually(const std::function<bool()>& fact) {
    for (int tries = 0; tries < 2000; ++tries) {
        if (fact()) return true;
        usleep(1000);
    }
    return false;
}

}  // namespace

TEST_CASE("A client attaches, opens a channel and listens; all of it goes with it", "[server]") {
    Running running;
    {
        Client client(running.path());
        const shm::Parcel attached = client.ask(MessageType::Attach);
        CHECK(attached.message.error == 0);
        CHECK(attached.message.attached.shard_count == test::kShards);
        CHECK(attached.message.attached.rx_slot_bytes == test::kRxSlotBytes);
        REQUIRE(attached.fds.size() == 3);
        CHECK(fake().count<AttachSession>() == test::kShards);

        const shm::Parcel channel = client.ask(MessageType::CreateChannel);
        REQUIRE(channel.fds.size() == 2 + test::kShards);
        CHECK(fake().count<AttachChannel>() == test::kShards);
        CHECK(running.channels() == 1);

        const shm::BindReply bound = client.bind(8080);
        CHECK(client.listen(bound.listener) == 0);
        CHECK(fake().count<Listen>() == test::kShards);
        CHECK(fake().count<ShareListener>() == test::kShards);
        CHECK(eventually([&] { return running.sessions() == 1; }));
    }
    CHECK(eventually([&] { return running.sessions() == 0 && running.channels() == 0; }));
    CHECK(fake().count<Unlisten>() == test::kShards);
    CHECK(fake().count<DetachSession>() == test::kShards);
    Client next(running.path());
    REQUIRE(next.ask(MessageType::Attach).message.error == 0);
    next.bind(8080);
}

TEST_CASE("One user cannot take all places", "[server]") {
    Running running(32);
    std::vector<std::unique_ptr<Client>> clients;
    int error = 0;
    while (error == 0 && clients.size() < 40) {
        clients.push_back(std::make_unique<Client>(running.path()));
        error = clients.back()->ask(MessageType::Attach).message.error;
    }
    CHECK(error == EUSERS);
    CHECK(clients.size() == 29);  // the last of them was refused: an eighth is for other users
}

TEST_CASE("A session's memory stays until every shard has let go", "[server]") {
    Running running;
    {
        Client client(running.path());
        REQUIRE(client.ask(MessageType::Attach).message.error == 0);
        const std::lock_guard lock(fake().mutex);
        fake().hold_back = true;
    }
    CHECK(eventually([] { return fake().count<DetachSession>() == test::kShards; }));
    usleep(20'000);
    CHECK(running.sessions() == 1);
    fake().release();
    CHECK(eventually([&] { return running.sessions() == 0; }));
}

TEST_CASE("Nothing but Attach and Observe is for strangers", "[server]") {
    Running running;
    Client client(running.path());
    for (const MessageType type : {MessageType::CreateChannel, MessageType::Listen,
                                   MessageType::Bind, MessageType::ConnectionInfo})
        CHECK(client.ask(type).message.error == ENOTCONN);
    const shm::Parcel observed = client.ask(MessageType::Observe);
    CHECK(observed.message.error == 0);
    CHECK(observed.message.observed.tables_allowed == 1);  // we are the daemon's own user
    CHECK(observed.fds.size() == 1 + test::kShards);
}

TEST_CASE("Who looked on and then attaches is seen as a client", "[server]") {
    Running running;
    Client client(running.path());
    REQUIRE(client.ask(MessageType::Observe).message.error == 0);
    REQUIRE(client.ask(MessageType::Attach).message.error == 0);
    std::size_t clients = 0;
    for (const auto& record : running.directory().sessions)
        if (record.read().id != 0 && record.read().observer == 0) ++clients;
    CHECK(clients == 1);
}

TEST_CASE("Quotas refuse, and leave the rest of the session alone", "[server]") {
    Running running;
    Client client(running.path());
    REQUIRE(client.ask(MessageType::Attach).message.error == 0);
    CHECK(client.ask(MessageType::Attach).message.error == EISCONN);
    const shm::Parcel first = client.ask(MessageType::CreateChannel);
    CHECK(first.message.error == 0);
    CHECK(client.ask(MessageType::CreateChannel).message.error == 0);
    CHECK(client.ask(MessageType::CreateChannel).message.error == EMFILE);

    shm::Message destroy;
    destroy.type = MessageType::DestroyChannel;
    destroy.destroy_channel = {.channel = first.message.channel.channel};
    CHECK(client.ask(destroy).message.error == 0);
    CHECK(client.ask(destroy).message.error == EBADF);
    CHECK(client.ask(MessageType::CreateChannel).message.error == 0);

    std::vector<Client> others;
    for (int i = 0; i < 3; ++i) {
        others.emplace_back(running.path());
        CHECK(others.back().ask(MessageType::Attach).message.error == 0);
    }
    Client fifth(running.path());
    CHECK(fifth.ask(MessageType::Attach).message.error == EUSERS);
}

TEST_CASE("What is no message ends its sender and nobody else", "[server]") {
    Running running;
    Client good(running.path());
    REQUIRE(good.ask(MessageType::Attach).message.error == 0);
    Client bad(running.path());
    REQUIRE(bad.ask(MessageType::Attach).message.error == 0);
    REQUIRE(send(bad.fd(), "hello", 5, 0) == 5);
    CHECK(bad.is_dropped());
    Client stranger(running.path());
    shm::Message message;
    message.version = shm::kControlVersion + 1;
    REQUIRE(shm::send_message(stranger.fd(), message) == 0);
    CHECK(stranger.is_dropped());
    CHECK(good.ask(MessageType::CreateChannel).message.error == 0);
}

TEST_CASE("A request that passes a descriptor ends its session", "[server]") {
    Running running;
    Client client(running.path());
    REQUIRE(client.ask(MessageType::Attach).message.error == 0);
    Client other(running.path());
    REQUIRE(other.ask(MessageType::Attach).message.error == 0);
    shm::Message message;
    message.type = MessageType::CreateChannel;
    REQUIRE(shm::send_message(client.fd(), message, {STDIN_FILENO}) == 0);
    CHECK(client.is_dropped());
    CHECK(other.ask(MessageType::CreateChannel).message.error == 0);
}

TEST_CASE("A client that does not read its answers is dropped", "[server]") {
    Running running;
    Client client(running.path());
    shm::Message message;
    message.type = MessageType::Observe;
    int sent = 0;
    while (sent < 10'000 && shm::send_message(client.fd(), message) == 0) ++sent;
    CHECK(sent < 10'000);
    Client other(running.path());
    CHECK(other.ask(MessageType::Attach).message.error == 0);
}

TEST_CASE("A broken ring ends the session whose it is", "[server]") {
    Running running;
    Client client(running.path());
    REQUIRE(client.ask(MessageType::Attach).message.error == 0);
    Client other(running.path());
    REQUIRE(other.ask(MessageType::Attach).message.error == 0);
    SessionIndex index = 0;
    {
        const std::lock_guard lock(fake().mutex);
        index = std::get<AttachSession>(fake().commands.front().second.what).session;
    }
    ClientViolation violation;
    violation.session = index;
    violation.violation = Violation::SliceOutsideArena;
    fake().report({.shard = 1, .tag = 0, .what = violation});
    CHECK(client.is_dropped());
    CHECK(other.ask(MessageType::CreateChannel).message.error == 0);
}

TEST_CASE("What a shard learns of a path is told to all others", "[server]") {
    Running running;
    const PathMtu path{*IpAddress::parse("198.51.100.1"), 1400, true};
    fake().report({.shard = 1, .tag = 0, .what = PathMtuLearnt{path}});
    Client client(running.path());
    REQUIRE(client.ask(MessageType::Attach).message.error == 0);  // by now it is done
    const std::lock_guard lock(fake().mutex);
    std::size_t told = 0;
    for (const auto& [shard, command] : fake().commands) {
        const auto* learn = std::get_if<LearnPathMtu>(&command.what);
        if (learn == nullptr) continue;
        ++told;
        CHECK(shard != 1);
        CHECK(learn->path.remote == path.remote);
        CHECK(learn->path.mtu == 1400);
    }
    CHECK(told == test::kShards - 1);
}

TEST_CASE("A connection's state is told by the shard that has it", "[server]") {
    Running running;
    Client client(running.path());
    REQUIRE(client.ask(MessageType::Attach).message.error == 0);
    shm::Message message;
    message.type = MessageType::ConnectionInfo;
    message.query = {.shard = 1, .connection = {.index = 1, .generation = 1}};
    const shm::Parcel answer = client.ask(message);
    CHECK(answer.message.error == 0);
    CHECK(answer.message.connection.local_port == 80);
    message.query.shard = test::kShards;
    CHECK(client.ask(message).message.error == EBADF);
}
