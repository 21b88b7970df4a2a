// SPDX-License-Identifier: Apache-2.0
#include "libclient/tx_arena.hpp"

#include <catch2/catch.hpp>

#include <map>
#include <random>
#include <vector>

using namespace chiru::client;

namespace {

struct Memory {
    explicit Memory(std::size_t block_count) : bytes(block_count * kTxBlockBytes), blocks(bytes) {}
    std::vector<std::byte> bytes;
    TxBlocks blocks;
};

/// How many blocks the session has left.
std::size_t free_blocks(TxBlocks& blocks) {
    std::vector<std::uint32_t> taken;
    while (const auto block = blocks.take()) taken.push_back(*block);
    for (const std::uint32_t block : taken) blocks.give(block);
    return taken.size();
}

}  // namespace

TEST_CASE("runs of the send arena never overlap and all come back", "[client]") {
    Memory memory(16);
    {
        TxArena arena(memory.blocks);
        std::map<std::uint64_t, TxRun> live;  // by offset
        std::mt19937_64 random(42);
        for (int step = 0; step < 20'000; ++step) {
            if (random() % 2 == 0 || live.empty()) {
                const std::size_t wanted = 1 + random() % (random() % 4 == 0 ? 80'000 : 3'000);
                const TxRun run = arena.allocate(wanted);
                if (run.bytes == 0) continue;
                REQUIRE(run.offset / kTxBlockBytes ==
                        (run.offset + run.bytes - 1) / kTxBlockBytes);
                const auto after = live.lower_bound(run.offset);
                REQUIRE((after == live.end() || run.offset + run.bytes <= after->first));
                if (after != live.begin()) {
                    const TxRun& before = std::prev(after)->second;
                    REQUIRE(before.offset + before.bytes <= run.offset);
                }
                live.emplace(run.offset, run);
            } else {
                auto victim = live.begin();
                std::advance(victim, static_cast<long>(random() % live.size()));
                arena.free(victim->second);
                live.erase(victim);
            }
        }
        for (const auto& [offset, run] : live) arena.free(run);
    }
    CHECK(free_blocks(memory.blocks) == 16);
}

TEST_CASE("a whole run is all or nothing, a partial one is what there is", "[client]") {
    Memory memory(1);
    TxArena arena(memory.blocks);
    const TxRun most = arena.allocate_whole(60 * kTxPieceBytes);
    REQUIRE(most.bytes == 60 * kTxPieceBytes);
    CHECK(arena.allocate_whole(5 * kTxPieceBytes).bytes == 0);
    const TxRun rest = arena.allocate(20 * kTxPieceBytes);
    CHECK(rest.bytes == 4 * kTxPieceBytes);
    CHECK_FALSE(arena.has_room());
    CHECK(arena.allocate(1).bytes == 0);
    arena.free(rest);
    CHECK(arena.has_room());
    arena.free(most);
    CHECK(arena.allocate_whole(kTxBlockBytes).bytes == kTxBlockBytes);
    CHECK(arena.allocate_whole(kTxBlockBytes + 1).bytes == 0);
}

TEST_CASE("a channel gives its spare blocks back when another looks for some", "[client]") {
    Memory memory(2);
    TxArena one(memory.blocks);
    TxArena other(memory.blocks);
    const TxRun first = one.allocate_whole(kTxBlockBytes);
    const TxRun second = one.allocate_whole(kTxBlockBytes);
    one.free(first);  // kept in reserve
    CHECK(other.allocate(1).bytes == 0);
    one.free(second);
    CHECK(other.allocate_whole(kTxBlockBytes).bytes == kTxBlockBytes);
    CHECK(other.allocate_whole(kTxBlockBytes).bytes == kTxBlockBytes);
}
