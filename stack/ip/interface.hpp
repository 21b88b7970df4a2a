// SPDX-License-Identifier: Apache-2.0
//
// Interfaces and their addresses: those of the configuration, the link-local ones, and those made
// from routers' advertisements (RFC 4862). The last one is the loopback: 127.0.0.0/8 and ::1, for
// traffic that never leaves the daemon.
//
// An IPv6 address is tentative until duplicate address detection found nobody who has it (§5.4);
// until then it is not ours to use. Every shard runs the same timers and sees the same conflicts;
// only shard 0 sends.
#pragma once

#include "base/address.hpp"
#include "base/time.hpp"
#include "shm/directory.hpp"
#include "stack/config.hpp"
#include "stack/frame.hpp"
#include "stack/table_carver.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace chiru::ip {

inline constexpr std::int64_t kNeverUs = INT64_MAX;

inline constexpr std::uint8_t kArpAnnouncements = 2;     // RFC 5227 §2.3, ANNOUNCE_NUM
inline constexpr std::uint8_t kDadProbes = 1;            // RFC 4862 §5.1, DupAddrDetectTransmits
inline constexpr std::uint8_t kRouterSolicitations = 3;  // RFC 4861 §10

constexpr std::int64_t to_us(Instant now) { return now.time_since_epoch().count(); }
constexpr Instant from_us(std::int64_t us) { return Instant(Micros(us)); }

/// What an address waits for.
struct AddressTimer {
    std::int64_t due_us = kNeverUs;  ///< end of detection (IPv6), next announcement (IPv4)
    std::int64_t preferred_until_us = kNeverUs;
    std::int64_t valid_until_us = kNeverUs;
    std::int64_t defended_until_us = 0;  ///< a claim of others is answered again from then on
    std::uint8_t left = 0;  ///< probes or announcements still to send
};

struct Interface {
    shm::InterfaceInfo info;
    std::array<AddressTimer, shm::kMaxAddresses> address_timers;
    std::array<std::int64_t, shm::kMaxRoutes> route_until_us{};
    MacAddress mac;
    std::uint8_t solicitations_left = 0;
    std::uint32_t offloads = 0;  ///< shm::PortOffload bits
    std::uint32_t tso_bytes = 0;
    std::uint16_t port_mtu = 0;  ///< what the port carries; info.mtu, if routers want it smaller
    std::int64_t solicit_at_us = kNeverUs;
    std::int64_t igmp_v2_until_us = 0;  ///< a querier of that version is about
    std::int64_t next_us = kNeverUs;  ///< the earliest of all of its timers

    bool is_loopback() const { return info.port == kLocalPort; }
    std::span<const shm::AddressInfo> addresses() const {
        return std::span(info.addresses).first(info.address_count);
    }
    std::span<shm::AddressInfo> addresses() {
        return std::span(info.addresses).first(info.address_count);
    }
    std::span<const shm::RouteInfo> routes() const {
        return std::span(info.routes).first(info.route_count);
    }
};

/// Where an address of ours is.
struct LocalAddress {
    IpAddress address;
    std::uint16_t interface = 0;
    std::uint8_t position = 0;  ///< in the interface's addresses
    shm::AddressState state{};  ///< Unused: an empty place of the table

    bool usable() const {
        return state == shm::AddressState::Preferred || state == shm::AddressState::Deprecated;
    }
};

inline constexpr std::size_t kLocalTable = 2048;  // a power of two, and never a third full

class InterfaceTable {
public:
    InterfaceTable(const StackConfig& config, TableCarver& carver, Instant now);
    static void measure(const StackConfig& config, TableCarver& carver);

    std::size_t size() const { return table_.size(); }
    Interface& operator[](std::size_t index) { return table_[index]; }
    const Interface& operator[](std::size_t index) const { return table_[index]; }
    std::uint16_t loopback() const { return static_cast<std::uint16_t>(table_.size() - 1); }

    /// The interface that frames of this port and VLAN belong to, or nullptr.
    const Interface* attached(std::uint16_t port, std::uint16_t vlan) const;
    std::uint16_t index_of(const Interface& interface) const {
        return static_cast<std::uint16_t>(&interface - table_.data());
    }

    /// Is the address one of ours, in whatever state? All of 127.0.0.0/8 is.
    const LocalAddress* find(const IpAddress& address) const;
    /// The same on one interface: link-local addresses may be ours on several.
    bool is_ours_on(std::uint16_t interface, const IpAddress& address) const;
    /// Ours on it, and not lost to another host that had it before (RFC 4862 §5.4.5).
    bool claims(std::uint16_t interface, const IpAddress& address) const;
    bool is_broadcast(const Interface& interface, const IpAddress& address) const;
    /// Does somebody on this interface listen to the multicast group?
    bool listens_to(const Interface& interface, const IpAddress& group) const;

    /// Adds an address, with its connected route; false if there is no room or it is there.
    bool add_address(std::uint16_t interface, const shm::AddressInfo& address,
                     const AddressTimer& timer);
    void remove_address(std::uint16_t interface, std::size_t position);
    bool add_route(std::uint16_t interface, const shm::RouteInfo& route, std::int64_t until_us);
    void remove_route(std::uint16_t interface, std::size_t position);
    /// Position of the route on the interface, or route_count.
    std::size_t find_route(const Interface& interface, const IpPrefix& to,
                           const IpAddress& via) const;

    /// Call after changing a state, an address or a route in place: lookups follow.
    void changed();
    /// Counts changes of addresses and routes.
    std::uint32_t version() const { return version_; }

private:
    std::span<Interface> table_;
    std::span<LocalAddress> local_;
    LocalAddress loopback_v4_;
    std::uint32_t version_ = 0;
};

/// `prefix` with its host bits cleared.
IpPrefix network_of(const IpPrefix& prefix);

/// The interface identifier made from a MAC address (RFC 4291 appendix A), under `network`/64.
IpAddress modified_eui64(const IpAddress& network, const MacAddress& mac);

}  // namespace chiru::ip
