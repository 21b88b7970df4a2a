// SPDX-License-Identifier: Apache-2.0
//
// UDP on the wire (RFC 768, RFC 8200 §8.1).
#pragma once

#include "base/endian.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace chiru::wire {

struct UdpHeader {
    be16 source_port{};
    be16 destination_port{};
    be16 length{};    ///< header included
    be16 checksum{};  ///< 0: not computed, which only IPv4 allows
};
static_assert(sizeof(UdpHeader) == 8 && alignof(UdpHeader) == 1);

/// Nothing if it is cut off or its length says more than is there.
inline std::optional<UdpHeader> parse_udp(std::span<const std::byte> segment) {
    const auto header = read_header<UdpHeader>(segment);
    if (!header || header->length < sizeof(UdpHeader) || header->length > segment.size())
        return std::nullopt;
    return header;
}

}  // namespace chiru::wire
