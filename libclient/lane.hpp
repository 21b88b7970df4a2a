// SPDX-License-Identifier: Apache-2.0
//
// What a channel keeps for each shard, each listener. Private to the channel's own sources.
#pragma once

#include "libclient/channel.hpp"
#include "libclient/sparse_index.hpp"

#include <array>
#include <cstdint>
#include <deque>
#include <utility>

namespace chiru::client {

/// One shard, from here.
struct Channel::Lane {
    static constexpr std::size_t kBurst = 32;

    Lane(shm::ShardLane& shared, std::uint8_t which, const shm::DoorbellWord& word,
         shm::UniqueFd fd)
        : submissions(shared.submissions),
          completions(shared.completions),
          doorbell(std::move(fd)),
          ringer(word, doorbell.get()),
          shard(which) {}

    shm::RingProducer<shm::SubmissionRing> submissions;
    shm::RingConsumer<shm::CompletionRing> completions;
    shm::UniqueFd doorbell;
    shm::DoorbellRinger ringer;
    std::uint8_t shard;
    bool dirty = false;  ///< something was pushed since the last ring
    shm::Submission releases;  ///< gathers slots until it is full or flushed
    SparseIndex names;         ///< connection index to socket index
    /// The datagram that is being told, and how much of it is still to come.
    struct Telling {
        std::uint32_t datagram = kNone;  ///< kNone: nobody's, its slots go back
        std::uint16_t more = 0;
        bool has_destination = false;
        IpAddress destination;
    } telling;
    /// What must not get lost while the ring is full: everything but payload, in order. Payload
    /// is refused until this is empty, so nothing overtakes. Bounded by what there is to say: some
    /// records for each socket, one for each slot held.
    std::deque<shm::Submission> backlog;
    std::array<shm::Completion, kBurst> burst;

    /// For payload, and for the releases that go ahead of it?
    bool has_room() { return backlog.empty() && submissions.has_room(2); }
};

/// A channel's part in a listener.
struct Channel::Listener {
    std::uint32_t id = 0;             ///< shm::ListenerId
    std::uint32_t socket = kNone;     ///< kNone: the record is free
    std::uint32_t first = kNone;      ///< accepted by a shard, not yet by the program
    std::uint32_t last = kNone;
    std::uint32_t replenish = 0;      ///< credit of so many is worth waking a shard for
    /// [shard] connections that the program accepted since it was last woken for that.
    std::array<std::uint32_t, shm::kMaxShards> owed{};
};

}  // namespace chiru::client
