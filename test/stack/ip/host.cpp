// SPDX-License-Identifier: Apache-2.0
#include "test/stack/ip/host.hpp"

#include "stack/wire/icmpv6.hpp"

#include <sanitizer/asan_interface.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

namespace chiru::test {

using namespace std::chrono_literals;

namespace {

/// Fails a test, and a fuzzer's run as well.
void must(bool holds, const char* what) {
    if (!holds) throw std::logic_error(std::string("does not hold: ") + what);
}

}  // namespace

StackConfig Host::standard() {
    StackConfig config;
    config.neighbors = 64;
    config.rx_slots = 2048;
    config.secret = {1, 2};
    config.ports.push_back({.mac = test::mac(2)});
    InterfaceConfig interface;
    interface.name = "storage";
    interface.addresses = {*IpPrefix::parse("10.7.0.2/24"), *IpPrefix::parse("fd07::2/64")};
    interface.routes = {{{}, ip("10.7.0.1")}};
    config.interfaces.push_back(interface);
    return config;
}

Host::Host(StackConfig config)
    : config_(std::move(config)),
      arena_(std::make_unique_for_overwrite<std::byte[]>(kSlotBytes * kSlots)),
      counters_(std::make_unique<shm::CounterBlock>()),
      tables_(ip::Network::tables_bytes(config_) + kNoSharing) {
    recorded() = {};
    for (std::size_t i = kSlots; i-- > 0;) free_.push_back(i * kSlotBytes);
    // Sanitizers then see every byte read beyond a frame, or after its slot was given back.
    ASAN_POISON_MEMORY_REGION(arena_.get(), kSlotBytes * kSlots);
    void* at = tables_.data();
    std::size_t space = tables_.size();
    auto* tables = region_ = static_cast<std::byte*>(
        std::align(kNoSharing, ip::Network::tables_bytes(config_), at, space));
    network_ = std::make_unique<ip::Network>(
        config_, std::span(tables, ip::Network::tables_bytes(config_)), tables, published_,
        ArenaView{arena_.get(), kSlotBytes * kSlots, kSlotBytes}, *this, *counters_, now_);
    tcp_ = std::make_unique<tcp::Engine>(config_, std::span<std::byte>(), published_, ArenaView{},
                                         *network_, *this, *counters_, now_);
    network_->attach(*tcp_);
}

Host::~Host() { ASAN_UNPOISON_MEMORY_REGION(arena_.get(), kSlotBytes * kSlots); }

RxFrame Host::place(const Bytes& frame, std::uint16_t flags) {
    must(!free_.empty(), "a free slot");
    const std::uint64_t slot = free_.back();
    free_.pop_back();
    taken_.insert(slot);
    const std::uint64_t offset = slot + 128;
    ASAN_UNPOISON_MEMORY_REGION(arena_.get() + offset, frame.size());
    std::copy(frame.begin(), frame.end(), arena_.get() + offset);
    return {.data = arena_.get() + offset,
            .slice = {.offset = offset, .length = static_cast<std::uint32_t>(frame.size())},
            .port = 0,
            .flags = flags};
}

void Host::release(std::span<const shm::Slice> slots) {
    for (const shm::Slice& slice : slots) {
        const std::uint64_t slot = slice.offset / kSlotBytes * kSlotBytes;
        must(taken_.erase(slot) == 1, "a slot is given back once");
        free_.push_back(slot);
        ASAN_POISON_MEMORY_REGION(arena_.get() + slot, kSlotBytes);
    }
}

void Host::receive(const Bytes& frame, std::uint16_t flags) {
    const RxFrame placed = place(frame, flags);
    network_->receive({&placed, 1}, now_);
    collect();
}

void Host::receive(const std::vector<Bytes>& frames) {
    std::vector<RxFrame> placed;
    for (const Bytes& frame : frames) placed.push_back(place(frame, 0));
    network_->receive(placed, now_);
    collect();
}

void Host::collect() {
    std::array<std::byte, kMinHeadBytes> head;
    for (;;) {
        TxFrame frame;
        frame.head = head.data();
        frame.head_capacity = kMinHeadBytes;
        if (network_->transmit({&frame, 1}, now_) == 0) return;
        last_flags_ = frame.flags;
        last_vlan_ = frame.vlan_tci;
        Bytes bytes(head.begin(), head.begin() + frame.head_length);
        (frame.port == kLocalPort ? sent_locally_ : sent_).push_back(std::move(bytes));
    }
}

void Host::advance(Micros by) {
    const Instant end = now_ + by;
    while (true) {
        now_ = std::clamp(network_->next_deadline(), now_, end);
        network_->advance(now_);
        collect();
        if (now_ == end) return;
        must(network_->next_deadline() > now_, "time goes on");
    }
}

std::vector<Bytes> Host::sent() { return std::exchange(sent_, {}); }
std::vector<Bytes> Host::sent_locally() { return std::exchange(sent_locally_, {}); }

void Host::settle() {
    advance(20s);
    sent_.clear();
    sent_locally_.clear();
}

void Host::learn_neighbors() {
    receive(ethernet({mac(1), kBroadcastMac}, wire::EtherType::Arp,
                     arp(true, mac(1), ip("10.7.0.1"), {}, ip("10.7.0.2"))));
    struct Message {
        wire::NeighborMessage message;
        wire::LinkAddressOption option;
    };
    const Message message{{.type = 135, .target = ip("fd07::2")}, {.type = 1, .mac = mac(1)}};
    const IpAddress group = wire::solicited_node(ip("fd07::2"));
    receive(ethernet({mac(1), wire::multicast_mac(group)}, wire::EtherType::Ipv6,
                     ipv6({ip("fd07::1"), group, wire::Protocol::Icmpv6, 255},
                          icmpv6(ip("fd07::1"), group, as_bytes(message)))));
    sent_.clear();
}

std::uint64_t Host::count_in() const {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < shm::kCounters.size(); ++i)
        if (shm::kCounters[i].name.starts_with("in.")) sum += counters_->read(i);
    return sum;
}

const ip::Neighbor* Host::neighbor(const IpAddress& address) const {
    const auto* records = reinterpret_cast<const ip::Neighbor*>(
        region_ + published_.neighbors.offset);
    for (std::uint32_t i = 0; i < published_.neighbors.capacity; ++i)
        if (records[i].info.state != ip::NeighborState::Free &&
            records[i].info.address == address)
            return &records[i];
    return nullptr;
}

}  // namespace chiru::test
