// SPDX-License-Identifier: Apache-2.0
#include "daemon/dataplane/plane.hpp"

#include "daemon/dataplane/port_watch.hpp"
#include "daemon/dataplane/shard.hpp"
#include "daemon/dataplane/steering.hpp"
#include "daemon/nic/eal.hpp"
#include "daemon/nic/port.hpp"
#include "daemon/nic/rx_arena.hpp"
#include "daemon/nic/tx_pools.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <optional>
#include <system_error>

namespace chiru::daemon {
namespace {

constexpr std::size_t kLinkBytes = 22;  ///< Ethernet header with two VLAN tags
constexpr std::uint32_t kTxFramesPerShard = 8192;
/// Receive buffers that neither text nor fragments may hold, beside those that lie in the devices:
/// for bursts that are being looked at, their copies for other shards and the way there, frames to
/// ourselves, and a thread's cache of free ones. However slow the readers, ARP, ICMP and ACKs are
/// received and answered.
constexpr std::uint32_t kSlotReserve = 1024;
constexpr std::size_t kEalBytes = 64u << 20;  ///< what DPDK and its drivers need besides our pools

std::uint16_t largest_mtu(const PlaneConfig& config) {
    std::uint16_t mtu = 1500;
    for (const PortSetup& port : config.ports) mtu = std::max(mtu, port.mtu);
    return mtu;
}

std::uint16_t head_bytes(const PlaneConfig& config) {
    const std::size_t wanted = std::max(kMinHeadBytes, largest_mtu(config) + kLinkBytes);
    return static_cast<std::uint16_t>((wanted + 63) / 64 * 64);
}

FlowMap spread_evenly(std::size_t shards) {
    FlowMap map{};
    for (std::size_t group = 0; group < map.size(); ++group)
        map[group] = static_cast<std::uint8_t>(group % shards);
    return map;
}

}  // namespace

struct DataPlane::State {
    /// Commands to one shard, and those its ring had no room for.
    struct Line {
        explicit Line(Shard& shard)
            : commands(shard.commands()), reports(shard.reports()), ringer(shard.ringer()) {}

        void flush() {
            bool pushed = false;
            while (!waiting.empty() && commands.push({&waiting.front(), 1}) == 1) {
                waiting.pop_front();
                pushed = true;
            }
            if (pushed) ringer.ring();
        }

        shm::RingProducer<CommandRing> commands;
        shm::RingConsumer<ReportRing> reports;
        shm::DoorbellRinger ringer;
        std::deque<Command> waiting;
    };

    Result<void, std::string> start_devices(const PlaneConfig& config);
    Result<void, std::string> start_shards(const PlaneConfig& config, const StackConfig& stack);
    StackConfig complete_stack(const PlaneConfig& config) const;
    Result<bool, std::string> choose_hugepages(const PlaneConfig& config) const;

    nic::LogSink log;
    shm::Directory* directory = nullptr;
    bool eal_started = false;
    bool hugepages = false;
    FlowMap flow_map{};
    shm::UniqueFd report_fd;
    // Destroyed from the last to the first: shards before what they run on.
    std::unique_ptr<nic::RxArena> arena;
    std::unique_ptr<nic::TxPools> pools;
    std::vector<std::unique_ptr<nic::Port>> ports;
    std::vector<shm::Region> tables;
    std::unique_ptr<SteerLanes> lanes;
    std::vector<std::unique_ptr<Shard>> shards;
    std::vector<Line> lines;
    std::size_t next_line = 0;
    std::optional<PortWatch> watch;
};

DataPlane::DataPlane() : state_(std::make_unique<State>()) {}
DataPlane::~DataPlane() { stop(); }

Result<void, std::string> DataPlane::start(const PlaneConfig& config, shm::Directory& directory) {
    State& state = *state_;
    state.log = config.log;
    state.directory = &directory;
    state.flow_map = spread_evenly(config.cores.size());
    state.report_fd.reset(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    Result<void, std::string> done = state.start_devices(config);
    if (done) done = state.start_shards(config, state.complete_stack(config));
    if (!done) {
        stop();
        return done;
    }
    publish_ports();
    for (const std::unique_ptr<Shard>& shard : state.shards) shard->start();
    state.watch.emplace(state.ports, *state.arena, state.log, shard_count(),
                        [this](const Command& command) { post_to_all(command); });
    return {};
}

Result<bool, std::string> DataPlane::State::choose_hugepages(const PlaneConfig& config) const {
    if (config.hugepages == Hugepages::Off) return false;
    const std::size_t slot = nic::RxArena::slot_bytes_for(
        std::max<std::uint32_t>(2048, largest_mtu(config) + kLinkBytes));
    const std::size_t needed =
        (config.rx_slots + kSlotReserve * config.cores.size()) * slot + kEalBytes +
        nic::TxPools::bytes_needed(kTxFramesPerShard * static_cast<std::uint32_t>(
                                                           config.cores.size()),
                                   head_bytes(config));
    const std::size_t free = nic::free_hugepage_bytes();
    if (free >= needed) return true;
    if (config.hugepages == Hugepages::Auto) return false;
    const std::size_t pages = (needed + (2u << 20) - 1) >> 21;
    return std::unexpected(
        "dataplane.hugepages: required, but only " + std::to_string(free >> 21) +
        " free pages of 2 MiB are there and " + std::to_string(pages) +
        " are needed; reserve them with: sysctl vm.nr_hugepages=" + std::to_string(pages + 32));
}

Result<void, std::string> DataPlane::State::start_devices(const PlaneConfig& config) {
    const Result<bool, std::string> huge = choose_hugepages(config);
    if (!huge) return std::unexpected(huge.error());
    hugepages = *huge;

    const auto shard_count = static_cast<std::uint16_t>(config.cores.size());
    const std::uint32_t tx_frames = kTxFramesPerShard * shard_count;
    nic::EalSetup eal;
    eal.hugepages = hugepages;
    eal.memory_bytes = kEalBytes + nic::TxPools::bytes_needed(tx_frames, head_bytes(config));
    eal.log = log;
    for (const PortSetup& port : config.ports)
        if (nic::is_pci_device(port.device)) eal.pci_devices.push_back(port.device);
    if (Result<void, std::string> done = nic::start_eal(eal); !done) return done;
    eal_started = true;

    std::uint32_t slots = config.rx_slots + kSlotReserve * shard_count;
    std::uint32_t frame_bytes = 0;
    for (const PortSetup& setup : config.ports) {
        const nic::PortOptions options{.name = setup.name,
                                       .device = setup.device,
                                       .mtu = setup.mtu,
                                       .shards = shard_count,
                                       .want_interrupts = config.idle != IdlePolicy::Poll,
                                       .coalesce = setup.lro};
        Result<std::unique_ptr<nic::Port>, std::string> port = nic::Port::probe(options, log);
        if (!port) return std::unexpected(port.error());
        slots += (*port)->buffers_kept();
        frame_bytes = std::max(frame_bytes, (*port)->frame_bytes());
        ports.push_back(std::move(*port));
    }
    frame_bytes = (std::max<std::uint32_t>(frame_bytes, 2048) + 63) / 64 * 64;

    auto made_arena = nic::RxArena::create(slots, frame_bytes, hugepages);
    if (!made_arena) return std::unexpected(made_arena.error());
    arena = std::move(*made_arena);
    auto made_pools = nic::TxPools::create(tx_frames, head_bytes(config));
    if (!made_pools) return std::unexpected(made_pools.error());
    pools = std::move(*made_pools);

    for (const std::unique_ptr<nic::Port>& port : ports)
        if (Result<void, std::string> done = port->start(*arena, flow_map); !done) return done;
    return {};
}

StackConfig DataPlane::State::complete_stack(const PlaneConfig& config) const {
    StackConfig stack = config.stack;
    stack.shard_count = static_cast<std::uint32_t>(config.cores.size());
    stack.rx_slots = arena->slots();
    stack.rx_budget = config.rx_slots / stack.shard_count;
    stack.flow_map = flow_map;
    stack.ports.clear();
    for (const std::unique_ptr<nic::Port>& port : ports) stack.ports.push_back(port->config());
    return stack;
}

Result<void, std::string> DataPlane::State::start_shards(const PlaneConfig& config,
                                                         const StackConfig& stack) {
    lanes = std::make_unique<SteerLanes>(stack.shard_count);
    for (std::uint32_t i = 0; i < stack.shard_count; ++i) {
        ShardSetup setup;
        setup.index = i;
        setup.core = config.cores[i];
        setup.pin = config.pin;
        setup.shares_core = std::count(config.cores.begin(), config.cores.end(), setup.core) > 1;
        setup.idle = config.idle;
        setup.spin = config.spin;
        setup.stack = stack;
        setup.stack.shard = i;
        // Frames for a queue of another shard's are handed over as one piece.
        for (std::size_t port = 0; port < ports.size(); ++port)
            if (i >= ports[port]->queues()) setup.stack.ports[port].tso_bytes = 0;
        setup.directory = directory;
        setup.page = &directory->shards[i];
        setup.ports = &ports;
        setup.arena = arena.get();
        setup.pools = pools.get();
        setup.lanes = lanes.get();
        setup.report_fd = report_fd.get();
        setup.log = &log;

        Result<shm::Region, int> region =
            shm::Region::create("chiru-tables", Stack::tables_bytes(setup.stack),
                                shm::PeerAccess::ReadOnly);
        if (!region)
            return std::unexpected("no memory for the tables of " +
                                   std::to_string(stack.connections) + " connections: " +
                                   std::strerror(region.error()));
        tables.push_back(std::move(*region));
        setup.tables = tables.back().bytes();
        try {
            shards.push_back(std::make_unique<Shard>(setup));
        } catch (const std::system_error& error) {
            return std::unexpected(std::string(error.what()));
        }
    }
    shards.front()->publish_interfaces();
    for (const std::unique_ptr<Shard>& shard : shards) {
        shard->meet(shards);
        lines.emplace_back(*shard);
    }
    return {};
}

void DataPlane::stop() {
    State& state = *state_;
    state.watch.reset();
    for (const std::unique_ptr<Shard>& shard : state.shards) shard->stop();
    for (const std::unique_ptr<Shard>& shard : state.shards) shard->forget_stack();
    for (const std::unique_ptr<nic::Port>& port : state.ports) port->stop();
    state.lines.clear();
    state.shards.clear();
    state.lanes.reset();
    state.tables.clear();
    state.ports.clear();
    state.pools.reset();
    state.arena.reset();
    if (state.eal_started) nic::stop_eal();
    state.eal_started = false;
}

std::uint32_t DataPlane::shard_count() const {
    return static_cast<std::uint32_t>(state_->shards.size());
}
std::size_t DataPlane::port_count() const { return state_->ports.size(); }
const PortConfig& DataPlane::port(std::size_t index) const {
    return state_->ports[index]->config();
}
const shm::Region& DataPlane::rx_arena() const { return state_->arena->region(); }
std::uint32_t DataPlane::rx_slot_bytes() const { return state_->arena->slot_bytes(); }
const shm::Region& DataPlane::tables(std::uint32_t shard) const { return state_->tables[shard]; }

void DataPlane::post(std::uint32_t shard, const Command& command) {
    State::Line& line = state_->lines[shard];
    line.waiting.push_back(command);
    line.flush();
}

void DataPlane::post_to_all(const Command& command) {
    for (std::uint32_t shard = 0; shard < shard_count(); ++shard) post(shard, command);
}

int DataPlane::report_fd() const { return state_->report_fd.get(); }

std::size_t DataPlane::take_reports(std::span<Report> reports) {
    State& state = *state_;
    std::uint64_t rung = 0;
    // Before the rings are looked at: a report that comes later makes it readable again.
    [[maybe_unused]] const ssize_t taken = read(report_fd(), &rung, sizeof rung);
    std::size_t count = 0;
    for (std::size_t i = 0; i < state.lines.size() && count < reports.size(); ++i) {
        State::Line& line = state.lines[state.next_line++ % state.lines.size()];
        while (count < reports.size() && line.reports.pop(reports.subspan(count, 1)) == 1)
            if (!state.watch->takes(reports[count].tag)) ++count;
        line.flush();  // the shard has taken commands since
    }
    return count;
}

Result<void, int> DataPlane::map_for_devices(std::span<std::byte> memory) {
    const auto needs = [](const auto& port) { return port->needs_mapped_memory(); };
    if (std::none_of(state_->ports.begin(), state_->ports.end(), needs)) return {};
    if (Result<void, int> done = nic::register_memory(memory); !done) return done;
    for (const std::unique_ptr<nic::Port>& port : state_->ports)
        if (needs(port))
            if (Result<void, int> done = port->map_memory(memory); !done) {
                unmap_for_devices(memory);
                return done;
            }
    return {};
}

void DataPlane::unmap_for_devices(std::span<std::byte> memory) {
    bool registered = false;
    for (const std::unique_ptr<nic::Port>& port : state_->ports) {
        if (!port->needs_mapped_memory()) continue;
        port->unmap_memory(memory);
        registered = true;
    }
    if (registered) nic::unregister_memory(memory);
}

void DataPlane::publish_ports() {
    State& state = *state_;
    for (std::size_t i = 0; i < state.ports.size() && i < shm::kMaxPorts; ++i)
        state.directory->ports[i].publish(state.ports[i]->info());
}

void DataPlane::watch_ports() {
    state_->watch->look();
    publish_ports();
}

}  // namespace chiru::daemon
