// SPDX-License-Identifier: Apache-2.0
//
// One host of a simulation: a whole Stack on an arena of its own, a device that holds frames for a
// while, and one client with a channel. Time is whatever the simulation says.
#pragma once

#include "base/time.hpp"
#include "shm/counters.hpp"
#include "shm/descriptor.hpp"
#include "shm/directory.hpp"
#include "stack/stack.hpp"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace chiru::sim {

using Frame = std::vector<std::byte>;

struct HostOptions {
    std::uint8_t number = 1;      ///< 10.7.0.number and fd07::number
    std::uint64_t seed = 1;
    std::size_t rx_slots = 4096;
    std::uint32_t rx_budget = 0;  ///< as in StackConfig
    std::size_t tx_arena_bytes = 8u << 20;
    std::uint32_t offloads = 0;
    std::uint32_t tso_bytes = 0;
    std::size_t held_frames = 0;  ///< the device reports a frame sent when so many others follow
    bool isolated = false;        ///< the session reads a private arena
    std::uint32_t max_rx_slots = 2048;
    std::uint32_t connections = 256;
    std::uint16_t mtu = 1500;
    std::uint16_t vlan = 0;       ///< 802.1Q id of its interface; 0: untagged
    TcpConfig tcp;
};

class Host : public BufferPool {
public:
    static constexpr std::uint32_t kSlotBytes = 2048;
    static constexpr SessionIndex kSession = 3;
    static constexpr ChannelIndex kChannel = 5;

    explicit Host(const HostOptions& options);
    ~Host() override;

    IpAddress v4() const { return IpAddress::v4(0x0a07'0000u + options_.number); }
    IpAddress v6() const;

    /// A frame from the wire. Lost if no slot is free, as with a device.
    void receive(const Frame& frame, Instant now, std::uint16_t flags = 0);
    /// Turns the stack once; returns what went to the wire.
    std::vector<Frame> turn(Instant now);
    Instant next_deadline() const { return stack_->next_deadline(); }
    /// The device is done with everything it holds.
    void flush_device();

    [[nodiscard]] Violation submit(const shm::Submission& submission, Instant now) {
        return stack_->submit(kChannel, std::span(&submission, 1), now);
    }
    std::vector<shm::Completion> take_completions(std::size_t most = 64);

    Stack& stack() { return *stack_; }
    std::byte* tx_arena() { return tx_arena_.data(); }
    std::size_t tx_arena_bytes() const { return tx_arena_.size(); }
    /// What a slice of a Received names.
    std::span<const std::byte> bytes_of(const shm::Slice& slice) const;
    /// A Release of that slice's slot.
    static shm::Submission release_of(const shm::Slice& slice);

    std::uint64_t count(shm::Counter counter) const { return counters_->read(counter); }
    std::size_t slots_out() const { return taken_.size(); }
    const shm::SessionCounters& session() const { return *session_counters_; }
    /// The shard's published page; its tables follow.
    const shm::ShardTables& tables() const;
    /// A live block, straight from the table.
    const shm::ConnectionInfo& block(std::uint32_t index) const;

    /// The live blocks, for the message of a test that failed.
    std::string describe() const;

private:
    void release(std::span<const shm::Slice> slots) override;
    void carry(const TxFrame& frame, std::vector<Frame>& wire, std::deque<Frame>& local);

    HostOptions options_;
    std::vector<std::byte> rx_arena_;
    std::vector<std::byte> tx_arena_;
    std::vector<std::byte> private_arena_;
    std::vector<std::byte> tables_;
    std::byte* tables_base_ = nullptr;
    std::vector<std::uint32_t> free_;
    std::set<std::uint32_t> taken_;
    std::unique_ptr<shm::CounterBlock> counters_;
    std::unique_ptr<shm::SessionCounters> session_counters_;
    std::unique_ptr<Stack> stack_;
    std::vector<std::vector<std::byte>> heads_;
    std::vector<TxFrame> frames_;
    std::deque<std::vector<SendRecord>> device_;  ///< oldest frame first
};

}  // namespace chiru::sim
