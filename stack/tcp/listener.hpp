// SPDX-License-Identifier: Apache-2.0
//
// Passive opens: listeners, the connections that wait at them, and who may take those.
//
//   SYN -> half open (at most kMaxHalfOpen) -> waiting (at most the backlog) -> a channel
//
// A session takes part in a listener by a grant; its channels take part by giving credit. A
// completed connection goes to the grant that has credit and has waited longest. What a channel was
// given and its program did not take goes back, and to another, when the channel leaves.
#pragma once

#include "base/time.hpp"
#include "shm/tables.hpp"
#include "stack/session.hpp"
#include "stack/tcp/connection.hpp"
#include "stack/tcp/index.hpp"

#include <cstdint>
#include <type_traits>

namespace chiru::tcp {

using EventList = List<Connection, &Connection::event_next, &Connection::event_prev>;

/// Connections that text in their SYN opened before the handshake was complete (RFC 7413 §5.1).
/// One that a reset ended counts for another while, or a host whose address is borrowed would make
/// room for the next by refusing each.
struct EarlyOpens {
    std::uint32_t most = 0;     ///< ListenTerms::fast_open
    std::uint32_t open = 0;     ///< handshakes under way
    std::uint32_t refused = 0;  ///< since `period`
    std::uint32_t refused_before = 0;  ///< in the period before
    Instant period{};

    bool full(Instant now) {
        turn(now);
        return open + refused + refused_before >= most;
    }
    void refuse(Instant now) {
        turn(now);
        ++refused;
    }

private:
    void turn(Instant now);
};

struct Listener {
    shm::ListenerInfo info;

    EventList half_open;
    EventList waiting;
    Index grants = kNil;        ///< first of the list, in the order of their turns
    Index last_grant = kNil;
    Index next_of_port = kNil;  ///< the other listeners of this port; free listeners
    Index next_of_id = kNil;    ///< the other listeners of this id's bucket
    std::uint32_t defer_s = 0;      ///< see ListenTerms
    std::uint32_t max_segment = 0;
    Instant cookies_until{};    ///< no ACK brings a cookie after that
    EarlyOpens early;
};
static_assert(std::is_trivially_copyable_v<Listener>);

/// A session's part in a listener (channel kNobody), or a channel's credit.
struct Grant {
    Index next = kNil;
    Index prev = kNil;
    std::uint32_t credit = 0;
    SessionIndex session = kNobody;
    ChannelIndex channel = kNobody;
    std::uint32_t handed = 0;  ///< connections in all; the newest bears this number
    std::uint32_t taken = 0;   ///< the number of the last one that the program took
};
static_assert(std::is_trivially_copyable_v<Grant> && sizeof(Grant) == 24);

using ListenerPool = Pool<Listener, &Listener::next_of_port>;
using GrantPool = Pool<Grant, &Grant::next>;
using GrantList = List<Grant, &Grant::next, &Grant::prev>;

/// How long a refused early open counts at least, and half of how long at most.
inline constexpr Micros kRefusalPeriod = std::chrono::seconds(60);

inline void EarlyOpens::turn(Instant now) {
    if (now - period < kRefusalPeriod) return;
    refused_before = now - period < 2 * kRefusalPeriod ? refused : 0;
    refused = 0;
    period = now;
}

/// Handshakes under way at one listener, however large its backlog.
inline constexpr std::uint32_t kMaxHalfOpen = 4096;
inline constexpr std::uint32_t kMinHalfOpen = 64;
inline constexpr std::uint32_t kMaxBacklog = 65'535;
inline constexpr std::uint32_t kListenerBuckets = 1024;

}  // namespace chiru::tcp
