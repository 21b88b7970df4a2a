// SPDX-License-Identifier: Apache-2.0
#include "stack/tcp/send_queue.hpp"

#include "base/check.hpp"

#include <algorithm>

namespace chiru::tcp {

namespace {

/// Neighbouring slices become one record up to this size: records stay few, and yet come back
/// while a long transfer runs.
constexpr std::uint32_t kMergeBytes = 64u << 10;

}  // namespace

void SendQueue::skip(Index& record, std::uint32_t& offset, std::uint32_t bytes) const {
    while (record != kNil && bytes > 0) {
        const std::uint32_t left = records_[record].slice.length - offset;
        if (bytes < left) {
            offset += bytes;
            return;
        }
        bytes -= left;
        record = records_[record].next;
        offset = 0;
    }
}

bool SendQueue::append(Connection& c, Index connection, const shm::Slice& slice) {
    if (c.send_tail != kNil) {
        SendEntry& last = records_[c.send_tail];
        const bool adjacent = last.slice.arena == slice.arena &&
                              last.slice.offset + last.slice.length == slice.offset &&
                              last.slice.length + std::uint64_t{slice.length} <= kMergeBytes;
        // A record that is sent to its end may be given back at any moment: leave it alone.
        if (adjacent && last.end() == c.snd_end() && c.send_cursor != kNil) {
            last.slice.length += slice.length;
            c.info.snd_end += slice.length;
            return true;
        }
    }
    const Index i = records_.take();
    if (i == kNil) return false;
    records_[i] = {slice, kNil, connection, c.snd_end(), 0};
    if (c.send_tail == kNil) c.send_head = i;
    else records_[c.send_tail].next = i;
    c.send_tail = i;
    if (c.send_cursor == kNil) {
        c.send_cursor = i;
        c.send_cursor_offset = 0;
    }
    c.info.snd_end += slice.length;
    return true;
}

Index SendQueue::launch(Connection& c, std::uint32_t length, bool fin, std::uint32_t now_us) {
    const Index i = flights_.take();
    DCHECK(i != kNil);
    Flight& f = flights_[i];
    ++flights_used_[place_of(c.session)];
    f = Flight{};
    f.first = c.snd_nxt();
    f.length = length;
    f.record = c.send_cursor;
    f.offset = c.send_cursor_offset;
    f.sent_us = now_us;
    if (fin) f.flags = kFlightFin;
    FlightList::push_back(flights_.data(), c.flight_head, i);
    link_newest(c, i);

    skip(c.send_cursor, c.send_cursor_offset, f.text_bytes());
    c.info.snd_nxt += length;
    return i;
}

void SendQueue::change_hands(Connection& c, std::uint16_t session) {
    std::uint32_t count = 0;
    for (Index i = c.flight_head; i != kNil; i = flights_[i].next) ++count;
    flights_used_[place_of(c.session)] -= count;
    flights_used_[place_of(session)] += count;
    c.session = session;
}

bool SendQueue::split(Connection& c, Index flight, std::uint32_t head_bytes) {
    const Index i = flights_.take();
    if (i == kNil) return false;
    ++flights_used_[place_of(c.session)];
    Flight& head = flights_[flight];
    Flight& rest = flights_[i];
    rest = head;
    rest.first = head.first + head_bytes;
    rest.length = head.length - head_bytes;
    skip(rest.record, rest.offset, head_bytes);
    head.length = head_bytes;
    head.flags = static_cast<std::uint8_t>(head.flags & ~kFlightFin);

    FlightList::insert(flights_.data(), c.flight_head, flight, i);
    if (head.in_flight()) SentList::insert(flights_.data(), c.flight_oldest, flight, i);
    return true;
}

void SendQueue::link_newest(Connection& c, Index flight) {
    const Flight& f = flights_[flight];
    Index place = SentList::tail(flights_.data(), c.flight_oldest);
    // A repeat may go in the instant in which text behind it went.
    while (place != kNil && sent_after(flights_[place].sent_us, flights_[place].end(), f.sent_us,
                                       f.end()))
        place = SentList::before(flights_.data(), c.flight_oldest, place);
    SentList::insert(flights_.data(), c.flight_oldest, place, flight);
}

void SendQueue::link_oldest(Connection& c, Index flight) {
    const Flight& f = flights_[flight];
    Index place = kNil;
    for (Index i = c.flight_oldest; i != kNil; place = i, i = flights_[i].sent_next)
        if (sent_after(flights_[i].sent_us, flights_[i].end(), f.sent_us, f.end())) break;
    SentList::insert(flights_.data(), c.flight_oldest, place, flight);
}

void SendQueue::relaunch(Connection& c, Index flight, std::uint32_t now_us) {
    Flight& f = flights_[flight];
    DCHECK(!f.has(kSacked));
    if (f.has(kLost)) c.lost_bytes -= f.length;
    else unlink_sent(c, flight);
    f.flags = static_cast<std::uint8_t>((f.flags & ~kLost) | kRepeated);
    f.sent_us = now_us;
    link_newest(c, flight);
}

Index SendQueue::find_flight(Connection& c, Seq seq, std::uint32_t& steps) {
    if (c.flight_head == kNil) return kNil;
    // The nearest of three places to begin at.
    const auto far = [&](Index place) {
        const Flight& f = flights_[place];
        return std::max(f.first - seq, seq - f.end());
    };
    Index i = c.flight_head;
    for (const Index place : {last_flight(c), c.sack_hint})
        if (place != kNil && far(place) < far(i)) i = place;
    for (; steps > 0; --steps) {
        const Flight& f = flights_[i];
        c.sack_hint = i;
        if (f.first > seq && i != c.flight_head) i = f.prev;
        else if (f.end() > seq) return i;
        else if (f.next == kNil) return kNil;
        else i = f.next;
    }
    return kNil;
}

void SendQueue::trim(Connection& c, Index flight, std::uint32_t bytes) {
    Flight& f = flights_[flight];
    if (f.has(kSacked)) c.sacked_bytes -= bytes;
    if (f.has(kLost)) c.lost_bytes -= bytes;
    skip(f.record, f.offset, bytes);
    f.first += bytes;
    f.length -= bytes;
}

void SendQueue::land(Connection& c, Index flight) {
    const Flight& f = flights_[flight];
    if (f.has(kSacked)) {
        c.sacked_bytes -= f.length;
        const bool last = c.sacked_bytes == 0;
        c.sacked_segments -= last ? c.sacked_segments : std::min(f.segments, c.sacked_segments);
    } else if (f.has(kLost)) {
        c.lost_bytes -= f.length;
    } else {
        unlink_sent(c, flight);
    }
    drop(c, flight);
}

void SendQueue::drop(Connection& c, Index flight) {
    const Index next = flights_[flight].next;
    if (c.retransmit_hint == flight) c.retransmit_hint = next;
    if (c.sack_hint == flight) c.sack_hint = next;
    FlightList::remove(flights_.data(), c.flight_head, flight);
    flights_.give(flight);
    --flights_used_[place_of(c.session)];
}

void SendQueue::land_all(Connection& c) {
    while (c.flight_head != kNil) land(c, c.flight_head);
    c.retransmit_hint = kNil;
}

void SendQueue::mark_lost(Connection& c, Index flight) {
    Flight& f = flights_[flight];
    if (!f.in_flight()) return;
    unlink_sent(c, flight);
    f.flags |= kLost;
    c.lost_bytes += f.length;
    if (c.retransmit_hint == kNil || f.first < flights_[c.retransmit_hint].first)
        c.retransmit_hint = flight;
}

Index SendQueue::mark_sacked(Connection& c, Index flight) {
    Flight& f = flights_[flight];
    if (f.has(kSacked)) return flight;
    if (f.has(kLost)) c.lost_bytes -= f.length;
    else unlink_sent(c, flight);
    f.flags = static_cast<std::uint8_t>((f.flags & ~kLost) | kSacked);
    f.segments = 1;
    c.sacked_bytes += f.length;
    if (c.sacked_segments < 0xffff) ++c.sacked_segments;

    const Index before = flight_before(c, flight);
    const Index after = f.next;
    if (after != kNil && flights_[after].has(kSacked)) merge(c, flight, after);
    if (before == kNil || !flights_[before].has(kSacked)) return flight;
    merge(c, before, flight);
    return before;
}

void SendQueue::merge(Connection& c, Index left, Index right) {
    Flight& l = flights_[left];
    const Flight& r = flights_[right];
    l.length += r.length;
    l.segments = static_cast<std::uint16_t>(std::min(l.segments + r.segments, 0xffff));
    l.flags = static_cast<std::uint8_t>(l.flags | (r.flags & kFlightFin));
    if (c.sack_hint == right) c.sack_hint = left;
    drop(c, right);
}

void SendQueue::forget_sack(Connection& c) {
    for (Index i = c.flight_head; i != kNil; i = flights_[i].next) {
        Flight& f = flights_[i];
        if (!f.has(kSacked)) continue;
        f.flags = static_cast<std::uint8_t>((f.flags & ~kSacked) | kLost);
        c.lost_bytes += f.length;
    }
    c.retransmit_hint = c.flight_head;
    c.sacked_bytes = 0;
    c.sacked_segments = 0;
}

// The newest first: what was lost is older than what is in flight, so each finds its place at once.
void SendQueue::mark_found(Connection& c) {
    for (Index i = last_flight(c); i != kNil; i = flight_before(c, i)) {
        Flight& f = flights_[i];
        if (!f.has(kLost)) continue;
        f.flags = static_cast<std::uint8_t>(f.flags & ~kLost);
        link_oldest(c, i);
    }
    c.lost_bytes = 0;
}

std::uint32_t SendQueue::reclaim(Connection& c) {
    std::uint32_t count = 0;
    while (c.send_head != kNil) {
        const Index i = c.send_head;
        SendEntry& entry = records_[i];
        if (entry.device_refs != 0 || entry.end() > c.snd_una()) break;
        c.info.sent_bytes += entry.slice.length;
        c.send_head = entry.next;
        if (c.send_head == kNil) c.send_tail = kNil;
        records_.give(i);
        ++count;
    }
    return count;
}

void SendQueue::abandon(Connection& c) {
    land_all(c);
    c.send_cursor = kNil;
    c.info.snd_una = c.info.snd_end;
}

}  // namespace chiru::tcp
