// SPDX-License-Identifier: Apache-2.0
//
// Cookies of TCP Fast Open (RFC 7413 §4.1): those we hand out, and those we were given.
//
// Ours are the keyed hash of the two addresses, eight bytes. The key follows from the daemon's
// secret and the period of the clock, so every shard makes the same ones and nothing is stored; one
// made in the period before is still good, and is answered by a fresh one.
//
// Those we were given lie in a table of fixed size, in groups of four that one hash chooses from.
// A new destination takes the place that was used longest ago.
#pragma once

#include "base/address.hpp"
#include "base/siphash.hpp"
#include "base/time.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace chiru::tcp {

/// A cookie as it stands in the option. No bytes: the request for one.
struct FastOpenCookie {
    std::array<std::byte, 16> bytes{};
    std::uint8_t length = 0;

    std::span<const std::byte> span() const { return std::span(bytes).first(length); }
    void assign(std::span<const std::byte> from);
};

inline constexpr std::uint8_t kOurCookieBytes = 8;
/// A key's period: 4.8 hours. A cookie is good for one to two of them.
inline constexpr unsigned kFastOpenPeriodShift = 34;

FastOpenCookie make_fast_open_cookie(const SipKey& secret, const IpAddress& local,
                                     const IpAddress& remote, Instant now);

enum class CookieVerdict : std::uint8_t { Bad, Good, Old };
CookieVerdict check_fast_open_cookie(const SipKey& secret, const IpAddress& local,
                                     const IpAddress& remote, std::span<const std::byte> cookie,
                                     Instant now);

/// A cookie that one shard was given, for the others.
struct LearntCookie {
    IpAddress local;
    IpAddress remote;
    FastOpenCookie cookie;
    std::uint16_t peer_mss = 0;
};
static_assert(std::is_trivially_copyable_v<LearntCookie>);

/// What is known of one destination, as seen from one of our addresses.
struct CookieEntry {
    IpAddress local;
    IpAddress remote;
    std::array<std::byte, 16> cookie{};
    std::uint8_t cookie_bytes = 0;
    std::uint8_t failures = 0;  ///< in a row
    std::uint16_t peer_mss = 0;
    std::uint32_t shunned_until_s = 0;  ///< nothing is tried before that second of the clock
    std::int64_t used_us = 0;           ///< 0: free
};
static_assert(sizeof(CookieEntry) == 64 && std::is_trivially_copyable_v<CookieEntry>);

inline constexpr std::uint32_t kCookieEntries = 4096;

class CookieCache {
public:
    /// `entries` are kCookieEntries zeroed ones.
    CookieCache(CookieEntry* entries, const SipKey& key) : entries_(entries), key_(key) {}

    /// nullptr: nothing is known of it.
    const CookieEntry* find(const IpAddress& local, const IpAddress& remote) const;
    /// What a SYN-ACK told. Without bytes the cookie we have stays.
    void learn(const IpAddress& local, const IpAddress& remote, std::span<const std::byte> cookie,
               std::uint16_t peer_mss, Instant now);
    /// RFC 7413 §4.1.3.1: the SYN got lost, or its text was for nothing. Not again for a while,
    /// which doubles each time.
    void shun(const IpAddress& local, const IpAddress& remote, Instant now);
    static bool is_shunned(const CookieEntry& entry, Instant now);
    /// Text in a SYN was taken.
    void praise(const IpAddress& local, const IpAddress& remote, Instant now);

private:
    static constexpr std::uint32_t kWays = 4;

    CookieEntry* group(const IpAddress& local, const IpAddress& remote) const;
    CookieEntry* lookup(const IpAddress& local, const IpAddress& remote) const;
    CookieEntry& entry(const IpAddress& local, const IpAddress& remote, Instant now);

    CookieEntry* entries_;
    SipKey key_;
};

}  // namespace chiru::tcp
