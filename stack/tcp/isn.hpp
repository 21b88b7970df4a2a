// SPDX-License-Identifier: Apache-2.0
//
// Initial sequence numbers and timestamp offsets (RFC 6528 §3, RFC 7323 §5.4): functions of the
// tuple, a secret and time, so that nobody off the path can guess them, and a tuple that is used
// again goes on where it was.
#pragma once

#include "base/siphash.hpp"
#include "base/time.hpp"
#include "stack/tcp/demux.hpp"
#include "stack/tcp/seq.hpp"

#include <cstdint>
#include <span>

namespace chiru::tcp {

struct Initials {
    Seq iss;
    std::uint32_t ts_offset;
};

inline Initials initials(const SipKey& secret, const Tuple& tuple, Instant now) {
    const std::uint64_t f = siphash(secret, std::as_bytes(std::span(&tuple, 1)));
    const auto m = static_cast<std::uint32_t>(now.time_since_epoch().count() / 4);  // 4 us a tick
    return {Seq(static_cast<std::uint32_t>(f) + m), static_cast<std::uint32_t>(f >> 32)};
}

}  // namespace chiru::tcp
