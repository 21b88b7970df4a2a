// SPDX-License-Identifier: Apache-2.0
//
// Paths that become narrower while text flows, with a router's word or without (RFC 1191, 8201,
// 4821), links with jumbo frames, and what one shard learns for all.
#include "test/sim/network.hpp"

#include <catch2/catch.hpp>

using namespace chiru;
using namespace std::chrono_literals;
using shm::Counter;

namespace {

constexpr std::uint64_t kBytes = 4'000'000;

struct Setting {
    Micros rtt = 200us;
    std::uint16_t mtu = 1500;       ///< of the left host's link
    std::uint16_t peer_mtu = 1500;
    bool v6 = false;
    std::uint32_t shards = 1;
    TcpConfig tcp;
};

struct World {
    explicit World(const Setting& s) : net(host(s, 1), host(s, 2), link(s), link(s)), v6(s.v6) {}

    static sim::HostOptions host(const Setting& s, std::uint8_t number) {
        sim::HostOptions o;
        o.number = number;
        o.seed = number;
        o.mtu = number == 1 ? s.mtu : s.peer_mtu;
        o.rx_slots = 2048;
        if (number == 1) o.shards = s.shards;
        o.tcp = s.tcp;
        return o;
    }
    static sim::LinkOptions link(const Setting& s) {
        sim::LinkOptions o;
        o.delay = s.rtt / 2;
        o.bits_per_second = 400'000'000;
        o.queue_bytes = 100'000;
        return o;
    }

    /// The left host sends, over a connection of that shard.
    void send(std::uint64_t bytes, std::uint32_t shard = 0) {
        sim::SocketPlan client, server;
        client.send_bytes = server.expect_bytes = bytes;
        if (!listening) {
            net.right_app.listen(80, server);
            net.run(3s);  // duplicate address detection
            listening = true;
        }
        ++sent;
        net.left_app.connect({v6 ? net.right.v6() : net.right.v4(), 80}, client, net.now, shard);
    }
    void narrow(std::size_t mtu, bool silent) {
        net.there().options().mtu = mtu;
        net.there().options().silent = silent;
    }
    void narrow_after(Micros time, std::size_t mtu, bool silent) {
        net.at(net.now + time, [this, mtu, silent] { narrow(mtu, silent); });
    }
    /// Runs until all was sent; how long that took.
    Micros finish(Micros limit = 20s) {
        const Instant begun = net.now;
        CHECK(net.run(limit, [this] {
            return net.left_app.finished() == sent && net.right_app.finished() == sent;
        }));
        CHECK(net.fault() == "");
        CHECK(net.left_app.failed() == 0);
        return net.now - begun;
    }
    std::uint64_t count(Counter counter) const { return net.left.count(counter); }
    /// Frames that were too large for the path.
    std::uint64_t refused() {
        return net.there().lost_frames() - net.there().overflowed_frames();
    }
    const shm::ConnectionInfo& connection(std::uint32_t shard = 0) const {
        return net.left.block(0, shard);
    }
    /// The full packets of the left host's connection in that state of its life.
    std::uint32_t packet_bytes(std::uint32_t shard = 0) const {
        const shm::ConnectionInfo& c = connection(shard);
        return c.mss + (v6 ? 60 : 40) +
               ((c.negotiated & shm::kNegotiatedTimestamps) != 0 ? 12 : 0);
    }

    sim::Network net;
    bool v6;
    bool listening = false;
    std::size_t sent = 0;
};

/// How long the transfer takes when nothing happens.
Micros undisturbed(const Setting& s) {
    World world(s);
    world.send(kBytes);
    return world.finish();
}

}  // namespace

TEST_CASE("a black hole costs sixteen time-outs at most, whenever it opens and however narrow",
          "[sim][rfc4821]") {
    Setting s;
    s.rtt = GENERATE(200us, 2'000us);
    s.v6 = GENERATE(false, true);
    const std::size_t mtu = GENERATE(576u, 1000u, 1280u, 1400u, 1492u);
    if (s.v6 && mtu < 1280) return;
    const Micros when = GENERATE(100us, 20'000us, 60'000us);
    World world(s);
    world.send(kBytes);
    world.net.run(when);
    world.narrow(mtu, true);
    const Instant begun = world.net.now;
    const auto flows = [&world] {
        return world.count(Counter::TcpMtuBlackHoles) == 1 && world.connection().timeouts == 0;
    };
    CHECK(world.net.run(1s, flows));
    const Micros stood = world.net.now - begun;
    const Micros took = world.finish();
    INFO("round trip " << s.rtt.count() << " us, MTU " << mtu << ", after " << when.count()
                       << " us: stood still for " << stood.count() << " us, "
                       << took.count() << " us instead of " << undisturbed(s).count());
    // The tail loss probe comes first, a period before the timer begins. The third expiry follows
    // after 7 periods, the fourth after 15. A period is the floor and what the bottleneck's queue
    // adds to the round trip; the first began with what was acknowledged last, before or after a
    // round trip.
    const Micros period = 5ms + 2 * s.rtt + 3ms;
    CHECK(stood <= (mtu < 1064 ? 16 : 8) * period + 2 * s.rtt);
    // Then the window starts anew, and more of each packet is headers.
    CHECK(took <= 4 * undisturbed(s));
    CHECK(world.count(Counter::TcpTimeouts) <= 5);
    CHECK(world.count(Counter::TcpMtuBlackHoles) == 1);
}

TEST_CASE("the search ends at the largest usual size that gets through, and IP remembers it",
          "[sim][rfc4821]") {
    Setting s;
    s.shards = 2;
    World world(s);
    world.send(kBytes);
    world.narrow_after(20ms, 1400, true);
    world.finish();
    CHECK(world.packet_bytes() == 1400);
    CHECK(world.count(Counter::IpPathMtusFound) >= 1);
    CHECK(world.count(Counter::IpPathMtusShared) >= 1);
    const std::uint64_t lost = world.refused();
    world.send(kBytes, 1);  // over the other shard
    world.finish();
    CHECK(world.refused() == lost);
}

TEST_CASE("what was no black hole is soon forgotten", "[sim][rfc4821]") {
    World world({});
    world.send(kBytes);
    world.net.at(world.net.now + 20ms, [&] { world.net.there().cut(true); });
    world.net.at(world.net.now + 90ms, [&] { world.net.there().cut(false); });
    world.finish();
    CHECK(world.count(Counter::TcpMtuBlackHoles) == 1);
    CHECK(world.packet_bytes() == 1500);
    CHECK(world.count(Counter::TcpMtuProbesLost) == 0);
    CHECK(world.count(Counter::IpPathMtusFound) == 0);
}

TEST_CASE("a router tells one shard, and all obey", "[sim][rfc1191][rfc8201]") {
    Setting s;
    s.shards = 2;
    s.v6 = GENERATE(false, true);
    World world(s);
    world.send(kBytes, 0);
    world.narrow_after(10ms, 1300, false);
    world.finish();
    CHECK(world.count(Counter::IpPathMtusTold) == 1);
    CHECK(world.count(Counter::IpPathMtusShared) == 1);
    CHECK(world.count(Counter::TcpTimeouts) == 0);
    const std::uint64_t lost = world.refused();
    for (const std::uint32_t shard : {0u, 1u}) world.send(kBytes, shard);
    world.finish();
    CHECK(world.refused() == lost);
}

TEST_CASE("connections that are open already obey what a router tells another",
          "[sim][rfc1191]") {
    Setting s;
    s.shards = 2;
    World world(s);
    world.send(kBytes, 0);
    world.send(kBytes, 1);
    world.narrow_after(20ms, 1300, false);
    world.finish();
    CHECK(world.packet_bytes(0) == 1300);
    CHECK(world.packet_bytes(1) == 1300);
    CHECK(world.count(Counter::TcpTimeouts) == 0);
}

TEST_CASE("ten minutes later larger packets are tried again", "[sim][rfc1191]") {
    Setting s;
    s.shards = 2;
    World world(s);
    world.send(kBytes, 0);
    world.narrow_after(10ms, 1300, false);
    world.finish();
    world.narrow(0, false);
    world.net.run(10min);
    world.send(kBytes, 1);
    world.finish();
    CHECK(world.packet_bytes(1) == 1500);
    CHECK(world.count(Counter::IpPathMtusExpired) == 2);
}

TEST_CASE("jumbo frames: as large as both ends take", "[sim]") {
    Setting s;
    s.mtu = 9000;
    s.peer_mtu = GENERATE(std::uint16_t{9000}, std::uint16_t{1500});
    s.v6 = GENERATE(false, true);
    World world(s);
    world.send(kBytes);
    world.finish();
    CHECK(world.packet_bytes() == s.peer_mtu);
    CHECK(world.count(Counter::TcpTimeouts) == 0);
    CHECK(world.count(Counter::TcpMtuProbes) == 0);
}

TEST_CASE("jumbo frames: a path of 1500 in the middle, told or not", "[sim][rfc1191][rfc4821]") {
    Setting s;
    s.mtu = s.peer_mtu = 9000;
    s.v6 = GENERATE(false, true);
    const bool silent = GENERATE(false, true);
    World world(s);
    world.send(kBytes);
    world.narrow_after(silent ? 20ms : 5ms, 1500, silent);
    const Micros took = world.finish();
    CHECK(took <= undisturbed(s) * 5 / 4 + (silent ? 7 * 8ms + 20 * s.rtt : 5ms));
    CHECK(world.packet_bytes() == 1500);
    CHECK(world.count(Counter::TcpMtuBlackHoles) == (silent ? 1 : 0));
}

TEST_CASE("probing from the start finds out what the path takes", "[sim][rfc4821]") {
    Setting s;
    s.mtu = s.peer_mtu = GENERATE(std::uint16_t{1500}, std::uint16_t{9000});
    s.tcp.mtu_probing = MtuProbing::Always;
    const bool narrow = GENERATE(false, true);
    World world(s);
    if (narrow) world.narrow(1420, true);
    world.send(kBytes);
    world.finish();
    CHECK(world.packet_bytes() == (narrow ? 1420 : s.mtu));
    CHECK(world.count(Counter::TcpTimeouts) == 0);
    CHECK(world.count(Counter::TcpMtuBlackHoles) == 0);
}
