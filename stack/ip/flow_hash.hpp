// SPDX-License-Identifier: Apache-2.0
//
// The receive hash: which flow group, and so which shard, a frame belongs to. It is Toeplitz, as
// network cards compute it for RSS, over (remote address, local address, remote port, local port)
// in the order of an incoming packet's source and destination. Ports we choose and frames we steer
// in software use the same function, so a device that hashes in hardware agrees with us.
#pragma once

#include "base/address.hpp"
#include "stack/config.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace chiru::ip {

inline constexpr std::size_t kFlowKeyBytes = 52;

/// The key in wide use since Microsoft published it with the definition of RSS; 40 bytes defined
/// there, followed by zeroes for devices with longer keys.
extern const std::array<std::uint8_t, kFlowKeyBytes> kFlowKey;

/// As an incoming packet of the flow is hashed: TCP over IPv4 or IPv6.
std::uint32_t flow_hash(const Endpoint& remote, const Endpoint& local);
/// Without ports: fragments, and everything that is not TCP or UDP.
std::uint32_t flow_hash(const IpAddress& remote, const IpAddress& local);

constexpr std::size_t flow_group(std::uint32_t hash) { return hash % kFlowGroups; }

/// Where a frame must be handled.
struct Placement {
    bool every_shard = false;  ///< ARP, ND, IGMP, UDP's path MTUs: each shard learns from it
    std::uint32_t hash = 0;    ///< else: flow_group(hash) decides
};

/// Classifies an Ethernet frame by looking at its headers; an ICMP error counts as the flow of
/// the packet it quotes. Safe on any bytes; what cannot be read hashes to 0. `vlan_stripped`: no
/// tag is in the frame.
Placement place(std::span<const std::byte> frame);

}  // namespace chiru::ip
