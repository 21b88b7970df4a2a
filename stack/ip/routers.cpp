// SPDX-License-Identifier: Apache-2.0
//
// Routers and the prefixes they announce (RFC 4861 §6.3, RFC 4862 §5.5). Redirects are ignored:
// they let anybody on the link turn our traffic to himself, and routers do without them.
#include "stack/ip/network.hpp"

#include <algorithm>
#include <cstring>
#include <optional>

namespace chiru::ip {
namespace {

using shm::AddressState;
using shm::Origin;
using wire::NdOption;

constexpr std::int64_t kSolicitIntervalUs = 4'000'000;  // RFC 4861 §10
constexpr std::int64_t kTwoHoursUs = 7'200'000'000;     // RFC 4862 §5.5.3 e)
/// What routers may add, so that a bad one cannot push out what was configured.
constexpr std::size_t kMaxLearnedRoutes = 32;

std::int64_t until(std::uint32_t seconds, Instant now) {
    return seconds == wire::kForever ? kNeverUs : to_us(now) + std::int64_t{seconds} * 1'000'000;
}

bool may_learn_route(const Interface& interface) {
    const auto routes = interface.routes();
    const auto learned = std::count_if(routes.begin(), routes.end(), [](const auto& route) {
        return route.origin == Origin::RouterAdvertisement;
    });
    return static_cast<std::size_t>(learned) < kMaxLearnedRoutes;
}

}  // namespace

void Network::solicit_routers(std::uint16_t interface, Instant now) {
    Interface& owner = interfaces_[interface];
    --owner.solicitations_left;
    owner.solicit_at_us =
        owner.solicitations_left > 0 ? to_us(now) + kSolicitIntervalUs : kNeverUs;
    const IpAddress* source = own_v6(interface, true);
    if (shard_ != 0 || source == nullptr) return;
    struct Message {
        wire::Icmpv6Header header;
        wire::LinkAddressOption option;
    };
    const Message message{
        {.type = static_cast<std::uint8_t>(wire::Icmpv6Type::RouterSolicitation)},
        {.type = static_cast<std::uint8_t>(NdOption::SourceLinkAddress), .mac = owner.mac}};
    send_discovery(interface, *source, wire::kAllRouters, wire::multicast_mac(wire::kAllRouters),
                   std::as_bytes(std::span(&message, 1)));
}

Network::Fate Network::receive_router(const Packet& packet, Instant now) {
    const auto message = read_header<wire::RouterAdvertisement>(packet.l4);
    if (!message || !packet.source.is_link_local()) return {Counter::InMalformed};
    const std::uint16_t index = packet.interface;
    Interface& interface = interfaces_[index];
    if (message->lifetime_s != 0) {  // others may still be routers (RFC 4861 §6.3.7)
        interface.solicit_at_us = kNeverUs;
        interface.solicitations_left = 0;
    }
    learn_router(index, packet.source, message->lifetime_s, now);

    const auto options = packet.l4.subspan(sizeof(wire::RouterAdvertisement));
    wire::for_each_nd_option(options, [&](NdOption type, std::span<const std::byte> option) {
        if (type == NdOption::SourceLinkAddress &&
            option.size() == sizeof(wire::LinkAddressOption)) {
            const MacAddress mac = read_header<wire::LinkAddressOption>(option)->mac;
            if (!mac.is_multicast()) neighbors_.asked(index, packet.source, mac, now);
        } else if (type == NdOption::PrefixInformation &&
                   option.size() == sizeof(wire::PrefixOption)) {
            learn_prefix(index, *read_header<wire::PrefixOption>(option), now);
        } else if (type == NdOption::Mtu && option.size() == sizeof(wire::MtuOption)) {
            const std::uint32_t mtu = read_header<wire::MtuOption>(option)->mtu;
            // No more than the port can carry (RFC 4861 §6.3.4). For IPv4 it holds as well, which
            // is safe, and keeps one MTU to an interface.
            const auto fits = static_cast<std::uint16_t>(
                std::min<std::uint32_t>(mtu, interface.port_mtu));
            if (mtu >= kMinMtuV6 && fits != interface.info.mtu) {
                interface.info.mtu = fits;
                interfaces_.changed();
            }
        }
    });
    interface.next_us = to_us(now);  // look at all timers again
    return {Counter::InAccepted};
}

void Network::learn_router(std::uint16_t interface, const IpAddress& router,
                           std::uint16_t lifetime_s, Instant now) {
    Interface& owner = interfaces_[interface];
    const IpPrefix everywhere{};
    const std::size_t known = interfaces_.find_route(owner, everywhere, router);
    if (lifetime_s == 0) {
        if (known < owner.info.route_count &&
            owner.info.routes[known].origin == Origin::RouterAdvertisement)
            interfaces_.remove_route(interface, known);
        return;
    }
    if (known < owner.info.route_count) {
        if (owner.info.routes[known].origin == Origin::RouterAdvertisement)
            owner.route_until_us[known] = until(lifetime_s, now);
        return;
    }
    if (may_learn_route(owner))
        interfaces_.add_route(interface, {everywhere, router, Origin::RouterAdvertisement},
                              until(lifetime_s, now));
}

void Network::learn_prefix(std::uint16_t interface, const wire::PrefixOption& option,
                           Instant now) {
    Interface& owner = interfaces_[interface];
    if (option.prefix_length > 128 || option.prefix.is_link_local() ||
        option.prefix.is_multicast() || option.prefix.is_v4() ||
        option.preferred_s > option.valid_s)
        return;
    const IpPrefix prefix = network_of({option.prefix, option.prefix_length});
    if ((option.flags & wire::kPrefixOnLink) != 0 && prefix.length > 0) {
        const std::size_t known = interfaces_.find_route(owner, prefix, IpAddress());
        const bool is_known = known < owner.info.route_count;
        const bool learned =
            is_known && owner.info.routes[known].origin == Origin::RouterAdvertisement;
        if (option.valid_s == 0) {
            if (learned) interfaces_.remove_route(interface, known);
        } else if (learned) {
            owner.route_until_us[known] = until(option.valid_s, now);
        } else if (!is_known && may_learn_route(owner)) {
            interfaces_.add_route(interface, {prefix, IpAddress(), Origin::RouterAdvertisement},
                                  until(option.valid_s, now));
        }
    }
    if ((option.flags & wire::kPrefixAutonomous) == 0 || prefix.length != 64) return;

    const IpAddress address = modified_eui64(prefix.address, owner.mac);
    for (std::size_t i = 0; i < owner.info.address_count; ++i) {
        if (owner.info.addresses[i].prefix.address != address) continue;
        if (owner.info.addresses[i].origin != Origin::RouterAdvertisement) return;
        AddressTimer& timer = owner.address_timers[i];
        const std::int64_t valid = until(option.valid_s, now);
        timer.preferred_until_us = until(option.preferred_s, now);
        // A forged advertisement must not end an address at once (RFC 4862 §5.5.3 e).
        if (valid >= timer.valid_until_us || valid - to_us(now) > kTwoHoursUs)
            timer.valid_until_us = valid;
        else if (timer.valid_until_us - to_us(now) > kTwoHoursUs)
            timer.valid_until_us = to_us(now) + kTwoHoursUs;
        if (owner.info.addresses[i].state == AddressState::Deprecated &&
            timer.preferred_until_us > to_us(now)) {
            owner.info.addresses[i].state = AddressState::Preferred;
            interfaces_.changed();
        }
        return;
    }
    if (option.valid_s == 0) return;
    interfaces_.add_address(interface,
                            {{address, 64}, AddressState::Tentative, Origin::RouterAdvertisement},
                            {.due_us = to_us(now),
                             .preferred_until_us = until(option.preferred_s, now),
                             .valid_until_us = until(option.valid_s, now),
                             .left = 1});
}

}  // namespace chiru::ip
