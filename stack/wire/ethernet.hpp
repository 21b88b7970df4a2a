// SPDX-License-Identifier: Apache-2.0
//
// Ethernet II frames with an optional 802.1Q tag.
#pragma once

#include "base/address.hpp"
#include "base/endian.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace chiru::wire {

enum class EtherType : std::uint16_t {
    Ipv4 = 0x0800,
    Arp = 0x0806,
    Vlan = 0x8100,
    Ipv6 = 0x86dd,
};

struct EthernetHeader {
    MacAddress destination;
    MacAddress source;
    be16 type;  ///< EtherType
};
static_assert(sizeof(EthernetHeader) == 14 && alignof(EthernetHeader) == 1);

/// Follows an EthernetHeader of type Vlan.
struct VlanTag {
    be16 tci;   ///< priority (3 bits), drop eligible (1), VLAN id (12)
    be16 type;  ///< EtherType of what follows
};
static_assert(sizeof(VlanTag) == 4 && alignof(VlanTag) == 1);

inline constexpr std::uint16_t kVlanIdMask = 0x0fff;

/// The first bytes of a frame, tag or not.
struct LinkHeader {
    MacAddress destination;
    MacAddress source;
    EtherType type{};
    std::uint16_t vlan = 0;  ///< VLAN id; 0: untagged, or tagged for priority only
    std::size_t bytes = 0;   ///< of the header, tag included
};

/// Nothing if the frame is too short. A second tag is left as the type of the payload.
inline std::optional<LinkHeader> parse_link(std::span<const std::byte> frame) {
    const auto ethernet = read_header<EthernetHeader>(frame);
    if (!ethernet) return std::nullopt;
    LinkHeader link{ethernet->destination, ethernet->source,
                    static_cast<EtherType>(std::uint16_t{ethernet->type}), 0,
                    sizeof(EthernetHeader)};
    if (link.type != EtherType::Vlan) return link;
    const auto tag = read_header<VlanTag>(frame.subspan(sizeof(EthernetHeader)));
    if (!tag) return std::nullopt;
    link.vlan = tag->tci & kVlanIdMask;
    link.type = static_cast<EtherType>(std::uint16_t{tag->type});
    link.bytes += sizeof(VlanTag);
    return link;
}

}  // namespace chiru::wire
