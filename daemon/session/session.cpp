// SPDX-License-Identifier: Apache-2.0
#include "daemon/session/session.hpp"

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>

namespace chiru::daemon {

Result<ChannelMemory, int> ChannelMemory::make(ChannelIndex channel, std::uint32_t shard_count) {
    Result<shm::Region, int> region = shm::Region::create(
        "chiru-channel", shm::Channel::bytes(shard_count), shm::PeerAccess::ReadWrite);
    if (!region) return std::unexpected(region.error());
    Result<shm::ClientDoorbell, int> doorbell = shm::make_client_doorbell();
    if (!doorbell) return std::unexpected(doorbell.error());
    ChannelMemory made{.region = std::move(*region),
                       .doorbell = std::move(*doorbell),
                       .shard_doorbells = {}};
    for (std::uint32_t shard = 0; shard < shard_count; ++shard) {
        made.shard_doorbells.emplace_back(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
        if (!made.shard_doorbells.back()) return std::unexpected(errno);
    }
    shm::Channel::create(made.region.bytes(), shard_count, channel);
    return made;
}

shm::Channel& ChannelMemory::layout() const {
    return *std::launder(reinterpret_cast<shm::Channel*>(region.bytes().data()));
}

std::vector<int> ChannelMemory::fds_for_client() const {
    std::vector<int> fds{region.fd(), doorbell.client.get()};
    for (const shm::UniqueFd& fd : shard_doorbells) fds.push_back(fd.get());
    return fds;
}

Quota quota_of(const Config& config, std::uint32_t rx_slots, std::uint32_t shard_count) {
    const SessionSettings& settings = config.sessions;
    const std::uint32_t connections = settings.max_connections != 0
                                          ? settings.max_connections
                                          : config.dataplane.connections;
    const std::uint32_t slots =
        settings.max_rx_buffers != 0 ? settings.max_rx_buffers : rx_slots / 2;
    return {.tx_arena_bytes = settings.tx_arena_bytes,
            .max_connections = std::min(connections, config.dataplane.connections),
            .max_rx_slots = std::max(std::min(slots, rx_slots), shard_count),
            .max_channels = settings.max_channels};
}

shm::Isolation isolation_of(IsolationPolicy policy, std::uint32_t uid, std::uint32_t daemon_uid) {
    const bool shared = policy == IsolationPolicy::Shared ||
                        (policy == IsolationPolicy::Auto && uid == daemon_uid);
    return shared ? shm::Isolation::Shared : shm::Isolation::Private;
}

std::string Session::to_string() const {
    return "session " + std::to_string(number) + " (" + (program.empty() ? "?" : program) +
           ", pid " + std::to_string(peer.pid) + ", uid " + std::to_string(peer.uid) + ")";
}

Result<void, int> Session::make_memory(std::uint32_t rx_slot_bytes) {
    Result<shm::Region, int> tx =
        shm::Region::create("chiru-tx", quota.tx_arena_bytes, shm::PeerAccess::ReadWrite);
    if (!tx) return std::unexpected(tx.error());
    if (isolation == shm::Isolation::Private) {
        const std::size_t bytes = std::size_t{quota.max_rx_slots} * rx_slot_bytes;
        Result<shm::Region, int> rx =
            shm::Region::create("chiru-private-rx", bytes, shm::PeerAccess::ReadOnly);
        if (!rx) return std::unexpected(rx.error());
        private_rx_arena = std::move(*rx);
    }
    tx_arena = std::move(*tx);
    return {};
}

SessionConfig Session::config_for(std::uint32_t shard, std::uint32_t shard_count,
                                  std::uint32_t rx_slot_bytes,
                                  shm::SessionCounters* counters) const {
    const std::uint32_t slots = quota.max_rx_slots / shard_count;
    SessionConfig config;
    config.id = id();
    config.tx_arena = {
        .base = tx_arena.bytes().data(), .bytes = quota.tx_arena_bytes, .slot_bytes = 0};
    if (isolation == shm::Isolation::Private) {
        config.private_rx_arena = {.base = private_rx_arena.bytes().data(),
                                   .bytes = std::size_t{quota.max_rx_slots} * rx_slot_bytes,
                                   .slot_bytes = rx_slot_bytes};
        config.private_first_slot = shard * slots;
        config.private_slots = slots;
    }
    config.max_connections = quota.max_connections;
    config.max_rx_slots = slots;
    config.first_port = quota.first_port;
    config.counters = counters;
    return config;
}

}  // namespace chiru::daemon
