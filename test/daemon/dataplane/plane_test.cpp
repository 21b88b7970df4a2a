// SPDX-License-Identifier: Apache-2.0
//
// A real data plane: DPDK with its null device, one shard's thread, and this test in the place of
// the control thread and of a client. DPDK starts once in a process, so it is one story.
#include "daemon/dataplane/plane.hpp"
#include "shm/channel.hpp"

#include <catch2/catch.hpp>

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <optional>
#include <vector>

using namespace chiru;
using namespace chiru::daemon;

namespace {

/// The next report, or nothing if none comes in time.
std::optional<Report> next_report(DataPlane& plane) {
    std::array<Report, 1> report;
    pollfd readable{.fd = plane.report_fd(), .events = POLLIN, .revents = 0};
    for (int tries = 0; tries < 50; ++tries) {
        if (plane.take_reports(report) == 1) return report[0];
        poll(&readable, 1, 100);
    }
    return std::nullopt;
}

template <class What>
bool answers(DataPlane& plane, std::uint64_t tag) {
    const std::optional<Report> report = next_report(plane);
    return report && report->tag == tag && std::holds_alternative<What>(report->what);
}

}  // namespace

TEST_CASE("A shard serves a client, and reports one that breaks the rules", "[dataplane]") {
    auto directory = std::make_unique<shm::Directory>();
    std::vector<std::string> said;
    DataPlane plane;

    PlaneConfig config;
    config.hugepages = Hugepages::Off;
    config.rx_slots = 4096;
    config.pin = false;
    config.ports = {{.name = "nic0", .device = "net_null0", .mtu = 1500}};
    config.stack.connections = 64;
    InterfaceConfig interface;
    interface.name = "storage";
    interface.addresses = {*IpPrefix::parse("10.9.0.2/24")};
    config.stack.interfaces = {interface};
    config.log = [&](nic::LogLevel, std::string_view line) { said.emplace_back(line); };
    const Result<void, std::string> started = plane.start(config, *directory);
    INFO((started ? std::string() : started.error()));
    REQUIRE(started);

    REQUIRE(plane.shard_count() == 1);
    CHECK(plane.rx_arena().bytes().size() >= 4096 * std::size_t{plane.rx_slot_bytes()});
    CHECK(directory->ports[0].read().name.view() == "nic0");
    CHECK(directory->interfaces[0].read().name.view() == "storage");

    // A session with a channel.
    std::vector<std::byte> arena(1 << 16);
    SessionConfig session{};
    session.id = 1;
    session.tx_arena = {arena.data(), arena.size(), 0};
    session.max_connections = 16;
    session.max_rx_slots = 256;
    session.counters = &directory->session_counters[0][0];
    plane.post(0, {.tag = 1, .what = AttachSession{0, session}});
    CHECK(answers<Done>(plane, 1));

    auto lane = std::make_unique<shm::ShardLane>();
    auto client_word = std::make_unique<shm::DoorbellWord>();
    const shm::UniqueFd client_fd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    const shm::UniqueFd shard_fd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    plane.post(0, {.tag = 2,
                   .what = AttachChannel{0, 0, lane.get(), client_word.get(), client_fd.get(),
                                         shard_fd.get()}});
    CHECK(answers<Done>(plane, 2));

    // More channels than are looked at in one turn: each is served, and no bell is lost.
    shm::DoorbellRinger bell(directory->shards[0].doorbell, shard_fd.get());
    constexpr ChannelIndex kChannels = 200;
    std::vector<std::unique_ptr<shm::ShardLane>> lanes;
    std::vector<shm::RingProducer<shm::SubmissionRing>> submitters;
    for (ChannelIndex i = 0; i < kChannels; ++i) {
        lanes.push_back(std::make_unique<shm::ShardLane>());
        submitters.emplace_back(lanes.back()->submissions);
        const auto channel = static_cast<ChannelIndex>(1 + i);
        plane.post(0, {.tag = 1000u + i,
                       .what = AttachChannel{channel, 0, lanes.back().get(), client_word.get(),
                                             client_fd.get(), shard_fd.get()}});
        REQUIRE(answers<Done>(plane, 1000u + i));
    }
    shm::Submission nowhere;
    nowhere.op = shm::SubmissionOp::Connect;
    nowhere.connect = shm::ConnectBody{{IpAddress::v4(0xcb00'7101), 9}, {}, 0};
    for (std::uint32_t round = 1; round <= 5; ++round) {
        for (ChannelIndex i = 0; i < kChannels; ++i) {
            REQUIRE(submitters[i].push({&nowhere, 1}) == 1);
            bell.ring();
            const auto& answered = lanes[i]->completions.head;
            for (int waits = 0; waits < 2000 && answered.load() != round; ++waits)
                usleep(waits < 100 ? 10 : 1000);
            REQUIRE(answered.load() == round);
        }
    }

    plane.post(0, {.tag = 3, .what = QueryConnection{0, {1, 1}}});
    const std::optional<Report> snapshot = next_report(plane);
    REQUIRE(snapshot);
    CHECK_FALSE(std::get<ConnectionSnapshot>(snapshot->what).found);

    // A position that no correct client publishes, and the bell.
    lane->submissions.head.store(5000, std::memory_order_release);
    bell.ring();
    const std::optional<Report> accusation = next_report(plane);
    REQUIRE(accusation);
    CHECK(std::get<ClientViolation>(accusation->what).corrupt_ring);
    CHECK(std::get<ClientViolation>(accusation->what).session == 0);

    plane.post(0, {.tag = 4, .what = DetachSession{0}});
    CHECK(answers<SessionGone>(plane, 4));

    // More commands than the ring holds are all carried out, in order.
    for (std::uint64_t tag = 100; tag < 400; ++tag)
        plane.post(0, {.tag = tag, .what = QueryConnection{0, {1, 1}}});
    for (std::uint64_t tag = 100; tag < 400; ++tag)
        REQUIRE(answers<ConnectionSnapshot>(plane, tag));

    plane.watch_ports();
    plane.stop();
    CHECK(plane.shard_count() == 0);
}
