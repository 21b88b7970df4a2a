// SPDX-License-Identifier: Apache-2.0
//
// Puts fragments together again, IPv4 (RFC 791 §3.2, RFC 815) and IPv6 (RFC 8200 §4.5), without
// copying: a datagram is a chain of pieces, sorted by offset, that hold the fragments' slots.
//
// An overlap condemns the whole datagram (RFC 5722; for IPv4 as well, no honest sender makes one),
// and its further fragments until it would have expired. A fragment that came twice is harmless.
//
// Bounds: kDatagrams at once, kDatagramPieces each, half of the piece pool for all, and a quarter
// of either for one peer. Beyond them the peer's own oldest datagram gives way, then anybody's.
#pragma once

#include "base/address.hpp"
#include "base/siphash.hpp"
#include "base/time.hpp"
#include "stack/ip/slots.hpp"
#include "stack/table_carver.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace chiru::ip {

inline constexpr std::size_t kDatagrams = 256;
inline constexpr std::uint32_t kDatagramPieces = 128;
inline constexpr std::size_t kMaxDatagramBytes = 65'535;
inline constexpr Micros kReassemblyTimeV4 = std::chrono::seconds(30);
inline constexpr Micros kReassemblyTimeV6 = std::chrono::seconds(60);  // RFC 8200 §4.5
inline constexpr std::uint32_t kNoDatagram = ~0u;

struct FragmentKey {
    IpAddress source;
    IpAddress destination;
    std::uint32_t id = 0;
    std::uint8_t protocol = 0;  ///< IPv4 only: part of the key there

    friend bool operator==(const FragmentKey&, const FragmentKey&) = default;
};

struct Fragment {
    FragmentKey key;
    std::uint8_t protocol = 0;  ///< of the datagram; the first fragment's counts
    std::uint8_t tos = 0;
    std::uint8_t hop_limit = 0;
    std::uint16_t interface = 0;
    std::size_t offset = 0;
    bool more = false;
    bool to_group = false;
    std::span<const std::byte> payload;
    std::span<const std::byte> packet;  ///< from the IP header on
};

struct Datagram {
    FragmentKey key;
    std::int64_t deadline_us = 0;
    std::uint64_t quote_offset = 0;  ///< of the first fragment's IP header, in the arena
    std::uint32_t quote_bytes = 0;   ///< of that packet; 0: it has not come yet
    std::uint32_t first_piece = kNoPiece;
    std::uint32_t piece_count = 0;
    std::uint32_t received_bytes = 0;
    std::uint32_t total_bytes = 0;   ///< 0: the last fragment has not come yet
    std::uint32_t highest_end = 0;
    std::uint32_t hash_next = kNoDatagram;
    std::uint32_t age_previous = kNoDatagram;
    std::uint32_t age_next = kNoDatagram;
    std::uint16_t interface = 0;
    std::uint8_t protocol = 0;
    std::uint8_t tos = 0;
    std::uint8_t condemned = 0;
    std::uint8_t to_group = 0;
    std::uint8_t hop_limit = 0;      ///< of the first fragment
};

class Reassembly {
public:
    Reassembly(TableCarver& carver, Pieces& pieces, const SipKey& key);
    static void measure(TableCarver& carver);

    enum class Verdict : std::uint8_t {
        Held,       ///< the slot is kept
        Duplicate,  ///< the same bytes were there; the slot stays the caller's
        Dropped,    ///< an overlap, or beyond a bound; the slot stays the caller's
        Malformed,  ///< no sender makes this; the slot stays the caller's
        Complete,   ///< the slot is kept, and `datagram` is whole: take() it
    };
    struct Outcome {
        Verdict verdict{};
        std::uint32_t datagram = kNoDatagram;
    };
    Outcome add(const Fragment& fragment, const RxFrame& frame, Instant now);

    const Datagram& operator[](std::uint32_t index) const { return table_[index]; }
    /// Ends the record; its chain of pieces is the caller's from now on.
    std::uint32_t take(std::uint32_t index);
    /// A datagram whose time is up, or kNoDatagram. Ends with drop() or take().
    std::uint32_t expired(Instant now) const;
    void drop(std::uint32_t index);
    Instant next_deadline() const;

private:
    struct List {
        std::uint32_t first = kNoDatagram;
        std::uint32_t last = kNoDatagram;
    };
    static std::size_t family(const FragmentKey& key) { return key.source.is_v4() ? 0 : 1; }

    std::uint32_t& bucket_of(const FragmentKey& key);
    std::uint32_t find(const FragmentKey& key);
    std::uint32_t create(const Fragment& fragment, Instant now);
    bool make_room(const IpAddress& peer, std::uint32_t keep);
    void remove(std::uint32_t index);
    Verdict insert(Datagram& datagram, const Fragment& fragment, const RxFrame& frame);
    void condemn(Datagram& datagram);

    std::span<Datagram> table_;
    std::span<std::uint32_t> buckets_;
    Pieces& pieces_;
    SipKey key_;
    std::array<List, 2> ages_;  ///< IPv4 and IPv6, oldest first
    std::uint32_t free_ = kNoDatagram;
    std::size_t piece_count_ = 0;  ///< of all datagrams
};

}  // namespace chiru::ip
