// SPDX-License-Identifier: Apache-2.0
//
// Round-trip time and the retransmission timeout (RFC 6298), in microseconds.
#pragma once

#include "base/time.hpp"
#include "stack/config.hpp"
#include "stack/tcp/connection.hpp"

#include <algorithm>
#include <cstdint>

namespace chiru::tcp {

/// The clock of the stack is finer than that; a timer may be late by as much.
inline constexpr std::uint32_t kGranularityUs = 500;  // G

inline std::uint32_t clamp_rto(std::uint64_t us, const TcpConfig& config) {
    // Deviation from §2.4, which asks for a floor of 1 s: at a round trip of 50 us that is an
    // outage. The floor is configurable, 5 ms by default.
    return static_cast<std::uint32_t>(
        std::clamp(us, static_cast<std::uint64_t>(config.min_rto.count()),
                   static_cast<std::uint64_t>(config.max_rto.count())));
}

/// Takes one measurement, which must not be of a retransmitted segment (Karn, §3).
inline void sample_rtt(shm::ConnectionInfo& info, std::uint32_t r_us, const TcpConfig& config) {
    r_us = std::max(r_us, 1u);
    if (info.srtt_us == 0) {  // §2.2
        info.srtt_us = r_us;
        info.rttvar_us = r_us / 2;
        info.min_rtt_us = r_us;
    } else {  // §2.3; RTTVAR first, because it uses the SRTT from before this sample
        const std::uint32_t off = info.srtt_us > r_us ? info.srtt_us - r_us : r_us - info.srtt_us;
        info.rttvar_us = static_cast<std::uint32_t>((3ull * info.rttvar_us + off) / 4);
        info.srtt_us = static_cast<std::uint32_t>((7ull * info.srtt_us + r_us) / 8);
        info.min_rtt_us = std::min(info.min_rtt_us, r_us);
    }
    info.rto_us = clamp_rto(info.srtt_us + std::max<std::uint64_t>(kGranularityUs,
                                                                   4ull * info.rttvar_us),
                            config);
}

/// The timer expired (§5.5). The next sample undoes the back-off.
inline void back_off(shm::ConnectionInfo& info, const TcpConfig& config) {
    info.rto_us = clamp_rto(2ull * info.rto_us, config);
}

}  // namespace chiru::tcp
