// SPDX-License-Identifier: Apache-2.0
#include "stack/ip/route.hpp"

#include <algorithm>
#include <bit>
#include <tuple>

namespace chiru::ip {
namespace {

/// Leading bits that are equal, counted within the mapped form: comparable within a family.
int common_prefix(const IpAddress& a, const IpAddress& b) {
    for (std::size_t i = 0; i < 16; ++i) {
        const auto differs = static_cast<std::uint8_t>(a.bytes()[i] ^ b.bytes()[i]);
        if (differs != 0) return static_cast<int>(8 * i) + std::countl_zero(differs);
    }
    return 128;
}

}  // namespace

void RouteTable::measure(const StackConfig& config, TableCarver& carver) {
    carver.take<RouteEntry>(config.interfaces.size() * shm::kMaxRoutes);
}

RouteTable::RouteTable(const StackConfig& config, TableCarver& carver)
    : table_(carver.take<RouteEntry>(config.interfaces.size() * shm::kMaxRoutes)) {}

void RouteTable::rebuild(const InterfaceTable& interfaces) {
    count_ = 0;
    for (std::uint16_t i = 0; i < interfaces.size(); ++i) {
        for (const shm::RouteInfo& route : interfaces[i].routes()) {
            const bool learnt = route.origin == shm::Origin::RouterAdvertisement;
            // Each goes behind those that are as long; std::stable_sort would allocate.
            const auto end = table_.begin() + static_cast<std::ptrdiff_t>(count_++);
            const auto at = std::find_if(table_.begin(), end, [&](const RouteEntry& other) {
                return other.to.length < route.to.length ||
                       (other.to.length == route.to.length && other.learnt && !learnt);
            });
            std::move_backward(at, end, end + 1);
            *at = {route.to, route.via, i, learnt};
        }
    }
}

std::optional<NextHop> RouteTable::lookup(const IpAddress& remote, std::uint16_t interface) const {
    for (const RouteEntry& route : table_.first(count_)) {
        if (interface != kAnyInterface && route.interface != interface) continue;
        if (route.to.contains(remote))
            return NextHop{route.via.is_unspecified() ? remote : route.via, route.interface};
    }
    return std::nullopt;
}

std::optional<IpAddress> select_source(const InterfaceTable& interfaces, const IpAddress& remote,
                                       const NextHop& hop) {
    std::optional<IpAddress> best;
    std::tuple<bool, bool, bool, int> best_rank;
    for (std::uint16_t i = 0; i < interfaces.size(); ++i) {
        if (interfaces[i].is_loopback()) continue;
        for (const shm::AddressInfo& ours : interfaces[i].addresses()) {
            const IpAddress& address = ours.prefix.address;
            const bool preferred = ours.state == shm::AddressState::Preferred;
            if (!preferred && ours.state != shm::AddressState::Deprecated) continue;
            if (address.is_v4() != remote.is_v4()) continue;
            const bool here = i == hop.interface;
            if (address.is_v6() && address.is_link_local() && !here) continue;
            // For IPv4 the next hop's network decides: that is where the answer comes from.
            const IpAddress& near = remote.is_v4() ? hop.address : remote;
            const std::tuple rank{address.is_link_local() == remote.is_link_local(), preferred,
                                  here, common_prefix(address, near)};
            if (best && rank <= best_rank) continue;
            best = address;
            best_rank = rank;
        }
    }
    return best;
}

}  // namespace chiru::ip
