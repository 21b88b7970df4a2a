// SPDX-License-Identifier: Apache-2.0
//
// ARP for IPv4 over Ethernet (RFC 826); other combinations are not spoken here.
#pragma once

#include "base/address.hpp"
#include "base/endian.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace chiru::wire {

enum class ArpOperation : std::uint16_t { Request = 1, Reply = 2 };

struct ArpPacket {
    be16 hardware_type;  ///< 1: Ethernet
    be16 protocol_type;  ///< EtherType::Ipv4
    std::uint8_t hardware_bytes;
    std::uint8_t protocol_bytes;
    be16 operation;  ///< ArpOperation
    MacAddress sender_mac;
    be32 sender_ip;
    MacAddress target_mac;
    be32 target_ip;
};
static_assert(sizeof(ArpPacket) == 28 && alignof(ArpPacket) == 1);

inline ArpPacket arp_packet(ArpOperation operation, const MacAddress& sender_mac,
                            const IpAddress& sender_ip, const MacAddress& target_mac,
                            const IpAddress& target_ip) {
    return {.hardware_type = std::uint16_t{1},
            .protocol_type = std::uint16_t{0x0800},
            .hardware_bytes = 6,
            .protocol_bytes = 4,
            .operation = static_cast<std::uint16_t>(operation),
            .sender_mac = sender_mac,
            .sender_ip = sender_ip.v4_bits(),
            .target_mac = target_mac,
            .target_ip = target_ip.v4_bits()};
}

/// Nothing if it is too short or speaks of anything but IPv4 over Ethernet.
inline std::optional<ArpPacket> parse_arp(std::span<const std::byte> payload) {
    const auto arp = read_header<ArpPacket>(payload);
    if (!arp || arp->hardware_type != 1 || arp->protocol_type != 0x0800 ||
        arp->hardware_bytes != 6 || arp->protocol_bytes != 4)
        return std::nullopt;
    return arp;
}

}  // namespace chiru::wire
