// SPDX-License-Identifier: Apache-2.0
//
// The neighbour cache: link addresses of the hosts on our links, by ARP (RFC 826) and neighbour
// discovery (RFC 4861 §7), with the states of §7.3.2 for both.
//
//   resolve() -> Incomplete -- answer --> Reachable -- 30 s without a sign --> Stale
//                   |  3 x 1 s              ^   ^                               | used
//                   v                       |   +---- answer -- Probe <- 5 s - Delay
//                 Failed -- 1 s --> Free    +--- upper layer confirms --+   3 x 1 s: Free
//
// All records of one state wait equally long, so each state has a list in order of deadlines and
// no timer costs more than a link or two. A path names a record by index and generation; what
// changes the way there raises the generation, and the path is looked up again.
#pragma once

#include "base/address.hpp"
#include "base/siphash.hpp"
#include "base/time.hpp"
#include "shm/counters.hpp"
#include "shm/tables.hpp"
#include "stack/ip/control_queue.hpp"
#include "stack/ip/interface.hpp"
#include "stack/table_carver.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace chiru::ip {

using shm::NeighborState;

inline constexpr std::uint32_t kNoNeighbor = ~0u;
inline constexpr std::size_t kMaxLinkBytes = sizeof(wire::EthernetHeader) + sizeof(wire::VlanTag);
/// Packets that wait for one neighbour's address, whatever they are cut into.
inline constexpr std::uint16_t kNeighborQueue = 32;
inline constexpr std::uint16_t kSolicitations = 3;  // RFC 4861 §10: both kinds

struct alignas(kCacheLine) Neighbor {
    shm::NeighborInfo info;
    // -- what begin() needs, in one line
    std::uint32_t generation = 0;  ///< never 0 once in use
    std::uint8_t link_bytes = 0;
    std::uint8_t list = 0;
    std::uint16_t reserved = 0;
    std::array<std::byte, kMaxLinkBytes + 2> link_header{};  ///< but for the EtherType, last
    std::uint32_t hash_next = kNoNeighbor;
    std::uint32_t list_previous = kNoNeighbor;
    std::uint32_t list_next = kNoNeighbor;
    std::uint32_t first_job = kNoJob;
    std::uint32_t last_job = kNoJob;
};
static_assert(sizeof(Neighbor) == 128);

/// What the cache makes happen.
class NeighborEvents {
public:
    virtual ~NeighborEvents() = default;
    /// Ask for this neighbour, everybody or itself.
    virtual void solicit(const Neighbor& neighbor, bool multicast, Instant now) = 0;
    virtual void resolved(std::uint32_t neighbor, Instant now) = 0;
    virtual void failed(std::uint32_t neighbor, Instant now) = 0;
    /// Its record is given up, perhaps for another at once; jobs that wait there are to be dropped.
    /// Comes in the middle of sending. Who else waits is told when the record's next owner is
    /// resolved or fails, and then finds his path outdated.
    virtual void forgotten(std::uint32_t neighbor) = 0;
};

class NeighborTable {
public:
    NeighborTable(const StackConfig& config, TableCarver& carver, const InterfaceTable& interfaces,
                  shm::CounterBlock& counters, NeighborEvents& events);
    static void measure(const StackConfig& config, TableCarver& carver);

    std::span<const Neighbor> records() const { return table_; }
    Neighbor& operator[](std::uint32_t index) { return table_[index]; }

    std::uint32_t find(std::uint16_t interface, const IpAddress& address) const;
    /// The record for `address`; asks for it if it is new. kNoNeighbor if there is no room.
    std::uint32_t resolve(std::uint16_t interface, const IpAddress& address, Instant now);
    /// It is about to be sent to.
    void use(std::uint32_t index, Instant now) {
        if (table_[index].info.state == NeighborState::Stale)
            enter(index, NeighborState::Delay, now);
    }
    /// Is the way to it that was named by this generation still right?
    bool is_current(std::uint32_t index, std::uint32_t generation) const {
        return index < table_.size() && table_[index].generation == generation && generation != 0;
    }

    /// It asked for us, and said where it is: known from now on, but not proven.
    void asked(std::uint16_t interface, const IpAddress& address, const MacAddress& mac,
               Instant now);
    /// An ARP packet that is no answer to us: corrects what is known.
    void overheard(std::uint16_t interface, const IpAddress& address, const MacAddress& mac,
                   Instant now);
    struct Advertisement {
        IpAddress address;
        MacAddress mac;
        bool has_mac = true;
        bool solicited = true;  ///< it answers a question of ours
        bool override_ = true;
        bool router = false;
    };
    /// RFC 4861 §7.2.5; an ARP reply is a solicited one that overrides.
    void advertised(std::uint16_t interface, const Advertisement& advertisement, Instant now);
    /// The neighbour answered, as a layer above found.
    void confirm(std::uint32_t index, std::uint32_t generation, Instant now);

    /// Whoever is known on this interface has to be asked for again; questions that are open stay.
    void forget(std::uint16_t interface);
    /// Every path is looked up again: routes or addresses changed.
    void renew_all_paths();

    void advance(Instant now);
    Instant next_deadline() const;

private:
    static constexpr std::size_t kLists = 7;  // by NeighborState
    struct List {
        std::uint32_t first = kNoNeighbor;
        std::uint32_t last = kNoNeighbor;
    };

    std::uint32_t& bucket_of(std::uint16_t interface, const IpAddress& address) const;
    std::uint32_t create(std::uint16_t interface, const IpAddress& address);
    void free(std::uint32_t index);
    void enter(std::uint32_t index, NeighborState state, Instant now);
    void link(std::uint32_t index, NeighborState state);
    void unlink(std::uint32_t index);
    void set_mac(std::uint32_t index, const MacAddress& mac);
    void learn(std::uint32_t index, const MacAddress& mac, NeighborState state, Instant now);
    void expire(std::uint32_t index, Instant now);

    std::span<Neighbor> table_;
    std::span<std::uint32_t> buckets_;
    const InterfaceTable& interfaces_;
    shm::CounterBlock& counters_;
    NeighborEvents& events_;
    SipKey key_;
    std::array<List, kLists> lists_;
};

}  // namespace chiru::ip
