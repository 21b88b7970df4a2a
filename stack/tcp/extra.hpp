// SPDX-License-Identifier: Apache-2.0
//
// What a connection needs only while it does something out of the ordinary, beyond its block: the
// state of a congestion control that measures much, of a search for the path's MTU, of a window
// that is growing, who counts it before its handshake is complete. Records are taken when the
// first of these begins, and a connection that rests, or never does any of them, has none. There
// are as many as connections, but memory is committed only for those in use.
#pragma once

#include "base/time.hpp"
#include "stack/tcp/congestion/bbr.hpp"
#include "stack/tcp/congestion/controller.hpp"
#include "stack/tcp/index.hpp"
#include "stack/tcp/seq.hpp"

#include <cstdint>
#include <type_traits>

namespace chiru::tcp {

/// What a connection has its record for. It goes back when no reason is left.
enum ExtraUse : std::uint8_t {
    kForWindow = 1,  ///< window.cpp: the receive window follows what the reader takes
    kForUnsent = 2,  ///< completions.cpp: the client hears what was sent (TCP_NOTSENT_LOWAT)
    kForEarly = 4,   ///< fast_open.cpp: it is open before its handshake is complete
    kForMtu = 8,     ///< path_mtu.cpp: a search for the largest packets that arrive
    kForRest = 128,  ///< until the connection ends
    kForAll = 255,
};

/// How the receive window grows: by what the reader takes in a round trip.
struct WindowGrowth {
    std::uint32_t began_us = 0;  ///< the round, as the low clock has it
    std::uint32_t taken = 0;     ///< bytes the reader took in it
    std::uint32_t most = 0;      ///< that it took in any round
    std::uint64_t rate = 0;      ///< bytes a millisecond, when the window grew last
    std::uint32_t rtt_us = 0;    ///< a round's length, as the receiver sees it
    std::uint32_t least_us = 0;  ///< the shortest sample of this round; 0: none yet
    Seq edge;                    ///< without timestamps: text behind it was sent after edge_us
    std::uint32_t edge_us = 0;
    Index connection = kNil;
    Instant look_at{};           ///< whether it still moves
};

/// A search for the largest packets that arrive (RFC 4821 §7.2). Sizes are of IP packets.
struct MtuSearch {
    std::uint16_t low = 0;    ///< these arrive, or are the least that we try
    std::uint16_t high = 0;   ///< larger ones do not, or need not be tried
    std::uint16_t probe = 0;  ///< what is in flight for it; 0: nothing
    std::uint8_t lost = 0;    ///< probes of the size at hand that did not arrive
    bool ask_high = false;    ///< `high` itself is the next to be tried
    bool narrowed = false;    ///< some size proved too large
    Seq first;                ///< the probe's text
    Seq end;
    Seq resume;               ///< the next probe waits until this is acknowledged
};

/// How things stood before a recovery, and what it did: enough to take it back (RFC 4015), should
/// the peer tell that all that was sent again had been there (RFC 3708).
struct Undo {
    CongestionState congestion;
    std::uint32_t ssthresh_bytes = 0;
    Seq una;                         ///< SND.UNA when it began
    std::uint32_t repeated_bytes = 0;
    std::uint32_t needless_bytes = 0;  ///< of these, what the peer had already
};

/// The window for reordering follows what repeats prove needless (RFC 8985 §6.2, step 4).
struct Reordering {
    Seq round_end;             ///< RACK.dsack_round
    std::uint8_t steps = 1;    ///< RACK.reo_wnd_mult
    std::uint8_t persist = 0;  ///< RACK.reo_wnd_persist: recoveries until it is forgotten
    bool in_round = false;
};

/// When a connection that has a rate may send again (pacing.cpp).
struct Pace {
    std::int64_t next_ns = 0;     ///< of the clock; the time of what was sent is used up until then
    std::uint32_t most_kbps = 0;  ///< kilobytes a second, the program's wish; 0: none
    bool waiting = false;         ///< something is ready, and waits
};

struct Extra {
    Index next_free = kNil;
    std::uint8_t uses = 0;  ///< ExtraUse bits
    WindowGrowth window;
    Index growing_next = kNil;  ///< of those whose window grows
    Index growing_prev = kNil;
    std::uint32_t unsent_low_water = 0;  ///< kForUnsent
    std::uint32_t launched_told = 0;     ///< bytes sent, as the client knows it
    std::uint32_t early_listener = 0;  ///< whose EarlyOpens counts it, if kFastOpenEarly
    MtuSearch mtu;  ///< kForMtu
    bool bbr_runs = false;
    Pace pace;
    Bbr bbr;
    Undo undo;
    Reordering reordering;
};
static_assert(std::is_trivially_copyable_v<Extra>);

using ExtraPool = Pool<Extra, &Extra::next_free>;
using GrowthList = List<Extra, &Extra::growing_next, &Extra::growing_prev>;

}  // namespace chiru::tcp
