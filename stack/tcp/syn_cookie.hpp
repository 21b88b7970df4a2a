// SPDX-License-Identifier: Apache-2.0
//
// SYN cookies (RFC 4987 §3.6): what a half-open connection would remember, told to the peer in the
// SYN-ACK and taken back from its ACK. Nothing is stored.
//
//   ISS       1 bit: which period   3 bits: index into kCookieMss   28 bits: authentication
//   TSval     the low six bits: 1 bit ECN, 1 bit SACK, 4 bits window shift (15: none)
//
// The authentication is SipHash over the tuple, the peer's ISN, and those four bits, with a key of
// the period's own; a cookie is good in its period and in the one after it. The timestamp carries
// what the ISS has no room for, and is the peer's own business: it can only harm itself by
// changing it.
#pragma once

#include "base/siphash.hpp"
#include "base/time.hpp"
#include "stack/tcp/demux.hpp"
#include "stack/tcp/seq.hpp"

#include <array>
#include <cstdint>
#include <optional>

namespace chiru::tcp {

/// A peer's MSS is rounded down to one of these.
inline constexpr std::array<std::uint16_t, 8> kCookieMss{64,   536,  1220, 1400,
                                                         1440, 1460, 4036, 8940};

/// 67 seconds.
inline constexpr unsigned kCookiePeriodShift = 26;
/// How long after the last cookie an ACK may still bring one.
inline constexpr Micros kCookieLife{2ll << kCookiePeriodShift};

Seq make_cookie(const SipKey& secret, const Tuple& tuple, Seq peer_iss, std::uint16_t peer_mss,
                Instant now);
/// The peer's MSS, if this is a cookie of ours and not too old.
std::optional<std::uint16_t> check_cookie(const SipKey& secret, const Tuple& tuple, Seq peer_iss,
                                          Seq cookie, Instant now);

/// What a timestamp carries.
struct CookieOptions {
    std::optional<std::uint8_t> shift;
    bool sack = false;
    bool ecn = false;

    friend bool operator==(const CookieOptions&, const CookieOptions&) = default;
};

/// The largest stamp not above `stamp` that carries the options.
std::uint32_t stamp_with(std::uint32_t stamp, const CookieOptions& options);
CookieOptions options_of_stamp(std::uint32_t stamp);

}  // namespace chiru::tcp
