// SPDX-License-Identifier: Apache-2.0
//
// ARP (RFC 826), with announcements and conflicts as RFC 5227 has them.
#include "stack/ip/network.hpp"

#include "stack/wire/arp.hpp"

#include <cstring>

namespace chiru::ip {

using wire::ArpOperation;

namespace {

constexpr std::int64_t kDefendIntervalUs = 10'000'000;  // RFC 5227 §1.1, DEFEND_INTERVAL

}  // namespace

Network::Fate Network::receive_arp(const Interface& interface, std::span<const std::byte> bytes,
                                   Instant now) {
    const auto arp = wire::parse_arp(bytes);
    if (!arp) return {Counter::InMalformed};
    if (arp->operation != static_cast<std::uint16_t>(ArpOperation::Request) &&
        arp->operation != static_cast<std::uint16_t>(ArpOperation::Reply))
        return {Counter::InUnknownProtocol};
    if (arp->sender_mac.is_multicast() || arp->sender_mac == MacAddress{})
        return {Counter::InImpossible};
    if (arp->sender_mac == interface.mac) return {Counter::InNotForUs};  // our own, come back

    const std::uint16_t index = interfaces_.index_of(interface);
    const IpAddress sender = IpAddress::v4(arp->sender_ip);
    const IpAddress target = IpAddress::v4(arp->target_ip);
    const bool asks = arp->operation == static_cast<std::uint16_t>(ArpOperation::Request);
    const bool for_us = interfaces_.is_ours_on(index, target);

    if (interfaces_.is_ours_on(index, sender)) {  // RFC 5227 §2.4: keep it, and say so
        counters_.add(Counter::DadDuplicate);
        defend(index, sender, now);
        return {Counter::InImpossible};
    }
    if (sender.is_unspecified()) {  // a probe: answered, but there is nothing to learn
        if (for_us && asks && shard_ == 0)
            send_arp(index, ArpOperation::Reply, target, arp->sender_mac, sender,
                     arp->sender_mac);
        return {for_us ? Counter::InAccepted : Counter::InNotForUs};
    }
    if (sender.is_multicast() || sender.is_loopback() ||
        interfaces_.is_broadcast(interface, sender))
        return {Counter::InImpossible};

    if (!for_us) {
        neighbors_.overheard(index, sender, arp->sender_mac, now);
        return {sender == target ? Counter::InAccepted : Counter::InNotForUs};
    }
    if (!asks) {
        neighbors_.advertised(index, {.address = sender, .mac = arp->sender_mac}, now);
        return {Counter::InAccepted};
    }
    neighbors_.asked(index, sender, arp->sender_mac, now);
    if (shard_ == 0)
        send_arp(index, ArpOperation::Reply, target, arp->sender_mac, sender, arp->sender_mac);
    return {Counter::InAccepted};
}

/// Not more often than RFC 5227 §2.4 (c) has it: the other host may defend itself as well, and two
/// that answer each other would never end.
void Network::defend(std::uint16_t interface, const IpAddress& address, Instant now) {
    Interface& owner = interfaces_[interface];
    for (std::size_t i = 0; i < owner.info.address_count; ++i) {
        AddressTimer& timer = owner.address_timers[i];
        if (owner.info.addresses[i].prefix.address != address) continue;
        if (shard_ != 0 || to_us(now) < timer.defended_until_us) return;
        timer.defended_until_us = to_us(now) + kDefendIntervalUs;
        send_arp(interface, ArpOperation::Request, address, MacAddress{}, address, kBroadcastMac);
    }
}

void Network::send_arp(std::uint16_t interface, ArpOperation operation, const IpAddress& sender,
                       const MacAddress& target_mac, const IpAddress& target,
                       const MacAddress& to) {
    const std::uint32_t index = control_.take(true);
    if (index == kNoJob) return;
    const wire::ArpPacket packet =
        wire::arp_packet(operation, interfaces_[interface].mac, sender, target_mac, target);
    Job& job = control_[index];
    job.kind = JobKind::Frame;
    job.interface = interface;
    job.mac = to;
    job.type = wire::EtherType::Arp;
    job.head_bytes = sizeof packet;
    std::memcpy(job.head.data(), &packet, sizeof packet);
    control_.push(index, true);
    counters_.add(Counter::ArpSent);
}

}  // namespace chiru::ip
