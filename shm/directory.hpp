// SPDX-License-Identifier: Apache-2.0
//
// The daemon's public page: what runs, and every counter. Every client and observer maps it
// read-only; the daemon alone writes it, each part by one thread.
//
//   Directory (fixed tables) with, inside: shards | ports | interfaces | sessions | channels |
//   the names of the counters, so that a reader needs no matching version
//
// Records that appear and vanish are Published: a version, odd while the writer changes them, lets
// Published::read() copy one out whole.
#pragma once

#include "base/address.hpp"
#include "base/cache.hpp"
#include "shm/channel.hpp"
#include "shm/counters.hpp"
#include "shm/doorbell.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <thread>
#include <type_traits>

namespace chiru::shm {

inline constexpr std::uint32_t kDirectoryMagic = 0x4348'5244;  // "CHRD"
inline constexpr std::uint32_t kDirectoryVersion = 2;

inline constexpr std::size_t kMaxPorts = 16;
inline constexpr std::size_t kMaxInterfaces = 32;
inline constexpr std::size_t kMaxAddresses = 16;  ///< of one interface
inline constexpr std::size_t kMaxRoutes = 64;     ///< of one interface
inline constexpr std::size_t kMaxSessions = 1024;
inline constexpr std::size_t kMaxChannels = 2048;

/// Text in a fixed field, cut to fit, always terminated.
template <std::size_t kBytes>
struct FixedText {
    std::array<char, kBytes> chars{};

    void set(std::string_view text) {
        const std::size_t length = text.size() < kBytes - 1 ? text.size() : kBytes - 1;
        chars.fill('\0');
        std::memcpy(chars.data(), text.data(), length);
    }
    std::string_view view() const { return {chars.data(), strnlen(chars.data(), kBytes)}; }
};

/// A record with one writer and concurrent readers. It is kept in words that are stored (release)
/// and loaded (acquire) one by one, which costs nothing on x86 and leaves no data race:
///
///   CHANGING  publish() makes the version odd, then stores words
///             read() loads words; if one of them was new, it sees the odd version or a later one
///   CHANGED   publish() stores words, then makes the version even
///             read() loads the even version, then words at least that new
template <class T>
    requires std::is_trivially_copyable_v<T>
class Published {
public:
    Published() { store(T{}); }

    void publish(const T& value) {
        const std::uint32_t before = version_.load(std::memory_order_relaxed);  // ours
        version_.store(before + 1, std::memory_order_relaxed);  // ordered by the words' CHANGING
        store(value);
        version_.store(before + 2, std::memory_order_release);  // CHANGED
    }
    /// A copy that was whole at some moment. Waits out a writer that lost its CPU in the middle,
    /// a tenth of a second at most: one that died there leaves a mixture, which is returned. Not
    /// for a shard's thread.
    T read() const {
        std::array<std::uint64_t, kWords> copy;
        for (int tries = 0; tries < 1000; ++tries) {
            const std::uint32_t before = version_.load(std::memory_order_acquire);  // CHANGED
            for (std::size_t i = 0; i < kWords; ++i)
                copy[i] = words_[i].load(std::memory_order_acquire);  // CHANGING
            if ((before & 1) == 0 && version_.load(std::memory_order_relaxed) == before) break;
            if (tries > 100) std::this_thread::sleep_for(std::chrono::microseconds(100));
        }
        T value;
        std::memcpy(static_cast<void*>(&value), copy.data(), sizeof value);
        return value;
    }

private:
    static constexpr std::size_t kWords = (sizeof(T) + 7) / 8;

    void store(const T& value) {
        std::array<std::uint64_t, kWords> copy{};
        std::memcpy(copy.data(), &value, sizeof value);
        for (std::size_t i = 0; i < kWords; ++i)
            words_[i].store(copy[i], std::memory_order_release);  // CHANGING
    }

    std::atomic<std::uint32_t> version_{0};
    std::array<std::atomic<std::uint64_t>, kWords> words_;
};

/// Written by the shard.
struct ShardPage {
    DoorbellWord doorbell;  ///< armed while the shard sleeps
    alignas(kNoSharing) std::atomic<std::int64_t> alive_us{0};  ///< CLOCK_MONOTONIC, each turn
    std::atomic<std::uint32_t> core{0};
    std::atomic<std::uint32_t> thread{0};  ///< Linux thread id
    CounterBlock counters;
};

/// Offloads that were negotiated, not those a device would like to have.
enum PortOffload : std::uint32_t {
    kOffloadRxIpChecksum = 1,
    kOffloadRxL4Checksum = 2,
    kOffloadTxIpChecksum = 4,
    kOffloadTxL4Checksum = 8,
    kOffloadTxScatter = 16,
    kOffloadTso = 32,
    kOffloadVlanStrip = 64,
    kOffloadVlanInsert = 128,
    kOffloadRss = 256,
    kOffloadRxInterrupt = 512,
    kOffloadLro = 1024,  ///< frames may come coalesced
};

struct PortInfo {
    std::uint8_t in_use = 0;
    std::uint8_t link_up = 0;
    std::uint16_t mtu = 0;
    MacAddress mac;
    std::uint16_t rx_queues = 0;
    std::uint16_t tx_queues = 0;
    std::uint32_t offloads = 0;  ///< PortOffload bits in use
    std::uint32_t speed_mbps = 0;
    std::uint64_t rx_frames = 0;
    std::uint64_t rx_bytes = 0;
    std::uint64_t tx_frames = 0;
    std::uint64_t tx_bytes = 0;
    std::uint64_t rx_missed = 0;   ///< the device had no buffer to put a frame in
    std::uint64_t rx_errors = 0;
    std::uint64_t tx_errors = 0;
    std::uint64_t rx_no_buffer = 0;
    FixedText<32> name;
    FixedText<32> driver;
    FixedText<128> device;  ///< as configured
};

enum class AddressState : std::uint8_t { Unused = 0, Tentative, Preferred, Deprecated, Duplicate };
enum class Origin : std::uint8_t { Config = 0, LinkLocal, RouterAdvertisement, Connected };

struct AddressInfo {
    IpPrefix prefix;
    AddressState state{};
    Origin origin{};
};

struct RouteInfo {
    IpPrefix to;
    IpAddress via;  ///< unspecified: on the link
    Origin origin{};
};

struct InterfaceInfo {
    std::uint8_t in_use = 0;
    std::uint8_t reserved = 0;
    std::uint16_t port = 0;
    std::uint16_t vlan = 0;  ///< 0: untagged
    std::uint16_t mtu = 0;
    std::uint16_t address_count = 0;
    std::uint16_t route_count = 0;
    FixedText<32> name;
    std::array<AddressInfo, kMaxAddresses> addresses{};
    std::array<RouteInfo, kMaxRoutes> routes{};
};

enum class Isolation : std::uint8_t { Shared = 0, Private };

struct SessionInfo {
    std::uint32_t id = 0;  ///< 0: the record is free
    std::int32_t pid = 0;
    std::uint32_t uid = 0;
    std::uint32_t gid = 0;
    std::uint8_t observer = 0;
    Isolation isolation{};
    std::uint16_t channels = 0;
    std::uint32_t listeners = 0;
    std::uint64_t tx_arena_bytes = 0;
    std::uint32_t max_connections = 0;
    std::uint32_t reserved = 0;
    std::int64_t attached_us = 0;  ///< CLOCK_MONOTONIC
    FixedText<32> program;
};

/// One for each session on each shard; written by the shard.
struct SessionCounters {
    SingleWriterCounter connections;     ///< live now
    SingleWriterCounter rx_bytes;
    SingleWriterCounter tx_bytes;
    SingleWriterCounter rx_slots_held;   ///< receive buffers the client has not released, now
    SingleWriterCounter opened;
    SingleWriterCounter closed;
    SingleWriterCounter refused;         ///< requests beyond a quota
    SingleWriterCounter datagram_slots_held;  ///< receive buffers of datagrams, the same way
};
static_assert(sizeof(SessionCounters) == 64);

struct ChannelInfo {
    std::uint32_t session = 0;  ///< 0: the record is free
    std::uint32_t reserved = 0;
};

struct CounterName {
    FixedText<40> name;
    FixedText<104> help;
    Unit unit{};
};

struct Directory {
    alignas(kNoSharing) std::atomic<std::uint32_t> magic{0};  ///< stored last (release)
    std::uint32_t version = 0;
    std::uint64_t bytes = 0;
    std::int32_t daemon_pid = 0;
    std::uint32_t shard_count = 0;
    std::int64_t started_us = 0;       ///< CLOCK_MONOTONIC
    std::int64_t started_unix_s = 0;   ///< CLOCK_REALTIME
    std::uint32_t counter_count = 0;
    std::uint32_t rx_slot_bytes = 0;
    std::uint64_t rx_arena_bytes = 0;
    std::atomic<std::uint32_t> stopping{0};
    std::atomic<std::uint32_t> interfaces_changed{0};  ///< counts changes of addresses and routes
    FixedText<32> release;             ///< "0.1.0"
    FixedText<128> config_file;

    std::array<CounterName, kMaxCounters> counter_names;
    std::array<ShardPage, kMaxShards> shards;
    std::array<Published<PortInfo>, kMaxPorts> ports;
    std::array<Published<InterfaceInfo>, kMaxInterfaces> interfaces;
    std::array<Published<SessionInfo>, kMaxSessions> sessions;
    std::array<Published<ChannelInfo>, kMaxChannels> channels;
    /// [shard][slot of the session in `sessions`]
    std::array<std::array<SessionCounters, kMaxSessions>, kMaxShards> session_counters;
};
static_assert(std::is_standard_layout_v<Directory>);

}  // namespace chiru::shm
