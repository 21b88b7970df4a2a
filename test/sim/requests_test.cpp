// SPDX-License-Identifier: Apache-2.0
//
// How long requests of 64 KB take where one frame in a hundred is lost, each way: the tail of the
// distribution is made of losses that only a timer finds. Linux's shortest timer is 200 ms.
#include "test/sim/network.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstdlib>
#include <vector>

using namespace chiru;
using namespace std::chrono_literals;

namespace {

constexpr std::uint32_t kRequestBytes = 65'536;

/// Of a connection that sends one request after the other, the next when the last has arrived.
std::vector<Micros> times_of(Micros rtt, shm::CongestionAlgorithm algorithm, std::size_t count) {
    sim::HostOptions a, b;
    a.tcp.congestion = algorithm;
    b.number = 2;
    b.seed = 2;
    sim::LinkOptions there, back;
    there.delay = back.delay = rtt / 2;
    there.lose_ppm = back.lose_ppm = 10'000;
    there.bits_per_second = 500'000'000;
    there.queue_bytes = 512u << 10;
    back.seed = 77;
    sim::Network net(a, b, there, back);
    sim::SocketPlan server;
    server.expect_bytes = sim::kAtNoByte;
    net.right_app.listen(80, server);
    net.without_left_app();
    net.run(3s);

    shm::Submission s;
    s.op = shm::SubmissionOp::Connect;
    s.connect.remote = {net.right.v4(), 80};
    s.connect.local.address = IpAddress::v4(0);
    s.connect.options = 1u << static_cast<unsigned>(shm::ConnectionOption::NoDelay);
    CHECK(net.left.submit(s, net.now) == Violation::None);
    shm::ConnectionId name;
    CHECK(net.run(10s, [&] {
        for (const shm::Completion& told : net.left.take_completions())
            if (told.op == shm::CompletionOp::Connected) name = told.connection;
        return name != shm::kNoConnection;
    }));
    const auto arrived = [&] { return net.right.session().rx_bytes.read(); };
    std::vector<Micros> times;
    while (times.size() < count) {
        const std::uint64_t target = arrived() + kRequestBytes;
        const Instant begun = net.now;
        s = {};
        s.op = shm::SubmissionOp::Send;
        s.connection = name;
        s.count = 1;
        s.slices[0] = {static_cast<std::uint32_t>(times.size() % 16) * kRequestBytes,
                       kRequestBytes, shm::kTxArena, 0};
        CHECK(net.left.submit(s, net.now) == Violation::None);
        if (!net.run(10s, [&] { return arrived() >= target; })) break;
        times.push_back(net.now - begun);
        while (!net.left.take_completions().empty()) {}
    }
    std::ranges::sort(times);
    return times;
}

}  // namespace

TEST_CASE("of requests over a network that loses one frame in a hundred, the slowest are not slow",
          "[sim][rfc8985][rfc6298][long]") {
    const Micros rtt = GENERATE(Micros(100), Micros(1'000), Micros(20'000));
    const auto algorithm =
        GENERATE(shm::CongestionAlgorithm::Cubic, shm::CongestionAlgorithm::Bbr);
    const std::vector<Micros> times = times_of(rtt, algorithm, 1'000);
    REQUIRE(times.size() == 1'000);
    const auto at = [&](std::size_t permille) { return times[permille].count(); };
    CAPTURE(rtt.count(), static_cast<int>(algorithm), at(500), at(900), at(990), at(998));
    if (std::getenv("CHIRU_SHOW_TIMES") != nullptr)
        WARN("p50 " << at(500) << " p90 " << at(900) << " p99 " << at(990) << " p99.8 " << at(998));
    CHECK(at(990) <= 8'000 + 17 * rtt.count() / 2);
    CHECK(at(998) <= 25'000 + 13 * rtt.count());
}
