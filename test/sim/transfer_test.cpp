// SPDX-License-Identifier: Apache-2.0
//
// Whole stacks over links that misbehave: whatever the network does, bytes arrive once and in
// order, both ends see the end, and everything that was lent comes home.
#include "test/sim/network.hpp"

#include <catch2/catch.hpp>

#include <cerrno>
#include <cstdlib>

using namespace chiru;
using namespace std::chrono_literals;
using shm::Counter;

namespace {

/// How many runs: $CHIRU_SEEDS for a long night.
std::uint64_t seeds() {
    const char* wish = std::getenv("CHIRU_SEEDS");
    return wish != nullptr ? std::strtoull(wish, nullptr, 10) : 120;
}

/// Where to begin: $CHIRU_FIRST_SEED to see one again.
std::uint64_t first_seed() {
    const char* wish = std::getenv("CHIRU_FIRST_SEED");
    return wish != nullptr ? std::strtoull(wish, nullptr, 10) : 1;
}

/// When all is over and TIME-WAIT has passed, nothing is held anywhere.
void require_home(sim::Network& net) {
    net.run(70s);
    CHECK(net.left.leaks() == "");
    CHECK(net.right.leaks() == "");
}

void transfer(const sim::HostOptions& a, const sim::HostOptions& b, const sim::LinkOptions& link,
              std::size_t connections, const sim::SocketPlan& client,
              const sim::SocketPlan& server, bool v6) {
    sim::LinkOptions back = link;
    back.seed = link.seed + 1'000'000;
    sim::Network net(a, b, link, back);
    net.right_app.listen(80, server);
    net.run(3s);  // duplicate address detection
    for (std::size_t i = 0; i < connections; ++i)
        net.left_app.connect({v6 ? net.right.v6() : net.right.v4(), 80}, client, net.now);
    // A neighbour whose three answers are all lost is none; a program would try again.
    std::size_t unreachable = 0;
    const bool done = net.run(600s, [&] {
        for (; net.left_app.failed() > unreachable && net.left_app.last_error() == EHOSTUNREACH;
             ++unreachable)
            net.left_app.connect({v6 ? net.right.v6() : net.right.v4(), 80}, client, net.now);
        return !net.fault().empty() || (net.left_app.finished() == connections &&
                            net.right_app.open_sockets() == 0);
    });
    INFO("seed " << link.seed);
    INFO("errors " << net.left_app.last_error() << " " << net.right_app.last_error() << " after "
                   << (net.now - Instant{}).count() << " us");
    INFO(net.left.describe() << "--\n" << net.right.describe());
    CHECK(net.fault() == "");
    CHECK(done);
    CHECK(net.left_app.finished() == connections);
    CHECK(net.right_app.finished() == connections);
    require_home(net);
}

}  // namespace

TEST_CASE("a stream goes both ways over a perfect link, and everything comes home",
          "[sim][rfc9293]") {
    const bool v6 = GENERATE(false, true);
    sim::HostOptions a, b;
    b.number = 2;
    b.seed = 2;
    sim::SocketPlan client, server;
    client.send_bytes = server.expect_bytes = 300'000;
    server.send_bytes = client.expect_bytes = 1'000'000;
    transfer(a, b, {}, 3, client, server, v6);
}

TEST_CASE("over a link that loses, doubles, reorders and damages, every byte arrives once",
          "[sim][rfc9293][rfc8985][rfc6298]") {
    for (std::uint64_t seed = first_seed(); seed < first_seed() + seeds(); ++seed) {
        sim::HostOptions a, b;
        a.seed = seed;
        b.seed = seed + 500;
        b.number = 2;
        a.held_frames = seed % 3 * 20;
        b.held_frames = seed % 5;
        b.isolated = seed % 4 == 1;
        if (seed % 3 == 0) a.offloads = shm::kOffloadTxL4Checksum | shm::kOffloadTxIpChecksum;
        if (seed % 4 == 0) a.tso_bytes = 16'384;
        if (seed % 5 == 0) a.tcp.congestion = shm::CongestionAlgorithm::Reno;
        if (seed % 7 == 0) b.tcp.receive_buffer_bytes = 20'000;
        sim::LinkOptions link;
        link.seed = seed;
        link.delay = Micros(20 + static_cast<std::int64_t>(seed % 8) * 300);
        link.jitter = seed % 2 == 0 ? Micros(0) : Micros(400);
        link.lose_ppm = static_cast<std::uint32_t>(seed % 10) * 8'000;
        link.duplicate_ppm = seed % 3 == 1 ? 20'000 : 0;
        link.corrupt_ppm = seed % 4 == 2 ? 5'000 : 0;
        sim::SocketPlan client, server;
        client.send_bytes = server.expect_bytes = seed % 11 * 9'000;
        server.send_bytes = client.expect_bytes = seed % 13 * 20'011;
        client.largest_send = seed % 2 == 0 ? 300 : 20'000;
        server.slow_reader = seed % 3 == 2;
        server.no_delay = seed % 2 == 1;
        client.no_delay = seed % 4 != 1;
        transfer(a, b, link, 1 + seed % 4, client, server, seed % 2 == 0);
    }
}
