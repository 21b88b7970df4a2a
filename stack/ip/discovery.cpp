// SPDX-License-Identifier: Apache-2.0
//
// Neighbour discovery (RFC 4861 §7), duplicate address detection (RFC 4862 §5.4), and the group
// reports that let switches pass solicitations on to us (RFC 3810). What arrives here has passed
// the checks common to all of them: hop limit 255, code 0, checksum, well-formed options.
#include "stack/ip/network.hpp"

#include "stack/wire/checksum.hpp"

#include <algorithm>
#include <cstring>
#include <optional>

namespace chiru::ip {
namespace {

using namespace std::chrono_literals;
using shm::AddressState;
using wire::NdOption;

constexpr std::int64_t kRetransmitUs = 1'000'000;   // RFC 4861 §10, RETRANS_TIMER
constexpr std::int64_t kAnnounceUs = 2'000'000;     // RFC 5227 §1.1, ANNOUNCE_INTERVAL

std::optional<MacAddress> link_address(std::span<const std::byte> options, NdOption which) {
    std::optional<MacAddress> mac;
    wire::for_each_nd_option(options, [&](NdOption type, std::span<const std::byte> option) {
        if (type != which || option.size() != sizeof(wire::LinkAddressOption)) return;
        const MacAddress found = read_header<wire::LinkAddressOption>(option)->mac;
        if (!found.is_multicast()) mac = found;
    });
    return mac;
}

}  // namespace

const IpAddress* Network::own_v6(std::uint16_t interface, bool link_local) const {
    const IpAddress* any = nullptr;
    for (const shm::AddressInfo& ours : interfaces_[interface].addresses()) {
        const IpAddress& address = ours.prefix.address;
        const bool usable = ours.state == AddressState::Preferred ||
                            ours.state == AddressState::Deprecated;
        if (address.is_v4() || !usable) continue;
        if (address.is_link_local() == link_local) return &address;
        any = &address;
    }
    return any;
}

Network::Fate Network::receive_solicitation(const Packet& packet, Instant now) {
    const auto message = read_header<wire::NeighborMessage>(packet.l4);
    if (!message || message->target.is_multicast()) return {Counter::InMalformed};
    const IpAddress& target = message->target;
    const auto mac = link_address(packet.l4.subspan(sizeof(wire::NeighborMessage)),
                                  NdOption::SourceLinkAddress);
    const bool detects = packet.source.is_unspecified();
    if (detects && (mac || packet.destination != wire::solicited_node(target)))
        return {Counter::InMalformed};  // §7.1.1
    const auto addresses = interfaces_[packet.interface].addresses();
    const auto ours = std::find_if(addresses.begin(), addresses.end(), [&](const auto& address) {
        return address.prefix.address == target && address.state != AddressState::Duplicate;
    });
    if (ours == addresses.end()) return {Counter::InNotForUs};
    if (ours->state == AddressState::Tentative) {
        // Somebody else wants it at the same moment: nobody gets it (RFC 4862 §5.4.3).
        const auto link = wire::parse_link({packet.frame->data, packet.frame->slice.length});
        if (detects && link->source != interfaces_[packet.interface].mac)
            found_duplicate(packet.interface, target);
        return {Counter::InAccepted};
    }
    if (!detects && mac) neighbors_.asked(packet.interface, packet.source, *mac, now);
    if (shard_ != 0) return {Counter::InAccepted};
    if (detects) {
        send_advertisement(packet.interface, target, wire::kAllNodes,
                           wire::multicast_mac(wire::kAllNodes), false);
        return {Counter::InAccepted};
    }
    // The asker's address is known from its option, or else from its frame.
    const auto link = wire::parse_link({packet.frame->data, packet.frame->slice.length});
    send_advertisement(packet.interface, target, packet.source, mac ? *mac : link->source, true);
    return {Counter::InAccepted};
}

Network::Fate Network::receive_advertisement(const Packet& packet, Instant now) {
    const auto message = read_header<wire::NeighborMessage>(packet.l4);
    if (!message || message->target.is_multicast()) return {Counter::InMalformed};
    const bool solicited = (message->flags & wire::kNdSolicited) != 0;
    if (solicited && packet.destination.is_multicast()) return {Counter::InMalformed};
    const auto mac = link_address(packet.l4.subspan(sizeof(wire::NeighborMessage)),
                                  NdOption::TargetLinkAddress);
    if (interfaces_.claims(packet.interface, message->target)) {
        if (mac && *mac == interfaces_[packet.interface].mac) return {Counter::InNotForUs};
        found_duplicate(packet.interface, message->target);
        return {Counter::InAccepted};
    }
    neighbors_.advertised(packet.interface,
                          {.address = message->target,
                           .mac = mac.value_or(MacAddress{}),
                           .has_mac = mac.has_value(),
                           .solicited = solicited,
                           .override_ = (message->flags & wire::kNdOverride) != 0,
                           .router = (message->flags & wire::kNdRouter) != 0},
                          now);
    return {Counter::InAccepted};
}

/// A tentative address is given up (RFC 4862 §5.4.5); one that is in use stays, for connections
/// hang on it, and whoever took it sees our answers.
void Network::found_duplicate(std::uint16_t interface, const IpAddress& address) {
    counters_.add(Counter::DadDuplicate);
    Interface& owner = interfaces_[interface];
    for (std::size_t i = 0; i < owner.info.address_count; ++i) {
        shm::AddressInfo& ours = owner.info.addresses[i];
        if (ours.prefix.address != address || ours.state != AddressState::Tentative) continue;
        ours.state = AddressState::Duplicate;
        owner.address_timers[i].due_us = kNeverUs;
        interfaces_.changed();
    }
}

void Network::send_discovery(std::uint16_t interface, const IpAddress& source,
                             const IpAddress& to, const MacAddress& mac,
                             std::span<const std::byte> message) {
    const std::uint32_t index = control_.take(true);
    if (index == kNoJob) return;
    Job& job = control_[index];
    const wire::Ipv6Header header{
        .payload_length = static_cast<std::uint16_t>(message.size()),
        .next_header = static_cast<std::uint8_t>(wire::Protocol::Icmpv6),
        .hop_limit = 255,
        .source = source,
        .destination = to};
    std::memcpy(job.head.data(), &header, sizeof header);
    std::byte* body = job.head.data() + sizeof header;
    std::memcpy(body, message.data(), message.size());
    wire::ChecksumSum sum = wire::pseudo_header(source, to, header.next_header, message.size());
    sum.add(message);
    const be16 checksum = sum.checksum();
    std::memcpy(body + offsetof(wire::Icmpv6Header, checksum), &checksum, sizeof checksum);
    job.kind = JobKind::Frame;
    job.interface = interface;
    job.mac = mac;
    job.type = wire::EtherType::Ipv6;
    job.head_bytes = static_cast<std::uint16_t>(sizeof header + message.size());
    control_.push(index, true);
    counters_.add(Counter::NdSent);
}

void Network::send_solicitation(std::uint16_t interface, const IpAddress& target,
                                const MacAddress* to, bool detect) {
    struct Message {
        wire::NeighborMessage message;
        wire::LinkAddressOption option;
    };
    const Message message{
        {.type = static_cast<std::uint8_t>(wire::Icmpv6Type::NeighborSolicitation),
         .target = target},
        {.type = static_cast<std::uint8_t>(NdOption::SourceLinkAddress),
         .mac = interfaces_[interface].mac}};
    const std::span<const std::byte> bytes = std::as_bytes(std::span(&message, 1));
    const IpAddress group = wire::solicited_node(target);
    if (detect) {
        send_discovery(interface, IpAddress(), group, wire::multicast_mac(group),
                       bytes.first(sizeof(wire::NeighborMessage)));
        return;
    }
    const IpAddress* source = own_v6(interface, target.is_link_local());
    if (source == nullptr) return;  // nothing to ask from yet; the timer asks again
    send_discovery(interface, *source, to != nullptr ? target : group,
                   to != nullptr ? *to : wire::multicast_mac(group), bytes);
}

void Network::send_advertisement(std::uint16_t interface, const IpAddress& target,
                                 const IpAddress& to, const MacAddress& mac, bool solicited) {
    struct Message {
        wire::NeighborMessage message;
        wire::LinkAddressOption option;
    };
    const Message message{
        {.type = static_cast<std::uint8_t>(wire::Icmpv6Type::NeighborAdvertisement),
         .flags = wire::kNdOverride | (solicited ? wire::kNdSolicited : 0u),
         .target = target},
        {.type = static_cast<std::uint8_t>(NdOption::TargetLinkAddress),
         .mac = interfaces_[interface].mac}};
    send_discovery(interface, target, to, mac, std::as_bytes(std::span(&message, 1)));
}

/// Of every solicited-node group, as many reports as it takes.
void Network::report_solicited_nodes(std::uint16_t interface, wire::GroupRecordType type) {
    const auto addresses = interfaces_[interface].addresses();
    for (std::size_t done = 0; done < addresses.size();) {
        std::array<wire::GroupRecordV6, kRecordsV6> records;
        std::size_t count = 0;
        for (; done < addresses.size() && count < kRecordsV6; ++done) {
            const IpAddress& address = addresses[done].prefix.address;
            if (address.is_v6())
                records[count++] = {.type = static_cast<std::uint8_t>(type),
                                    .group = wire::solicited_node(address)};
        }
        if (count != 0) send_mld_report(interface, {records.data(), count});
    }
}

/// A version 2 report (RFC 3810 §5.2) of at most kRecordsV6 records.
void Network::send_mld_report(std::uint16_t interface,
                              std::span<const wire::GroupRecordV6> records) {
    struct Report {
        std::array<std::uint8_t, 8> hop_by_hop{
            static_cast<std::uint8_t>(wire::Protocol::Icmpv6), 0, 5, 2, 0, 0, 1, 0};
        std::uint8_t type = static_cast<std::uint8_t>(wire::Icmpv6Type::ListenerReport2);
        std::uint8_t code = 0;
        be16 checksum{};
        be16 reserved{};
        be16 count{};
        std::array<wire::GroupRecordV6, kRecordsV6> records{};
    };
    static_assert(sizeof(Report) == 16 + 20 * kRecordsV6);
    static_assert(sizeof(Report) + sizeof(wire::Ipv6Header) <= kInlineBytes);

    const IpAddress* source = own_v6(interface, true);
    const IpAddress from =
        source != nullptr && source->is_link_local() ? *source : IpAddress();
    Report report;
    std::copy(records.begin(), records.end(), report.records.begin());
    report.count = static_cast<std::uint16_t>(records.size());
    const std::size_t icmp_bytes = 8 + records.size_bytes();
    const auto bytes = std::as_bytes(std::span(&report, 1));
    wire::ChecksumSum sum = wire::pseudo_header(
        from, wire::kAllListenerRouters, static_cast<std::uint8_t>(wire::Protocol::Icmpv6),
        icmp_bytes);
    sum.add(bytes.subspan(8, icmp_bytes));
    report.checksum = sum.checksum();

    const std::uint32_t index = control_.take(true);
    if (index == kNoJob) return;
    Job& job = control_[index];
    const wire::Ipv6Header header{
        .payload_length = static_cast<std::uint16_t>(8 + icmp_bytes),
        .next_header = static_cast<std::uint8_t>(wire::Protocol::HopByHop),
        .hop_limit = 1,
        .source = from,
        .destination = wire::kAllListenerRouters};
    std::memcpy(job.head.data(), &header, sizeof header);
    std::memcpy(job.head.data() + sizeof header, &report, 8 + icmp_bytes);
    job.kind = JobKind::Frame;
    job.interface = interface;
    job.mac = wire::multicast_mac(wire::kAllListenerRouters);
    job.type = wire::EtherType::Ipv6;
    job.head_bytes = static_cast<std::uint16_t>(sizeof header + 8 + icmp_bytes);
    control_.push(index, true);
}

/// One address's detection (IPv6) or announcement (IPv4) is due.
void Network::detect_duplicates(std::uint16_t interface, std::size_t position, Instant now) {
    Interface& owner = interfaces_[interface];
    AddressTimer& timer = owner.address_timers[position];
    shm::AddressInfo& ours = owner.info.addresses[position];
    const IpAddress address = ours.prefix.address;
    if (timer.left > 0) {
        --timer.left;
        const bool v4 = address.is_v4();
        timer.due_us = to_us(now) + (v4 ? kAnnounceUs : kRetransmitUs);
        if (v4 && timer.left == 0) timer.due_us = kNeverUs;
        if (shard_ != 0) return;
        if (v4)
            send_arp(interface, wire::ArpOperation::Request, address, MacAddress{}, address,
                     kBroadcastMac);
        else
            send_solicitation(interface, address, nullptr, true);
        return;
    }
    timer.due_us = kNeverUs;
    if (ours.state != AddressState::Tentative) return;
    ours.state = timer.preferred_until_us > to_us(now) ? AddressState::Preferred
                                                        : AddressState::Deprecated;
    interfaces_.changed();
    if (address.is_link_local() && owner.solicitations_left > 0)
        owner.solicit_at_us = to_us(now);
    if (shard_ == 0)  // neighbours that knew another host by this address
        send_advertisement(interface, address, wire::kAllNodes,
                           wire::multicast_mac(wire::kAllNodes), false);
}

/// The link was away: what was said meanwhile nobody heard. Addresses that were found to be ours
/// stay ours, as connections hang on them.
void Network::announce_again(std::uint16_t interface, Instant now) {
    Interface& owner = interfaces_[interface];
    bool joins = false;
    for (std::size_t i = 0; i < owner.info.address_count; ++i) {
        const shm::AddressInfo& ours = owner.info.addresses[i];
        const IpAddress& address = ours.prefix.address;
        AddressTimer& timer = owner.address_timers[i];
        if (ours.state == AddressState::Duplicate) continue;
        if (address.is_v4() || ours.state == AddressState::Tentative) {
            timer.left = address.is_v4() ? kArpAnnouncements : kDadProbes;
            timer.due_us = to_us(now);
        } else if (shard_ == 0) {
            joins = true;
            send_advertisement(interface, address, wire::kAllNodes,
                               wire::multicast_mac(wire::kAllNodes), false);
        }
    }
    report_groups_again(interface, now);
    if (joins) report_solicited_nodes(interface, wire::GroupRecordType::ChangeToExclude);
    owner.solicitations_left = kRouterSolicitations;
    if (own_v6(interface, true) != nullptr) owner.solicit_at_us = to_us(now);
    owner.next_us = to_us(now);
}

void Network::advance_addresses(std::uint16_t interface, Instant now) {
    Interface& owner = interfaces_[interface];
    bool joins = false;
    for (std::size_t i = 0; i < owner.info.address_count;) {
        AddressTimer& timer = owner.address_timers[i];
        shm::AddressInfo& ours = owner.info.addresses[i];
        if (timer.valid_until_us <= to_us(now)) {
            interfaces_.remove_address(interface, i);
            continue;
        }
        if (timer.preferred_until_us <= to_us(now) && ours.state == AddressState::Preferred) {
            ours.state = AddressState::Deprecated;
            interfaces_.changed();
        }
        if (timer.due_us <= to_us(now)) {
            joins |= timer.left > 0 && ours.prefix.address.is_v6();
            detect_duplicates(interface, i, now);
        }
        ++i;
    }
    if (joins && shard_ == 0)
        report_solicited_nodes(interface, wire::GroupRecordType::ChangeToExclude);
}

void Network::advance_interface(std::uint16_t interface, Instant now) {
    Interface& owner = interfaces_[interface];
    if (owner.next_us > to_us(now)) return;
    advance_addresses(interface, now);
    for (std::size_t i = 0; i < owner.info.route_count;) {
        if (owner.route_until_us[i] <= to_us(now)) interfaces_.remove_route(interface, i);
        else ++i;
    }
    if (owner.solicit_at_us <= to_us(now)) solicit_routers(interface, now);

    owner.next_us = owner.solicit_at_us;
    for (std::size_t i = 0; i < owner.info.address_count; ++i) {
        const AddressTimer& timer = owner.address_timers[i];
        const bool preferred = owner.info.addresses[i].state == AddressState::Preferred;
        owner.next_us = std::min({owner.next_us, timer.due_us, timer.valid_until_us,
                                  preferred ? timer.preferred_until_us : kNeverUs});
    }
    for (std::size_t i = 0; i < owner.info.route_count; ++i)
        owner.next_us = std::min(owner.next_us, owner.route_until_us[i]);
}

}  // namespace chiru::ip
