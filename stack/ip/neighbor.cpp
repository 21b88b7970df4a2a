// SPDX-License-Identifier: Apache-2.0
#include "stack/ip/neighbor.hpp"

#include "base/check.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace chiru::ip {
namespace {

using namespace std::chrono_literals;

/// How long a record stays in each state without anything happening to it.
constexpr std::array<Micros, 7> kPatience{
    Micros(0),         // Free
    Micros(1s),        // Incomplete: RETRANS_TIMER
    Micros(30s),       // Reachable: REACHABLE_TIME
    Micros(10min),     // Stale: forgotten if nobody wants it
    Micros(5s),        // Delay: DELAY_FIRST_PROBE_TIME
    Micros(1s),        // Probe: RETRANS_TIMER
    Micros(1s),        // Failed: no new questions meanwhile
};

constexpr std::size_t list_of(NeighborState state) { return static_cast<std::size_t>(state); }

std::size_t bucket_count(const StackConfig& config) {
    return std::bit_ceil(std::max<std::size_t>(config.neighbors, 16));
}

}  // namespace

void NeighborTable::measure(const StackConfig& config, TableCarver& carver) {
    carver.take<Neighbor>(config.neighbors);
    carver.take<std::uint32_t>(bucket_count(config));
}

NeighborTable::NeighborTable(const StackConfig& config, TableCarver& carver,
                             const InterfaceTable& interfaces, shm::CounterBlock& counters,
                             NeighborEvents& events)
    : table_(carver.take<Neighbor>(config.neighbors)),
      buckets_(carver.take<std::uint32_t>(bucket_count(config))),
      interfaces_(interfaces),
      counters_(counters),
      events_(events),
      key_(config.secret) {
    std::fill(buckets_.begin(), buckets_.end(), kNoNeighbor);
    for (std::uint32_t i = 0; i < table_.size(); ++i) link(i, NeighborState::Free);
}

std::uint32_t& NeighborTable::bucket_of(std::uint16_t interface, const IpAddress& address) const {
    std::array<std::byte, 18> bytes;
    std::memcpy(bytes.data(), address.bytes().data(), 16);
    std::memcpy(bytes.data() + 16, &interface, 2);
    return buckets_[siphash(key_, bytes) & (buckets_.size() - 1)];
}

std::uint32_t NeighborTable::find(std::uint16_t interface, const IpAddress& address) const {
    for (std::uint32_t i = bucket_of(interface, address); i != kNoNeighbor;
         i = table_[i].hash_next)
        if (table_[i].info.address == address && table_[i].info.interface == interface) return i;
    return kNoNeighbor;
}

std::uint32_t NeighborTable::create(std::uint16_t interface, const IpAddress& address) {
    // Who is proven and used keeps its record; the longest unused goes first.
    for (const NeighborState victim :
         {NeighborState::Failed, NeighborState::Stale, NeighborState::Incomplete}) {
        if (lists_[list_of(NeighborState::Free)].first != kNoNeighbor) break;
        const std::uint32_t oldest = lists_[list_of(victim)].first;
        if (oldest != kNoNeighbor) free(oldest);
    }
    const std::uint32_t index = lists_[list_of(NeighborState::Free)].first;
    if (index == kNoNeighbor) return kNoNeighbor;
    Neighbor& neighbor = table_[index];
    neighbor.info.address = address;
    neighbor.info.interface = interface;
    neighbor.info.is_router = 0;
    neighbor.info.mac = {};
    neighbor.info.probes = 0;
    neighbor.link_bytes = 0;
    if (++neighbor.generation == 0) neighbor.generation = 1;
    std::uint32_t& bucket = bucket_of(interface, address);
    neighbor.hash_next = bucket;
    bucket = index;
    return index;
}

void NeighborTable::free(std::uint32_t index) {
    Neighbor& neighbor = table_[index];
    events_.forgotten(index);
    std::uint32_t* at = &bucket_of(neighbor.info.interface, neighbor.info.address);
    while (*at != index) at = &table_[*at].hash_next;
    *at = neighbor.hash_next;
    if (++neighbor.generation == 0) neighbor.generation = 1;
    unlink(index);
    link(index, NeighborState::Free);
}

void NeighborTable::link(std::uint32_t index, NeighborState state) {
    Neighbor& neighbor = table_[index];
    List& list = lists_[list_of(state)];
    neighbor.info.state = state;
    neighbor.list_previous = list.last;
    neighbor.list_next = kNoNeighbor;
    if (list.last == kNoNeighbor) list.first = index;
    else table_[list.last].list_next = index;
    list.last = index;
}

void NeighborTable::unlink(std::uint32_t index) {
    const Neighbor& neighbor = table_[index];
    List& list = lists_[list_of(neighbor.info.state)];
    if (neighbor.list_previous == kNoNeighbor) list.first = neighbor.list_next;
    else table_[neighbor.list_previous].list_next = neighbor.list_next;
    if (neighbor.list_next == kNoNeighbor) list.last = neighbor.list_previous;
    else table_[neighbor.list_next].list_previous = neighbor.list_previous;
}

void NeighborTable::enter(std::uint32_t index, NeighborState state, Instant now) {
    unlink(index);
    link(index, state);
    Neighbor& neighbor = table_[index];
    neighbor.info.updated_us = to_us(now);
    neighbor.info.deadline_us = to_us(now + kPatience[list_of(state)]);
}

std::uint32_t NeighborTable::resolve(std::uint16_t interface, const IpAddress& address,
                                     Instant now) {
    const std::uint32_t known = find(interface, address);
    if (known != kNoNeighbor) return known;
    const std::uint32_t index = create(interface, address);
    if (index == kNoNeighbor) return index;
    enter(index, NeighborState::Incomplete, now);
    table_[index].info.probes = 1;
    events_.solicit(table_[index], true, now);
    return index;
}

void NeighborTable::set_mac(std::uint32_t index, const MacAddress& mac) {
    Neighbor& neighbor = table_[index];
    const Interface& interface = interfaces_[neighbor.info.interface];
    neighbor.info.mac = mac;
    const wire::EthernetHeader ethernet{mac, interface.mac,
                                        static_cast<std::uint16_t>(wire::EtherType::Vlan)};
    const wire::VlanTag tag{interface.info.vlan, std::uint16_t{0}};
    std::memcpy(neighbor.link_header.data(), &ethernet, sizeof ethernet);
    std::memcpy(neighbor.link_header.data() + sizeof ethernet, &tag, sizeof tag);
    const bool software_tag =
        interface.info.vlan != 0 && (interface.offloads & shm::kOffloadVlanInsert) == 0;
    neighbor.link_bytes = software_tag ? kMaxLinkBytes : sizeof ethernet;
}

void NeighborTable::learn(std::uint32_t index, const MacAddress& mac, NeighborState state,
                          Instant now) {
    const NeighborState before = table_[index].info.state;
    set_mac(index, mac);
    enter(index, state, now);
    if (before != NeighborState::Incomplete && before != NeighborState::Failed &&
        before != NeighborState::Free)
        return;
    counters_.add(shm::Counter::NeighborResolved);
    events_.resolved(index, now);
}

void NeighborTable::asked(std::uint16_t interface, const IpAddress& address,
                          const MacAddress& mac, Instant now) {
    std::uint32_t index = find(interface, address);
    if (index == kNoNeighbor) index = create(interface, address);
    if (index == kNoNeighbor) return;
    const Neighbor& neighbor = table_[index];
    if (neighbor.link_bytes == 0 || neighbor.info.mac != mac)
        learn(index, mac, NeighborState::Stale, now);
}

void NeighborTable::overheard(std::uint16_t interface, const IpAddress& address,
                              const MacAddress& mac, Instant now) {
    const std::uint32_t index = find(interface, address);
    if (index == kNoNeighbor) return;
    const Neighbor& neighbor = table_[index];
    if (neighbor.link_bytes == 0 || neighbor.info.mac != mac)
        learn(index, mac, NeighborState::Stale, now);
}

void NeighborTable::advertised(std::uint16_t interface, const Advertisement& advertisement,
                               Instant now) {
    const std::uint32_t index = find(interface, advertisement.address);
    if (index == kNoNeighbor) return;  // §7.2.5: nobody here wanted to know
    Neighbor& neighbor = table_[index];
    const bool was_unknown = neighbor.link_bytes == 0;
    if (was_unknown) {
        if (!advertisement.has_mac) return;
        neighbor.info.is_router = advertisement.router;
        learn(index, advertisement.mac,
              advertisement.solicited ? NeighborState::Reachable : NeighborState::Stale, now);
        return;
    }
    const bool differs = advertisement.has_mac && advertisement.mac != neighbor.info.mac;
    if (differs && !advertisement.override_) {
        if (neighbor.info.state == NeighborState::Reachable)
            enter(index, NeighborState::Stale, now);
        return;
    }
    neighbor.info.is_router = advertisement.router;
    if (differs)
        learn(index, advertisement.mac,
              advertisement.solicited ? NeighborState::Reachable : NeighborState::Stale, now);
    else if (advertisement.solicited)
        enter(index, NeighborState::Reachable, now);
}

void NeighborTable::confirm(std::uint32_t index, std::uint32_t generation, Instant now) {
    if (!is_current(index, generation)) return;
    const Neighbor& neighbor = table_[index];
    switch (neighbor.info.state) {
    case NeighborState::Reachable:  // once a second is often enough
        if (to_us(now) - neighbor.info.updated_us < 1'000'000) return;
        [[fallthrough]];
    case NeighborState::Stale:
    case NeighborState::Delay:
    case NeighborState::Probe: enter(index, NeighborState::Reachable, now); return;
    default: return;
    }
}

void NeighborTable::forget(std::uint16_t interface) {
    for (std::uint32_t i = 0; i < table_.size(); ++i) {
        const shm::NeighborInfo& info = table_[i].info;
        if (info.interface == interface && info.state != NeighborState::Free &&
            info.state != NeighborState::Incomplete)
            free(i);
    }
}

void NeighborTable::renew_all_paths() {
    for (Neighbor& neighbor : table_)
        if (neighbor.info.state != NeighborState::Free && ++neighbor.generation == 0)
            neighbor.generation = 1;
}

void NeighborTable::expire(std::uint32_t index, Instant now) {
    Neighbor& neighbor = table_[index];
    switch (neighbor.info.state) {
    case NeighborState::Incomplete:
        if (neighbor.info.probes >= kSolicitations) {
            counters_.add(shm::Counter::NeighborFailed);
            enter(index, NeighborState::Failed, now);
            events_.failed(index, now);
            return;
        }
        ++neighbor.info.probes;
        enter(index, NeighborState::Incomplete, now);
        events_.solicit(neighbor, true, now);
        return;
    case NeighborState::Reachable: enter(index, NeighborState::Stale, now); return;
    case NeighborState::Delay:
        neighbor.info.probes = 1;
        enter(index, NeighborState::Probe, now);
        events_.solicit(neighbor, false, now);
        return;
    case NeighborState::Probe:
        if (neighbor.info.probes >= kSolicitations) {
            counters_.add(shm::Counter::NeighborFailed);
            free(index);
            return;
        }
        ++neighbor.info.probes;
        enter(index, NeighborState::Probe, now);
        events_.solicit(neighbor, false, now);
        return;
    case NeighborState::Stale:
    case NeighborState::Failed: free(index); return;
    case NeighborState::Free: return;
    }
}

void NeighborTable::advance(Instant now) {
    for (std::size_t state = 1; state < kLists; ++state) {
        // Bounded: whoever is put back into this list has a later deadline.
        for (std::uint32_t first = lists_[state].first;
             first != kNoNeighbor && table_[first].info.deadline_us <= to_us(now);
             first = lists_[state].first)
            expire(first, now);
    }
}

Instant NeighborTable::next_deadline() const {
    std::int64_t next = kNeverUs;
    for (std::size_t state = 1; state < kLists; ++state)
        if (lists_[state].first != kNoNeighbor)
            next = std::min(next, table_[lists_[state].first].info.deadline_us);
    return from_us(next);
}

}  // namespace chiru::ip
