// SPDX-License-Identifier: Apache-2.0
//
// What clients gave to send, and what of it is in flight.
//
//   records   a slice of a client's arena each, in the order of submission; given back, oldest
//             first, once every byte is acknowledged and no device holds a part of it
//   flights   one for each segment sent and not yet acknowledged, in the order of sequence
//             numbers: when it was sent, whether the peer has it (SACK), whether it is thought lost
//
// Both are linked lists through shared tables: a connection with nothing to send owns neither.
//
// A large window has thousands of flights, and each ACK must cost what it tells of, not what is in
// flight. So neighbours that the peer has become one flight; the place where SACK was read last is
// remembered; and those neither lost nor with the peer are linked in the order of sending as well.
#pragma once

#include "shm/descriptor.hpp"
#include "shm/directory.hpp"
#include "stack/tcp/connection.hpp"
#include "stack/tcp/index.hpp"
#include "stack/tcp/seq.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace chiru::tcp {

struct SendEntry {
    shm::Slice slice;
    Index next = kNil;
    Index connection = kNil;
    Seq first;                      ///< sequence number of the slice's first byte
    std::uint32_t device_refs = 0;  ///< frames not yet sent() that name a part of it

    Seq end() const { return first + slice.length; }
};
static_assert(sizeof(SendEntry) == 32);

enum FlightFlag : std::uint8_t {
    kSacked = 1,
    kLost = 2,      ///< and not yet sent again
    kRepeated = 4,  ///< sent more than once: no RTT sample (Karn)
    kFlightFin = 8,  ///< its last sequence number is the FIN
    kStamped = 16,   ///< the stamp is there
    kAppLimited = 32,  ///< SentStamp::app_limited
};

struct Flight {
    Index next = kNil;
    Index prev = kNil;
    Seq first;
    std::uint32_t length = 0;   ///< in sequence numbers
    Index record = kNil;        ///< where its first byte lies; nil if it is a FIN alone
    std::uint32_t offset = 0;   ///< in that record
    std::uint32_t sent_us = 0;  ///< low bits of the clock at the latest transmission
    // SentStamp, of the latest transmission
    std::uint32_t delivered = 0;
    std::uint32_t delivered_us = 0;
    std::uint32_t first_sent_us = 0;
    Index sent_next = kNil;  ///< in_flight(): the next that was sent
    Index sent_prev = kNil;
    std::uint16_t segments = 0;  ///< kSacked: how many SACK told of
    std::uint8_t flags = 0;  ///< FlightFlag bits
    std::uint8_t reserved = 0;

    Seq end() const { return first + length; }
    bool in_flight() const { return !has(kSacked | kLost); }
    bool has(std::uint8_t flag) const { return (flags & flag) != 0; }
    std::uint32_t text_bytes() const { return length - (has(kFlightFin) ? 1u : 0u); }
    SentStamp stamp() const {
        return {delivered, delivered_us, first_sent_us, has(kAppLimited)};
    }
    void stamp(const SentStamp& s) {
        delivered = s.delivered;
        delivered_us = s.delivered_us;
        first_sent_us = s.first_sent_us;
        flags = static_cast<std::uint8_t>((flags & ~kAppLimited) | kStamped |
                                          (s.app_limited ? kAppLimited : 0));
    }
};
static_assert(sizeof(Flight) == 52);

using SendPool = Pool<SendEntry, &SendEntry::next>;
using FlightPool = Pool<Flight, &Flight::next>;
using FlightList = Ring<Flight, &Flight::next, &Flight::prev>;
using SentList = Ring<Flight, &Flight::sent_next, &Flight::sent_prev>;

/// Was the first sent after the second? Of two sent at one instant the one with the higher end.
inline bool sent_after(std::uint32_t us1, Seq end1, std::uint32_t us2, Seq end2) {
    const auto later = static_cast<std::int32_t>(us1 - us2);
    return later > 0 || (later == 0 && end1 > end2);
}

class SendQueue {
public:
    SendQueue(SendPool records, FlightPool flights) : records_(records), flights_(flights) {}

    SendPool& records() { return records_; }
    FlightPool& flights() { return flights_; }
    const SendPool& records() const { return records_; }
    const FlightPool& flights() const { return flights_; }

    /// Queues a slice behind what `c` has. False without a free record.
    bool append(Connection& c, Index connection, const shm::Slice& slice);

    /// May `c` have one more flight? Its session has as many as are left to the others, and each
    /// connection one while there is any.
    bool may_launch(const Connection& c) const {
        const std::uint32_t left = flights_.available();
        return left > flights_used_[place_of(c.session)] || (left > 0 && c.flight_head == kNil);
    }

    /// `c` is another session's from now on, or nobody's, and its flights with it.
    void change_hands(Connection& c, std::uint16_t session);

    /// Notes `length` sequence numbers from snd_nxt on as sent, and moves snd_nxt and the cursor.
    /// There must be a free flight.
    Index launch(Connection& c, std::uint32_t length, bool fin, std::uint32_t now_us);

    /// Cuts `flight` so that `head_bytes` stay in it; the rest becomes the next flight with the
    /// same flags. False without a free record.
    bool split(Connection& c, Index flight, std::uint32_t head_bytes);

    /// The first `bytes` of this flight are acknowledged; less than all.
    void trim(Connection& c, Index flight, std::uint32_t bytes);

    Index last_flight(const Connection& c) const {
        return FlightList::tail(flights_.data(), c.flight_head);
    }
    Index flight_before(const Connection& c, Index flight) const {
        return FlightList::before(flights_.data(), c.flight_head, flight);
    }
    /// The flight that holds `seq` or is the first behind it, looked for in `steps` steps at most,
    /// from the place of the last search. kNil: none, or not found so soon; then the next search
    /// goes on there.
    Index find_flight(Connection& c, Seq seq, std::uint32_t& steps);
    /// It was sent again.
    void relaunch(Connection& c, Index flight, std::uint32_t now_us);

    /// Takes out a flight, with its share of the connection's sums.
    void land(Connection& c, Index flight);
    void land_all(Connection& c);

    void mark_lost(Connection& c, Index flight);
    /// Returns the flight that it is part of from now on.
    Index mark_sacked(Connection& c, Index flight);
    /// The peer took back what it told by SACK: it counts as lost.
    void forget_sack(Connection& c);
    /// Nothing was lost after all.
    void mark_found(Connection& c);

    /// Gives back the oldest records that nobody needs any longer; adds to c.info.sent_bytes.
    /// Returns how many records came free.
    std::uint32_t reclaim(Connection& c);
    /// Gives up what was queued: after this reclaim() waits for devices only.
    void abandon(Connection& c);

private:
    /// Moves a place in the queue on by `bytes`.
    void skip(Index& record, std::uint32_t& offset, std::uint32_t bytes) const;
    void unlink_sent(Connection& c, Index flight) {
        SentList::remove(flights_.data(), c.flight_oldest, flight);
    }
    /// Into the order of sending, from the newest on or from the oldest on.
    void link_newest(Connection& c, Index flight);
    void link_oldest(Connection& c, Index flight);
    /// Takes a flight out of the queue; its record comes free.
    void drop(Connection& c, Index flight);
    /// `right`, the next of `left`, becomes a part of it; both are with the peer.
    void merge(Connection& c, Index left, Index right);

    static std::size_t place_of(std::uint16_t session) {
        return std::min<std::size_t>(session, shm::kMaxSessions);
    }

    SendPool records_;
    FlightPool flights_;
    std::array<std::uint32_t, shm::kMaxSessions + 1> flights_used_{};  ///< the last: nobody's
};

}  // namespace chiru::tcp
