// SPDX-License-Identifier: Apache-2.0
#include "stack/ip/interface.hpp"

#include "stack/wire/icmpv6.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace chiru::ip {
namespace {

constexpr IpAddress kLoopbackV6(IpAddress::Bytes{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1});
constexpr IpAddress kLinkLocalNetwork(IpAddress::Bytes{0xfe, 0x80});

/// Not keyed: only our own addresses are in the table, so nobody can crowd it.
std::size_t place_of(const IpAddress& address) {
    std::uint64_t words[2];
    std::memcpy(words, address.bytes().data(), sizeof words);
    const std::uint64_t mixed = (words[0] ^ std::rotl(words[1], 29)) * 0x9e37'79b9'7f4a'7c15;
    return static_cast<std::size_t>(mixed >> 40) % kLocalTable;
}

std::uint16_t local_mtu(const StackConfig& config) {
    std::uint16_t mtu = 1500;
    for (const PortConfig& port : config.ports) mtu = std::min(mtu, port.mtu);
    return mtu;
}

}  // namespace

IpPrefix network_of(const IpPrefix& prefix) {
    IpAddress::Bytes bytes = prefix.address.bytes();
    const std::size_t first = prefix.address.is_v4() ? 96u + prefix.length : prefix.length;
    for (std::size_t bit = first; bit < 128; ++bit)
        bytes[bit / 8] = static_cast<std::uint8_t>(bytes[bit / 8] & ~(0x80u >> bit % 8));
    return {IpAddress(bytes), prefix.length};
}

IpAddress modified_eui64(const IpAddress& network, const MacAddress& mac) {
    IpAddress::Bytes b = network.bytes();
    const std::array<std::uint8_t, 8> id{static_cast<std::uint8_t>(mac.bytes[0] ^ 2),
                                         mac.bytes[1], mac.bytes[2], 0xff, 0xfe,
                                         mac.bytes[3], mac.bytes[4], mac.bytes[5]};
    std::copy(id.begin(), id.end(), b.begin() + 8);
    return IpAddress(b);
}

void InterfaceTable::measure(const StackConfig& config, TableCarver& carver) {
    carver.take<Interface>(config.interfaces.size() + 1);
    carver.take<LocalAddress>(kLocalTable);
}

InterfaceTable::InterfaceTable(const StackConfig& config, TableCarver& carver, Instant now)
    : table_(carver.take<Interface>(config.interfaces.size() + 1)),
      local_(carver.take<LocalAddress>(kLocalTable)) {
    using shm::AddressState, shm::Origin;
    for (std::uint16_t i = 0; i < config.interfaces.size(); ++i) {
        const InterfaceConfig& from = config.interfaces[i];
        const PortConfig& port = config.ports.at(from.port);
        Interface& to = table_[i];
        to.info.in_use = 1;
        to.info.port = from.port;
        to.info.vlan = from.vlan;
        to.info.mtu = port.mtu;
        to.port_mtu = port.mtu;
        to.info.name.set(from.name);
        to.mac = port.mac;
        to.offloads = port.offloads;
        to.tso_bytes = port.tso_bytes;
        to.solicitations_left = kRouterSolicitations;

        const AddressTimer detect{.due_us = to_us(now), .left = kDadProbes};
        add_address(i, {{modified_eui64(kLinkLocalNetwork, to.mac), 64}, AddressState::Tentative,
                        Origin::LinkLocal}, detect);
        for (const IpPrefix& prefix : from.addresses) {
            if (prefix.address.is_v6())
                add_address(i, {prefix, AddressState::Tentative, Origin::Config}, detect);
            else
                add_address(i, {prefix, AddressState::Preferred, Origin::Config},
                            {.due_us = to_us(now), .left = kArpAnnouncements});
        }
        for (const RouteConfig& route : from.routes) {
            // A default route is of the family of its router, however "default" was written.
            const IpPrefix everywhere{route.via.is_v4() ? IpAddress::v4(0) : IpAddress(), 0};
            add_route(i, {route.to.length == 0 ? everywhere : network_of(route.to), route.via,
                          Origin::Config}, kNeverUs);
        }
        to.next_us = to_us(now);
    }

    Interface& loopback = table_.back();
    loopback.info.in_use = 1;
    loopback.info.port = kLocalPort;
    loopback.info.mtu = local_mtu(config);
    loopback.info.name.set("lo");
    add_address(this->loopback(), {{IpAddress::v4(0x7f00'0001), 8}, AddressState::Preferred,
                                   Origin::Config}, {});
    add_address(this->loopback(), {{kLoopbackV6, 128}, AddressState::Preferred, Origin::Config},
                {});
    loopback_v4_ = *find(IpAddress::v4(0x7f00'0001));
}

const Interface* InterfaceTable::attached(std::uint16_t port, std::uint16_t vlan) const {
    for (const Interface& interface : table_)
        if (interface.info.port == port && interface.info.vlan == vlan) return &interface;
    return nullptr;
}

const LocalAddress* InterfaceTable::find(const IpAddress& address) const {
    for (std::size_t i = place_of(address);; i = (i + 1) % kLocalTable) {
        const LocalAddress& entry = local_[i];
        if (entry.state == shm::AddressState::Unused) break;
        if (entry.address == address) return &entry;
    }
    if (address.is_v4() && address.v4_bits() >> 24 == 127) return &loopback_v4_;
    return nullptr;
}

bool InterfaceTable::is_ours_on(std::uint16_t interface, const IpAddress& address) const {
    const auto addresses = table_[interface].addresses();
    return std::any_of(addresses.begin(), addresses.end(), [&](const shm::AddressInfo& ours) {
        return ours.prefix.address == address;
    });
}

bool InterfaceTable::claims(std::uint16_t interface, const IpAddress& address) const {
    const auto addresses = table_[interface].addresses();
    return std::any_of(addresses.begin(), addresses.end(), [&](const shm::AddressInfo& ours) {
        return ours.prefix.address == address && ours.state != shm::AddressState::Duplicate;
    });
}

bool InterfaceTable::is_broadcast(const Interface& interface, const IpAddress& address) const {
    if (!address.is_v4()) return false;
    if (address.is_broadcast()) return true;
    for (const shm::AddressInfo& ours : interface.addresses()) {
        const IpPrefix& prefix = ours.prefix;
        if (!prefix.address.is_v4() || prefix.length >= 31 || prefix.length == 0) continue;
        const std::uint32_t host_bits = ~0u >> prefix.length;
        const std::uint32_t differs = prefix.address.v4_bits() ^ address.v4_bits();
        if ((differs & ~host_bits) == 0 && (address.v4_bits() & host_bits) == host_bits)
            return true;
    }
    return false;
}

bool InterfaceTable::listens_to(const Interface& interface, const IpAddress& group) const {
    if (group == wire::kAllNodes) return true;
    const auto addresses = interface.addresses();
    return std::any_of(addresses.begin(), addresses.end(), [&](const shm::AddressInfo& ours) {
        return ours.prefix.address.is_v6() && wire::solicited_node(ours.prefix.address) == group;
    });
}

bool InterfaceTable::add_address(std::uint16_t index, const shm::AddressInfo& address,
                                 const AddressTimer& timer) {
    Interface& interface = table_[index];
    if (interface.info.address_count == shm::kMaxAddresses ||
        is_ours_on(index, address.prefix.address))
        return false;
    const std::size_t position = interface.info.address_count++;
    interface.info.addresses[position] = address;
    interface.address_timers[position] = timer;
    const std::uint8_t whole = address.prefix.address.is_v4() ? 32 : 128;
    // A prefix a router announces is on the link only if it says so, by a route of its own.
    if (address.prefix.length < whole && !interface.is_loopback() &&
        address.origin != shm::Origin::RouterAdvertisement)
        add_route(index, {network_of(address.prefix), IpAddress(), shm::Origin::Connected},
                  kNeverUs);
    changed();
    return true;
}

void InterfaceTable::remove_address(std::uint16_t index, std::size_t position) {
    Interface& interface = table_[index];
    const std::size_t last = --interface.info.address_count;
    for (std::size_t i = position; i < last; ++i) {
        interface.info.addresses[i] = interface.info.addresses[i + 1];
        interface.address_timers[i] = interface.address_timers[i + 1];
    }
    interface.info.addresses[last] = {};
    changed();
}

std::size_t InterfaceTable::find_route(const Interface& interface, const IpPrefix& to,
                                       const IpAddress& via) const {
    std::size_t i = 0;
    for (; i < interface.info.route_count; ++i)
        if (interface.info.routes[i].to == to && interface.info.routes[i].via == via) break;
    return i;
}

bool InterfaceTable::add_route(std::uint16_t index, const shm::RouteInfo& route,
                               std::int64_t until_us) {
    Interface& interface = table_[index];
    const std::size_t position = find_route(interface, route.to, route.via);
    if (position == shm::kMaxRoutes) return false;
    interface.route_until_us[position] = until_us;
    if (position < interface.info.route_count) return true;
    interface.info.routes[position] = route;
    ++interface.info.route_count;
    changed();
    return true;
}

void InterfaceTable::remove_route(std::uint16_t index, std::size_t position) {
    Interface& interface = table_[index];
    const std::size_t last = --interface.info.route_count;
    for (std::size_t i = position; i < last; ++i) {
        interface.info.routes[i] = interface.info.routes[i + 1];
        interface.route_until_us[i] = interface.route_until_us[i + 1];
    }
    interface.info.routes[last] = {};
    changed();
}

void InterfaceTable::changed() {
    ++version_;
    std::fill(local_.begin(), local_.end(), LocalAddress{});
    for (std::uint16_t index = 0; index < table_.size(); ++index) {
        const auto addresses = table_[index].addresses();
        for (std::size_t position = 0; position < addresses.size(); ++position) {
            const shm::AddressInfo& address = addresses[position];
            if (address.state == shm::AddressState::Duplicate) continue;
            std::size_t i = place_of(address.prefix.address);
            while (local_[i].state != shm::AddressState::Unused) i = (i + 1) % kLocalTable;
            local_[i] = {address.prefix.address, index, static_cast<std::uint8_t>(position),
                         address.state};
        }
    }
}

}  // namespace chiru::ip
