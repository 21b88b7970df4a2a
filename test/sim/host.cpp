// SPDX-License-Identifier: Apache-2.0
#include "test/sim/host.hpp"

#include "base/cache.hpp"
#include "base/check.hpp"
#include "stack/ip/flow_hash.hpp"
#include "stack/segmenter.hpp"
#include "stack/wire/checksum.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace chiru::sim {

namespace {

constexpr std::size_t kHeadBytes = 10'240;
constexpr std::size_t kBurst = 32;
constexpr std::size_t kHeadroom = 128;
constexpr std::uint32_t kPrivateFirst = 8;
constexpr std::uint32_t kPrivateSlots = 512;

StackConfig config_for(const HostOptions& o, const FlowMap& map, std::uint32_t shard) {
    StackConfig config;
    config.shard = shard;
    config.shard_count = o.shards;
    config.flow_map = map;
    config.connections = o.connections;
    config.send_records = o.send_records;
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

std::vector<std::byte> slices_of(const TxFrame& frame) {
    std::vector<std::byte> bytes;
    for (std::size_t i = 0; i < frame.slice_count; ++i)
        bytes.insert(bytes.end(), frame.slices[i].data,
                     frame.slices[i].data + frame.slices[i].slice.length);
    return bytes;
}

void put16(std::vector<std::byte>& bytes, std::size_t at, std::size_t value) {
    bytes[at] = static_cast<std::byte>(value >> 8);
    bytes[at + 1] = static_cast<std::byte>(value);
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
      slot_bytes_(options.mtu > 1500 ? 16'384 : 2'048),
      rx_arena_(options.rx_slots * slot_bytes_),
      tx_arena_(options.tx_arena_bytes),
      private_arena_(options.isolated
                         ? (kPrivateFirst + options.shards * kPrivateSlots) * slot_bytes_
                         : 0),
      shards_(options.shards),
      arrived_(options.shards),
      heads_(kBurst, std::vector<std::byte>(kHeadBytes)) {
    for (auto i = static_cast<std::uint32_t>(options.rx_slots); i > 0; --i) free_.push_back(i - 1);
    for (std::size_t i = 0; i < flow_map_.size(); ++i)
        flow_map_[i] = static_cast<std::uint8_t>(i % options.shards);
    frames_.resize(kBurst);
    for (std::size_t i = 0; i < kBurst; ++i) frames_[i].lend(heads_[i].data(), kHeadBytes);
    for (std::uint32_t shard = 0; shard < options.shards; ++shard) start(shard);
}

void Host::start(std::uint32_t number) {
    Shard& shard = shards_[number];
    const StackConfig config = config_for(options_, flow_map_, number);
    const std::size_t bytes = Stack::tables_bytes(config);
    shard.memory = ZeroedBytes(bytes + kNoSharing);
    const auto address = reinterpret_cast<std::uintptr_t>(shard.memory.data());
    shard.tables = shard.memory.data() + (kNoSharing - address % kNoSharing) % kNoSharing;
    shard.stack = std::make_unique<Stack>(
        config, std::span(shard.tables, bytes),
        ArenaView{rx_arena_.data(), rx_arena_.size(), slot_bytes_}, *this, *shard.counters,
        Instant{});
    SessionConfig session;
    session.id = 42;
    session.tx_arena = {tx_arena_.data(), tx_arena_.size(), 0};
    session.max_connections = options_.connections;
    session.max_rx_slots = options_.max_rx_slots;
    session.counters = shard.session.get();
    if (options_.isolated) {
        session.private_rx_arena = {private_arena_.data(), private_arena_.size(), slot_bytes_};
        session.private_first_slot = kPrivateFirst + number * kPrivateSlots;
        session.private_slots = kPrivateSlots;
    }
    shard.stack->attach_session(kSession, session);
    shard.stack->attach_channel(kChannel, kSession);
    shard.room = shard.stack->submission_room(kChannel);
}

Host::~Host() = default;

IpAddress Host::v6() const {
    IpAddress::Bytes bytes{0xfd, 0x07};
    bytes[15] = options_.number;
    return IpAddress(bytes);
}

void Host::release(std::span<const shm::Slice> slots) {
    for (const shm::Slice& slice : slots) {
        const auto slot = static_cast<std::uint32_t>(slice.offset / slot_bytes_);
        CHECK(taken_.erase(slot) == 1);
        std::memset(rx_arena_.data() + std::size_t{slot} * slot_bytes_, 0xdd, slot_bytes_);
        free_.push_back(slot);
    }
}

// As the daemon's shards place frames (daemon/dataplane/shard_loop.cpp).
void Host::receive(std::span<const Frame> frames, Instant now, std::uint16_t flags) {
    for (const Frame& frame : frames) {
        const ip::Placement where = ip::place(frame);
        if (!where.every_shard) {
            take_in(frame, flow_map_[ip::flow_group(where.hash)], flags);
            continue;
        }
        for (std::uint32_t shard = 0; shard < options_.shards; ++shard)
            take_in(frame, shard, flags);
    }
    for (std::uint32_t shard = 0; shard < options_.shards; ++shard) give(shard, now);
}

void Host::take_in(const Frame& frame, std::uint32_t shard, std::uint16_t flags) {
    if (free_.empty() || frame.size() > slot_bytes_ - kHeadroom) return;
    const std::uint32_t slot = free_.back();
    free_.pop_back();
    taken_.insert(slot);
    const std::uint64_t at = std::uint64_t{slot} * slot_bytes_ + kHeadroom;
    std::copy(frame.begin(), frame.end(), rx_arena_.data() + at);
    RxFrame rx;
    rx.data = rx_arena_.data() + at;
    rx.slice = {at, static_cast<std::uint32_t>(frame.size()), shm::kRxArena, 0};
    rx.flags = flags;
    arrived_[shard].push_back(rx);
}

void Host::give(std::uint32_t shard, Instant now) {
    const std::vector<RxFrame> frames = std::exchange(arrived_[shard], {});
    for (std::size_t done = 0; done < frames.size(); done += kBurst)
        stack(shard).receive(
            std::span(frames).subspan(done, std::min(kBurst, frames.size() - done)), now);
    check_quota(shard);
}

void Host::check_quota(std::uint32_t shard) {
    const std::uint64_t held = session(shard).rx_slots_held.read();
    if (held > options_.max_rx_slots && fault_.empty())
        fault_ = "the session holds " + std::to_string(held) + " receive slots";
}

// A frame that the port was asked to cut becomes several, as a device with TSO makes them, or the
// driver of one without.
void Host::cut(const TxFrame& f, std::uint32_t shard, std::vector<Frame>& wire,
               std::vector<Frame>& local) {
    Segmenter segments(f);
    std::vector<std::byte> head(kHeadBytes);
    TxFrame segment;
    for (segment.lend(head.data(), kHeadBytes); segments.next(segment);) {
        for (std::size_t i = 0; i < segment.slice_count; ++i)
            stack(shard).hold(segment.slices[i].record);
        carry(segment, shard, wire, local);
    }
    for (std::size_t i = 0; i < f.slice_count; ++i) stack(shard).sent(f.slices[i].record);
}

void Host::carry(const TxFrame& f, std::uint32_t shard, std::vector<Frame>& wire,
                 std::vector<Frame>& local) {
    if ((f.flags & kTxSegment) != 0) return cut(f, shard, wire, local);
    const Frame payload = slices_of(f);
    Frame bytes(f.head, f.head + f.head_length);
    bytes.insert(bytes.end(), payload.begin(), payload.end());
    device_.push_back({shard, payload, f});
    if (f.port == kLocalPort) {
        local.push_back(std::move(bytes));
        return;
    }
    if (bytes.size() > f.l2_bytes + options_.mtu && fault_.empty())
        fault_ = "a frame larger than the MTU, which the device was not told to cut";
    finish(bytes, f);
    wire.push_back(std::move(bytes));
}

std::vector<Frame> Host::turn(Instant now) {
    std::vector<Frame> wire;
    for (std::uint32_t shard = 0; shard < options_.shards; ++shard) turn(shard, wire, now);
    spread_path_mtus(now);
    return wire;
}

/// As the daemon's control thread does (daemon/control/server.cpp).
void Host::spread_path_mtus(Instant now) {
    std::array<PathMtu, 8> news;
    for (std::uint32_t from = 0; from < options_.shards; ++from) {
        const std::size_t count = stack(from).take_path_mtus(news);
        for (std::uint32_t to = 0; to < options_.shards; ++to)
            for (std::size_t i = 0; i < count && to != from; ++i)
                stack(to).learn_path_mtu(news[i], now);
    }
}

void Host::turn(std::uint32_t shard, std::vector<Frame>& wire, Instant now) {
    stack(shard).advance(now);
    for (;;) {
        std::vector<Frame> local;
        const std::size_t count = stack(shard).transmit(frames_, now);
        for (std::size_t i = 0; i < count; ++i) {
            carry(frames_[i], shard, wire, local);
            frames_[i].lend(heads_[i].data(), kHeadBytes);
        }
        receive(local, now, kRxLocal | kRxIpChecksumGood | kRxL4ChecksumGood);
        // A device that has nothing else to do reports the last ones as well.
        const std::size_t keep = count > 0 ? options_.held_frames : device_.size() * 3 / 4;
        while (device_.size() > keep) device_done();
        if (count < kBurst && local.empty()) return;
    }
}

// The device has read the oldest frame's memory at last: it must be as it was.
void Host::device_done() {
    const Held held = std::move(device_.front());
    device_.pop_front();
    if (slices_of(held.frame) != held.bytes && fault_.empty())
        fault_ = "payload came back to the program while the device still had to send it";
    for (std::size_t i = 0; i < held.frame.slice_count; ++i)
        stack(held.shard).sent(held.frame.slices[i].record);
}

void Host::flush_device() {
    while (!device_.empty()) device_done();
}

Instant Host::next_deadline() const {
    Instant next = kNever;
    for (const Shard& shard : shards_) next = std::min(next, shard.stack->next_deadline());
    return next;
}

std::vector<shm::Completion> Host::take_completions(std::size_t most, std::uint32_t shard) {
    std::array<ChannelIndex, 4> ready;
    if (stack(shard).ready_channels(ready) == 0) return {};
    std::vector<shm::Completion> out(most);
    out.resize(stack(shard).complete(kChannel, out));
    return out;
}

std::uint64_t Host::count(shm::Counter counter) const {
    std::uint64_t sum = 0;
    for (const Shard& shard : shards_) sum += shard.counters->read(counter);
    return sum;
}

void Host::lose_client(Instant now) {
    client_lost_ = true;
    for (Shard& shard : shards_) shard.stack->detach_session(kSession, now);
}

std::string Host::leaks() {
    flush_device();
    std::string text;
    const auto none = [&text](const char* what, std::uint64_t count) {
        if (count != 0) text += std::to_string(count) + " " + what + "; ";
    };
    none("receive slots", slots_out());
    std::uint64_t in = 0;
    for (std::size_t i = 0; i < shm::kCounters.size(); ++i)
        if (shm::kCounters[i].name.starts_with("in."))
            in += count(static_cast<shm::Counter>(i));
    none("frames without a fate", count(shm::Counter::RxFrames) - in);
    for (std::uint32_t i = 0; i < options_.shards; ++i) {
        none("connections of the session", session(i).connections.read());
        none("slots charged to the session", session(i).rx_slots_held.read());
        none("live blocks", tables(i).connections_live);
        if (!client_lost_)
            none("send records", shards_[i].room - stack(i).submission_room(kChannel));
    }
    return text;
}

std::span<const std::byte> Host::bytes_of(const shm::Slice& slice) const {
    const auto& arena = slice.arena == shm::kPrivateRxArena ? private_arena_ : rx_arena_;
    CHECK(slice.offset + slice.length <= arena.size());
    return arena.bytes().subspan(slice.offset, slice.length);
}

shm::Submission Host::release_of(const shm::Slice& slice, std::uint32_t slot_bytes) {
    shm::Submission s;
    s.op = shm::SubmissionOp::Release;
    s.count = 1;
    s.release = {};
    s.release.arena = slice.arena;
    s.release.slots[0] = static_cast<std::uint32_t>(slice.offset / slot_bytes);
    return s;
}

const shm::ShardTables& Host::tables(std::uint32_t shard) const {
    return *reinterpret_cast<const shm::ShardTables*>(shards_[shard].tables);
}

const shm::ConnectionInfo& Host::block(std::uint32_t index, std::uint32_t shard) const {
    const shm::TableRef& table = tables(shard).connections;
    return *reinterpret_cast<const shm::ConnectionInfo*>(shards_[shard].tables + table.offset +
                                                         std::size_t{table.stride} * index);
}

static std::string describe(const shm::ConnectionInfo& c) {
    std::string text = to_string(c.state);
    const auto number = [&text](const char* name, std::uint64_t value) {
        text += std::string(" ") + name + "=" + std::to_string(value);
    };
    number("local", c.local_port);
    number("remote", c.remote_port);
    number("una", c.snd_una - c.iss);
    number("nxt", c.snd_nxt - c.iss);
    number("end", c.snd_end - c.iss);
    number("wnd", c.snd_wnd);
    number("rcv", c.rcv_nxt - c.irs);
    number("rcv_wnd", c.rcv_wnd);
    number("unread", c.unread_bytes);
    number("ooo", c.out_of_order_bytes);
    number("cwnd", c.cwnd_bytes);
    number("mss", c.mss);
    number("rto", c.rto_us);
    number("srtt", c.srtt_us);
    number("timeouts", c.timeouts);
    number("recovery", c.recovery);
    number("flags", c.flags);
    return text + "\n";
}

std::string Host::describe() const {
    std::string text;
    for (std::size_t i = 0; i < shm::kCounters.size(); ++i)
        if (const std::uint64_t n = count(static_cast<shm::Counter>(i)); n != 0)
            text += std::string(shm::kCounters[i].name) + " " + std::to_string(n) + ", ";
    text += std::to_string(taken_.size()) + " of " + std::to_string(options_.rx_slots) +
            " slots out, " + std::to_string(session().rx_slots_held.read()) + " of " +
            std::to_string(options_.max_rx_slots) + " charged\n";
    for (std::uint32_t shard = 0; shard < options_.shards; ++shard)
        for (std::uint32_t i = 0; i < tables(shard).connections_high; ++i)
            if (const shm::ConnectionInfo& c = block(i, shard); c.state != shm::TcpState::Free)
                text += sim::describe(c);
    return text;
}

}  // namespace chiru::sim
