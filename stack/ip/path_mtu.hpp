// SPDX-License-Identifier: Apache-2.0
//
// The largest packets that reach a destination: as routers told us (RFC 1191, RFC 8201), as
// transports found out (RFC 4821 §5.2), or as another shard learnt. A direct-mapped cache: a
// destination that loses its place starts again at the interface's MTU, which costs one more
// message from the router, or one more search.
//
// All are believed equally long, so the list from the oldest to the newest is also the order in
// which they end.
#pragma once

#include "base/address.hpp"
#include "base/siphash.hpp"
#include "base/time.hpp"
#include "shm/tables.hpp"
#include "stack/table_carver.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace chiru::ip {

/// RFC 1191 §6.3, RFC 8201 §4: after this time a larger size is tried again.
inline constexpr Micros kPathMtuLife = std::chrono::minutes(10);
inline constexpr std::uint16_t kMinMtuV4 = 576;   // smaller claims are not believed
inline constexpr std::uint16_t kMinMtuV6 = 1280;  // RFC 8200 §5

struct PathMtuEntry {
    shm::PathMtuInfo info;
    std::uint32_t older = 0;  ///< position + 1; 0: none
    std::uint32_t newer = 0;
};

class PathMtuCache {
public:
    static constexpr std::size_t kEntries = 4096;
    using Origin = shm::PathMtuOrigin;

    PathMtuCache(TableCarver& carver, const SipKey& key)
        : table_(carver.take<PathMtuEntry>(kEntries)), key_(key) {}
    static void measure(TableCarver& carver) { carver.take<PathMtuEntry>(kEntries); }
    std::span<const PathMtuEntry> records() const { return table_; }

    /// The smaller of `mtu` and what is known of `remote`.
    std::uint16_t limit(const IpAddress& remote, std::uint16_t mtu, Instant now) const {
        const PathMtuEntry& entry = table_[place_of(remote)];
        return knows(entry, remote, now) ? std::min(entry.info.mtu, mtu) : mtu;
    }

    /// No larger packet reaches `remote`. A router's word (`told`), whichever shard heard it, never
    /// raises what is known (RFC 8201 §4), for it may be forged or late; what transports find out
    /// by themselves may. Returns whether anything changed.
    bool learn(const IpAddress& remote, std::uint16_t mtu, Origin origin, bool told,
               Instant now) {
        const auto place = static_cast<std::uint32_t>(place_of(remote));
        PathMtuEntry& entry = table_[place];
        const bool known = knows(entry, remote, now);
        if (known && told && mtu > entry.info.mtu) return false;
        const bool news = !known || entry.info.mtu != mtu;
        if (entry.info.mtu != 0) unlink(place);
        entry.info = {.remote = remote,
                      .mtu = mtu,
                      .origin = origin,
                      .until_us = (now + kPathMtuLife).time_since_epoch().count()};
        link_newest(place);
        return news;
    }

    /// Packets of this size do arrive. Returns whether less was known.
    bool raise(const IpAddress& remote, std::uint16_t mtu, Instant now) {
        PathMtuEntry& entry = table_[place_of(remote)];
        if (!knows(entry, remote, now) || entry.info.mtu >= mtu) return false;
        entry.info.mtu = mtu;
        entry.info.origin = Origin::Found;
        return true;
    }

    /// Forgets what is too old; returns how many.
    std::size_t expire(Instant now) {
        std::size_t count = 0;
        while (oldest_ != 0 &&
               table_[oldest_ - 1].info.until_us <= now.time_since_epoch().count()) {
            PathMtuEntry& entry = table_[oldest_ - 1];
            unlink(oldest_ - 1);
            entry.info = {};
            ++count;
        }
        return count;
    }

private:
    static bool knows(const PathMtuEntry& entry, const IpAddress& remote, Instant now) {
        return entry.info.mtu != 0 && entry.info.remote == remote &&
               entry.info.until_us > now.time_since_epoch().count();
    }
    std::size_t place_of(const IpAddress& remote) const {
        return siphash(key_, std::as_bytes(std::span(remote.bytes()))) % kEntries;
    }
    void link_newest(std::uint32_t place) {
        table_[place].older = newest_;
        table_[place].newer = 0;
        if (newest_ != 0) table_[newest_ - 1].newer = place + 1;
        else oldest_ = place + 1;
        newest_ = place + 1;
    }
    void unlink(std::uint32_t place) {
        const PathMtuEntry& entry = table_[place];
        if (entry.older != 0) table_[entry.older - 1].newer = entry.newer;
        else oldest_ = entry.newer;
        if (entry.newer != 0) table_[entry.newer - 1].older = entry.older;
        else newest_ = entry.older;
    }

    std::span<PathMtuEntry> table_;
    SipKey key_;
    std::uint32_t oldest_ = 0;  ///< position + 1; 0: there is none
    std::uint32_t newest_ = 0;
};

}  // namespace chiru::ip
