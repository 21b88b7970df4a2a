// SPDX-License-Identifier: Apache-2.0
//
// The way out: which neighbour, which headers, and fragments of ICMP's packets that are too large.
// TCP cuts its segments itself and forbids fragments; UDP asks for each of its fragments.
#include "stack/ip/network.hpp"

#include "stack/wire/checksum.hpp"
#include "stack/wire/ethernet.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace chiru::ip {

void Network::fill_path(Path& path, const NextHop& hop, const IpAddress& remote,
                        Instant now) const {
    const Interface& interface = interfaces_[hop.interface];
    path.interface = hop.interface;
    path.mtu = path_mtus_.limit(remote, interface.info.mtu, now);
    path.local = 0;
    path.offload_l4 = (interface.offloads & shm::kOffloadTxL4Checksum) != 0 ? 1 : 0;
    path.tso_bytes = static_cast<std::uint16_t>(std::min(interface.tso_bytes, 65'535u));
}

void Network::fill_local_path(Path& path) const {
    path.interface = interfaces_.loopback();
    path.mtu = interfaces_[path.interface].info.mtu;
    path.neighbor = kNoNeighbor;
    path.generation = seen_version_;
    path.local = 1;
    path.offload_l4 = 1;
    path.tso_bytes = 0;
}

Result<Lower::Route, int> Network::route(const IpAddress& remote, const IpAddress& local,
                                         std::uint16_t link) {
    const bool chosen = !local.is_unspecified();
    if (chosen && (!is_local(local) || local.is_v4() != remote.is_v4()))
        return std::unexpected(EADDRNOTAVAIL);
    if (remote.is_unspecified() || remote.is_multicast())
        return std::unexpected(ENETUNREACH);
    Route route;
    if (is_local(remote)) {
        fill_local_path(route.path);
        route.local = local;
        if (!chosen)
            route.local = remote.is_loopback() && remote.is_v4() ? IpAddress::v4(0x7f00'0001)
                                                                 : remote;
        return route;
    }
    if (chosen && local.is_loopback()) return std::unexpected(ENETUNREACH);
    // A link-local address means nothing without its link: if nothing came from there, our own end
    // tells it.
    std::uint16_t scope = kAnyInterface;
    if (remote.is_v6() && remote.is_link_local()) {
        scope = link;
        if (scope == kAnyInterface && chosen && local.is_link_local())
            scope = interfaces_.find(local)->interface;
    }
    const auto hop = routes_.lookup(remote, scope);
    if (!hop || interfaces_.is_broadcast(interfaces_[hop->interface], remote)) {
        counters_.add(Counter::IpNoRoute);
        return std::unexpected(ENETUNREACH);
    }
    const auto source = chosen ? std::optional(local) : select_source(interfaces_, remote, *hop);
    if (!source) return std::unexpected(EADDRNOTAVAIL);
    fill_path(route.path, *hop, remote, now_);
    route.path.neighbor = kNoNeighbor;  // looked up when there is something to send
    route.path.generation = 0;
    route.local = *source;
    return route;
}

/// To one host as route() has it, but over the interface that is asked for; to a group over the
/// one asked for, or where a route leads, or else the first.
Result<DatagramLower::DatagramRoute, int> Network::datagram_route(const IpAddress& remote,
                                                                  const IpAddress& local,
                                                                  std::uint16_t interface) {
    std::optional<std::uint16_t> link;  // of a group
    if (remote.is_multicast() || remote.is_broadcast()) link = group_interface(remote, interface);
    else if (remote.is_v4() && !is_local(remote))
        for (std::uint16_t i = 0; i < interfaces_.size(); ++i)
            if (interfaces_.is_broadcast(interfaces_[i], remote)) link = i;
    if (!link) {
        const auto found = route(remote, local, kAnyInterface);
        if (!found) return std::unexpected(found.error());
        return DatagramRoute{found->path, found->local,
                             interfaces_[found->path.interface].info.mtu};
    }
    if (interfaces_[*link].is_loopback()) return std::unexpected(ENETUNREACH);
    DatagramRoute to_group;
    to_group.local = local;
    if (local.is_unspecified()) {
        const auto source = select_source(interfaces_, remote, {remote, *link});
        if (!source) return std::unexpected(EADDRNOTAVAIL);
        to_group.local = *source;
    } else if (!is_local(local) || local.is_v4() != remote.is_v4()) {
        return std::unexpected(EADDRNOTAVAIL);
    }
    fill_path(to_group.path, {remote, *link}, remote, now_);
    to_group.path.neighbor = kNoNeighbor;
    to_group.group = true;
    to_group.link_mtu = interfaces_[*link].info.mtu;
    return to_group;
}

bool Network::is_local(const IpAddress& address) const {
    const LocalAddress* ours = interfaces_.find(address);
    return ours != nullptr && ours->usable();
}

void Network::confirm(const Path& path, Instant now) {
    if (path.local == 0) neighbors_.confirm(path.neighbor, path.generation, now);
}

/// Looks the way up again. False if there is none.
bool Network::renew_path(Path& path, const IpAddress& remote, Instant now) {
    if (is_local(remote)) {
        fill_local_path(path);
        return true;
    }
    const bool scoped = remote.is_v6() && remote.is_link_local();
    const auto hop = routes_.lookup(remote, scoped ? path.interface : kAnyInterface);
    if (!hop) {
        counters_.add(Counter::IpNoRoute);
        return false;
    }
    const std::uint32_t neighbor = neighbors_.resolve(hop->interface, hop->address, now);
    if (neighbor == kNoNeighbor) return false;
    fill_path(path, *hop, remote, now);
    path.neighbor = neighbor;
    path.generation = neighbors_[neighbor].generation;
    return true;
}

BeginResult Network::prepare(Path& path, const IpAddress& remote, Instant now) {
    const bool current = path.local != 0 ? path.generation == seen_version_
                                         : neighbors_.is_current(path.neighbor, path.generation);
    if (!current && !renew_path(path, remote, now)) return BeginResult::Unreachable;
    if (path.local != 0) return BeginResult::Ready;
    switch (neighbors_[path.neighbor].info.state) {
    case NeighborState::Reachable:
    case NeighborState::Delay:
    case NeighborState::Probe: return BeginResult::Ready;
    case NeighborState::Stale:
        neighbors_.use(path.neighbor, now);
        return BeginResult::Ready;
    case NeighborState::Incomplete: return BeginResult::Unresolved;
    default: return BeginResult::Unreachable;
    }
}

BeginResult Network::begin(TxFrame& frame, Path& path, const IpAddress& local,
                           const IpAddress& remote, std::uint8_t protocol, std::size_t l4_bytes,
                           IpOptions options, Instant now) {
    const BeginResult result = prepare(path, remote, now);
    if (result == BeginResult::Ready)
        write_headers(frame, path, local, remote, protocol, l4_bytes, options, {});
    return result;
}

/// To all that listen on the link: there is no neighbour.
void Network::write_group_link(TxFrame& frame, const Interface& interface,
                               const IpAddress& remote) {
    const MacAddress to = remote.is_multicast() ? wire::multicast_mac(remote) : kBroadcastMac;
    const wire::EthernetHeader ethernet{to, interface.mac, {}};
    std::memcpy(frame.head, &ethernet, sizeof ethernet);
    frame.port = interface.info.port;
    frame.l2_bytes = sizeof ethernet;
    if (interface.info.vlan == 0) return;
    if ((interface.offloads & shm::kOffloadVlanInsert) != 0) {
        frame.flags |= kTxVlanInsert;
        frame.vlan_tci = interface.info.vlan;
        return;
    }
    const be16 type = static_cast<std::uint16_t>(wire::EtherType::Vlan);
    const be16 vlan = interface.info.vlan;
    std::memcpy(frame.head + 12, &type, sizeof type);
    std::memcpy(frame.head + 14, &vlan, sizeof vlan);
    frame.l2_bytes += static_cast<std::uint8_t>(sizeof(wire::VlanTag));
}

void Network::write_link(TxFrame& frame, const Path& path, const IpAddress& remote,
                         bool to_group) {
    const bool v4 = remote.is_v4();
    const be16 type =
        static_cast<std::uint16_t>(v4 ? wire::EtherType::Ipv4 : wire::EtherType::Ipv6);
    const Interface& interface = interfaces_[path.interface];
    frame.flags = v4 ? 0 : kTxIpv6;
    frame.vlan_tci = 0;
    if (path.local != 0) {
        std::memset(frame.head, 0, sizeof(wire::EthernetHeader));
        frame.port = kLocalPort;
        frame.l2_bytes = sizeof(wire::EthernetHeader);
    } else if (to_group) {
        write_group_link(frame, interface, remote);
    } else {
        const Neighbor& neighbor = neighbors_[path.neighbor];
        std::memcpy(frame.head, neighbor.link_header.data(), neighbor.link_header.size());
        frame.port = interface.info.port;
        frame.l2_bytes = neighbor.link_bytes;
        if (interface.info.vlan != 0 && neighbor.link_bytes == sizeof(wire::EthernetHeader)) {
            frame.flags |= kTxVlanInsert;
            frame.vlan_tci = interface.info.vlan;
        }
    }
    std::memcpy(frame.head + frame.l2_bytes - sizeof type, &type, sizeof type);
}

void Network::write_headers(TxFrame& frame, const Path& path, const IpAddress& local,
                            const IpAddress& remote, std::uint8_t protocol,
                            std::size_t payload_bytes, IpOptions options, const Cut& cut) {
    const bool v4 = remote.is_v4();
    write_link(frame, path, remote, cut.to_group);
    frame.l4_bytes = 0;
    frame.segment_bytes = 0;
    frame.slice_count = 0;
    std::byte* at = frame.head + frame.l2_bytes;
    if (v4) {
        // RFC 6864 §4.1: only what may be fragmented needs a number of its own.
        wire::Ipv4Header header{
            .tos = options.tos,
            .total_length = static_cast<std::uint16_t>(
                std::min<std::size_t>(sizeof(wire::Ipv4Header) + payload_bytes, 65'535)),
            .id = static_cast<std::uint16_t>(cut.dont_fragment ? next_id_++ : cut.id),
            .fragment = static_cast<std::uint16_t>(
                (cut.dont_fragment ? wire::kIpv4DontFragment : 0) |
                (cut.more ? wire::kIpv4MoreFragments : 0) | cut.offset / 8),
            .ttl = options.ttl,
            .protocol = protocol,
            .source = local.v4_bits(),
            .destination = remote.v4_bits()};
        const bool offloaded =
            path.local == 0 &&
            (interfaces_[path.interface].offloads & shm::kOffloadTxIpChecksum) != 0;
        if (offloaded) frame.flags |= kTxIpChecksum;
        else header.checksum = wire::checksum(std::as_bytes(std::span(&header, 1)));
        std::memcpy(at, &header, sizeof header);
        frame.l3_bytes = sizeof header;
    } else {
        const bool fragment = cut.is_fragment();
        const std::size_t extra = fragment ? sizeof(wire::FragmentHeader) : 0;
        const wire::Ipv6Header header{
            .version_class_flow = 0x6000'0000u | std::uint32_t{options.tos} << 20,
            .payload_length = static_cast<std::uint16_t>(
                std::min<std::size_t>(payload_bytes + extra, 65'535)),
            .next_header = fragment ? static_cast<std::uint8_t>(wire::Protocol::Fragment)
                                    : protocol,
            .hop_limit = options.ttl,
            .source = local,
            .destination = remote};
        std::memcpy(at, &header, sizeof header);
        if (fragment) {
            const wire::FragmentHeader piece{
                .next_header = protocol,
                .offset_flags = static_cast<std::uint16_t>(cut.offset | (cut.more ? 1 : 0)),
                .id = cut.id};
            std::memcpy(at + sizeof header, &piece, sizeof piece);
        }
        frame.l3_bytes = static_cast<std::uint8_t>(sizeof header + extra);
    }
    frame.head_length = static_cast<std::uint16_t>(frame.l2_bytes + frame.l3_bytes);
}

BeginResult Network::begin_datagram(TxFrame& frame, Path& path, const IpAddress& local,
                                    const IpAddress& remote, std::uint8_t protocol,
                                    std::size_t payload_bytes, IpOptions options, const Cut& cut,
                                    Instant now) {
    const BeginResult result =
        cut.to_group ? BeginResult::Ready : prepare(path, remote, now);
    if (result == BeginResult::Ready)
        write_headers(frame, path, local, remote, protocol, payload_bytes, options, cut);
    return result;
}

void Network::drop_waiting(std::uint32_t job) {
    counters_.add(Counter::NeighborQueueDropped);
    control_.finish(job);
}

/// A neighbour gets no more than is left to the others, so that some places stay for a while.
void Network::park(std::uint32_t job, std::uint32_t index) {
    Neighbor& neighbor = neighbors_[index];
    const std::uint32_t queued = neighbor.info.queued_frames;
    if (queued == kNeighborQueue || queued + parked_jobs_ >= kParkedJobs) {
        drop_waiting(job);
        return;
    }
    control_[job].next = kNoJob;
    if (neighbor.first_job == kNoJob) neighbor.first_job = job;
    else control_[neighbor.last_job].next = job;
    neighbor.last_job = job;
    ++neighbor.info.queued_frames;
    ++parked_jobs_;
}

Network::Sent Network::send_frame_job(const Job& job, TxFrame& frame) {
    const Interface& interface = interfaces_[job.interface];
    const wire::EthernetHeader ethernet{job.mac, interface.mac,
                                        static_cast<std::uint16_t>(job.type)};
    std::memcpy(frame.head, &ethernet, sizeof ethernet);
    frame.port = interface.info.port;
    frame.flags = 0;
    frame.vlan_tci = 0;
    frame.segment_bytes = 0;
    frame.slice_count = 0;
    frame.l2_bytes = sizeof ethernet;
    frame.l3_bytes = frame.l4_bytes = 0;
    if (interface.info.vlan != 0) {
        if ((interface.offloads & shm::kOffloadVlanInsert) != 0) {
            frame.flags = kTxVlanInsert;
            frame.vlan_tci = interface.info.vlan;
        } else {
            const be16 type = static_cast<std::uint16_t>(wire::EtherType::Vlan);
            const wire::VlanTag tag{interface.info.vlan, ethernet.type};
            std::memcpy(frame.head + 12, &type, sizeof type);
            std::memcpy(frame.head + 14, &tag, sizeof tag);
            frame.l2_bytes += static_cast<std::uint8_t>(sizeof tag);
        }
    }
    std::memcpy(frame.head + frame.l2_bytes, job.head.data(), job.head_bytes);
    frame.head_length = static_cast<std::uint16_t>(frame.l2_bytes + job.head_bytes);
    return Sent::Done;
}

/// Writes the job's next frame. Nothing: it waits for its neighbour now, or was given up.
Network::Sent Network::send_job(Job& job, std::uint32_t index, TxFrame& frame, Instant now) {
    if (job.kind == JobKind::Frame) return send_frame_job(job, frame);
    if (job.kind == JobKind::Segment) return send_segment_job(job, frame);
    const BeginResult result = prepare(job.path, job.remote, now);
    if (result != BeginResult::Ready) {
        if (result == BeginResult::Unresolved) park(index, job.path.neighbor);
        else drop_waiting(index);
        return Sent::Nothing;
    }
    const bool v4 = job.remote.is_v4();
    const std::size_t header_bytes = v4 ? sizeof(wire::Ipv4Header) : sizeof(wire::Ipv6Header);
    const std::size_t room = std::min<std::size_t>(job.path.mtu,
                                                   frame.head_capacity - kMaxLinkBytes);
    const bool whole = job.sent_bytes == 0 && header_bytes + job.bytes() <= room;
    Cut cut{.dont_fragment = false};
    std::size_t bytes = job.bytes() - job.sent_bytes;
    if (!whole) {
        const std::size_t extra = v4 ? 0 : sizeof(wire::FragmentHeader);
        const std::size_t most = (room - header_bytes - extra) / 8 * 8;
        cut.more = bytes > most;
        cut.offset = job.sent_bytes;
        bytes = std::min(bytes, most);
    }
    if (job.sent_bytes == 0) job.fragment_id = next_id_++;
    cut.id = job.fragment_id;
    write_headers(frame, job.path, job.local, job.remote, job.protocol, bytes, job.options, cut);
    control_.copy(job, job.sent_bytes, {frame.head + frame.head_length, bytes});
    frame.head_length = static_cast<std::uint16_t>(frame.head_length + bytes);
    job.sent_bytes += static_cast<std::uint32_t>(bytes);
    return cut.more ? Sent::More : Sent::Done;
}

}  // namespace chiru::ip
