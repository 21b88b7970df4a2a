// SPDX-License-Identifier: Apache-2.0
#include "test/cli/machine.hpp"

#include <catch2/catch.hpp>

#include <new>

namespace chiru::cli::test {
namespace {

constexpr std::size_t kHeaderBytes = 256;
constexpr std::size_t kListeners = 4;
constexpr std::size_t kNeighbors = 8;
constexpr std::size_t kListenersAt = kHeaderBytes + Machine::kConnections * Machine::kStride;
constexpr std::size_t kNeighborsAt = kListenersAt + kListeners * sizeof(shm::ListenerInfo);
constexpr std::size_t kBytes = kNeighborsAt + kNeighbors * sizeof(shm::NeighborInfo);

IpAddress ip(const char* text) {
    return *IpAddress::parse(text);
}

}  // namespace

Machine::Machine() : directory_(std::make_unique<shm::Directory>()) {
    for (std::uint32_t shard = 0; shard < 2; ++shard) {
        std::vector<Line>& lines = tables_.emplace_back((kBytes + kNoSharing - 1) / kNoSharing);
        auto* header = new (lines.data()) shm::ShardTables;
        header->shard = shard;
        header->bytes = kBytes;
        header->connections = {kHeaderBytes, kStride, kConnections};
        header->listeners = {kListenersAt, sizeof(shm::ListenerInfo), kListeners};
        header->neighbors = {kNeighborsAt, sizeof(shm::NeighborInfo), kNeighbors};
        for (std::size_t i = 0; i < kConnections; ++i)
            new (&connection(shard, i)) shm::ConnectionInfo;
        for (std::size_t i = 0; i < kListeners; ++i) new (&listener(shard, i)) shm::ListenerInfo;
        for (std::size_t i = 0; i < kNeighbors; ++i) new (&neighbor(shard, i)) shm::NeighborInfo;
    }
    make_directory();
    make_sessions();
    make_connections();
}

shm::ShardTables& Machine::tables(std::size_t shard) {
    return *std::launder(reinterpret_cast<shm::ShardTables*>(tables_[shard].data()));
}

shm::ConnectionInfo& Machine::connection(std::size_t shard, std::size_t index) {
    auto* base = reinterpret_cast<std::byte*>(tables_[shard].data());
    return *reinterpret_cast<shm::ConnectionInfo*>(base + kHeaderBytes + index * kStride);
}

shm::ListenerInfo& Machine::listener(std::size_t shard, std::size_t index) {
    auto* base = reinterpret_cast<std::byte*>(tables_[shard].data());
    return reinterpret_cast<shm::ListenerInfo*>(base + kListenersAt)[index];
}

shm::NeighborInfo& Machine::neighbor(std::size_t shard, std::size_t index) {
    auto* base = reinterpret_cast<std::byte*>(tables_[shard].data());
    return reinterpret_cast<shm::NeighborInfo*>(base + kNeighborsAt)[index];
}

std::span<const std::byte> Machine::tables_region(std::size_t shard) const {
    return std::as_bytes(std::span(tables_[shard]));
}

View Machine::without_tables() const {
    View view;
    view.directory = directory_.get();
    view.now_us = kNowUs;
    return view;
}

View Machine::view() const {
    View view = without_tables();
    for (std::size_t shard = 0; shard < tables_.size(); ++shard) {
        Result<TablesView, std::string> tables = TablesView::attach(tables_region(shard));
        REQUIRE(tables);
        view.tables.push_back(*tables);
    }
    return view;
}

void Machine::make_directory() {
    shm::Directory& d = *directory_;
    d.version = shm::kDirectoryVersion;
    d.bytes = sizeof d;
    d.daemon_pid = 4242;
    d.shard_count = 2;
    d.started_us = kNowUs - 3'723'000'000;
    d.started_unix_s = 1'700'000'000;
    d.rx_slot_bytes = 2304;
    d.rx_arena_bytes = 64u << 20;
    d.release.set("0.1.0");
    d.config_file.set("/etc/chiru/chirud.yaml");
    d.counter_count = 4;
    const char* names[] = {"rx.frames", "rx.bytes", "tcp.retransmits", "shard.busy_us"};
    const shm::Unit units[] = {shm::Unit::Frames, shm::Unit::Bytes, shm::Unit::Frames,
                               shm::Unit::Micros};
    for (std::size_t i = 0; i < 4; ++i) {
        d.counter_names[i].name.set(names[i]);
        d.counter_names[i].unit = units[i];
    }
    for (std::uint32_t shard = 0; shard < 2; ++shard) {
        shm::ShardPage& page = d.shards[shard];
        page.core.store(shard * 2);
        page.thread.store(5000 + shard);
        page.alive_us.store(kNowUs - 40);
        page.counters.add(static_cast<shm::Counter>(0), 1'000'000 + shard);
        page.counters.add(static_cast<shm::Counter>(1), 1'234'567'890);
        page.counters.add(static_cast<shm::Counter>(3), 37'230'000 * (shard + 1));
    }
    d.shards[1].doorbell.epoch.store(7);

    shm::PortInfo port;
    port.in_use = 1;
    port.link_up = 1;
    port.mtu = 1500;
    port.mac = *parse_mac("02:00:5e:10:00:01");
    port.rx_queues = port.tx_queues = 2;
    port.offloads = shm::kOffloadTxL4Checksum | shm::kOffloadTxScatter;
    port.speed_mbps = 10'000;
    port.rx_frames = 2'000'001;
    port.rx_bytes = 2'469'135'780;
    port.tx_frames = 1'999'999;
    port.tx_bytes = 200'000'000;
    port.rx_missed = 3;
    port.name.set("nic0");
    port.driver.set("net_tap");
    port.device.set("net_tap0,iface=chiru0");
    d.ports[0].publish(port);

    shm::InterfaceInfo interface;
    interface.in_use = 1;
    interface.mtu = 1500;
    interface.name.set("storage");
    interface.address_count = 2;
    interface.addresses[0] = {*IpPrefix::parse("10.7.0.2/24"), shm::AddressState::Preferred,
                              shm::Origin::Config};
    interface.addresses[1] = {*IpPrefix::parse("fd07::2/64"), shm::AddressState::Tentative,
                              shm::Origin::Config};
    interface.route_count = 3;
    interface.routes[0] = {*IpPrefix::parse("0.0.0.0/0"), ip("10.7.0.1"), shm::Origin::Config};
    interface.routes[1] = {*IpPrefix::parse("10.7.0.0/24"), IpAddress(), shm::Origin::Connected};
    interface.routes[2] = {*IpPrefix::parse("fd07::/64"), IpAddress(), shm::Origin::Connected};
    d.interfaces[0].publish(interface);
    d.magic.store(shm::kDirectoryMagic);
}

void Machine::make_sessions() {
    const auto session = [this](std::size_t slot, std::uint32_t id, std::int32_t pid,
                                const char* program, std::uint16_t channels) {
        shm::SessionInfo info;
        info.id = id;
        info.pid = pid;
        info.channels = channels;
        info.observer = channels == 0 ? 1 : 0;
        info.listeners = id == 11 ? 1 : 0;
        info.tx_arena_bytes = 64u << 20;
        info.max_connections = 1000;
        info.attached_us = kNowUs - 65'000'000;
        info.program.set(program);
        directory_->sessions[slot].publish(info);
    };
    session(0, 11, 777, "redis-server", 1);
    session(3, 12, 888, "agent\x1b[2J", 1);
    session(4, 13, 999, "chiructl", 0);
    directory_->channels[5].publish({11, 0});
    directory_->channels[6].publish({12, 0});
    directory_->session_counters[0][0].connections.set(2);
    directory_->session_counters[1][0].connections.set(1);
    directory_->session_counters[0][0].rx_bytes.set(5000);
    directory_->session_counters[1][0].tx_bytes.set(3'000'000);
    directory_->session_counters[0][0].rx_slots_held.set(4);
    directory_->session_counters[0][0].opened.set(12);
}

void Machine::make_connections() {
    for (std::uint32_t shard = 0; shard < 2; ++shard) {
        shm::ListenerInfo& l = listener(shard, 1);
        l.address = ip("0.0.0.0");
        l.port = 6379;
        l.in_use = 1;
        l.listener = 9;
        l.session = 11;
        l.backlog = 511;
        l.accepted = 5 + shard;
        l.waiting = shard;

        shm::NeighborInfo& n = neighbor(shard, 0);
        n.address = ip("10.7.0.1");
        n.mac = *parse_mac("02:00:00:00:00:01");
        n.state = shm::NeighborState::Reachable;
        n.updated_us = kNowUs - 2'500'000;
    }
    neighbor(1, 2).address = ip("fd07::9");
    neighbor(1, 2).state = shm::NeighborState::Incomplete;
    neighbor(1, 2).updated_us = kNowUs - 900;
    neighbor(1, 2).queued_frames = 3;

    const auto fill = [](shm::ConnectionInfo& c, const char* local, const char* remote,
                         std::uint16_t remote_port, std::uint64_t rx_bytes) {
        c.local_address = ip(local);
        c.remote_address = ip(remote);
        c.local_port = 6379;
        c.remote_port = remote_port;
        c.state = shm::TcpState::Established;
        c.session = 11;
        c.channel = 5;
        c.negotiated = shm::kNegotiatedTimestamps | shm::kNegotiatedSack |
                       shm::kNegotiatedWindowScale;
        c.snd_shift = 7;
        c.rcv_shift = 6;
        c.snd_wnd = 65'536;
        c.rcv_wnd = 1u << 20;
        c.rcv_buffer_bytes = 6u << 20;
        c.rx_slots = 3;
        c.cwnd_bytes = 14'480;
        c.ssthresh_bytes = ~0u;
        c.srtt_us = 87;
        c.mss = 1448;
        c.rx_segments = rx_bytes / 100;
        c.rx_bytes = rx_bytes;
        c.tx_segments = 44;
        c.tx_bytes = 1'048'576;
        c.opened_us = kNowUs - 61'000'000;
        c.last_received_us = c.last_sent_us = kNowUs - 1000;
    };
    fill(connection(0, 0), "10.7.0.2", "10.7.0.1", 40'001, 1000);
    fill(connection(0, 2), "fd07::2", "fd07::1", 40'002, 2'000'000);
    connection(0, 2).retransmitted_segments = 3;
    connection(0, 2).out_of_order_segments = 17;
    connection(0, 2).ssthresh_bytes = 28'960;
    fill(connection(1, 1), "10.7.0.2", "10.7.0.9", 50'000, 0);
    connection(1, 1).state = shm::TcpState::TimeWait;
    connection(1, 1).session = 0;
    connection(1, 1).srtt_us = 0;
    connection(1, 1).negotiated = 0;
    tables(0).connections_high = 3;
    tables(0).connections_live = 2;
    tables(1).connections_high = 2;
    tables(1).connections_live = 1;
    connection(1, 5).state = shm::TcpState::Established;  // beyond what is in use: garbage
}

}  // namespace chiru::cli::test
