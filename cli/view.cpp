// SPDX-License-Identifier: Apache-2.0
#include "cli/view.hpp"

#include "cli/table.hpp"

#include <new>

namespace chiru::cli {
namespace {

constexpr std::int64_t kStuckUs = 1'000'000;

bool fits(const shm::TableRef& table, std::size_t record_bytes, std::size_t region_bytes) {
    if (table.capacity == 0) return true;
    if (table.stride < record_bytes || table.offset > region_bytes) return false;
    return table.capacity <= (region_bytes - table.offset) / table.stride;
}

std::string other_version(const char* what, std::uint32_t theirs, std::uint32_t ours) {
    return std::string("chirud and chiructl are of different releases: ") + what + " version " +
           std::to_string(theirs) + " there, " + std::to_string(ours) +
           " here; use the chiructl that came with the daemon";
}

template <class Enum, std::size_t kCount>
const char* name_of(Enum value, const char* const (&names)[kCount]) {
    const auto i = static_cast<std::size_t>(value);
    return i < kCount ? names[i] : "?";
}

}  // namespace

Result<TablesView, std::string> TablesView::attach(std::span<const std::byte> region) {
    if (region.size() < sizeof(shm::ShardTables))
        return std::unexpected("a shard's tables are too short");
    TablesView view;
    view.region_ = region;
    view.header_ = std::launder(reinterpret_cast<const shm::ShardTables*>(region.data()));
    if (view.header_->magic != shm::kTablesMagic)
        return std::unexpected("a shard's tables are not ready yet; try again");
    if (view.header_->version != shm::kTablesVersion)
        return std::unexpected(
            other_version("tables", view.header_->version, shm::kTablesVersion));
    view.connections_ = view.header_->connections;
    view.listeners_ = view.header_->listeners;
    view.neighbors_ = view.header_->neighbors;
    view.datagrams_ = view.header_->datagrams;
    view.path_mtus_ = view.header_->path_mtus;
    const bool inside = fits(view.connections_, sizeof(shm::ConnectionInfo), region.size()) &&
                        fits(view.listeners_, sizeof(shm::ListenerInfo), region.size()) &&
                        fits(view.neighbors_, sizeof(shm::NeighborInfo), region.size()) &&
                        fits(view.datagrams_, sizeof(shm::DatagramInfo), region.size()) &&
                        fits(view.path_mtus_, sizeof(shm::PathMtuInfo), region.size());
    if (!inside) return std::unexpected("a shard's tables contradict their size");
    return view;
}

Result<const shm::Directory*, std::string> attach_directory(std::span<const std::byte> region) {
    if (region.size() < sizeof(shm::Directory))
        return std::unexpected("the daemon's directory is too short: chirud and chiructl are of "
                               "different releases");
    const auto* directory = std::launder(reinterpret_cast<const shm::Directory*>(region.data()));
    if (directory->magic.load(std::memory_order_acquire) != shm::kDirectoryMagic)
        return std::unexpected("the daemon has not finished starting; try again");
    if (directory->version != shm::kDirectoryVersion)
        return std::unexpected(
            other_version("directory", directory->version, shm::kDirectoryVersion));
    return directory;
}

std::uint32_t View::shard_count() const {
    return std::min<std::uint32_t>(directory->shard_count, shm::kMaxShards);
}

std::map<std::uint32_t, Session> sessions(const shm::Directory& directory) {
    std::map<std::uint32_t, Session> found;
    for (std::size_t slot = 0; slot < directory.sessions.size(); ++slot) {
        const shm::SessionInfo info = directory.sessions[slot].read();
        if (info.id != 0) found[info.id] = {info, slot};
    }
    return found;
}

std::vector<Channel> channels(const shm::Directory& directory) {
    std::vector<Channel> found;
    for (std::size_t i = 0; i < directory.channels.size(); ++i) {
        const shm::ChannelInfo info = directory.channels[i].read();
        if (info.session != 0) found.push_back({i, info.session});
    }
    return found;
}

std::vector<Interface> interfaces(const shm::Directory& directory) {
    std::vector<Interface> found;
    for (std::size_t i = 0; i < directory.interfaces.size(); ++i) {
        Interface interface{i, directory.interfaces[i].read()};
        if (interface.info.in_use != 0) found.push_back(interface);
    }
    return found;
}

std::string interface_name(const shm::Directory& directory, std::size_t number) {
    if (number >= directory.interfaces.size()) return "?";
    const shm::InterfaceInfo info = directory.interfaces[number].read();
    return info.in_use == 0 ? "?" : std::string(info.name.view());
}

std::vector<Port> ports(const shm::Directory& directory) {
    std::vector<Port> found;
    for (std::size_t i = 0; i < directory.ports.size(); ++i) {
        Port port{i, directory.ports[i].read()};
        if (port.info.in_use != 0) found.push_back(port);
    }
    return found;
}

std::uint64_t total(const View& view, std::size_t slot,
                    shm::SingleWriterCounter shm::SessionCounters::*counter) {
    std::uint64_t sum = 0;
    for (std::uint32_t shard = 0; shard < view.shard_count(); ++shard)
        sum += (view.directory->session_counters[shard][slot].*counter).read();
    return sum;
}

std::uint64_t counter(const View& view, std::uint32_t shard, std::string_view name) {
    const shm::Directory& directory = *view.directory;
    for (std::size_t i = 0; i < directory.counter_count && i < shm::kMaxCounters; ++i)
        if (directory.counter_names[i].name.view() == name)
            return directory.shards[shard].counters.read(i);
    return 0;
}

const char* shard_state(const View& view, std::uint32_t shard) {
    const shm::ShardPage& page = view.directory->shards[shard];
    const std::int64_t alive_us = page.alive_us.load(std::memory_order_relaxed);  // for people
    if (alive_us == 0) return "starting";
    if ((page.doorbell.epoch.load(std::memory_order_relaxed) & 1) != 0) return "asleep";
    return view.now_us - alive_us > kStuckUs ? "stuck" : "running";
}

std::string program_name(const std::map<std::uint32_t, Session>& sessions,
                         std::uint32_t session) {
    const auto found = sessions.find(session);
    return found == sessions.end() ? "-" : printable(found->second.info.program.view());
}

const char* to_string(shm::AddressState state) {
    return name_of(state, {"unused", "tentative", "preferred", "deprecated", "duplicate"});
}

const char* to_string(shm::Origin origin) {
    return name_of(origin, {"config", "link-local", "router-advertisement", "connected"});
}

const char* to_string(shm::NeighborState state) {
    return name_of(state, {"free", "incomplete", "reachable", "stale", "delay", "probe", "failed"});
}

const char* to_string(shm::Isolation isolation) {
    return name_of(isolation, {"shared", "private"});
}

const char* to_string(shm::CongestionAlgorithm algorithm) {
    const auto i = static_cast<std::size_t>(algorithm);
    return i < shm::kCongestionNames.size() ? shm::kCongestionNames[i].data() : "?";
}

}  // namespace chiru::cli
