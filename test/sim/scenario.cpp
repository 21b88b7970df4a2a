// SPDX-License-Identifier: Apache-2.0
#include "test/sim/scenario.hpp"

#include "test/sim/network.hpp"

#include <array>
#include <cerrno>
#include <random>

namespace chiru::sim {

namespace {

using namespace std::chrono_literals;
using shm::Counter;

/// Longer than any connection may take to find out that its peer is gone: the back-off from the
/// floor to the ceiling, and five times the ceiling.
constexpr Micros kGivesUp = 1000s;
/// TIME-WAIT or FIN-WAIT-2, whichever began last.
constexpr Micros kForgets = 140s;

class Draw {
public:
    explicit Draw(std::uint64_t seed) : random_(seed * 0x9e37'79b9'7f4a'7c15 + 12'345) {}
    std::uint64_t below(std::uint64_t bound) { return random_() % bound; }
    std::uint64_t between(std::uint64_t least, std::uint64_t most) {
        return least + below(most - least + 1);
    }
    std::uint32_t ppm(std::uint64_t most) { return static_cast<std::uint32_t>(below(most + 1)); }
    Micros micros(std::uint64_t least, std::uint64_t most) {
        return Micros(static_cast<std::int64_t>(between(least, most)));
    }
    Micros upto(Micros most) { return micros(1, static_cast<std::uint64_t>(most.count())); }
    bool one_in(std::uint64_t n) { return below(n) == 0; }

private:
    std::mt19937_64 random_;
};

/// What is drawn for a run.
struct Scenario {
    HostOptions left;
    HostOptions right;
    LinkOptions there;
    LinkOptions back;
    SocketPlan client;
    SocketPlan server;
    std::size_t connections = 1;
    Micros spread{0};  ///< between two connects
    bool v6 = false;
    bool both_open = false;    ///< simultaneous open
    bool dead_for_good = false;  ///< the partition is never healed
    Micros cut_after{0};       ///< 0: never
    Micros cut_for{0};
    bool cut_one_way = false;
    Micros mtu_after{0};       ///< 0: never
    std::size_t mtu = 0;
    Micros mtu_for{0};         ///< 0: it stays
    Micros client_dies_after{0};  ///< its session is detached; 0: never
    std::uint64_t ring_bytes = 65'536;
    std::string words;
};

LinkOptions draw_link(Draw& draw, std::string& words) {
    LinkOptions link;
    link.seed = draw.below(UINT32_MAX);
    constexpr std::array<std::int64_t, 8> kDelays{5, 20, 50, 100, 500, 2'000, 10'000, 40'000};
    link.delay = Micros(kDelays[draw.below(kDelays.size())]);
    if (draw.one_in(3)) link.jitter = draw.upto(2 * link.delay + 100us);
    switch (draw.below(8)) {
        case 0: link.lose_ppm = draw.ppm(1'000); words += " little-loss"; break;
        case 1: link.lose_ppm = draw.ppm(50'000); words += " loss"; break;
        case 2: link.lose_ppm = draw.ppm(200'000); words += " much-loss"; break;
        case 3:
            link.burst_begins_ppm = draw.ppm(10'000);
            link.burst_ends_ppm = 50'000 + draw.ppm(400'000);
            link.burst_lose_ppm = 300'000 + draw.ppm(600'000);
            words += " bursts";
            break;
        case 4:
            for (std::uint64_t i = draw.between(1, 4); i > 0; --i)
                link.lose_nth.push_back(draw.between(1, 200));
            words += " nth";
            break;
        default: break;
    }
    if (draw.one_in(4)) link.duplicate_ppm = draw.ppm(50'000), words += " duplicates";
    if (draw.one_in(4)) {
        link.late_ppm = draw.ppm(100'000);
        link.late_by = draw.upto(3 * link.delay + 200us);
        words += " late";
    }
    if (draw.one_in(6)) link.corrupt_ppm = draw.ppm(10'000), words += " damage";
    if (draw.one_in(4)) {
        constexpr std::array<std::uint64_t, 4> kRates{2'000'000, 20'000'000, 200'000'000,
                                                      2'000'000'000};
        link.bits_per_second = kRates[draw.below(kRates.size())];
        link.queue_bytes = draw.between(6'000, 300'000);
        if (draw.one_in(2)) link.mark_bytes = link.queue_bytes / draw.between(2, 8);
        words += " bottleneck";
    }
    return link;
}

HostOptions draw_host(Draw& draw, std::uint8_t number) {
    HostOptions host;
    host.number = number;
    host.seed = draw.below(UINT32_MAX);
    host.shards = draw.one_in(3) ? 2 : 1;
    host.held_frames = draw.one_in(3) ? draw.between(1, 60) : 0;
    host.isolated = draw.one_in(4);
    if (draw.one_in(3)) host.offloads = shm::kOffloadTxL4Checksum | shm::kOffloadTxIpChecksum;
    if (draw.one_in(6)) {
        if (draw.one_in(2)) host.offloads = shm::kOffloadTxL4Checksum | shm::kOffloadTxIpChecksum;
        host.tso_bytes = static_cast<std::uint32_t>(draw.between(4'000, 60'000));
    }
    if (draw.one_in(5)) host.tcp.congestion = shm::CongestionAlgorithm::Reno;
    if (draw.one_in(4))
        host.tcp.receive_buffer_bytes = static_cast<std::uint32_t>(draw.between(3'000, 100'000));
    if (draw.one_in(5)) host.max_rx_slots = static_cast<std::uint32_t>(draw.between(24, 200));
    if (draw.one_in(6)) host.rx_slots = draw.between(200, 600);
    if (draw.one_in(6)) host.send_records = static_cast<std::uint32_t>(draw.between(64, 256));
    if (draw.one_in(6)) host.tcp.min_rto = 200ms;
    if (draw.one_in(3)) host.tcp.ecn = EcnPolicy::On;
    if (draw.one_in(6)) host.tcp.congestion = shm::CongestionAlgorithm::Dctcp;
    if (draw.one_in(5)) host.tcp.congestion = shm::CongestionAlgorithm::Bbr;
    if (draw.one_in(5)) host.tcp.pacing = PacingPolicy::On;
    return host;
}

SocketPlan draw_plan(Draw& draw) {
    SocketPlan plan;
    constexpr std::array<std::uint64_t, 6> kMost{1, 1'000, 20'000, 100'000, 400'000, 1'000'000};
    plan.send_bytes = draw.one_in(8) ? 0 : draw.between(1, kMost[draw.below(kMost.size())]);
    constexpr std::array<std::uint32_t, 4> kSends{100, 1'448, 20'000, 65'000};
    plan.largest_send = kSends[draw.below(kSends.size())];
    // Small pieces of much would take for ever.
    plan.send_bytes = std::min<std::uint64_t>(plan.send_bytes, plan.largest_send * 600ull);
    plan.no_delay = draw.one_in(2);
    plan.slow_reader = draw.one_in(5);
    plan.hasty = draw.one_in(4);
    if (draw.one_in(6)) plan.pause = draw.micros(1, 3'000);
    if (draw.one_in(5)) {
        plan.stall_at = draw.below(plan.send_bytes + 20'000);
        plan.stall_for = draw.micros(1'000, draw.one_in(3) ? 30'000'000 : 500'000);
    }
    return plan;
}

void draw_programs(Draw& draw, Scenario& s) {
    s.client = draw_plan(draw);
    s.server = draw_plan(draw);
    s.connections = draw.one_in(8) ? draw.between(20, 150) : draw.between(1, 6);
    if (s.connections > 6) {
        s.words += " many";
        for (SocketPlan* plan : {&s.client, &s.server}) {
            plan->send_bytes = std::min<std::uint64_t>(plan->send_bytes, 30'000);
            plan->may_fail = false;
        }
        s.ring_bytes = 16'384;
        // With fewer buffers than that, refusals and losses back timers off to a minute, which is
        // as long as TIME-WAIT lasts.
        const auto least = static_cast<std::uint32_t>(3 * s.connections);
        s.left.max_rx_slots = std::max(s.left.max_rx_slots, least);
        s.right.max_rx_slots = std::max(s.right.max_rx_slots, least);
    }
    if (draw.one_in(2)) s.spread = draw.micros(0, 20'000);
    if (draw.one_in(10)) {
        SocketPlan& rude = draw.one_in(2) ? s.client : s.server;
        rude.reset_at = draw.below(s.client.send_bytes + s.server.send_bytes + 1);
        s.words += " reset";
    }
    if (draw.one_in(25)) {
        s.client_dies_after = draw.micros(1, 2'000'000);
        s.words += " death";
    }
    // Two that open towards each other: one shard each, for the ports are given.
    s.both_open = draw.one_in(12) && s.left.shards == 1 && s.right.shards == 1;
    if (s.both_open) s.words += " both-open";
    s.client.expect_bytes = s.server.send_bytes;
    s.server.expect_bytes = s.client.send_bytes;
}

void draw_events(Draw& draw, Scenario& s) {
    if (draw.one_in(6)) {
        s.cut_after = draw.micros(1, 3'000'000);
        s.cut_for = draw.micros(1'000, draw.one_in(3) ? 30'000'000 : 2'000'000);
        s.cut_one_way = draw.one_in(2);
        s.dead_for_good = draw.one_in(4);
        s.words += s.dead_for_good ? " cut-for-good" : " cut";
    }
    if (draw.one_in(8)) {
        s.mtu_after = draw.micros(1, 1'000'000);
        s.mtu = s.v6 ? draw.between(1'280, 1'480) : draw.between(600, 1'480);
        s.there.silent = s.back.silent = draw.one_in(3);
        if (draw.one_in(2)) s.mtu_for = draw.micros(1'000, 3'000'000);
        s.words += s.there.silent ? " black-hole" : " mtu";
    }
}

bool is_bad(const LinkOptions& link) {
    return link.lose_ppm > 50'000 || link.burst_begins_ppm != 0;
}

// Not where SYNs are doubled or much too late: RFC 7413 §6.1 says that their text may then be
// delivered twice, to a second connection.
void draw_fast_open(Draw& draw, Scenario& s) {
    const auto repeats = [](const LinkOptions& link) {
        return link.duplicate_ppm != 0 || link.late_ppm != 0;
    };
    if (!draw.one_in(3) || repeats(s.there) || repeats(s.back) || s.both_open) return;
    s.client.fast_open = s.server.fast_open = true;
    s.connections = std::max<std::size_t>(s.connections, 4);  // the first only learns the cookie
    s.spread = draw.micros(1'000, 400'000);
    s.words += " fast-open";
}

Scenario draw_scenario(std::uint64_t seed) {
    Draw draw(seed);
    Scenario s;
    s.v6 = draw.one_in(2);
    s.left = draw_host(draw, 1);
    s.right = draw_host(draw, 2);
    s.there = draw_link(draw, s.words);
    s.back = draw.one_in(2) ? s.there : draw_link(draw, s.words);
    s.back.seed = s.there.seed + 1;
    draw_programs(draw, s);
    draw_events(draw, s);
    // A peer that resets, dies or is cut off for good is a reason to fail.
    const bool fails = s.dead_for_good || s.client_dies_after != 0us ||
                       s.client.reset_at != kAtNoByte || s.server.reset_at != kAtNoByte;
    s.client.may_fail = s.server.may_fail = fails;
    // So many losses, or so long a pause, may outlast the patience of either end of a handshake.
    const bool bad = s.cut_after != 0us || is_bad(s.there) || is_bad(s.back);
    s.client.may_fail_early = s.server.may_fail_early = bad;
    draw_fast_open(draw, s);
    return s;
}

class Run {
public:
    Run(std::uint64_t seed, bool trace)
        : s_(draw_scenario(seed)), draw_(seed + 1),
          net_(s_.left, s_.right, s_.there, s_.back, s_.ring_bytes) {
        net_.trace(trace);
    }

    Outcome run() {
        net_.right_app.listen(kPort, s_.server, 512);
        net_.run(3s);  // duplicate address detection
        plan_events();
        plan_connects();
        Outcome outcome;
        outcome.fault = play();
        if (outcome.fault.empty()) outcome.fault = go_home();
        outcome.description = describe() + "\nleft keeps " +
                              std::to_string(net_.left_app.kept_slots()) + " slots, " +
                              net_.left.describe() + "right keeps " +
                              std::to_string(net_.right_app.kept_slots()) + " slots, " +
                              net_.right.describe();
        outcome.frames = net_.there().sent_frames() + net_.back().sent_frames();
        outcome.lost = net_.there().lost_frames() + net_.back().lost_frames();
        outcome.timeouts =
            net_.left.count(Counter::TcpTimeouts) + net_.right.count(Counter::TcpTimeouts);
        outcome.virtual_us = net_.now.time_since_epoch().count();
        return outcome;
    }

private:
    static constexpr std::uint16_t kPort = 80;

    void plan_events() {
        const auto cut = [this](bool off) {
            net_.there().cut(off);
            if (!s_.cut_one_way) net_.back().cut(off);
        };
        if (s_.cut_after != 0us) {
            net_.at(net_.now + s_.cut_after, [cut] { cut(true); });
            if (!s_.dead_for_good)
                net_.at(net_.now + s_.cut_after + s_.cut_for, [cut] { cut(false); });
        }
        const auto limit = [this](std::size_t mtu) {
            net_.there().options().mtu = net_.back().options().mtu = mtu;
        };
        if (s_.mtu_after != 0us) {
            net_.at(net_.now + s_.mtu_after, [this, limit] { limit(s_.mtu); });
            if (s_.mtu_for != 0us)
                net_.at(net_.now + s_.mtu_after + s_.mtu_for, [limit] { limit(0); });
        }
        if (s_.client_dies_after != 0us)
            net_.at(net_.now + s_.client_dies_after, [this] {
                net_.left.lose_client(net_.now);
                dead_ = true;
            });
    }

    void plan_connects() {
        for (std::size_t i = 0; i < s_.connections; ++i) {
            const auto when = net_.now + s_.spread * static_cast<std::int64_t>(i);
            net_.at(when, [this, i] { s_.both_open ? open_both(i) : open(); });
        }
        all_asked_ = net_.now + s_.spread * static_cast<std::int64_t>(s_.connections);
    }

    void open() {
        if (dead_) return;
        net_.left_app.connect(there(), s_.client, net_.now,
                              static_cast<std::uint32_t>(draw_.below(net_.left.shards())));
    }

    void open_both(std::size_t i) {
        if (dead_) return;
        const auto port = static_cast<std::uint16_t>(5000 + i);
        SocketPlan client = s_.client, server = s_.server;
        client.local_port = server.local_port = port;
        client.stream = server.stream = port;
        server.second = true;
        net_.left_app.connect({there().address, port}, client, net_.now);
        net_.right_app.connect({s_.v6 ? net_.left.v6() : net_.left.v4(), port}, server, net_.now);
    }

    Endpoint there() { return {s_.v6 ? net_.right.v6() : net_.right.v4(), kPort}; }

    /// Until all is said and done. Returns what went wrong.
    std::string play() {
        const bool ended = net_.run(kGivesUp, [this] {
            again();
            return !net_.fault().empty() || (net_.now > all_asked_ && quiet());
        });
        if (!net_.fault().empty()) return net_.fault();
        if (!ended && !may_linger())
            return "not over after " + std::to_string(kGivesUp.count()) + " us";
        const std::size_t failed = net_.left_app.failed() - unreachable_;
        if (failed > 0 && !s_.client.may_fail && !s_.client.may_fail_early)
            return std::to_string(failed) + " failed, the last with error " +
                   std::to_string(net_.left_app.last_error());
        return {};
    }

    bool quiet() const {
        return (dead_ || net_.left_app.open_sockets() + net_.left_app.opening() == 0) &&
               net_.right_app.open_sockets() + net_.right_app.opening() == 0;
    }

    /// One that only waits for a peer that is gone may wait for ever.
    bool may_linger() const {
        if (s_.client.may_fail) return true;
        // Nor does one that has nothing to say hear that the other end gave up the handshake.
        return s_.client.may_fail_early &&
               net_.right_app.open_sockets() + net_.right_app.opening() == 0 &&
               net_.left_app.open_sockets() <= net_.right.count(Counter::TcpOpenFailed);
    }

    /// A neighbour whose answers are all lost is none; a program would try again.
    void again() {
        if (dead_ || s_.both_open) return;
        for (; net_.left_app.failed() > unreachable_ && !s_.dead_for_good &&
               net_.left_app.last_error() == EHOSTUNREACH;
             ++unreachable_)
            open();
    }

    std::uint32_t live() {
        std::uint32_t sum = 0;
        for (const Host* host : {&net_.left, &net_.right})
            for (std::uint32_t shard = 0; shard < host->shards(); ++shard)
                sum += host->tables(shard).connections_live;
        return sum;
    }

    std::string go_home() {
        // Whoever is not answered gives up by its own time-out, FINs in vain last; and a handshake
        // may still end in a socket.
        for (int i = 0; i < 8 && (i == 0 || live() > 0); ++i) {
            net_.left_app.abort_all(net_.now);
            net_.right_app.abort_all(net_.now);
            net_.run(kForgets);
            if (!net_.fault().empty()) return net_.fault();
        }
        if (const std::string left = net_.left.leaks(); !left.empty()) return "left: " + left;
        if (const std::string right = net_.right.leaks(); !right.empty()) return "right: " + right;
        return {};
    }

    std::string describe() const {
        const auto link = [](const char* name, const LinkOptions& l) {
            return std::string(" ") + name + "(delay " + std::to_string(l.delay.count()) +
                   ", jitter " + std::to_string(l.jitter.count()) + ", loss " +
                   std::to_string(l.lose_ppm) + ", rate " + std::to_string(l.bits_per_second) + ")";
        };
        return std::string(s_.v6 ? "v6" : "v4") + " connections " +
               std::to_string(s_.connections) + " there " + std::to_string(s_.client.send_bytes) +
               " back " + std::to_string(s_.server.send_bytes) + link("there", s_.there) +
               link("back", s_.back) + " shards " + std::to_string(s_.left.shards) + "," +
               std::to_string(s_.right.shards) + s_.words;
    }

    Scenario s_;
    Draw draw_;
    Network net_;
    Instant all_asked_{};
    std::size_t unreachable_ = 0;
    bool dead_ = false;
};

}  // namespace

Outcome run_scenario(std::uint64_t seed, bool trace) { return Run(seed, trace).run(); }

}  // namespace chiru::sim
