// SPDX-License-Identifier: Apache-2.0
//
// How congestion control shares and fills a bottleneck: whole stacks over links with a rate, a
// queue and marks.
#include "test/sim/network.hpp"

#include <catch2/catch.hpp>

using namespace chiru;
using namespace std::chrono_literals;
using shm::CongestionAlgorithm;
using shm::Counter;

namespace {

sim::HostOptions host(std::uint8_t number, CongestionAlgorithm algorithm, EcnPolicy ecn) {
    sim::HostOptions options;
    options.number = number;
    options.seed = number;
    options.tcp.congestion = algorithm;
    options.tcp.ecn = ecn;
    return options;
}

/// 1 Gbit/s, a round trip of 200 us: the path alone holds 25 000 bytes.
sim::LinkOptions gigabit() {
    sim::LinkOptions link;
    link.delay = 100us;
    link.bits_per_second = 1'000'000'000;
    link.queue_bytes = 300'000;
    return link;
}

struct Outcome {
    double goodput = 0;  ///< of the link's rate
    std::uint64_t marked = 0;
    std::uint64_t overflowed = 0;
    std::uint64_t longest_queue = 0;  ///< in the second half
    std::uint64_t retransmits = 0;
    std::uint64_t timeouts = 0;
    std::uint64_t reductions = 0;
};

/// One connection sends `bytes` to the right.
Outcome transfer(const sim::HostOptions& a, const sim::HostOptions& b,
                 const sim::LinkOptions& there, std::uint64_t bytes) {
    sim::LinkOptions back;
    back.delay = there.delay;
    back.seed = there.seed + 77;
    sim::Network net(a, b, there, back);
    sim::SocketPlan client, server;
    client.send_bytes = server.expect_bytes = bytes;
    net.right_app.listen(80, server);
    net.run(3s);
    const Instant began = net.now;
    net.left_app.connect({net.right.v4(), 80}, client, net.now);
    const auto& session = net.right.session();
    net.run(60s, [&] { return session.rx_bytes.read() >= bytes / 2; });
    net.there().forget_queue();
    const bool done = net.run(60s, [&] { return net.left_app.finished() == 1; });
    INFO(net.left.describe() << "--\n" << net.right.describe());
    CHECK(done);
    CHECK(net.right_app.fault() == "");
    const auto took = static_cast<double>((net.now - began).count());
    const double rate = static_cast<double>(bytes) * 8e6 / took;
    const auto count = [&](Counter counter) { return net.left.count(counter); };
    return {rate / static_cast<double>(there.bits_per_second), net.there().marked_frames(),
            net.there().overflowed_frames(), net.there().longest_queue(),
            count(Counter::TcpRetransmits), count(Counter::TcpTimeouts),
            count(Counter::TcpReductions)};
}

}  // namespace

TEST_CASE("DCTCP fills a link that marks, without losses and with a short queue",
          "[sim][rfc8257][rfc3168]") {
    sim::LinkOptions link = gigabit();
    link.mark_bytes = 30'000;
    const auto dctcp = CongestionAlgorithm::Dctcp;
    const Outcome o = transfer(host(1, dctcp, EcnPolicy::Passive),
                               host(2, dctcp, EcnPolicy::Passive), link, 20'000'000);
    CAPTURE(o.goodput, o.marked, o.longest_queue, o.reductions);
    CHECK(o.goodput > 0.85);
    CHECK(o.marked > 0);
    CHECK(o.overflowed == 0);
    CHECK(o.timeouts == 0);
    CHECK(o.longest_queue < 45'000);
}

TEST_CASE("with ECN, CUBIC and Reno lose nothing where the queue marks in time",
          "[sim][rfc3168]") {
    const auto algorithm = GENERATE(CongestionAlgorithm::Cubic, CongestionAlgorithm::Reno);
    sim::LinkOptions link = gigabit();
    link.mark_bytes = 20'000;
    const Outcome o = transfer(host(1, algorithm, EcnPolicy::On),
                               host(2, algorithm, EcnPolicy::Passive), link, 20'000'000);
    CAPTURE(o.goodput, o.marked, o.longest_queue, o.reductions);
    CHECK(o.goodput > 0.75);
    CHECK(o.reductions > 0);
    CHECK(o.overflowed == 0);
    CHECK(o.timeouts == 0);
}

TEST_CASE("where one end has no ECN, nothing is marked and losses do the work",
          "[sim][rfc3168]") {
    sim::LinkOptions link = gigabit();
    link.mark_bytes = 15'000;
    link.queue_bytes = 25'000;
    const Outcome o = transfer(host(1, CongestionAlgorithm::Dctcp, EcnPolicy::On),
                               host(2, CongestionAlgorithm::Cubic, EcnPolicy::Off), link,
                               20'000'000);
    CAPTURE(o.goodput, o.overflowed, o.retransmits, o.timeouts);
    CHECK(o.goodput > 0.8);
    CHECK(o.marked == 0);
    CHECK(o.overflowed > 0);
    CHECK(o.reductions == 0);
}
