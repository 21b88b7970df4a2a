// SPDX-License-Identifier: Apache-2.0
//
// Where packets go: longest prefix first, over all interfaces, IPv4 and IPv6 alike; and which
// address of ours they come from (RFC 6724 §5, as far as a host with few addresses needs it).
//
// The table is sorted by prefix length, so the first match is the longest. It is searched once for
// each connection, not for each packet, and a host has few routes.
#pragma once

#include "base/address.hpp"
#include "stack/ip/interface.hpp"
#include "stack/lower.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace chiru::ip {


struct RouteEntry {
    IpPrefix to;
    IpAddress via;  ///< unspecified: on the link
    std::uint16_t interface = 0;
    bool learnt = false;  ///< from a router: behind what was configured, whatever the interface
};

struct NextHop {
    IpAddress address;
    std::uint16_t interface = 0;
};

class RouteTable {
public:
    RouteTable(const StackConfig& config, TableCarver& carver);
    static void measure(const StackConfig& config, TableCarver& carver);

    /// Takes over what the interfaces have now.
    void rebuild(const InterfaceTable& interfaces);

    /// `interface`: consider only this one's routes, or kAnyInterface.
    std::optional<NextHop> lookup(const IpAddress& remote, std::uint16_t interface) const;

private:
    std::span<RouteEntry> table_;
    std::size_t count_ = 0;
};

/// The address to send from to `remote` over `hop`: of the same scope, not deprecated, with the
/// longest common prefix; of any interface if this one has none. Nothing if we have none at all.
std::optional<IpAddress> select_source(const InterfaceTable& interfaces, const IpAddress& remote,
                                       const NextHop& hop);

}  // namespace chiru::ip
