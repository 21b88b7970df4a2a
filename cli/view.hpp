// SPDX-License-Identifier: Apache-2.0
//
// What a command looks at: the daemon's directory and, if allowed, the shards' tables, all mapped
// read-only. Nothing here asks the daemon anything, so it works on a daemon that hangs as well.
#pragma once

#include "base/result.hpp"
#include "shm/directory.hpp"
#include "shm/tables.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace chiru::cli {

/// The tables of one shard. Records are copied out one at a time while the shard goes on working:
/// fields of one record may be of different moments.
class TablesView {
public:
    /// Checks that all tables lie inside `region`; the reason as text if they do not.
    static Result<TablesView, std::string> attach(std::span<const std::byte> region);

    std::uint32_t shard() const { return header_->shard; }
    std::uint32_t connections_live() const { return header_->connections_live; }

    /// Each calls visit(record) for every record in use.
    template <class Visit>
    void for_each_connection(Visit&& visit) const {
        const std::uint32_t high = header_->connections_high;  // grows while we read
        walk<shm::ConnectionInfo>(connections_, high, [&](const shm::ConnectionInfo& info) {
            if (info.state != shm::TcpState::Free) visit(info);
        });
    }
    template <class Visit>
    void for_each_listener(Visit&& visit) const {
        walk<shm::ListenerInfo>(listeners_, listeners_.capacity, [&](const auto& info) {
            if (info.in_use != 0) visit(info);
        });
    }
    template <class Visit>
    void for_each_datagram(Visit&& visit) const {
        walk<shm::DatagramInfo>(datagrams_, datagrams_.capacity, [&](const auto& info) {
            if (info.in_use != 0) visit(info);
        });
    }
    template <class Visit>
    void for_each_neighbor(Visit&& visit) const {
        walk<shm::NeighborInfo>(neighbors_, neighbors_.capacity, [&](const auto& info) {
            if (info.state != shm::NeighborState::Free) visit(info);
        });
    }
    template <class Visit>
    void for_each_path_mtu(Visit&& visit) const {
        walk<shm::PathMtuInfo>(path_mtus_, path_mtus_.capacity, [&](const auto& info) {
            if (info.mtu != 0) visit(info);
        });
    }

private:
    template <class Record, class Visit>
    void walk(const shm::TableRef& table, std::uint32_t used, Visit&& visit) const {
        const std::byte* at = region_.data() + table.offset;
        const std::uint32_t count = std::min(used, table.capacity);
        for (std::uint32_t i = 0; i < count; ++i, at += table.stride) {
            Record record;
            std::memcpy(&record, at, sizeof record);
            visit(record);
        }
    }

    std::span<const std::byte> region_;
    const shm::ShardTables* header_ = nullptr;
    // Copies: checked once, so they must not change afterwards.
    shm::TableRef connections_;
    shm::TableRef listeners_;
    shm::TableRef neighbors_;
    shm::TableRef datagrams_;
    shm::TableRef path_mtus_;
};

struct View {
    const shm::Directory* directory = nullptr;
    std::vector<TablesView> tables;  ///< in the order of shards; empty if not allowed
    bool daemon_answers = true;
    std::int64_t now_us = 0;  ///< CLOCK_MONOTONIC

    std::uint32_t shard_count() const;
};

/// Is `region` a directory of our version? The reason as text if not.
Result<const shm::Directory*, std::string> attach_directory(std::span<const std::byte> region);

struct Session {
    shm::SessionInfo info;
    std::size_t slot = 0;  ///< in Directory::sessions and session_counters
};
/// All that exist, observers included, by id.
std::map<std::uint32_t, Session> sessions(const shm::Directory& directory);

struct Channel {
    std::size_t number = 0;
    std::uint32_t session = 0;
};
std::vector<Channel> channels(const shm::Directory& directory);

struct Interface {
    std::size_t number = 0;
    shm::InterfaceInfo info;
};
std::vector<Interface> interfaces(const shm::Directory& directory);
/// "?" if there is no such interface.
std::string interface_name(const shm::Directory& directory, std::size_t number);

struct Port {
    std::size_t number = 0;
    shm::PortInfo info;
};
std::vector<Port> ports(const shm::Directory& directory);

/// A session's counter, summed over all shards.
std::uint64_t total(const View& view, std::size_t slot,
                    shm::SingleWriterCounter shm::SessionCounters::*counter);

/// A shard's counter by the name the daemon gives it; 0 if this daemon has none of that name.
std::uint64_t counter(const View& view, std::uint32_t shard, std::string_view name);

/// "running", "asleep", "starting", or "stuck" if the shard is awake and has not turned for a
/// second.
const char* shard_state(const View& view, std::uint32_t shard);

/// "redis-server", or "-" for a session that is gone.
std::string program_name(const std::map<std::uint32_t, Session>& sessions, std::uint32_t session);

const char* to_string(shm::AddressState state);
const char* to_string(shm::Origin origin);
const char* to_string(shm::NeighborState state);
const char* to_string(shm::Isolation isolation);
const char* to_string(shm::CongestionAlgorithm algorithm);

}  // namespace chiru::cli
