// SPDX-License-Identifier: Apache-2.0
//
// Whole stacks over links that misbehave: whatever the network does, bytes arrive once and in
// order, both ends see the end, and everything that was lent comes home.
#include "test/sim/network.hpp"

#include <catch2/catch.hpp>

using namespace chiru;
using namespace std::chrono_literals;
using shm::Counter;

namespace {

/// When all is over and TIME-WAIT has passed, nothing is held anywhere.
void require_home(sim::Network& net) {
    net.run(70s);
    for (sim::Host* host : {&net.left, &net.right}) {
        host->flush_device();
        CHECK(host->slots_out() == 0);
        CHECK(host->session().connections.read() == 0);
        CHECK(host->session().rx_slots_held.read() == 0);
        CHECK(host->tables().connections_live == 0);
    }
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
    const auto faulty = [&] {
        return !net.left_app.fault().empty() || !net.right_app.fault().empty();
    };
    const bool done = net.run(600s, [&] {
        return faulty() || (net.left_app.finished() + net.left_app.failed() == connections &&
                            net.right_app.open_sockets() == 0);
    });
    INFO("seed " << link.seed);
    CHECK(net.left_app.fault() == "");
    CHECK(net.right_app.fault() == "");
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
