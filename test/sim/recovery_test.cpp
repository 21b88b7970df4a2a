// SPDX-License-Identifier: Apache-2.0
//
// One loss, wherever it falls, is repaired in the time that RACK-TLP promises (RFC 8985 §7), and
// without the retransmission timer: every frame of a transfer is lost once. The timer may be needed
// only for the last frames, which carry no text or whose probe was spent.
#include "test/sim/network.hpp"

#include <catch2/catch.hpp>

using namespace chiru;
using namespace std::chrono_literals;
using shm::Counter;

namespace {

struct Transfer {
    std::uint64_t first = 0;  ///< frames that had gone there, and back, before the connection
    std::uint64_t first_back = 0;
    std::uint64_t last = 0;  ///< and when all was over
    std::uint64_t last_back = 0;
    Micros took{};
    std::uint64_t timeouts = 0;
};

/// `bytes` go there and come back, and both ends close; the nth frame of either way is lost.
Transfer transfer(Micros rtt, std::uint64_t bytes, std::uint64_t lose_there,
                  std::uint64_t lose_back) {
    sim::HostOptions a, b;
    b.number = 2;
    b.seed = 2;
    sim::LinkOptions there, back;
    there.delay = back.delay = rtt / 2;
    if (lose_there != 0) there.lose_nth = {lose_there};
    if (lose_back != 0) back.lose_nth = {lose_back};
    sim::Network net(a, b, there, back);
    sim::SocketPlan plan;
    plan.send_bytes = plan.expect_bytes = bytes;
    net.right_app.listen(80, plan);
    net.run(3s);
    // One connection before, so that the neighbours know each other.
    net.left_app.connect({net.right.v4(), 80}, plan, net.now);
    net.run(10s);
    const auto timeouts = [&net] {
        return net.left.count(Counter::TcpTimeouts) + net.right.count(Counter::TcpTimeouts);
    };
    Transfer transfer;
    transfer.first = net.there().sent_frames();
    transfer.first_back = net.back().sent_frames();
    transfer.timeouts = timeouts();
    const Instant begun = net.now;
    net.left_app.connect({net.right.v4(), 80}, plan, net.now);
    CHECK(net.run(10s, [&net] {
        return net.left_app.finished() == 2 && net.right_app.finished() == 2;
    }));
    CHECK(net.fault() == "");
    transfer.took = net.now - begun;
    transfer.timeouts = timeouts() - transfer.timeouts;
    transfer.last = net.there().sent_frames();
    transfer.last_back = net.back().sent_frames();
    return transfer;
}

}  // namespace

TEST_CASE("any one loss is repaired in the time of a tail loss probe, inner ones by no time-out",
          "[sim][rfc8985][long]") {
    const Micros rtt = GENERATE(Micros(200), Micros(2'000), Micros(20'000));
    const std::uint64_t bytes = GENERATE(100u, 20'000u, 100'000u);
    const Transfer whole = transfer(rtt, bytes, 0, 0);
    REQUIRE(whole.timeouts == 0);
    // To notice: two round trips, the floor of the probe's timer, what the peer may delay the ACK
    // of a single segment by. To repair: one for the probe's answer, one for the repeat. And what
    // is left goes out by half the window, which takes up to two more.
    const Micros bound = 2 * rtt + 2'500us + 25ms + 2 * rtt + 5ms + 2 * rtt;
    for (std::uint64_t n = whole.first + 2; n <= whole.last; ++n) {  // not the SYN: it has a timer
        const Transfer one = transfer(rtt, bytes, n, 0);
        INFO("round trip " << rtt.count() << " us, " << bytes << " bytes, frame "
                           << n - whole.first << " of " << whole.last - whole.first << " there");
        if (n + 1 < whole.last) CHECK(one.timeouts == 0);
        CHECK((one.took - whole.took).count() <= bound.count());
    }
    for (std::uint64_t n = whole.first_back + 2; n <= whole.last_back; ++n) {
        const Transfer one = transfer(rtt, bytes, 0, n);
        INFO("round trip " << rtt.count() << " us, " << bytes << " bytes, frame "
                           << n - whole.first_back << " of " << whole.last_back - whole.first_back
                           << " back");
        CHECK((one.took - whole.took).count() <= bound.count());
    }
}
