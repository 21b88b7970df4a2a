// SPDX-License-Identifier: Apache-2.0
#include "daemon/session/session.hpp"
#include "daemon/session/slots.hpp"

#include <catch2/catch.hpp>

#include <unistd.h>

using namespace chiru;
using namespace chiru::daemon;

TEST_CASE("The daemon's own user shares memory, others are isolated, unless told", "[session]") {
    using enum IsolationPolicy;
    CHECK(isolation_of(Auto, 0, 0) == shm::Isolation::Shared);
    CHECK(isolation_of(Auto, 1000, 0) == shm::Isolation::Private);
    CHECK(isolation_of(Shared, 1000, 0) == shm::Isolation::Shared);
    CHECK(isolation_of(Private, 0, 0) == shm::Isolation::Private);
}

TEST_CASE("Private receive slots are divided among the shards without overlap", "[session]") {
    Config config;
    config.sessions.tx_arena_bytes = 1u << 20;
    config.sessions.max_rx_buffers = 100;
    Session session;
    session.number = 5;
    session.isolation = shm::Isolation::Private;
    session.quota = quota_of(config, 1000, 3);
    REQUIRE(session.make_memory(2048));
    std::uint32_t next = 0;
    for (std::uint32_t shard = 0; shard < 3; ++shard) {
        const SessionConfig part = session.config_for(shard, 3, 2048, nullptr);
        CHECK(part.id == 5);
        CHECK(part.private_first_slot == next);
        next += part.private_slots;
        CHECK(part.private_rx_arena.bytes == 100 * 2048);
        CHECK(part.tx_arena.bytes == 1u << 20);
    }
    CHECK(next <= 100);
    CHECK(next >= 99);
}

TEST_CASE("A quota never exceeds what there is", "[session]") {
    Config config;
    config.dataplane.connections = 1000;
    config.sessions.max_connections = 5000;
    config.sessions.max_rx_buffers = 5000;
    const Quota quota = quota_of(config, 300, 2);
    CHECK(quota.max_connections == 1000);
    CHECK(quota.max_rx_slots == 300);
}

TEST_CASE("A channel's descriptors come in the order clients expect", "[session]") {
    const auto channel = ChannelMemory::make(7, 2);
    REQUIRE(channel);
    CHECK(channel->layout().header.channel == 7);
    CHECK(channel->layout().header.shard_count == 2);
    const std::vector<int> fds = channel->fds_for_client();
    REQUIRE(fds.size() == 4);
    CHECK(fds[0] == channel->region.fd());
    CHECK(fds[1] == channel->doorbell.client.get());
}

TEST_CASE("Slots are used up, and come back", "[session]") {
    Slots slots(2);
    CHECK(slots.take() == 0);
    CHECK(slots.take() == 1);
    CHECK_FALSE(slots.take());
    slots.give_back(0);
    CHECK(slots.take() == 0);
}
