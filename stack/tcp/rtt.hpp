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

/// Deviation from §2.4, which asks for a floor of 1 s: at a round trip of 50 us that is an outage.
/// Ours is configurable, 5 ms by default, and bounds not the timer but its distance from the round
/// trip, as Linux's does: where round trips are long and steady, a timer that is hardly longer than
/// one of them would expire for every queue that fills. Some peers sit on an ACK for longer (40 ms
/// in Linux, 500 ms are allowed), and Karn's rule hides that from the estimate: so each time-out
/// that proves to have been early doubles the connection's floor, up to what is customary.
inline constexpr std::uint32_t kCustomaryFloorUs = 200'000;
inline constexpr std::uint8_t kMaxPatience = 8;

inline std::uint32_t rto_floor(const shm::ConnectionInfo& info, const TcpConfig& config) {
    const auto least = static_cast<std::uint32_t>(config.min_rto.count());
    return std::max(least, std::min(least << info.rto_patience, kCustomaryFloorUs));
}

inline std::uint32_t clamp_rto(const shm::ConnectionInfo& info, std::uint64_t us,
                               const TcpConfig& config) {
    return static_cast<std::uint32_t>(
        std::clamp<std::uint64_t>(us, rto_floor(info, config),
                                  static_cast<std::uint64_t>(config.max_rto.count())));
}

/// What the estimate says, without any back-off: SRTT + max (G, K*RTTVAR), with our floor for G.
inline std::uint32_t estimated_rto(const shm::ConnectionInfo& info, const TcpConfig& config) {
    const auto spread =
        std::max<std::uint64_t>(rto_floor(info, config), 4ull * info.rttvar_us);
    return clamp_rto(info, info.srtt_us + spread, config);
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
    info.rto_us = estimated_rto(info, config);
}

/// The timer expired (§5.5). The next sample undoes the back-off.
inline void back_off(shm::ConnectionInfo& info, const TcpConfig& config) {
    info.rto_us = clamp_rto(info, 2ull * info.rto_us, config);
}

}  // namespace chiru::tcp
