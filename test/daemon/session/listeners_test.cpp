// SPDX-License-Identifier: Apache-2.0
#include "daemon/session/listeners.hpp"

#include <catch2/catch.hpp>

#include <cerrno>

using namespace chiru;
using namespace chiru::daemon;

namespace {

constexpr SessionIndex kNginx = 1;
constexpr SessionIndex kWorker = 2;
constexpr SessionIndex kStranger = 3;
constexpr std::uint32_t kUser = 1000;
constexpr std::uint32_t kOther = 1001;

IpAddress ip(const char* text) { return *IpAddress::parse(text); }

struct Fixture {
    std::uint64_t drawn = 7;
    Listeners listeners{Listeners::Rules{},
                        [](const IpAddress& address) {
                            return address == ip("10.7.0.2") || address == ip("fd07::2");
                        },
                        [this] { return drawn += 0x9e37'79b9'7f4a'7c15; }};

    Result<shm::BindReply, int> bind(SessionIndex session, const char* address,
                                     std::uint16_t port, std::uint32_t flags = 0,
                                     std::uint32_t uid = kUser) {
        return listeners.bind(session, uid, {.endpoint = {ip(address), port}, .flags = flags});
    }
    int error_of_bind(SessionIndex session, const char* address, std::uint16_t port,
                      std::uint32_t flags = 0, std::uint32_t uid = kUser) {
        const auto bound = bind(session, address, port, flags, uid);
        return bound ? 0 : bound.error();
    }
    Result<Orders, int> listen(SessionIndex session, shm::ListenerId id,
                               std::uint32_t backlog = 10) {
        return listeners.listen(session, {.listener = id,
                                           .backlog = backlog,
                                           .defer_s = 0,
                                           .max_segment = 0,
                                           .fast_open = 0});
    }
};

template <class T>
bool is(const Order& order) {
    return std::holds_alternative<T>(order);
}

}  // namespace

TEST_CASE_METHOD(Fixture, "A name can be bound once", "[bind]") {
    CHECK(error_of_bind(kNginx, "10.7.0.2", 8080) == 0);
    CHECK(error_of_bind(kStranger, "10.7.0.2", 8080) == EADDRINUSE);
    CHECK(error_of_bind(kStranger, "10.7.0.2", 8081) == 0);
    CHECK(error_of_bind(kStranger, "fd07::2", 8080) == 0);
}

TEST_CASE_METHOD(Fixture, "Only addresses of ours can be bound", "[bind]") {
    CHECK(error_of_bind(kNginx, "10.7.0.3", 8080) == EADDRNOTAVAIL);
    CHECK(error_of_bind(kNginx, "0.0.0.0", 8080) == 0);
    CHECK(error_of_bind(kNginx, "224.0.0.1", 8081) == EADDRNOTAVAIL);
}

TEST_CASE_METHOD(Fixture, "A low port is for root", "[bind]") {
    CHECK(error_of_bind(kNginx, "10.7.0.2", 80) == EACCES);
    CHECK(error_of_bind(kNginx, "10.7.0.2", 80, 0, 0) == 0);
}

TEST_CASE_METHOD(Fixture, "A wildcard conflicts with what it covers", "[bind]") {
    SECTION("IPv4 before") {
        REQUIRE(error_of_bind(kNginx, "10.7.0.2", 8080) == 0);
        CHECK(error_of_bind(kStranger, "0.0.0.0", 8080) == EADDRINUSE);
        CHECK(error_of_bind(kStranger, "::", 8080) == EADDRINUSE);
        CHECK(error_of_bind(kStranger, "::", 8080, shm::kBindV6Only) == 0);
    }
    SECTION("IPv6 for both families") {
        REQUIRE(error_of_bind(kNginx, "::", 8080) == 0);
        CHECK(error_of_bind(kStranger, "0.0.0.0", 8080) == EADDRINUSE);
        CHECK(error_of_bind(kStranger, "10.7.0.2", 8080) == EADDRINUSE);
        CHECK(error_of_bind(kStranger, "fd07::2", 8080) == EADDRINUSE);
    }
    SECTION("each family its own, as nginx does it") {
        REQUIRE(error_of_bind(kNginx, "0.0.0.0", 8080) == 0);
        CHECK(error_of_bind(kNginx, "::", 8080, shm::kBindV6Only) == 0);
    }
}

TEST_CASE_METHOD(Fixture, "Reusing an address works until somebody listens", "[bind]") {
    const auto first = bind(kNginx, "10.7.0.2", 8080, shm::kBindReuseAddress);
    REQUIRE(first);
    const auto second = bind(kStranger, "10.7.0.2", 8080, shm::kBindReuseAddress);
    REQUIRE(second);
    CHECK(first->listener != second->listener);
    CHECK(listen(kNginx, first->listener));
    CHECK(listen(kStranger, second->listener).error() == EADDRINUSE);
    CHECK(error_of_bind(kWorker, "10.7.0.2", 8080, shm::kBindReuseAddress) == EADDRINUSE);
}

TEST_CASE_METHOD(Fixture, "Sessions of one user share a port by kBindReusePort", "[bind]") {
    const auto first = bind(kNginx, "0.0.0.0", 8080, shm::kBindReusePort);
    const auto second = bind(kWorker, "0.0.0.0", 8080, shm::kBindReusePort);
    REQUIRE((first && second));
    CHECK(first->listener == second->listener);
    CHECK(error_of_bind(kStranger, "0.0.0.0", 8080, shm::kBindReusePort, kOther) == EADDRINUSE);
    CHECK(error_of_bind(kStranger, "0.0.0.0", 8080, 0) == EADDRINUSE);

    const auto listening = listen(kNginx, first->listener);
    REQUIRE(listening);
    REQUIRE(listening->size() == 2);
    CHECK(is<Listen>(listening->at(0)));
    CHECK(is<ShareListener>(listening->at(1)));
    REQUIRE(listen(kWorker, first->listener));

    const auto left = listeners.unbind(kNginx, first->listener);
    REQUIRE(left);
    CHECK(is<LeaveListener>(left->at(0)));
    const Orders ended = listeners.end_session(kWorker);
    REQUIRE(ended.size() == 1);
    CHECK(is<Unlisten>(ended[0]));
    CHECK(listeners.size() == 0);
    CHECK(error_of_bind(kStranger, "0.0.0.0", 8080, 0, kOther) == 0);
}

TEST_CASE_METHOD(Fixture, "A second listen changes the backlog and shares nothing anew", "[bind]") {
    const auto bound = bind(kNginx, "10.7.0.2", 8080);
    REQUIRE(bound);
    REQUIRE(listen(kNginx, bound->listener, 10));
    const auto again = listen(kNginx, bound->listener, 100);
    REQUIRE(again);
    REQUIRE(again->size() == 1);
    CHECK(std::get<Listen>(again->at(0)).terms.backlog == 100);
}

TEST_CASE_METHOD(Fixture, "Port 0 chooses a free one of the range", "[bind]") {
    const auto a = bind(kNginx, "10.7.0.2", 0);
    const auto b = bind(kNginx, "10.7.0.2", 0);
    REQUIRE((a && b));
    CHECK(a->endpoint.port >= 32'768);
    CHECK(a->endpoint.port <= 60'999);
    CHECK(a->endpoint.port != b->endpoint.port);
    CHECK(error_of_bind(kStranger, "10.7.0.2", a->endpoint.port) == EADDRINUSE);
}

TEST_CASE_METHOD(Fixture, "A listener is adopted with its token, by the same user", "[bind]") {
    const auto bound = bind(kNginx, "10.7.0.2", 8080);
    REQUIRE(bound);
    REQUIRE(listen(kNginx, bound->listener));
    shm::AdoptRequest request{.listener = bound->listener, .reserved = 0, .token = bound->token};
    CHECK(listeners.adopt(kStranger, kOther, request).error() == ENOENT);
    ++request.token[0];
    CHECK(listeners.adopt(kWorker, kUser, request).error() == ENOENT);
    --request.token[0];
    const auto adopted = listeners.adopt(kWorker, kUser, request);
    REQUIRE(adopted);
    CHECK(adopted->reply.endpoint.port == 8080);
    REQUIRE(adopted->orders.size() == 1);
    CHECK(is<ShareListener>(adopted->orders[0]));

    const Orders parent_gone = listeners.end_session(kNginx);
    REQUIRE(parent_gone.size() == 1);
    CHECK(is<LeaveListener>(parent_gone[0]));
    CHECK(listeners.held_by(kWorker) == 1);
}

TEST_CASE_METHOD(Fixture, "Nobody can listen on or give back what another holds", "[bind]") {
    const auto bound = bind(kNginx, "10.7.0.2", 8080);
    REQUIRE(bound);
    CHECK(listen(kStranger, bound->listener).error() == EBADF);
    CHECK(listeners.unbind(kStranger, bound->listener).error() == EBADF);
    CHECK(listeners.unbind(kNginx, shm::ListenerId{99}).error() == EBADF);
}

TEST_CASE("A session may hold a bounded number of names", "[bind]") {
    Listeners::Rules rules;
    rules.max_per_session = 3;
    Listeners listeners(rules, [](const IpAddress&) { return true; }, [] { return 1u; });
    shm::BindRequest request{.endpoint = {ip("10.7.0.2"), 5000}, .flags = 0};
    for (int i = 0; i < 3; ++i, ++request.endpoint.port)
        CHECK(listeners.bind(kNginx, kUser, request));
    CHECK(listeners.bind(kNginx, kUser, request).error() == ENOBUFS);
    CHECK(listeners.bind(kWorker, kUser, request));
}
