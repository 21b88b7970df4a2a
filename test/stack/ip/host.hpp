// SPDX-License-Identifier: Apache-2.0
//
// One host for tests of ip/: a Network on an arena of its own, in virtual time. Frames go in and
// come out as bytes. In TCP's place stands a recorder (recorder.cpp), so these tests know what
// was handed up without TCP's opinion of it.
#pragma once

#include "stack/ip/network.hpp"
#include "test/stack/ip/frames.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

namespace chiru::test {

/// What reached TCP's place.
struct Recorded {
    struct Segment {
        IpAddress source;
        IpAddress destination;
        Bytes l4;
        bool checksum_good;
    };
    std::vector<Segment> segments;
    std::vector<tcp::IcmpError> errors;
    std::vector<std::pair<std::uint32_t, bool>> ready;
    bool believe_errors = true;
};
/// Of the host that was made last.
Recorded& recorded();

class Host : public BufferPool {
public:
    static constexpr std::size_t kSlotBytes = 2048;
    static constexpr std::size_t kSlots = 1024;

    /// One port with 10.7.0.2/24 and fd07::2/64 unless `config` says otherwise.
    explicit Host(StackConfig config = standard());
    ~Host() override;

    static StackConfig standard();

    void receive(const Bytes& frame, std::uint16_t flags = 0);
    void receive(const std::vector<Bytes>& frames);
    /// Lets time pass, timer by timer; frames that fall due are collected.
    void advance(Micros by);
    /// What the host has sent since the last call.
    std::vector<Bytes> sent();
    /// Frames of kLocalPort among them, separately.
    std::vector<Bytes> sent_locally();
    /// What the device was asked to do with the last frame: TxFlag bits, and the tag.
    std::uint16_t last_flags() const { return last_flags_; }
    std::uint16_t last_vlan() const { return last_vlan_; }
    /// Waits for duplicate address detection and router solicitation to end; forgets frames.
    void settle();
    /// Makes it know 10.7.0.1 and fd07::1 at mac(1).
    void learn_neighbors();

    ip::Network& network() { return *network_; }
    std::uint64_t count(shm::Counter counter) const { return counters_->read(counter); }
    std::uint64_t count_in() const;  ///< sum of group "in"
    std::size_t held_slots() const { return taken_.size(); }
    Instant now() const { return now_; }
    const ip::Neighbor* neighbor(const IpAddress& address) const;

    MacAddress mac_address = test::mac(2);

    void release(std::span<const shm::Slice> slots) override;

private:
    RxFrame place(const Bytes& frame, std::uint16_t flags);
    void collect();

    StackConfig config_;
    std::unique_ptr<std::byte[]> arena_;
    std::vector<std::uint64_t> free_;
    std::set<std::uint64_t> taken_;
    std::unique_ptr<shm::CounterBlock> counters_;
    std::vector<std::byte> tables_;
    std::byte* region_ = nullptr;  ///< tables_, aligned
    shm::ShardTables published_;
    std::unique_ptr<tcp::Engine> tcp_;
    std::unique_ptr<ip::Network> network_;
    std::vector<Bytes> sent_;
    std::vector<Bytes> sent_locally_;
    std::uint16_t last_flags_ = 0;
    std::uint16_t last_vlan_ = 0;
    Instant now_{};
};

}  // namespace chiru::test
