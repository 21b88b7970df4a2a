// SPDX-License-Identifier: Apache-2.0
#include "stack/tcp/demux.hpp"

#include <catch2/catch.hpp>

#include <map>
#include <random>
#include <set>
#include <vector>

using namespace chiru;
using namespace chiru::tcp;

namespace {

constexpr std::uint32_t kConnections = 64;

struct Table {
    Table() : connections(kConnections), entries(Demux::entries(kConnections)),
              demux(entries.data(), static_cast<std::uint32_t>(entries.size()),
                    connections.data()) {}

    void put(Index i, const Tuple& tuple, std::uint64_t hash) {
        connections[i].info.local_address = tuple.local;
        connections[i].info.remote_address = tuple.remote;
        connections[i].info.local_port = tuple.local_port;
        connections[i].info.remote_port = tuple.remote_port;
        demux.insert(i, hash);
    }

    std::vector<Connection> connections;
    std::vector<Demux::Entry> entries;
    Demux demux;
};

Tuple tuple_number(std::uint32_t number) {
    return {IpAddress::v4(0x0a07'0002), IpAddress::v4(0x0a07'0100 + number % 7), 80,
            static_cast<std::uint16_t>(1000 + number / 7)};
}

}  // namespace

TEST_CASE("Tuples that collide are told apart, also after some of them left", "[tcp][demux]") {
    Table t;
    // All in one place of the table, its last one, so that the run wraps around.
    const std::uint64_t hash = (t.entries.size() - 1) << 1 | 1;
    for (Index i = 0; i < 10; ++i) t.put(i, tuple_number(i), hash);
    for (Index i = 0; i < 10; ++i) CHECK(t.demux.find(tuple_number(i), hash) == i);
    for (Index i = 0; i < 10; i += 2) t.demux.remove(i, hash);
    for (Index i = 0; i < 10; ++i)
        CHECK(t.demux.find(tuple_number(i), hash) == (i % 2 == 0 ? kNil : i));
    CHECK(t.demux.find(tuple_number(40), hash) == kNil);
}

TEST_CASE("A full table of connections is found, whatever order they come and go in",
          "[tcp][demux]") {
    Table t;
    const SipKey key{1, 2};
    std::mt19937 random(3);
    std::map<Index, std::uint32_t> live;
    std::set<std::uint32_t> used;
    for (int step = 0; step < 20'000; ++step) {
        const auto i = static_cast<Index>(random() % kConnections);
        // Few places for many tuples: long runs, and gaps that must be closed rightly.
        const auto hash_of = [&](std::uint32_t number) {
            return (tuple_hash(key, tuple_number(number)) & 0x1e) | 1;
        };
        if (const auto known = live.find(i); known != live.end()) {
            t.demux.remove(i, hash_of(known->second));
            used.erase(known->second);
            live.erase(known);
        } else {
            const auto number = static_cast<std::uint32_t>(random() % 500);
            if (!used.insert(number).second) continue;
            t.put(i, tuple_number(number), hash_of(number));
            live[i] = number;
        }
        if (step % 50 != 0) continue;
        for (const auto& [index, number] : live)
            REQUIRE(t.demux.find(tuple_number(number), hash_of(number)) == index);
    }
    for (const auto& [index, number] : live)
        t.demux.remove(index, (tuple_hash(key, tuple_number(number)) & 0x1e) | 1);
    for (const Demux::Entry& entry : t.entries) CHECK(entry.hash == 0);
}

TEST_CASE("The hash tells every part of a tuple and the key, and is never 0", "[tcp][demux]") {
    const Tuple tuple = tuple_number(1);
    const std::uint64_t hash = tuple_hash({1, 2}, tuple);
    CHECK((hash & 1) == 1);
    Tuple other = tuple;
    other.local = IpAddress::v4(0x0a07'0003);
    CHECK(tuple_hash({1, 2}, other) != hash);
    other = tuple;
    ++other.remote_port;
    CHECK(tuple_hash({1, 2}, other) != hash);
    CHECK(tuple_hash({1, 3}, tuple) != hash);
    CHECK(tuple_hash({2, 2}, tuple) != hash);
}
