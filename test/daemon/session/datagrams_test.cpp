// SPDX-License-Identifier: Apache-2.0
#include "daemon/session/datagrams.hpp"

#include <catch2/catch.hpp>

#include <cerrno>
#include <set>

using namespace chiru;
using namespace chiru::daemon;

namespace {

constexpr SessionIndex kOne = 1, kTwo = 2;
constexpr std::uint32_t kUser = 1000, kOther = 1001;

IpAddress ip(const char* text) { return *IpAddress::parse(text); }

struct Fixture {
    std::uint64_t drawn = 7;
    Datagrams datagrams{Listeners::Rules{.max_per_session = 3},
                        [](const IpAddress& address) { return address == ip("10.7.0.2"); },
                        [this] { return drawn += 0x9e37'79b9'7f4a'7c15; }};

    Result<OpenDatagram, int> open(SessionIndex session, const char* address, std::uint16_t port,
                                   std::uint32_t flags = 0, std::uint32_t uid = kUser) {
        shm::OpenDatagramRequest request;
        request.endpoint = {ip(address), port};
        request.flags = flags;
        request.channel = 4;
        return datagrams.open(session, uid, request);
    }
    int error_of(SessionIndex session, const char* address, std::uint16_t port,
                 std::uint32_t flags = 0, std::uint32_t uid = kUser) {
        const auto opened = open(session, address, port, flags, uid);
        return opened ? 0 : opened.error();
    }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "A UDP port has one owner, unless both agree to share it", "[udp]") {
    CHECK(error_of(kOne, "10.7.0.2", 5353) == 0);
    CHECK(error_of(kTwo, "10.7.0.2", 5353) == EADDRINUSE);
    CHECK(error_of(kTwo, "0.0.0.0", 5353) == EADDRINUSE);
    CHECK(error_of(kTwo, "::", 5353) == EADDRINUSE);
    CHECK(error_of(kTwo, "::", 5353, shm::kBindV6Only) == 0);
    CHECK(error_of(kOne, "0.0.0.0", 6000, shm::kBindReuseAddress) == 0);
    CHECK(error_of(kTwo, "0.0.0.0", 6000, shm::kBindReuseAddress, kOther) == 0);
    CHECK(error_of(kOne, "0.0.0.0", 6001, shm::kBindReusePort) == 0);
    CHECK(error_of(kTwo, "0.0.0.0", 6001, shm::kBindReusePort, kOther) == EADDRINUSE);
    CHECK(error_of(kTwo, "0.0.0.0", 6001, shm::kBindReusePort) == 0);
}

TEST_CASE_METHOD(Fixture, "What may be bound", "[udp]") {
    CHECK(error_of(kOne, "10.7.0.3", 6000) == EADDRNOTAVAIL);
    CHECK(error_of(kOne, "239.1.1.1", 6000) == 0);
    CHECK(error_of(kOne, "10.7.0.2", 53) == EACCES);
    CHECK(error_of(kOne, "10.7.0.2", 53, 0, 0) == 0);
    CHECK(error_of(kOne, "10.7.0.2", 6001, 128) == EINVAL);
    CHECK(error_of(kOne, "10.7.0.2", 6002) == 0);
    CHECK(error_of(kOne, "10.7.0.2", 6003) == ENOBUFS);
}

TEST_CASE_METHOD(Fixture, "Chosen ports differ and names are never used twice", "[udp]") {
    std::set<std::uint16_t> ports;
    std::set<shm::DatagramId> names;
    for (int i = 0; i < 200; ++i) {
        const auto opened = open(kOne, "0.0.0.0", 0);
        REQUIRE(opened);
        CHECK(opened->config.local.port >= 32'768);
        ports.insert(opened->config.local.port);
        names.insert(opened->config.id);
        REQUIRE(datagrams.close(kOne, opened->config.id));
    }
    CHECK(names.size() == 200);
    CHECK(ports.size() > 150);
}

TEST_CASE_METHOD(Fixture, "All that a session had comes back with its end", "[udp]") {
    const auto first = open(kOne, "10.7.0.2", 6000);
    REQUIRE(first);
    REQUIRE(open(kOne, "10.7.0.2", 6001));
    shm::MembershipRequest group;
    group.socket = first->config.id;
    group.group = ip("239.1.1.1");
    REQUIRE(datagrams.join(group));
    CHECK(datagrams.join(group).error() == EADDRINUSE);
    CHECK_FALSE(datagrams.holds(kTwo, first->config.id));
    CHECK(datagrams.close(kTwo, first->config.id).error() == EBADF);
    CHECK(datagrams.end_session(kOne).size() == 3);  // two sockets and a membership
    CHECK(datagrams.held_by(kOne) == 0);
    CHECK(error_of(kTwo, "10.7.0.2", 6000) == 0);
}

TEST_CASE("One session cannot take all groups, nor a few all sockets", "[udp]") {
    Datagrams datagrams{Listeners::Rules{.max_per_session = 8192},
                        [](const IpAddress&) { return true; }, [] { return 7u; }};
    const auto open = [&](SessionIndex session, std::uint32_t port) {
        shm::OpenDatagramRequest request;
        request.endpoint = {ip("10.7.0.2"), static_cast<std::uint16_t>(port)};
        request.channel = 4;
        return datagrams.open(session, 0, request);
    };
    std::uint32_t joined = 0;
    const auto join = [&](SessionIndex session, shm::DatagramId socket, std::uint32_t group) {
        shm::MembershipRequest request;
        request.socket = socket;
        request.group = IpAddress::v4(0xef00'0000u + group);
        return datagrams.may_join(session, request) && datagrams.join(request);
    };
    std::uint32_t port = 1;
    while (const auto socket = open(kOne, port)) {
        for (std::uint32_t i = 0; i < 32 && join(kOne, socket->config.id, joined); ++i) ++joined;
        if (++port > 8192) break;
    }
    CHECK(joined == 128);
    CHECK(port - 1 == 8192 - 8192 / 16);
    const auto other = open(kTwo, port);
    REQUIRE(other);
    CHECK(join(kTwo, other->config.id, 1000));
    CHECK(join(kTwo, other->config.id, 5));  // one that is there already
}

TEST_CASE_METHOD(Fixture, "A group is left once", "[udp]") {
    const auto socket = open(kOne, "10.7.0.2", 6000);
    shm::MembershipRequest group;
    group.socket = socket->config.id;
    group.group = ip("10.7.0.1");
    CHECK(datagrams.join(group).error() == EINVAL);
    group.group = ip("ff05::2");
    REQUIRE(datagrams.join(group));
    REQUIRE(datagrams.leave(group));
    CHECK(datagrams.leave(group).error() == EADDRNOTAVAIL);
}

TEST_CASE_METHOD(Fixture, "A group is left where it was joined, wherever routes lead by then",
                 "[udp]") {
    const auto socket = open(kOne, "10.7.0.2", 6000);
    shm::MembershipRequest group;
    group.socket = socket->config.id;
    group.group = ip("ff05::2");
    REQUIRE(datagrams.join(group)->interface == 0);
    datagrams.joined(group, 3);
    const auto left = datagrams.leave(group);
    REQUIRE(left);
    CHECK(left->interface == 3);
}
