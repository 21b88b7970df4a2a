// SPDX-License-Identifier: Apache-2.0
#include "stack/tcp/send_queue.hpp"

#include "base/check.hpp"

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
    FlightList list = flights_of(c);
    list.push_back(flights_.data(), i);
    store(c, list);

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

    rest.prev = flight;
    rest.next = head.next;
    if (head.next == kNil) c.flight_tail = i;
    else flights_[head.next].prev = i;
    head.next = i;
    return true;
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
    Flight& f = flights_[flight];
    if (f.has(kSacked)) c.sacked_bytes -= f.length;
    if (f.has(kLost)) c.lost_bytes -= f.length;
    if (c.retransmit_hint == flight) c.retransmit_hint = f.next;
    FlightList list = flights_of(c);
    list.remove(flights_.data(), flight);
    store(c, list);
    flights_.give(flight);
    --flights_used_[place_of(c.session)];
}

void SendQueue::land_all(Connection& c) {
    while (c.flight_head != kNil) land(c, c.flight_head);
    c.retransmit_hint = kNil;
}

void SendQueue::mark_lost(Connection& c, Index flight) {
    Flight& f = flights_[flight];
    if (f.has(kLost | kSacked)) return;
    f.flags |= kLost;
    c.lost_bytes += f.length;
    if (c.retransmit_hint == kNil || f.first < flights_[c.retransmit_hint].first)
        c.retransmit_hint = flight;
}

void SendQueue::mark_sacked(Connection& c, Index flight) {
    Flight& f = flights_[flight];
    if (f.has(kSacked)) return;
    if (f.has(kLost)) c.lost_bytes -= f.length;
    f.flags = static_cast<std::uint8_t>((f.flags & ~kLost) | kSacked);
    c.sacked_bytes += f.length;
}

void SendQueue::forget_sack(Connection& c) {
    for (Index i = c.flight_head; i != kNil; i = flights_[i].next)
        flights_[i].flags = static_cast<std::uint8_t>(flights_[i].flags & ~kSacked);
    c.sacked_bytes = 0;
}

void SendQueue::mark_found(Connection& c, Index flight) {
    Flight& f = flights_[flight];
    if (!f.has(kLost)) return;
    f.flags = static_cast<std::uint8_t>(f.flags & ~kLost);
    c.lost_bytes -= f.length;
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
