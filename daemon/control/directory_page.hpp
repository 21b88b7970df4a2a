// SPDX-License-Identifier: Apache-2.0
//
// The daemon's public page (shm/directory.hpp) as the control thread writes it. Its magic is
// stored last: who sees it sees all the rest.
#pragma once

#include "base/result.hpp"
#include "daemon/config/config.hpp"
#include "daemon/session/session.hpp"
#include "shm/directory.hpp"
#include "shm/region.hpp"

#include <cstdint>
#include <string>

namespace chiru::daemon {

class DirectoryPage {
public:
    /// An errno value on failure.
    static Result<DirectoryPage, int> make(const Config& config, const std::string& release);

    shm::Directory& directory() const;
    const shm::Region& region() const { return region_; }

    /// From here on readers may believe it.
    void open(std::uint32_t shard_count, std::uint64_t rx_arena_bytes,
              std::uint32_t rx_slot_bytes);
    void say_stopping();

    /// `session`'s line, with so many channels and listeners.
    void publish(const Session& session, std::uint32_t listeners);
    void publish_channel(ChannelIndex channel, std::uint32_t session_id);
    void clear_session(SessionIndex session);
    void clear_channel(ChannelIndex channel) { publish_channel(channel, 0); }
    /// Before a new session counts in them.
    void clear_counters(SessionIndex session, std::uint32_t shard_count);

    /// Is `address` on one of the interfaces, as the shards see them now?
    bool has_address(const IpAddress& address) const;

private:
    explicit DirectoryPage(shm::Region region) : region_(std::move(region)) {}

    shm::Region region_;
};

}  // namespace chiru::daemon
