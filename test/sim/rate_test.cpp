// SPDX-License-Identifier: Apache-2.0
//
// BBR and pacing: whole stacks over a bottleneck that loses, with a queue in front.
#include "test/sim/network.hpp"

#include <catch2/catch.hpp>

using namespace chiru;
using namespace std::chrono_literals;
using shm::CongestionAlgorithm;
using shm::Counter;

namespace {

constexpr std::uint64_t kRingBytes = 8u << 20;

sim::HostOptions host(std::uint8_t number, CongestionAlgorithm algorithm) {
    sim::HostOptions options;
    options.number = number;
    options.seed = number;
    options.tx_arena_bytes = 2 * kRingBytes;
    options.rx_slots = 24'576;
    options.max_rx_slots = 12'288;
    options.send_records = 8192;
    options.tcp.receive_buffer_bytes = 8u << 20;
    options.tcp.congestion = algorithm;
    return options;
}

/// 500 Mbit/s and a queue.
sim::LinkOptions bottleneck(Micros rtt, std::uint32_t lose_ppm) {
    sim::LinkOptions link;
    link.delay = rtt / 2;
    link.bits_per_second = 500'000'000;
    link.queue_bytes = 256u << 10;
    link.lose_ppm = lose_ppm;
    return link;
}

struct Bench {
    Bench(const sim::HostOptions& a, const sim::HostOptions& b, const sim::LinkOptions& there)
        : net(a, b, there, back_of(there), kRingBytes) {
        sim::SocketPlan server;
        server.expect_bytes = sim::kAtNoByte;  // never compared: nobody closes
        net.right_app.listen(80, server);
        net.run(3s);
    }
    void connect(std::uint64_t bytes = std::uint64_t{1} << 40, Micros pause = 0us) {
        sim::SocketPlan client;
        client.send_bytes = bytes;
        client.largest_send = 65'000;
        client.pause = pause;
        net.left_app.connect({net.right.v4(), 80}, client, net.now);
    }
    std::uint64_t arrived() const { return net.right.session().rx_bytes.read(); }
    /// Of the link's rate, over so long.
    double goodput(Micros time) {
        const std::uint64_t before = arrived();
        net.run(time);
        return static_cast<double>(arrived() - before) * 8e6 / static_cast<double>(time.count()) /
               static_cast<double>(net.there().options().bits_per_second);
    }
    static sim::LinkOptions back_of(const sim::LinkOptions& there) {
        sim::LinkOptions back;
        back.delay = there.delay;
        back.lose_ppm = there.lose_ppm;
        back.seed = there.seed + 77;
        return back;
    }

    sim::Network net;
};

}  // namespace

TEST_CASE("BBR fills a link that loses at random, short or long", "[sim][bbr][long]") {
    const Micros rtt = GENERATE(Micros(100), Micros(1'000), Micros(20'000));
    const std::uint32_t lose_ppm = GENERATE(0u, 10'000u, 50'000u);
    Bench bench(host(1, CongestionAlgorithm::Bbr), host(2, CongestionAlgorithm::Cubic),
                bottleneck(rtt, lose_ppm));
    bench.connect();
    const double first = bench.goodput(rtt > 5ms ? 1s : 500ms);  // with Startup, ten to twenty RTTs
    const double then = bench.goodput(500ms);
    CAPTURE(rtt.count(), lose_ppm, first, then, bench.net.left.count(Counter::TcpTimeouts),
            bench.net.there().overflowed_frames(), bench.net.left.describe());
    CHECK(first > (rtt > 5ms ? 0.4 : 0.7));
    CHECK(then > (lose_ppm > 10'000 ? 0.7 : 0.88));
    CHECK(bench.net.fault() == "");
}

TEST_CASE("BBR leaves the queue short, and does not repeat without end into a shallow one",
          "[sim][bbr]") {
    sim::LinkOptions link = bottleneck(20ms, 0);
    link.bits_per_second = 200'000'000;  // a millisecond's burst is no more than the shallow one
    Bench bench(host(1, CongestionAlgorithm::Bbr), host(2, CongestionAlgorithm::Cubic), link);
    bench.connect();
    bench.net.run(1s);
    bench.net.there().forget_queue();
    CHECK(bench.goodput(1s) > 0.85);
    CHECK(bench.net.there().longest_queue() < 250'000);
    const std::uint64_t lost = bench.net.there().overflowed_frames();
    bench.net.there().options().queue_bytes = 30'000;
    bench.net.run(500ms);
    const std::uint64_t before = bench.net.there().overflowed_frames();
    CHECK(bench.goodput(1s) > 0.7);
    CAPTURE(lost, before);
    CHECK(bench.net.there().overflowed_frames() - before < 40'000 / 10);
}

TEST_CASE("two BBR connections share a link", "[sim][bbr][long]") {
    Bench bench(host(1, CongestionAlgorithm::Bbr), host(2, CongestionAlgorithm::Cubic),
                bottleneck(5ms, 1'000));
    bench.connect();
    bench.net.run(500ms);
    bench.connect();
    bench.net.run(3s);
    const auto rx = [&](std::uint32_t i) { return bench.net.right.block(i).rx_bytes; };
    const std::uint64_t first = rx(0), second = rx(1);
    const double together = bench.goodput(2s);
    const auto a = static_cast<double>(rx(0) - first), b = static_cast<double>(rx(1) - second);
    CAPTURE(together, a, b);
    CHECK(together > 0.85);
    CHECK(std::min(a, b) > 0.2 * (a + b));
}

TEST_CASE("a connection with little to send keeps what BBR knows of the path", "[sim][bbr]") {
    Bench bench(host(1, CongestionAlgorithm::Bbr), host(2, CongestionAlgorithm::Cubic),
                bottleneck(5ms, 0));
    bench.connect(20'000'000 * std::uint64_t{100}, 2ms);  // 65 KB each 2 to 5 ms
    bench.net.run(2s);
    const auto& info = bench.net.left.block(0);
    const std::uint32_t before = info.delivery_kbps;
    bench.net.run(2s);
    CHECK(info.delivery_kbps >= before / 10 * 9);
}

TEST_CASE("paced, slow start fills no queue before the path is full", "[sim][pacing]") {
    std::uint64_t longest[2];
    for (const bool paced : {false, true}) {
        sim::LinkOptions link = bottleneck(20ms, 0);
        link.bits_per_second = 100'000'000;
        sim::HostOptions a = host(1, CongestionAlgorithm::Cubic);
        if (paced) a.tcp.pacing = PacingPolicy::On;
        Bench bench(a, host(2, CongestionAlgorithm::Cubic), link);
        bench.connect(160'000);
        CHECK(bench.net.run(2s, [&] { return bench.arrived() >= 160'000; }));
        longest[paced] = bench.net.there().longest_queue();
    }
    CHECK(longest[0] > 25'000);
    CHECK(longest[1] < longest[0] / 2);
}

TEST_CASE("pacing costs CUBIC nothing, on short paths and on long ones", "[sim][pacing][long]") {
    const Micros rtt = GENERATE(Micros(50), Micros(2'000), Micros(20'000));
    double goodput[2];
    for (const bool paced : {false, true}) {
        sim::HostOptions a = host(1, CongestionAlgorithm::Cubic);
        if (paced) a.tcp.pacing = PacingPolicy::On;
        Bench bench(a, host(2, CongestionAlgorithm::Cubic), bottleneck(rtt, 0));
        bench.connect();
        bench.net.run(1s);
        goodput[paced] = bench.goodput(500ms);
    }
    CAPTURE(rtt.count(), goodput[0], goodput[1]);
    CHECK(goodput[1] > 0.97 * goodput[0]);
}
