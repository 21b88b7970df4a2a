// SPDX-License-Identifier: Apache-2.0
//
// Frames as they pass between the stack and whoever drives it (a shard, a client's thread, the
// simulator). Only the driver knows mbufs or sockets; here a frame is addresses and lengths.
//
// Incoming: one contiguous buffer, a slot of an RX arena. The stack keeps the slot while payload
// in it is unread, and gives it back through BufferPool::release().
//
// Outgoing: the driver lends head memory; the stack writes headers, and short payload, into it and
// names longer payload by slices that stay where they are. The driver reports each slice to
// Stack::sent() when the device is done with it: only then can its memory go back to the client.
#pragma once

#include "base/time.hpp"
#include "shm/descriptor.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace chiru {

using PortIndex = std::uint16_t;

/// Where frames go whose destination is one of our own addresses: the driver copies them into a
/// fresh RX slot and gives them to the shard that owns their flow.
inline constexpr PortIndex kLocalPort = 0xffff;

enum RxFlag : std::uint16_t {
    kRxIpChecksumGood = 1,   ///< verified by the device, or the frame never left the daemon
    kRxL4ChecksumGood = 2,
    kRxIpChecksumBad = 4,
    kRxL4ChecksumBad = 8,
    kRxVlanStripped = 16,    ///< the tag is in `vlan_tci`, not in the frame
    kRxLocal = 32,           ///< from kLocalPort
};

struct RxFrame {
    const std::byte* data = nullptr;  ///< the Ethernet header, in this process's mapping
    shm::Slice slice;                 ///< the same bytes by name; `length` is the frame's
    PortIndex port = 0;
    std::uint16_t flags = 0;          ///< RxFlag bits
    std::uint16_t vlan_tci = 0;
};

/// One entry of the stack's send queues; the driver only carries it.
enum class SendRecord : std::uint32_t {};

struct TxSlice {
    const std::byte* data = nullptr;
    shm::Slice slice;  ///< the same bytes by name
    SendRecord record{};
};

inline constexpr std::size_t kMaxTxSlices = 8;
/// The most segments that a port is asked to cut a frame into.
inline constexpr std::size_t kMaxTxSegments = 64;
/// Room for every header, and for payload short enough to be copied behind it.
inline constexpr std::size_t kMinHeadBytes = 2048;

enum TxFlag : std::uint16_t {
    kTxIpChecksum = 1,   ///< the device fills in the IPv4 header checksum
    kTxL4Checksum = 2,   ///< the device completes the TCP checksum over the pseudo header's sum
    kTxSegment = 4,      ///< the device cuts the payload into pieces of `segment_bytes`
    kTxIpv6 = 8,
    kTxVlanInsert = 16,  ///< the device inserts `vlan_tci`
};

struct TxFrame {
    // lent by the driver
    std::byte* head = nullptr;
    std::uint16_t head_capacity = 0;  ///< at least kMinHeadBytes, and the port's MTU and 18 more

    // filled in by the stack
    std::uint16_t head_length = 0;
    PortIndex port = 0;
    std::uint16_t flags = 0;  ///< TxFlag bits
    std::uint16_t vlan_tci = 0;
    std::uint16_t segment_bytes = 0;
    std::uint8_t l2_bytes = 0;
    std::uint8_t l3_bytes = 0;
    std::uint8_t l4_bytes = 0;
    std::uint8_t slice_count = 0;
    std::array<TxSlice, kMaxTxSlices> slices;

    /// Lent anew. Slices beyond slice_count mean nothing, and stay as they are: a kilobyte for
    /// every three frames would be a shard's greatest expense.
    void lend(std::byte* memory, std::uint16_t capacity) {
        head = memory;
        head_capacity = capacity;
        head_length = port = flags = vlan_tci = segment_bytes = 0;
        l2_bytes = l3_bytes = l4_bytes = slice_count = 0;
    }

    std::size_t length() const {
        std::size_t bytes = head_length;
        for (std::size_t i = 0; i < slice_count; ++i) bytes += slices[i].slice.length;
        return bytes;
    }
};

/// The receive slots, as the stack gives them back. The stack never asks it for memory to
/// receive into: frames come with theirs.
class BufferPool {
public:
    virtual ~BufferPool() = default;
    /// These slots of kRxArena hold nothing the stack or a client still needs. Slices name any
    /// byte within their slot.
    virtual void release(std::span<const shm::Slice> slots) = 0;
};

/// A mapped arena.
struct ArenaView {
    std::byte* base = nullptr;
    std::uint64_t bytes = 0;
    std::uint32_t slot_bytes = 0;  ///< stride of its slots; 0 for a TX arena, which has none

    /// Are all bytes of `slice` inside? Safe against any values in it.
    bool holds(const shm::Slice& slice) const {
        return slice.length <= bytes && slice.offset <= bytes - slice.length;
    }
};

}  // namespace chiru
