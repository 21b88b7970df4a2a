// SPDX-License-Identifier: Apache-2.0
#include "stack/tcp/fast_open_cookie.hpp"

#include <algorithm>
#include <cstring>

namespace chiru::tcp {

namespace {

constexpr std::uint32_t kFirstShunS = 10;
constexpr unsigned kMostDoublings = 9;  // 85 minutes

struct Pair {
    IpAddress local;
    IpAddress remote;
};

std::uint64_t period_of(Instant now) {
    return static_cast<std::uint64_t>(now.time_since_epoch().count()) >> kFastOpenPeriodShift;
}

std::uint32_t second_of(Instant now) {
    return static_cast<std::uint32_t>(now.time_since_epoch().count() / 1'000'000);
}

std::array<std::byte, kOurCookieBytes> cookie_of(const SipKey& secret, const Pair& pair,
                                                 std::uint64_t period) {
    const std::array<std::uint64_t, 2> low{period, 0x6661'7374'6f70}, high{~period, low[1]};
    const SipKey key{siphash(secret, std::as_bytes(std::span(low))),
                     siphash(secret, std::as_bytes(std::span(high)))};
    const std::uint64_t hash = siphash(key, std::as_bytes(std::span(&pair, 1)));
    std::array<std::byte, kOurCookieBytes> bytes;
    std::memcpy(bytes.data(), &hash, bytes.size());
    return bytes;
}

}  // namespace

void FastOpenCookie::assign(std::span<const std::byte> from) {
    length = static_cast<std::uint8_t>(std::min(from.size(), bytes.size()));
    std::copy_n(from.begin(), length, bytes.begin());
}

FastOpenCookie make_fast_open_cookie(const SipKey& secret, const IpAddress& local,
                                     const IpAddress& remote, Instant now) {
    FastOpenCookie cookie;
    cookie.assign(cookie_of(secret, {local, remote}, period_of(now)));
    return cookie;
}

CookieVerdict check_fast_open_cookie(const SipKey& secret, const IpAddress& local,
                                     const IpAddress& remote, std::span<const std::byte> cookie,
                                     Instant now) {
    const std::uint64_t period = period_of(now);
    if (std::ranges::equal(cookie, cookie_of(secret, {local, remote}, period)))
        return CookieVerdict::Good;
    const bool old = period > 0 &&
                     std::ranges::equal(cookie, cookie_of(secret, {local, remote}, period - 1));
    return old ? CookieVerdict::Old : CookieVerdict::Bad;
}

CookieEntry* CookieCache::group(const IpAddress& local, const IpAddress& remote) const {
    const Pair pair{local, remote};
    const std::uint64_t hash = siphash(key_, std::as_bytes(std::span(&pair, 1)));
    return entries_ + hash % (kCookieEntries / kWays) * kWays;
}

CookieEntry* CookieCache::lookup(const IpAddress& local, const IpAddress& remote) const {
    CookieEntry* const first = group(local, remote);
    CookieEntry* const end = first + kWays;
    CookieEntry* const found = std::find_if(first, end, [&](const CookieEntry& e) {
        return e.used_us != 0 && e.remote == remote && e.local == local;
    });
    return found == end ? nullptr : found;
}

const CookieEntry* CookieCache::find(const IpAddress& local, const IpAddress& remote) const {
    return lookup(local, remote);
}

CookieEntry& CookieCache::entry(const IpAddress& local, const IpAddress& remote, Instant now) {
    CookieEntry* found = lookup(local, remote);
    if (found == nullptr) {
        CookieEntry* const first = group(local, remote);
        found = std::ranges::min_element(first, first + kWays, {}, &CookieEntry::used_us);
        *found = CookieEntry{};
        found->local = local;
        found->remote = remote;
    }
    found->used_us = std::max<std::int64_t>(now.time_since_epoch().count(), 1);
    return *found;
}

void CookieCache::learn(const IpAddress& local, const IpAddress& remote,
                        std::span<const std::byte> cookie, std::uint16_t peer_mss, Instant now) {
    if (cookie.empty() && lookup(local, remote) == nullptr) return;
    CookieEntry& e = entry(local, remote, now);
    e.peer_mss = peer_mss;
    if (cookie.empty()) return;
    e.cookie_bytes = static_cast<std::uint8_t>(std::min(cookie.size(), e.cookie.size()));
    std::copy_n(cookie.begin(), e.cookie_bytes, e.cookie.begin());
}

void CookieCache::shun(const IpAddress& local, const IpAddress& remote, Instant now) {
    CookieEntry& e = entry(local, remote, now);
    e.shunned_until_s = second_of(now) + (kFirstShunS << std::min<unsigned>(e.failures,
                                                                           kMostDoublings));
    if (e.failures < 0xff) ++e.failures;
}

bool CookieCache::is_shunned(const CookieEntry& e, Instant now) {
    return second_of(now) < e.shunned_until_s;
}

void CookieCache::praise(const IpAddress& local, const IpAddress& remote, Instant now) {
    CookieEntry& e = entry(local, remote, now);
    e.failures = 0;
    e.shunned_until_s = 0;
}

}  // namespace chiru::tcp
