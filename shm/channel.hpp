// SPDX-License-Identifier: Apache-2.0
//
// The layout of a channel's region: for each shard a submission and a completion ring.
//
//   ChannelHeader | DoorbellWord (client) | ShardLane 0 | ShardLane 1 | ...
//
// One client thread (or several under one lock) uses a channel; each shard uses its own lane. Any
// change of a size, an offset or a meaning here or in descriptor.hpp raises kChannelVersion; there
// is no compatibility code, an attach with another version is refused.
#pragma once

#include "base/cache.hpp"
#include "shm/descriptor.hpp"
#include "shm/doorbell.hpp"
#include "shm/spsc_ring.hpp"

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>

namespace chiru::shm {

inline constexpr std::uint32_t kChannelMagic = 0x4348'524e;  // "CHRN"
inline constexpr std::uint32_t kChannelVersion = 4;
inline constexpr std::uint32_t kMaxShards = 32;

using SubmissionRing = SpscRing<Submission, 1024>;
using CompletionRing = SpscRing<Completion, 1024>;

struct ChannelHeader {
    std::uint32_t magic = kChannelMagic;
    std::uint32_t version = kChannelVersion;
    std::uint32_t shard_count = 0;
    std::uint32_t channel = 0;  ///< the daemon's number of this channel
};
static_assert(sizeof(ChannelHeader) == 16);

/// What one shard and the client share.
struct ShardLane {
    SubmissionRing submissions;  ///< client to shard
    CompletionRing completions;  ///< shard to client
};
static_assert(sizeof(SubmissionRing) == 2 * kNoSharing + 1024 * sizeof(Submission));
static_assert(sizeof(ShardLane) == 4 * kNoSharing + 2 * 65'536);

struct Channel {
    alignas(kNoSharing) ChannelHeader header;  ///< written by the daemon, once
    DoorbellWord client_doorbell;              ///< written by the client
    // ShardLane[shard_count] follows

    static std::size_t bytes(std::uint32_t shard_count) {
        return sizeof(Channel) + shard_count * sizeof(ShardLane);
    }
    /// The caller has checked that `region` holds bytes(shard_count).
    static Channel& create(std::span<std::byte> region, std::uint32_t shard_count,
                           std::uint32_t channel);
    /// Nothing but the size is taken from the region's content; nullptr if it is of another
    /// version or too short for `shard_count`.
    static Channel* attach(std::span<std::byte> region, std::uint32_t shard_count);

    ShardLane& lane(std::uint32_t shard) {
        return std::launder(reinterpret_cast<ShardLane*>(this + 1))[shard];
    }
};
static_assert(sizeof(Channel) == 2 * kNoSharing);
static_assert(offsetof(Channel, client_doorbell) == kNoSharing);

inline Channel& Channel::create(std::span<std::byte> region, std::uint32_t shard_count,
                                std::uint32_t channel) {
    auto* made = new (region.data()) Channel;
    made->header.shard_count = shard_count;
    made->header.channel = channel;
    for (std::uint32_t i = 0; i < shard_count; ++i)
        new (reinterpret_cast<ShardLane*>(made + 1) + i) ShardLane;
    return *made;
}

inline Channel* Channel::attach(std::span<std::byte> region, std::uint32_t shard_count) {
    if (shard_count == 0 || shard_count > kMaxShards || region.size() < bytes(shard_count))
        return nullptr;
    auto* channel = std::launder(reinterpret_cast<Channel*>(region.data()));
    const ChannelHeader header = channel->header;
    const bool known = header.magic == kChannelMagic && header.version == kChannelVersion &&
                       header.shard_count == shard_count;
    return known ? channel : nullptr;
}

}  // namespace chiru::shm
