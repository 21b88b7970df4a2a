// SPDX-License-Identifier: Apache-2.0
//
// The largest packets that reach a destination, as routers told us (RFC 1191, RFC 8201). A
// direct-mapped cache: a destination that loses its place starts again at the interface's MTU,
// which costs one more message from the router and nothing else.
#pragma once

#include "base/address.hpp"
#include "base/siphash.hpp"
#include "base/time.hpp"
#include "stack/table_carver.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace chiru::ip {

/// RFC 1191 §6.3: after this time a larger size is tried again.
inline constexpr Micros kPathMtuLife = std::chrono::minutes(10);
inline constexpr std::uint16_t kMinMtuV4 = 576;   // smaller claims are not believed
inline constexpr std::uint16_t kMinMtuV6 = 1280;  // RFC 8200 §5

struct PathMtu {
    IpAddress remote;
    std::uint16_t mtu = 0;  ///< 0: an empty place
    std::int64_t until_us = 0;
};

class PathMtuCache {
public:
    static constexpr std::size_t kEntries = 4096;

    PathMtuCache(TableCarver& carver, const SipKey& key)
        : table_(carver.take<PathMtu>(kEntries)), key_(key) {}
    static void measure(TableCarver& carver) { carver.take<PathMtu>(kEntries); }

    /// The smaller of `mtu` and what is known of `remote`.
    std::uint16_t limit(const IpAddress& remote, std::uint16_t mtu, Instant now) const {
        const PathMtu& entry = table_[place_of(remote)];
        const bool known = entry.mtu != 0 && entry.remote == remote &&
                           entry.until_us > now.time_since_epoch().count();
        return known && entry.mtu < mtu ? entry.mtu : mtu;
    }
    void learn(const IpAddress& remote, std::uint16_t mtu, Instant now) {
        table_[place_of(remote)] = {remote, mtu,
                                    (now + kPathMtuLife).time_since_epoch().count()};
    }

private:
    std::size_t place_of(const IpAddress& remote) const {
        return siphash(key_, std::as_bytes(std::span(remote.bytes()))) % kEntries;
    }

    std::span<PathMtu> table_;
    SipKey key_;
};

}  // namespace chiru::ip
