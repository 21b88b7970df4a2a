// SPDX-License-Identifier: Apache-2.0
#include "stack/ip/reassembly.hpp"

#include "stack/ip/interface.hpp"

#include <algorithm>
#include <cstring>

namespace chiru::ip {

void Reassembly::measure(TableCarver& carver) {
    carver.take<Datagram>(kDatagrams);
    carver.take<std::uint32_t>(kDatagrams);
}

Reassembly::Reassembly(TableCarver& carver, Pieces& pieces, const SipKey& key)
    : table_(carver.take<Datagram>(kDatagrams)),
      buckets_(carver.take<std::uint32_t>(kDatagrams)),
      pieces_(pieces),
      key_(key) {
    std::fill(buckets_.begin(), buckets_.end(), kNoDatagram);
    for (std::size_t i = table_.size(); i-- > 0;) {
        table_[i].hash_next = free_;
        free_ = static_cast<std::uint32_t>(i);
    }
}

std::uint32_t& Reassembly::bucket_of(const FragmentKey& key) {
    std::array<std::byte, 37> bytes;
    std::memcpy(bytes.data(), key.source.bytes().data(), 16);
    std::memcpy(bytes.data() + 16, key.destination.bytes().data(), 16);
    std::memcpy(bytes.data() + 32, &key.id, 4);
    bytes[36] = std::byte{key.protocol};
    return buckets_[siphash(key_, bytes) % kDatagrams];
}

std::uint32_t Reassembly::find(const FragmentKey& key) {
    std::uint32_t index = bucket_of(key);
    while (index != kNoDatagram && table_[index].key != key) index = table_[index].hash_next;
    return index;
}

bool Reassembly::make_room(const IpAddress& peer, std::uint32_t keep) {
    const std::size_t piece_bound = pieces_.capacity() / 2;
    std::size_t datagrams = 0;
    std::size_t pieces = 0;
    std::uint32_t oldest_of_peer = kNoDatagram;
    for (const List& age : ages_) {
        for (std::uint32_t i = age.first; i != kNoDatagram; i = table_[i].age_next) {
            if (table_[i].key.source != peer) continue;
            ++datagrams;
            pieces += table_[i].piece_count;
            if (oldest_of_peer == kNoDatagram && i != keep) oldest_of_peer = i;
        }
    }
    // A share must hold a largest datagram at a usual MTU, even in a small arena.
    const std::size_t piece_share = std::max<std::size_t>(piece_bound / 4, 64);
    if (datagrams > kDatagrams / 4 || pieces > piece_share) {
        if (oldest_of_peer == kNoDatagram) return false;  // all of it is the one to be kept
        drop(oldest_of_peer);
        return true;
    }
    if (free_ != kNoDatagram && piece_count_ < piece_bound && pieces_.free_count() > 0)
        return true;
    std::uint32_t victim = kNoDatagram;
    for (const List& age : ages_) {
        const std::uint32_t oldest =
            age.first == keep && keep != kNoDatagram ? table_[keep].age_next : age.first;
        if (oldest != kNoDatagram &&
            (victim == kNoDatagram || table_[oldest].deadline_us < table_[victim].deadline_us))
            victim = oldest;
    }
    if (victim == kNoDatagram) return false;
    drop(victim);
    return true;
}

std::uint32_t Reassembly::create(const Fragment& fragment, Instant now) {
    const std::uint32_t index = free_;
    if (index == kNoDatagram) return index;
    free_ = table_[index].hash_next;
    const Micros patience = family(fragment.key) == 0 ? kReassemblyTimeV4 : kReassemblyTimeV6;
    List& age = ages_[family(fragment.key)];
    std::uint32_t& bucket = bucket_of(fragment.key);
    table_[index] = Datagram{.key = fragment.key,
                             .deadline_us = to_us(now + patience),
                             .hash_next = bucket,
                             .age_previous = age.last,
                             .interface = fragment.interface};
    bucket = index;
    if (age.last == kNoDatagram) age.first = index;
    else table_[age.last].age_next = index;
    age.last = index;
    return index;
}

void Reassembly::remove(std::uint32_t index) {
    Datagram& datagram = table_[index];
    std::uint32_t* at = &bucket_of(datagram.key);
    while (*at != index) at = &table_[*at].hash_next;
    *at = datagram.hash_next;
    List& age = ages_[family(datagram.key)];
    if (datagram.age_previous == kNoDatagram) age.first = datagram.age_next;
    else table_[datagram.age_previous].age_next = datagram.age_next;
    if (datagram.age_next == kNoDatagram) age.last = datagram.age_previous;
    else table_[datagram.age_next].age_previous = datagram.age_previous;
    piece_count_ -= datagram.piece_count;
    datagram.hash_next = free_;
    free_ = index;
}

void Reassembly::condemn(Datagram& datagram) {
    pieces_.release_chain(datagram.first_piece);
    piece_count_ -= datagram.piece_count;
    datagram.first_piece = kNoPiece;
    datagram.piece_count = 0;
    datagram.quote_bytes = 0;
    datagram.condemned = 1;
}

std::uint32_t Reassembly::take(std::uint32_t index) {
    const std::uint32_t chain = table_[index].first_piece;
    remove(index);
    return chain;
}

void Reassembly::drop(std::uint32_t index) { pieces_.release_chain(take(index)); }

Reassembly::Verdict Reassembly::insert(Datagram& datagram, const Fragment& fragment,
                                       const RxFrame& frame) {
    const auto begin = static_cast<std::uint32_t>(fragment.offset);
    const auto end = static_cast<std::uint32_t>(begin + fragment.payload.size());
    // Behind the last fragment, or a last one before what was there already: two datagrams mixed.
    if ((datagram.total_bytes != 0 && end > datagram.total_bytes) ||
        (!fragment.more && (datagram.highest_end > end ||
                            (datagram.total_bytes != 0 && datagram.total_bytes != end)))) {
        condemn(datagram);
        return Verdict::Dropped;
    }
    std::uint32_t* at = &datagram.first_piece;
    while (*at != kNoPiece && pieces_[*at].at + pieces_[*at].length <= begin)
        at = &pieces_[*at].next;
    if (*at != kNoPiece && pieces_[*at].at < end) {
        if (pieces_[*at].at == begin && pieces_[*at].length == end - begin)
            return Verdict::Duplicate;
        condemn(datagram);
        return Verdict::Dropped;
    }
    const std::uint32_t piece = pieces_.hold(frame, fragment.payload);
    if (piece == kNoPiece) return Verdict::Dropped;
    pieces_[piece].at = begin;
    pieces_[piece].next = *at;
    *at = piece;
    ++datagram.piece_count;
    ++piece_count_;
    datagram.received_bytes += end - begin;
    datagram.highest_end = std::max(datagram.highest_end, end);
    if (!fragment.more) datagram.total_bytes = end;
    return Verdict::Held;
}

Reassembly::Outcome Reassembly::add(const Fragment& fragment, const RxFrame& frame, Instant now) {
    if (fragment.payload.empty() || (fragment.more && fragment.payload.size() % 8 != 0) ||
        fragment.offset + fragment.payload.size() > kMaxDatagramBytes)
        return {Verdict::Malformed, kNoDatagram};
    std::uint32_t index = find(fragment.key);
    // A peer is counted when it opens a datagram, and then at every eighth of its fragments.
    const bool count = index == kNoDatagram || table_[index].piece_count % 8 == 7 ||
                       piece_count_ >= pieces_.capacity() / 2 || pieces_.free_count() == 0;
    if (count && !make_room(fragment.key.source, index)) return {Verdict::Dropped, index};
    if (index == kNoDatagram) index = create(fragment, now);
    if (index == kNoDatagram) return {Verdict::Dropped, index};
    Datagram& datagram = table_[index];
    if (datagram.condemned || datagram.piece_count == kDatagramPieces) {
        if (!datagram.condemned) condemn(datagram);
        return {Verdict::Dropped, index};
    }
    const Verdict verdict = insert(datagram, fragment, frame);
    if (verdict != Verdict::Held) return {verdict, index};
    datagram.to_group |= fragment.to_group ? 1 : 0;
    if ((fragment.tos & 3) == 3) datagram.tos |= 3;  // one CE marks the whole (RFC 3168 §5.3)
    if (fragment.offset == 0) {
        datagram.tos = static_cast<std::uint8_t>(fragment.tos | (datagram.tos & 3));
        datagram.protocol = fragment.protocol;
        datagram.hop_limit = fragment.hop_limit;
        datagram.quote_offset = frame.slice.offset +
                                static_cast<std::uint64_t>(fragment.packet.data() - frame.data);
        datagram.quote_bytes = static_cast<std::uint32_t>(fragment.packet.size());
    }
    const bool whole = datagram.total_bytes != 0 && datagram.received_bytes == datagram.total_bytes;
    return {whole ? Verdict::Complete : Verdict::Held, index};
}

std::uint32_t Reassembly::expired(Instant now) const {
    for (const List& age : ages_)
        if (age.first != kNoDatagram && table_[age.first].deadline_us <= to_us(now))
            return age.first;
    return kNoDatagram;
}

Instant Reassembly::next_deadline() const {
    std::int64_t next = kNeverUs;
    for (const List& age : ages_)
        if (age.first != kNoDatagram) next = std::min(next, table_[age.first].deadline_us);
    return from_us(next);
}

}  // namespace chiru::ip
