// SPDX-License-Identifier: Apache-2.0
#include "stack/ip/network.hpp"

#include <algorithm>

namespace chiru::ip {
namespace {

/// RFC 4443 §2.4 (f) asks for a bound; this one is what hosts commonly have.
constexpr std::uint32_t kErrorsPerSecond = 1000;
constexpr std::uint32_t kErrorBurst = 50;

std::size_t piece_count(const StackConfig& config) {
    return config.rx_slots == 0 ? 2048 : config.ip_slots();
}

}  // namespace

std::size_t Network::tables_bytes(const StackConfig& config) {
    TableCarver carver;
    carver.take<Piece>(piece_count(config));
    carver.take<Job>(kControlJobs);
    InterfaceTable::measure(config, carver);
    RouteTable::measure(config, carver);
    NeighborTable::measure(config, carver);
    Reassembly::measure(carver);
    PathMtuCache::measure(carver);
    GroupTable::measure(carver);
    return carver.used_bytes();
}

Network::Network(const StackConfig& config, std::span<std::byte> tables, std::byte* region,
                 shm::ShardTables& published, ArenaView rx_arena, BufferPool& pool,
                 shm::CounterBlock& counters, Instant now)
    : shard_(config.shard),
      shard_count_(config.shard_count),
      flow_map_(config.flow_map),
      rx_arena_(rx_arena),
      counters_(counters),
      carver_(tables),
      slots_(pool),
      pieces_(carver_.take<Piece>(piece_count(config)), rx_arena, slots_),
      control_(carver_.take<Job>(kControlJobs), pieces_),
      interfaces_(config, carver_, now),
      routes_(config, carver_),
      neighbors_(config, carver_, interfaces_, counters, *this),
      fragments_(carver_, pieces_, config.secret),
      path_mtus_(carver_, config.secret),
      groups_(carver_),
      secret_(config.secret),
      error_budget_(kErrorsPerSecond, kErrorBurst),
      next_id_(static_cast<std::uint32_t>(config.secret.k0 ^ config.secret.k1)),
      now_(now) {
    const std::span<const Neighbor> records = neighbors_.records();
    published.neighbors = {
        static_cast<std::uint64_t>(reinterpret_cast<const std::byte*>(records.data()) - region),
        sizeof(Neighbor), static_cast<std::uint32_t>(records.size())};
    const std::span<const PathMtuEntry> paths = path_mtus_.records();
    published.path_mtus = {
        static_cast<std::uint64_t>(reinterpret_cast<const std::byte*>(paths.data()) - region),
        sizeof(PathMtuEntry), static_cast<std::uint32_t>(paths.size())};
    follow_changes();
}

shm::InterfaceInfo Network::interface_info(std::uint16_t interface) const {
    return interface < interfaces_.size() ? interfaces_[interface].info : shm::InterfaceInfo{};
}

void Network::follow_changes() {
    if (seen_version_ == interfaces_.version()) return;
    seen_version_ = interfaces_.version();
    routes_.rebuild(interfaces_);
    neighbors_.renew_all_paths();
}

void Network::advance(Instant now) {
    now_ = now;
    for (std::uint16_t i = 0; i < interfaces_.size(); ++i) advance_interface(i, now);
    neighbors_.advance(now);
    expire_fragments(now);
    advance_groups(now);
    if (const std::size_t expired = path_mtus_.expire(now); expired != 0) {
        counters_.add(Counter::IpPathMtusExpired, expired);
        ++path_mtus_seen_;
    }
    renew_narrowed_paths();
    slots_.flush();
    follow_changes();
}

std::size_t Network::transmit(std::span<TxFrame> frames, Instant now) {
    now_ = now;
    std::size_t count = 0;
    while (count < frames.size() && !control_.empty()) {
        const std::uint32_t index = control_.pop();
        switch (send_job(control_[index], index, frames[count], now)) {
        case Sent::Done: control_.finish(index); break;
        case Sent::More: control_.put_back(index); break;
        case Sent::Nothing: continue;
        }
        ++count;
    }
    slots_.flush();
    return count;
}

Instant Network::next_deadline() const {
    if (!control_.empty()) return now_;
    std::int64_t next = kNeverUs;
    for (std::size_t i = 0; i < interfaces_.size(); ++i)
        next = std::min(next, interfaces_[i].next_us);
    next = std::min(next, groups_.next_us());
    return std::min({from_us(next), neighbors_.next_deadline(), fragments_.next_deadline()});
}

void Network::link_up(PortIndex port, Instant now) {
    for (std::uint16_t i = 0; i < interfaces_.size(); ++i) {
        if (interfaces_[i].info.port != port) continue;
        neighbors_.forget(i);
        announce_again(i, now);
    }
}

void Network::solicit(const Neighbor& neighbor, bool multicast, Instant now) {
    static_cast<void>(now);
    const shm::NeighborInfo& info = neighbor.info;
    if (info.address.is_v6()) {
        send_solicitation(info.interface, info.address, multicast ? nullptr : &info.mac, false);
        return;
    }
    const auto source =
        select_source(interfaces_, info.address, {info.address, info.interface});
    if (source)
        send_arp(info.interface, wire::ArpOperation::Request, *source, MacAddress{},
                 info.address, multicast ? kBroadcastMac : info.mac);
}

void Network::resolved(std::uint32_t index, Instant now) {
    Neighbor& neighbor = neighbors_[index];
    control_.push_chain(neighbor.first_job, neighbor.last_job);
    neighbor.first_job = neighbor.last_job = kNoJob;
    parked_jobs_ -= neighbor.info.queued_frames;
    neighbor.info.queued_frames = 0;
    if (tcp_ != nullptr) tcp_->path_ready(index, true, now);
    if (udp_ != nullptr) udp_->path_ready(index, true);
}

void Network::failed(std::uint32_t index, Instant now) {
    forgotten(index);
    if (tcp_ != nullptr) tcp_->path_ready(index, false, now);
}

void Network::forgotten(std::uint32_t index) {
    Neighbor& neighbor = neighbors_[index];
    for (std::uint32_t job = neighbor.first_job; job != kNoJob;) {
        const std::uint32_t next = control_[job].next;
        drop_waiting(job);
        job = next;
    }
    neighbor.first_job = neighbor.last_job = kNoJob;
    parked_jobs_ -= neighbor.info.queued_frames;
    neighbor.info.queued_frames = 0;
    if (udp_ != nullptr) udp_->path_ready(index, false);
}

}  // namespace chiru::ip
