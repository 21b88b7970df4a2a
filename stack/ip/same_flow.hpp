// SPDX-License-Identifier: Apache-2.0
//
// Segments of one TCP flow come in rows. What the first one's headers were found to be (from a
// neighbour that may say so, for an address of ours) holds for those that follow it in a burst, if
// all of their headers but lengths, numbers and checksums are the same bytes. Compared here;
// lengths and checksums are still each segment's own.
#pragma once

#include <cstddef>
#include <cstring>

namespace chiru::ip {

template <std::size_t kBytes>
bool same_bytes(const std::byte* a, const std::byte* b) {
    return std::memcmp(a, b, kBytes) == 0;  // of a known length: no call
}

/// IPv4 headers without options, and the ports behind them: all but TOS, length, id and checksum.
inline bool same_flow_v4(const std::byte* a, const std::byte* b) {
    return same_bytes<1>(a, b) &&              // version and header length
           same_bytes<4>(a + 6, b + 6) &&      // fragment, TTL, protocol
           same_bytes<12>(a + 12, b + 12);     // addresses, ports
}

/// IPv6 headers without extensions, and the ports: all but class, flow label, length, hop limit.
inline bool same_flow_v6(const std::byte* a, const std::byte* b) {
    return ((a[0] ^ b[0]) & std::byte{0xf0}) == std::byte{0} &&  // version
           same_bytes<1>(a + 6, b + 6) &&                        // next header
           same_bytes<36>(a + 8, b + 8);                         // addresses, ports
}

}  // namespace chiru::ip
