// SPDX-License-Identifier: Apache-2.0
#include "stack/ip/groups.hpp"

#include "stack/ip/network.hpp"
#include "stack/wire/checksum.hpp"
#include "stack/wire/igmp.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace chiru::ip {
namespace {

using wire::GroupRecordType;

constexpr std::int64_t kChangeIntervalUs = 1'000'000;  // RFC 3376 §8.11, RFC 3810 §9.11
/// RFC 3376 §8.12: older querier present, with the default query interval and response time.
constexpr std::int64_t kOlderQuerierUs = 260'000'000;
constexpr std::size_t kRecordsV4 = 16;  // of one report

GroupRecordType change_of(const Group& group) {
    return group.members != 0 ? GroupRecordType::ChangeToExclude
                              : GroupRecordType::ChangeToInclude;
}

}  // namespace

bool GroupTable::has(std::uint16_t interface, const IpAddress& group) const {
    return live_ != 0 && std::any_of(table_.begin(), table_.end(), [&](const Group& each) {
               return each.members != 0 && each.interface == interface && each.address == group;
           });
}

bool GroupTable::has(const IpAddress& group) const {
    return live_ != 0 && std::any_of(table_.begin(), table_.end(), [&](const Group& each) {
               return each.members != 0 && each.address == group;
           });
}

Group* GroupTable::find(std::uint16_t interface, const IpAddress& group) {
    const auto found = std::find_if(table_.begin(), table_.end(), [&](const Group& each) {
        return each.in_use() && each.interface == interface && each.address == group;
    });
    return found == table_.end() ? nullptr : &*found;
}

Group* GroupTable::join(std::uint16_t interface, const IpAddress& address) {
    Group* group = find(interface, address);
    if (group == nullptr) {
        const auto free = std::find_if(table_.begin(), table_.end(),
                                       [](const Group& each) { return !each.in_use(); });
        if (free == table_.end()) return nullptr;
        *free = {.address = address, .interface = interface};
        group = &*free;
    }
    if (group->members++ == 0) ++live_;
    return group;
}

Group* GroupTable::leave(std::uint16_t interface, const IpAddress& address) {
    Group* group = find(interface, address);
    if (group == nullptr || group->members == 0 || --group->members != 0) return nullptr;
    --live_;
    return group;
}

void GroupTable::find_next() {
    next_us_ = kNeverUs;
    for (const Group& group : table_) next_us_ = std::min(next_us_, group.report_at_us);
}

// ---- the network's part --------------------------------------------------------------------

bool Network::is_member(const IpAddress& group) const { return groups_.has(group); }

std::optional<std::uint16_t> Network::group_interface(const IpAddress& group,
                                                      std::uint16_t interface) const {
    if (interface > interfaces_.loopback()) return std::nullopt;  // counts from 1, loopback last
    if (interface != 0) return static_cast<std::uint16_t>(interface - 1);
    if (const auto hop = routes_.lookup(group, kAnyInterface)) return hop->interface;
    return interfaces_.loopback() == 0 ? std::nullopt : std::optional<std::uint16_t>(0);
}

Result<std::uint16_t, int> Network::join(const IpAddress& address, std::uint16_t interface,
                                         Instant now) {
    const auto where = group_interface(address, interface);
    if (!where) return std::unexpected(ENODEV);
    Group* group = groups_.join(*where, address);
    if (group == nullptr) return std::unexpected(ENOBUFS);
    if (group->members == 1) change_group(*group, now);
    return static_cast<std::uint16_t>(*where + 1);
}

void Network::leave(const IpAddress& address, std::uint16_t interface, Instant now) {
    const auto where = group_interface(address, interface);
    if (!where) return;
    if (Group* group = groups_.leave(*where, address)) change_group(*group, now);
}

/// The first member came or the last one left.
void Network::change_group(Group& group, Instant now) {
    // 224.0.0.1 and ff02::1 are everybody's and are never reported (RFC 3376 §6, RFC 3810 §6).
    const bool silent = shard_ != 0 || group.address == wire::kAllHosts ||
                        group.address == wire::kAllNodes;
    group.answer = false;
    group.changes_left = silent ? 0 : kRobustness;
    groups_.schedule(group, silent ? kNeverUs : to_us(now));
}

/// Whoever is at the other end of a link that came up knows nothing of us.
void Network::report_groups_again(std::uint16_t interface, Instant now) {
    for (Group& group : groups_.records())
        if (group.interface == interface && group.members != 0) change_group(group, now);
}

/// Somewhere within `range_us`, at another moment in each host.
std::int64_t Network::random_delay(std::int64_t range_us) {
    const std::array<std::uint64_t, 2> drawn{next_id_, ++delays_drawn_};
    const std::uint64_t random = siphash(secret_, std::as_bytes(std::span(drawn)));
    return static_cast<std::int64_t>(random % static_cast<std::uint64_t>(range_us + 1));
}

void Network::group_queried(std::uint16_t interface, const IpAddress& group,
                            std::int64_t within_us, Instant now) {
    if (shard_ != 0) return;
    const bool v4 = group.is_v4();
    for (Group& each : groups_.records()) {
        if (each.members == 0 || each.interface != interface || each.address.is_v4() != v4)
            continue;
        if (!group.is_unspecified() && each.address != group) continue;
        if (each.address == wire::kAllHosts || each.address == wire::kAllNodes) continue;
        each.answer = true;
        groups_.schedule(each,
                         std::min(each.report_at_us, to_us(now) + random_delay(within_us)));
    }
}

Network::Fate Network::receive_igmp(const Packet& packet, Instant now) {
    const auto igmp = read_header<wire::IgmpHeader>(packet.l4);
    if (!igmp) return {Counter::InMalformed};
    if (transport_checksum(packet, false) != 0) return {Counter::InBadChecksum};
    if (static_cast<wire::IgmpType>(igmp->type) != wire::IgmpType::Query)
        return {Counter::InNotForUs};  // other members' reports: none of ours depends on them
    if (!packet.to_group && packet.hop_limit != 1)
        return {Counter::InImpossible};  // from beyond the link (RFC 3376 §4)
    const bool old = packet.l4_bytes < sizeof(wire::IgmpV3Query);
    std::int64_t within_us = wire::max_response_us(igmp->max_response);
    if (old) {
        interfaces_[packet.interface].igmp_v2_until_us = to_us(now) + kOlderQuerierUs;
        if (igmp->max_response == 0) within_us = 10'000'000;  // version 1 (RFC 2236 §4)
        else within_us = igmp->max_response * 100'000;
    }
    group_queried(packet.interface, IpAddress::v4(igmp->group), within_us, now);
    return {Counter::InAccepted};
}

/// MLD's query (RFC 3810 §5.1; a version 1 query is its beginning).
Network::Fate Network::receive_listener_query(const Packet& packet, Instant now) {
    struct Query {
        wire::Icmpv6Header header;  // `word`: the time to answer within, and 16 reserved bits
        IpAddress group;
    };
    const auto query = read_header<Query>(packet.l4);
    if (!query) return {Counter::InMalformed};
    const std::uint32_t code = query->header.word >> 16;
    // §5.1.3: milliseconds, from 32768 on as a floating-point number.
    const std::int64_t ms =
        code < 32'768 ? code : std::int64_t{(code & 0xfff) | 0x1000} << ((code >> 12 & 7) + 3);
    if (shard_ == 0)
        report_solicited_nodes(packet.interface, GroupRecordType::IsExclude);
    group_queried(packet.interface, query->group, std::min<std::int64_t>(ms, 60'000) * 1'000, now);
    return {Counter::InAccepted};
}

void Network::advance_groups(Instant now) {
    if (shard_ != 0 || groups_.next_us() > to_us(now)) return;
    for (std::uint16_t i = 0; i < interfaces_.size(); ++i) {
        if (interfaces_[i].is_loopback()) continue;
        report_groups_v4(i, now);
        report_groups_v6(i, now);
    }
    for (Group& group : groups_.records()) {
        if (group.report_at_us > to_us(now)) continue;
        group.answer = false;
        if (group.changes_left > 0) --group.changes_left;
        group.report_at_us =
            group.changes_left > 0 ? to_us(now) + random_delay(kChangeIntervalUs) : kNeverUs;
    }
    groups_.find_next();
}

void Network::report_groups_v4(std::uint16_t interface, Instant now) {
    const bool old = interfaces_[interface].igmp_v2_until_us > to_us(now);
    std::array<wire::GroupRecordV4, kRecordsV4> records;
    std::size_t count = 0;
    for (const Group& group : groups_.records()) {
        if (group.interface != interface || !group.address.is_v4() ||
            group.report_at_us > to_us(now))
            continue;
        if (old) {
            send_igmp_v2(interface, group);
            continue;
        }
        const auto type =
            group.changes_left > 0 ? change_of(group) : GroupRecordType::IsExclude;
        records[count++] = {.type = static_cast<std::uint8_t>(type),
                            .group = group.address.v4_bits()};
        if (count == records.size()) send_igmp_v3(interface, {records.data(), count});
        if (count == records.size()) count = 0;
    }
    if (count != 0) send_igmp_v3(interface, {records.data(), count});
}

void Network::send_igmp_v2(std::uint16_t interface, const Group& group) {
    const bool leaves = group.members == 0;
    const wire::IgmpHeader header{
        .type = static_cast<std::uint8_t>(leaves ? wire::IgmpType::LeaveGroup
                                                 : wire::IgmpType::ReportV2),
        .group = group.address.v4_bits()};
    send_igmp(interface, leaves ? wire::kAllRoutersV4 : group.address,
              std::as_bytes(std::span(&header, 1)));
}

void Network::send_igmp_v3(std::uint16_t interface,
                           std::span<const wire::GroupRecordV4> records) {
    std::array<std::byte, sizeof(wire::IgmpV3Report) + kRecordsV4 * sizeof(wire::GroupRecordV4)>
        message;
    const wire::IgmpV3Report header{.count = static_cast<std::uint16_t>(records.size())};
    std::memcpy(message.data(), &header, sizeof header);
    std::memcpy(message.data() + sizeof header, records.data(), records.size_bytes());
    send_igmp(interface, wire::kIgmpRouters,
              std::span(message).first(sizeof header + records.size_bytes()));
}

/// With the Router Alert option and TTL 1 (RFC 2236 §2, RFC 3376 §4); the checksum is put in.
void Network::send_igmp(std::uint16_t interface, const IpAddress& to,
                        std::span<const std::byte> message) {
    constexpr std::array kRouterAlert{std::byte{0x94}, std::byte{4}, std::byte{0}, std::byte{0}};
    constexpr std::size_t kHeaders = sizeof(wire::Ipv4Header) + kRouterAlert.size();
    static_assert(kHeaders + sizeof(wire::IgmpV3Report) +
                      kRecordsV4 * sizeof(wire::GroupRecordV4) <= kInlineBytes);
    std::uint32_t source = 0;  // 0.0.0.0 is allowed (RFC 3376 §4.2.13)
    for (const shm::AddressInfo& ours : interfaces_[interface].addresses())
        if (ours.prefix.address.is_v4() && source == 0) source = ours.prefix.address.v4_bits();
    const std::uint32_t index = control_.take(true);
    if (index == kNoJob) return;
    Job& job = control_[index];
    wire::Ipv4Header header{
        .version_length = 0x46,
        .tos = 0xc0,
        .total_length = static_cast<std::uint16_t>(kHeaders + message.size()),
        .id = static_cast<std::uint16_t>(next_id_++),
        .fragment = wire::kIpv4DontFragment,
        .ttl = 1,
        .protocol = static_cast<std::uint8_t>(wire::Protocol::Igmp),
        .source = source,
        .destination = to.v4_bits()};
    wire::ChecksumSum sum;
    sum.add(std::as_bytes(std::span(&header, 1)));
    sum.add(kRouterAlert);
    header.checksum = sum.checksum();
    std::memcpy(job.head.data(), &header, sizeof header);
    std::memcpy(job.head.data() + sizeof header, kRouterAlert.data(), kRouterAlert.size());
    std::byte* body = job.head.data() + kHeaders;
    std::memcpy(body, message.data(), message.size());
    const be16 checksum = wire::checksum(message);
    std::memcpy(body + offsetof(wire::IgmpHeader, checksum), &checksum, sizeof checksum);
    job.kind = JobKind::Frame;
    job.interface = interface;
    job.mac = wire::multicast_mac(to);
    job.type = wire::EtherType::Ipv4;
    job.head_bytes = static_cast<std::uint16_t>(kHeaders + message.size());
    control_.push(index, true);
}

void Network::report_groups_v6(std::uint16_t interface, Instant now) {
    std::array<wire::GroupRecordV6, kRecordsV6> records;
    std::size_t count = 0;
    for (const Group& group : groups_.records()) {
        if (group.interface != interface || group.address.is_v4() ||
            group.report_at_us > to_us(now))
            continue;
        const auto type =
            group.changes_left > 0 ? change_of(group) : GroupRecordType::IsExclude;
        records[count++] = {.type = static_cast<std::uint8_t>(type), .group = group.address};
        if (count == records.size()) send_mld_report(interface, records);
        if (count == records.size()) count = 0;
    }
    if (count != 0) send_mld_report(interface, {records.data(), count});
}

}  // namespace chiru::ip
