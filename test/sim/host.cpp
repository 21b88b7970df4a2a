// SPDX-License-Identifier: Apache-2.0
#include "test/sim/host.hpp"

#include "base/cache.hpp"
#include "base/check.hpp"
#include "stack/wire/checksum.hpp"
#include "stack/wire/tcp.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace chiru::sim {

namespace {

constexpr std::size_t kHeadBytes = 10'240;
constexpr std::size_t kBurst = 32;
constexpr std::uint32_t kPrivateFirst = 8;
constexpr std::uint32_t kPrivateSlots = 512;

StackConfig config_for(const HostOptions& o) {
    StackConfig config;
    config.connections = o.connections;
    config.send_records = 2048;
    config.listeners = 64;
    config.neighbors = 64;
    config.rx_slots = static_cast<std::uint32_t>(o.rx_slots);
    config.rx_budget = o.rx_budget;
    config.secret = {o.seed * 0x9e37'79b9'7f4a'7c15 + 1, o.seed ^ 0x1234'5678};
    PortConfig port;
    port.mac = MacAddress{{2, 0, 0, 0, 0, o.number}};
    port.mtu = o.mtu;
    port.offloads = o.offloads;
    port.tso_bytes = o.tso_bytes;
    config.ports.push_back(port);
    InterfaceConfig interface;
    interface.name = "sim";
    interface.vlan = o.vlan;
    interface.addresses.push_back({IpAddress::v4(0x0a07'0000u + o.number), 24});
    IpAddress::Bytes v6{0xfd, 0x07};
    v6[15] = o.number;
    interface.addresses.push_back({IpAddress(v6), 64});
    config.interfaces.push_back(interface);
    config.tcp = o.tcp;
    return config;
}

std::vector<std::byte> flatten(const TxFrame& frame) {
    std::vector<std::byte> bytes(frame.head, frame.head + frame.head_length);
    for (std::size_t i = 0; i < frame.slice_count; ++i)
        bytes.insert(bytes.end(), frame.slices[i].data,
                     frame.slices[i].data + frame.slices[i].slice.length);
    return bytes;
}

void put16(std::vector<std::byte>& bytes, std::size_t at, std::size_t value) {
    bytes[at] = static_cast<std::byte>(value >> 8);
    bytes[at + 1] = static_cast<std::byte>(value);
}

std::uint32_t get32(const std::vector<std::byte>& bytes, std::size_t at) {
    be32 value;
    std::memcpy(&value, bytes.data() + at, 4);
    return value;
}

void put32(std::vector<std::byte>& bytes, std::size_t at, std::uint32_t value) {
    const be32 wire(value);
    std::memcpy(bytes.data() + at, &wire, 4);
}

/// What the device does where it was told it would: checksums.
void finish(std::vector<std::byte>& bytes, const TxFrame& f) {
    const std::size_t l3 = f.l2_bytes, l4 = l3 + f.l3_bytes;
    if ((f.flags & kTxIpChecksum) != 0) {
        put16(bytes, l3 + 10, 0);
        put16(bytes, l3 + 10, wire::checksum(std::span(bytes).subspan(l3, f.l3_bytes)));
    }
    if ((f.flags & kTxL4Checksum) != 0)
        put16(bytes, l4 + 16, wire::checksum(std::span(bytes).subspan(l4)));
}

}  // namespace

Host::Host(const HostOptions& options)
    : options_(options),
      rx_arena_(options.rx_slots * kSlotBytes),
      tx_arena_(options.tx_arena_bytes),
      private_arena_(options.isolated ? (kPrivateFirst + kPrivateSlots) * kSlotBytes : 0),
      counters_(std::make_unique<shm::CounterBlock>()),
      session_counters_(std::make_unique<shm::SessionCounters>()) {
    for (auto i = static_cast<std::uint32_t>(options.rx_slots); i > 0; --i) free_.push_back(i - 1);
    const StackConfig config = config_for(options);
    const std::size_t bytes = Stack::tables_bytes(config);
    tables_.resize(bytes + kNoSharing);
    const auto address = reinterpret_cast<std::uintptr_t>(tables_.data());
    tables_base_ = tables_.data() + (kNoSharing - address % kNoSharing) % kNoSharing;
    stack_ = std::make_unique<Stack>(config, std::span(tables_base_, bytes),
                                     ArenaView{rx_arena_.data(), rx_arena_.size(), kSlotBytes},
                                     *this, *counters_, Instant{});
    SessionConfig session;
    session.id = 42;
    session.tx_arena = {tx_arena_.data(), tx_arena_.size(), 0};
    session.max_connections = options.connections;
    session.max_rx_slots = options.max_rx_slots;
    session.counters = session_counters_.get();
    if (options.isolated) {
        session.private_rx_arena = {private_arena_.data(), private_arena_.size(), kSlotBytes};
        session.private_first_slot = kPrivateFirst;
        session.private_slots = kPrivateSlots;
    }
    stack_->attach_session(kSession, session);
    stack_->attach_channel(kChannel, kSession);
    heads_.assign(kBurst, std::vector<std::byte>(kHeadBytes));
    frames_.resize(kBurst);
    for (std::size_t i = 0; i < kBurst; ++i) frames_[i].lend(heads_[i].data(), kHeadBytes);
}

Host::~Host() = default;

IpAddress Host::v6() const {
    IpAddress::Bytes bytes{0xfd, 0x07};
    bytes[15] = options_.number;
    return IpAddress(bytes);
}

void Host::release(std::span<const shm::Slice> slots) {
    for (const shm::Slice& slice : slots) {
        const auto slot = static_cast<std::uint32_t>(slice.offset / kSlotBytes);
        CHECK(taken_.erase(slot) == 1);
        std::memset(rx_arena_.data() + std::size_t{slot} * kSlotBytes, 0xdd, kSlotBytes);
        free_.push_back(slot);
    }
}

void Host::receive(const Frame& frame, Instant now, std::uint16_t flags) {
    if (free_.empty() || frame.size() > kSlotBytes - 128) return;
    const std::uint32_t slot = free_.back();
    free_.pop_back();
    taken_.insert(slot);
    const std::uint64_t at = std::uint64_t{slot} * kSlotBytes + 128;
    std::memcpy(rx_arena_.data() + at, frame.data(), frame.size());
    RxFrame rx;
    rx.data = rx_arena_.data() + at;
    rx.slice = {at, static_cast<std::uint32_t>(frame.size()), shm::kRxArena, 0};
    rx.flags = flags;
    stack_->receive(std::span(&rx, 1), now);
}

// A frame that the port was asked to cut becomes several, as a device with TSO makes them.
void Host::carry(const TxFrame& f, std::vector<Frame>& wire, std::deque<Frame>& local) {
    std::vector<std::byte> bytes = flatten(f);
    std::vector<SendRecord> records;
    for (std::size_t i = 0; i < f.slice_count; ++i) records.push_back(f.slices[i].record);
    device_.push_back(std::move(records));
    if (f.port == kLocalPort) {
        local.push_back(std::move(bytes));
        return;
    }
    if ((f.flags & kTxSegment) == 0) {
        finish(bytes, f);
        wire.push_back(std::move(bytes));
        return;
    }
    const std::size_t l3 = f.l2_bytes, l4 = l3 + f.l3_bytes, headers = l4 + f.l4_bytes;
    const std::uint32_t sequence = get32(bytes, l4 + 4);
    for (std::size_t done = headers; done < bytes.size(); done += f.segment_bytes) {
        const std::size_t length = std::min<std::size_t>(f.segment_bytes, bytes.size() - done);
        std::vector<std::byte> cut(bytes.begin(),
                                   bytes.begin() + static_cast<std::ptrdiff_t>(headers));
        cut.insert(cut.end(), bytes.begin() + static_cast<std::ptrdiff_t>(done),
                   bytes.begin() + static_cast<std::ptrdiff_t>(done + length));
        const bool last = done + length == bytes.size();
        put32(cut, l4 + 4, sequence + static_cast<std::uint32_t>(done - headers));
        if (!last) cut[l4 + 13] &= ~std::byte{wire::kFin | wire::kPsh};
        if ((f.flags & kTxIpv6) != 0) put16(cut, l3 + 4, cut.size() - l4);
        else put16(cut, l3 + 2, cut.size() - l3);
        // The pseudo header's sum lies there without a length: the device adds each segment's.
        std::uint32_t sum = std::to_integer<std::uint32_t>(cut[l4 + 16]) << 8 |
                            std::to_integer<std::uint32_t>(cut[l4 + 17]);
        sum += static_cast<std::uint32_t>(cut.size() - l4);
        sum = (sum & 0xffff) + (sum >> 16);
        put16(cut, l4 + 16, sum);
        finish(cut, f);
        wire.push_back(std::move(cut));
    }
}

std::vector<Frame> Host::turn(Instant now) {
    std::vector<Frame> wire;
    stack_->advance(now);
    for (;;) {
        std::deque<Frame> local;
        const std::size_t count = stack_->transmit(frames_, now);
        for (std::size_t i = 0; i < count; ++i) {
            carry(frames_[i], wire, local);
            frames_[i].lend(heads_[i].data(), kHeadBytes);
        }
        for (const Frame& frame : local)
            receive(frame, now, kRxLocal | kRxIpChecksumGood | kRxL4ChecksumGood);
        // A device that has nothing else to do reports the last ones as well.
        const std::size_t keep = count > 0 ? options_.held_frames : device_.size() * 3 / 4;
        while (device_.size() > keep) {
            for (const SendRecord record : device_.front()) stack_->sent(record);
            device_.pop_front();
        }
        if (count < kBurst && local.empty()) break;
    }
    return wire;
}

void Host::flush_device() {
    for (; !device_.empty(); device_.pop_front())
        for (const SendRecord record : device_.front()) stack_->sent(record);
}

std::vector<shm::Completion> Host::take_completions(std::size_t most) {
    std::vector<shm::Completion> out(most);
    std::array<ChannelIndex, 4> ready;
    std::size_t count = 0;
    if (stack_->ready_channels(ready) > 0) count = stack_->complete(kChannel, out);
    out.resize(count);
    return out;
}

std::span<const std::byte> Host::bytes_of(const shm::Slice& slice) const {
    const auto& arena = slice.arena == shm::kPrivateRxArena ? private_arena_ : rx_arena_;
    CHECK(slice.offset + slice.length <= arena.size());
    return std::span(arena).subspan(slice.offset, slice.length);
}

shm::Submission Host::release_of(const shm::Slice& slice) {
    shm::Submission s;
    s.op = shm::SubmissionOp::Release;
    s.count = 1;
    s.release = {};
    s.release.arena = slice.arena;
    s.release.slots[0] = static_cast<std::uint32_t>(slice.offset / kSlotBytes);
    return s;
}

const shm::ShardTables& Host::tables() const {
    return *reinterpret_cast<const shm::ShardTables*>(tables_base_);
}

const shm::ConnectionInfo& Host::block(std::uint32_t index) const {
    const shm::TableRef& table = tables().connections;
    return *reinterpret_cast<const shm::ConnectionInfo*>(tables_base_ + table.offset +
                                                         std::size_t{table.stride} * index);
}

std::string Host::describe() const {
    std::string text;
    for (std::uint32_t i = 0; i < tables().connections_high; ++i) {
        const shm::ConnectionInfo& c = block(i);
        if (c.state == shm::TcpState::Free) continue;
        const auto number = [&text](const char* name, std::uint64_t value) {
            text += std::string(" ") + name + "=" + std::to_string(value);
        };
        text += to_string(c.state);
        number("una", c.snd_una - c.iss);
        number("nxt", c.snd_nxt - c.iss);
        number("end", c.snd_end - c.iss);
        number("wnd", c.snd_wnd);
        number("rcv", c.rcv_nxt - c.irs);
        number("rcv_wnd", c.rcv_wnd);
        number("unread", c.unread_bytes);
        number("ooo", c.out_of_order_bytes);
        number("cwnd", c.cwnd_bytes);
        number("rto", c.rto_us);
        number("srtt", c.srtt_us);
        number("timeouts", c.timeouts);
        number("recovery", c.recovery);
        number("flags", c.flags);
        text += "\n";
    }
    return text;
}

}  // namespace chiru::sim
