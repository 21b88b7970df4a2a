// SPDX-License-Identifier: Apache-2.0
//
// One host of a simulation: a Stack for each of its shards on one receive arena, a device that
// holds frames for a while and reads them late, steering as the daemon's shards do it, and one
// client with a channel to every shard. Time is whatever the simulation says.
#pragma once

#include "base/time.hpp"
#include "shm/counters.hpp"
#include "shm/descriptor.hpp"
#include "shm/directory.hpp"
#include "stack/stack.hpp"
#include "test/sim/link.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <new>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace chiru::sim {

/// Bytes that are zero, and cost nothing until they are touched: hosts come and go by thousands,
/// most with far more memory than their traffic needs.
class ZeroedBytes {
public:
    explicit ZeroedBytes(std::size_t bytes = 0)
        : data_(static_cast<std::byte*>(std::calloc(std::max<std::size_t>(bytes, 1), 1))),
          size_(bytes) {
        if (data_ == nullptr) throw std::bad_alloc();
    }

    std::byte* data() { return data_.get(); }
    const std::byte* data() const { return data_.get(); }
    std::size_t size() const { return size_; }
    std::span<const std::byte> bytes() const { return {data(), size_}; }

private:
    struct Free {
        void operator()(std::byte* data) const { std::free(data); }
    };
    std::unique_ptr<std::byte, Free> data_;
    std::size_t size_;
};

struct HostOptions {
    std::uint8_t number = 1;      ///< 10.7.0.number and fd07::number
    std::uint64_t seed = 1;
    std::uint32_t shards = 1;
    std::size_t rx_slots = 4096;
    std::uint32_t rx_budget = 0;  ///< as in StackConfig
    std::size_t tx_arena_bytes = 8u << 20;
    std::uint32_t offloads = 0;
    std::uint32_t tso_bytes = 0;
    std::size_t held_frames = 0;  ///< the device reports a frame sent when so many others follow
    bool isolated = false;        ///< the session reads a private arena
    std::uint32_t max_rx_slots = 2048;  ///< of each shard
    std::uint32_t connections = 256;  ///< of each shard
    std::uint32_t send_records = 2048;
    std::uint16_t mtu = 1500;
    std::uint16_t vlan = 0;       ///< 802.1Q id of its interface; 0: untagged
    TcpConfig tcp{};
};

class Host : public BufferPool {
public:
    static constexpr SessionIndex kSession = 3;
    static constexpr ChannelIndex kChannel = 5;

    explicit Host(const HostOptions& options);
    ~Host() override;

    IpAddress v4() const { return IpAddress::v4(0x0a07'0000u + options_.number); }
    IpAddress v6() const;

    /// A frame from the wire. Lost if no slot is free, as with a device.
    void receive(const Frame& frame, Instant now, std::uint16_t flags = 0) {
        receive(std::span(&frame, 1), now, flags);
    }
    /// Frames that arrive together: each shard takes its own in one burst.
    void receive(std::span<const Frame> frames, Instant now, std::uint16_t flags = 0);
    /// Turns every shard once; returns what went to the wire.
    std::vector<Frame> turn(Instant now);
    Instant next_deadline() const;
    /// The device is done with everything it holds.
    void flush_device();

    [[nodiscard]] Violation submit(const shm::Submission& submission, Instant now,
                                   std::uint32_t shard = 0) {
        return stack(shard).submit(kChannel, std::span(&submission, 1), now);
    }
    std::vector<shm::Completion> take_completions(std::size_t most = 64, std::uint32_t shard = 0);

    std::uint32_t shards() const { return options_.shards; }
    Stack& stack(std::uint32_t shard = 0) { return *shards_[shard].stack; }
    const HostOptions& options() const { return options_; }
    std::byte* tx_arena() { return tx_arena_.data(); }
    std::size_t tx_arena_bytes() const { return tx_arena_.size(); }
    /// What a slice of a Received names.
    std::span<const std::byte> bytes_of(const shm::Slice& slice) const;
    /// A Release of that slice's slot: of this host, and of one without jumbo frames.
    shm::Submission give_back(const shm::Slice& slice) const {
        return release_of(slice, slot_bytes_);
    }
    static shm::Submission release_of(const shm::Slice& slice, std::uint32_t slot_bytes = 2048);

    /// Of all shards.
    std::uint64_t count(shm::Counter counter) const;
    std::size_t slots_out() const { return taken_.size(); }
    const shm::SessionCounters& session(std::uint32_t shard = 0) const {
        return *shards_[shard].session;
    }
    /// The shard's published page; its tables follow.
    const shm::ShardTables& tables(std::uint32_t shard = 0) const;
    /// A live block, straight from the table.
    const shm::ConnectionInfo& block(std::uint32_t index, std::uint32_t shard = 0) const;

    /// The client's process is gone.
    void lose_client(Instant now);
    /// What is held though nothing should be: after everything ended, and TIME-WAIT. Empty: none.
    std::string leaks();
    /// Empty, or the first rule that was broken: a quota, or bytes that changed while they were
    /// the stack's.
    const std::string& fault() const { return fault_; }

    /// Counters and live blocks, for the message of a test that failed.
    std::string describe() const;

private:
    struct Shard {
        ZeroedBytes memory;
        std::byte* tables = nullptr;
        std::size_t room = 0;  ///< submissions, while nothing is queued
        std::unique_ptr<shm::CounterBlock> counters = std::make_unique<shm::CounterBlock>();
        std::unique_ptr<shm::SessionCounters> session = std::make_unique<shm::SessionCounters>();
        std::unique_ptr<Stack> stack;
    };
    /// A frame the device has not sent yet, and the bytes it will read when it does.
    struct Held {
        std::uint32_t shard = 0;
        Frame bytes;
        TxFrame frame;
    };

    void release(std::span<const shm::Slice> slots) override;
    void spread_path_mtus(Instant now);
    void start(std::uint32_t shard);
    void take_in(const Frame& frame, std::uint32_t shard, std::uint16_t flags);
    void give(std::uint32_t shard, Instant now);
    void turn(std::uint32_t shard, std::vector<Frame>& wire, Instant now);
    void cut(const TxFrame& frame, std::uint32_t shard, std::vector<Frame>& wire,
             std::vector<Frame>& local);
    void carry(const TxFrame& frame, std::uint32_t shard, std::vector<Frame>& wire,
               std::vector<Frame>& local);
    void device_done();
    void check_quota(std::uint32_t shard);

    HostOptions options_;
    std::uint32_t slot_bytes_;
    FlowMap flow_map_{};
    ZeroedBytes rx_arena_;
    ZeroedBytes tx_arena_;
    ZeroedBytes private_arena_;
    std::vector<std::uint32_t> free_;
    std::set<std::uint32_t> taken_;
    std::vector<Shard> shards_;
    std::vector<std::vector<RxFrame>> arrived_;  ///< for each shard, not yet given to it
    std::vector<std::vector<std::byte>> heads_;
    std::vector<TxFrame> frames_;
    std::deque<Held> device_;  ///< oldest frame first
    bool client_lost_ = false;
    std::string fault_;
};

}  // namespace chiru::sim
