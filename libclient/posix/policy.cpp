// SPDX-License-Identifier: Apache-2.0
#include "libclient/posix/policy.hpp"

#include <algorithm>

namespace chiru::posix {

void Policy::refresh(const shm::Directory& directory) {
    const std::uint32_t now = directory.interfaces_changed.load(std::memory_order_acquire);
    if (known_ && now == seen_) return;
    std::vector<shm::InterfaceInfo> interfaces;
    for (const auto& published : directory.interfaces) interfaces.push_back(published.read());
    refresh(interfaces);
    seen_ = now;
}

void Policy::refresh(const std::vector<shm::InterfaceInfo>& interfaces) {
    forget();
    known_ = true;
    for (const shm::InterfaceInfo& interface : interfaces) {
        if (interface.in_use == 0) continue;
        const auto addresses =
            std::min<std::size_t>(interface.address_count, shm::kMaxAddresses);
        for (std::size_t i = 0; i < addresses; ++i) {
            const shm::AddressInfo& info = interface.addresses[i];
            if (info.state == shm::AddressState::Unused ||
                info.state == shm::AddressState::Duplicate)
                continue;
            own_.push_back(info.prefix.address);
            own_interface_.push_back(
                static_cast<std::uint16_t>(1 + (&interface - interfaces.data())));
            routed_.push_back(info.prefix);
        }
        const auto routes = std::min<std::size_t>(interface.route_count, shm::kMaxRoutes);
        for (std::size_t i = 0; i < routes; ++i) routed_.push_back(interface.routes[i].to);
    }
}

void Policy::forget() {
    known_ = false;
    own_.clear();
    own_interface_.clear();
    routed_.clear();
}

bool Policy::owns(const IpAddress& address) const {
    return std::find(own_.begin(), own_.end(), address) != own_.end();
}

std::uint16_t Policy::interface_of(const IpAddress& address) const {
    const auto found = std::find(own_.begin(), own_.end(), address);
    return found == own_.end() ? std::uint16_t{0}
                               : own_interface_[static_cast<std::size_t>(found - own_.begin())];
}

Stack Policy::for_bind(const IpAddress& address) const {
    if (!known_) return Stack::Kernel;
    if (address.is_unspecified()) return Stack::Both;
    if (address.is_loopback()) return loopback_ ? Stack::Chiru : Stack::Kernel;
    return owns(address) ? Stack::Chiru : Stack::Kernel;
}

Stack Policy::for_connect(const IpAddress& address) const {
    if (!known_) return Stack::Kernel;
    // Connecting to "any address" means to this host, so to its loopback.
    if (address.is_loopback() || address.is_unspecified())
        return loopback_ ? Stack::Chiru : Stack::Kernel;
    if (owns(address)) return Stack::Chiru;
    if (address.is_multicast() || address.is_broadcast() ||
        (address.is_v6() && address.is_link_local()))
        return Stack::Kernel;
    // The longest prefix wins within chiru, whose stack finds it; here only whether there is one.
    const bool routed = std::any_of(routed_.begin(), routed_.end(), [&](const IpPrefix& prefix) {
        return prefix.contains(address);
    });
    return routed ? Stack::Chiru : Stack::Kernel;
}

}  // namespace chiru::posix
