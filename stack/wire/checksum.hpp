// SPDX-License-Identifier: Apache-2.0
//
// The Internet checksum (RFC 1071) and its update in place (RFC 1624).
//
// A sum is taken over 16-bit words in the machine's own byte order, many at once, and turned to
// network order only when it is read: one's complement addition does not mind (RFC 1071 §2(B)).
#pragma once

#include "base/address.hpp"
#include "base/endian.hpp"

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

namespace chiru::wire {

/// Adds up one packet, whose bytes may lie in several pieces.
class ChecksumSum {
public:
    /// The next bytes of the packet. Pieces of odd length may be followed by more.
    void add(std::span<const std::byte> bytes);
    /// The next two bytes of the packet, as a number. Only at an even offset.
    void add16(std::uint16_t value) { sum_ += std::bit_cast<std::uint16_t>(be16(value)); }
    void add32(std::uint32_t value) {
        add16(static_cast<std::uint16_t>(value >> 16));
        add16(static_cast<std::uint16_t>(value));
    }

    /// An address as a pseudo header has it. Of a mapped one the prefix is added as well: that is
    /// 0xffff, which is nothing.
    void add(const IpAddress& address) {
        for (const std::uint64_t word : std::bit_cast<std::array<std::uint64_t, 2>>(address))
            sum_ += (word & 0xffff'ffff) + (word >> 32);
    }

    /// The sum itself, as hardware wants to find the pseudo header's in the checksum field.
    std::uint16_t sum() const;
    /// What belongs into the checksum field. 0 over a packet whose checksum is right.
    std::uint16_t checksum() const { return static_cast<std::uint16_t>(~sum()); }

private:
    std::uint64_t sum_ = 0;  ///< of words in the machine's order, carries not yet folded in
    bool odd_ = false;       ///< an odd number of bytes was added
};

/// The sum over TCP's, UDP's and ICMPv6's pseudo header (RFC 9293 §3.1, RFC 8200 §8.1).
/// Both addresses are of one family.
inline ChecksumSum pseudo_header(const IpAddress& source, const IpAddress& destination,
                                 std::uint8_t protocol, std::size_t l4_bytes) {
    ChecksumSum sum;
    sum.add(source);
    sum.add(destination);
    sum.add32(static_cast<std::uint32_t>(l4_bytes));
    sum.add16(protocol);
    return sum;
}

/// The checksum of `bytes` alone.
inline std::uint16_t checksum(std::span<const std::byte> bytes) {
    ChecksumSum sum;
    sum.add(bytes);
    return sum.checksum();
}

/// A checksum after one 16-bit word under it changed (RFC 1624 §3, equation 3).
constexpr std::uint16_t checksum_update(std::uint16_t checksum, std::uint16_t before,
                                        std::uint16_t after) {
    std::uint32_t sum = static_cast<std::uint16_t>(~checksum);
    sum += static_cast<std::uint16_t>(~before);
    sum += after;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(~sum);
}

}  // namespace chiru::wire
