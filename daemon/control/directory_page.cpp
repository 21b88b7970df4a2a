// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/directory_page.hpp"

#include "daemon/control/clock.hpp"

#include <unistd.h>

#include <chrono>
#include <new>

namespace chiru::daemon {

Result<DirectoryPage, int> DirectoryPage::make(const Config& config, const std::string& release) {
    Result<shm::Region, int> region = shm::Region::create(
        "chiru-directory", sizeof(shm::Directory), shm::PeerAccess::ReadOnly);
    if (!region) return std::unexpected(region.error());
    auto& directory = *new (region->bytes().data()) shm::Directory;
    directory.version = shm::kDirectoryVersion;
    directory.bytes = sizeof(shm::Directory);
    directory.daemon_pid = getpid();
    directory.started_us = monotonic_now().time_since_epoch().count();
    directory.started_unix_s = std::chrono::duration_cast<std::chrono::seconds>(
                                   std::chrono::system_clock::now().time_since_epoch())
                                   .count();
    directory.release.set(release);
    directory.config_file.set(config.file);
    directory.counter_count = static_cast<std::uint32_t>(shm::kCounters.size());
    for (std::size_t i = 0; i < shm::kCounters.size(); ++i) {
        directory.counter_names[i].name.set(shm::kCounters[i].name);
        directory.counter_names[i].help.set(shm::kCounters[i].help);
        directory.counter_names[i].unit = shm::kCounters[i].unit;
    }
    return DirectoryPage(std::move(*region));
}

shm::Directory& DirectoryPage::directory() const {
    return *std::launder(reinterpret_cast<shm::Directory*>(region_.bytes().data()));
}

void DirectoryPage::open(std::uint32_t shard_count, std::uint64_t rx_arena_bytes,
                         std::uint32_t rx_slot_bytes) {
    directory().shard_count = shard_count;
    directory().rx_arena_bytes = rx_arena_bytes;
    directory().rx_slot_bytes = rx_slot_bytes;
    directory().magic.store(shm::kDirectoryMagic, std::memory_order_release);
}

void DirectoryPage::say_stopping() {
    directory().stopping.store(1, std::memory_order_relaxed);  // a hint: orders nothing
}

void DirectoryPage::publish(const Session& session, std::uint32_t listeners) {
    shm::SessionInfo info;
    info.id = session.id();
    info.pid = session.peer.pid;
    info.uid = session.peer.uid;
    info.gid = session.peer.gid;
    info.observer = session.observed ? 1 : 0;
    info.isolation = session.isolation;
    info.channels = static_cast<std::uint16_t>(session.channels.size());
    info.listeners = listeners;
    info.tx_arena_bytes = session.quota.tx_arena_bytes;
    info.max_connections = session.quota.max_connections;
    info.attached_us = session.since.time_since_epoch().count();
    info.program.set(session.program);
    directory().sessions[session.index].publish(info);
}

void DirectoryPage::publish_channel(ChannelIndex channel, std::uint32_t session_id) {
    shm::ChannelInfo info;
    info.session = session_id;
    directory().channels[channel].publish(info);
}

void DirectoryPage::clear_session(SessionIndex session) {
    directory().sessions[session].publish({});
}

void DirectoryPage::clear_counters(SessionIndex session, std::uint32_t shard_count) {
    for (std::uint32_t shard = 0; shard < shard_count; ++shard) {
        shm::SessionCounters& counters = directory().session_counters[shard][session];
        for (shm::SingleWriterCounter* counter :
             {&counters.connections, &counters.rx_bytes, &counters.tx_bytes,
              &counters.rx_slots_held, &counters.opened, &counters.closed, &counters.refused,
              &counters.datagram_slots_held})
            counter->set(0);
    }
}

bool DirectoryPage::has_address(const IpAddress& address) const {
    for (const auto& record : directory().interfaces) {
        const shm::InterfaceInfo info = record.read();
        if (info.in_use == 0) continue;
        for (std::size_t i = 0; i < info.address_count && i < info.addresses.size(); ++i)
            if (info.addresses[i].prefix.address == address &&
                info.addresses[i].state != shm::AddressState::Unused &&
                info.addresses[i].state != shm::AddressState::Duplicate)
                return true;
    }
    return false;
}

}  // namespace chiru::daemon
