// SPDX-License-Identifier: Apache-2.0
#include "stack/tcp/syn_cookie.hpp"

#include <algorithm>
#include <span>

namespace chiru::tcp {

namespace {

constexpr unsigned kMssShift = 28;
constexpr unsigned kPeriodBit = 31;
constexpr std::uint32_t kAuthMask = (1u << kMssShift) - 1;
constexpr std::uint32_t kOptionMask = 63;
constexpr std::uint32_t kNoShift = 15;

/// `open` is what stands in the cookie in clear: period and MSS.
Seq cookie_of(const SipKey& secret, const Tuple& tuple, Seq peer_iss, std::uint64_t period,
              std::uint32_t mss_index) {
    const std::array<std::uint64_t, 2> low{period, 0x636f'6f6b'6965}, high{~period, low[1]};
    const SipKey key{siphash(secret, std::as_bytes(std::span(low))),
                     siphash(secret, std::as_bytes(std::span(high)))};
    struct {
        Tuple tuple;
        std::uint32_t peer_iss;
        std::uint32_t mss_index;
    } const bound{tuple, peer_iss.raw(), mss_index};
    static_assert(sizeof bound == sizeof(Tuple) + 8);
    const std::uint64_t auth = siphash(key, std::as_bytes(std::span(&bound, 1)));
    return Seq((static_cast<std::uint32_t>(period & 1) << kPeriodBit) | (mss_index << kMssShift) |
               (static_cast<std::uint32_t>(auth) & kAuthMask));
}

std::uint64_t period_of(Instant now) {
    return static_cast<std::uint64_t>(now.time_since_epoch().count()) >> kCookiePeriodShift;
}

}  // namespace

Seq make_cookie(const SipKey& secret, const Tuple& tuple, Seq peer_iss, std::uint16_t peer_mss,
                Instant now) {
    std::uint32_t index = kCookieMss.size() - 1;
    while (index > 0 && kCookieMss[index] > peer_mss) --index;
    return cookie_of(secret, tuple, peer_iss, period_of(now), index);
}

std::optional<std::uint16_t> check_cookie(const SipKey& secret, const Tuple& tuple, Seq peer_iss,
                                          Seq cookie, Instant now) {
    const std::uint64_t current = period_of(now);
    const bool this_one = (current & 1) == cookie.raw() >> kPeriodBit;
    if (!this_one && current == 0) return std::nullopt;
    const std::uint32_t index = cookie.raw() >> kMssShift & 7;
    if (cookie_of(secret, tuple, peer_iss, this_one ? current : current - 1, index) != cookie)
        return std::nullopt;
    return kCookieMss[index];
}

std::uint32_t stamp_with(std::uint32_t stamp, const CookieOptions& options) {
    const std::uint32_t bits = options.shift.value_or(kNoShift) |
                               (options.sack ? 16u : 0u) | (options.ecn ? 32u : 0u);
    const std::uint32_t with = (stamp & ~kOptionMask) | bits;
    // A stamp of the future would make the next real one look old (RFC 7323 §5).
    return static_cast<std::int32_t>(with - stamp) > 0 ? with - (kOptionMask + 1) : with;
}

CookieOptions options_of_stamp(std::uint32_t stamp) {
    CookieOptions options;
    if ((stamp & kNoShift) != kNoShift)
        options.shift = static_cast<std::uint8_t>(std::min(stamp & kNoShift, 14u));
    options.sack = (stamp & 16) != 0;
    options.ecn = (stamp & 32) != 0;
    return options;
}

}  // namespace chiru::tcp
