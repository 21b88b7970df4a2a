// SPDX-License-Identifier: Apache-2.0
//
// How large a segment may be: what routers tell (RFC 1191, RFC 8201), what black holes do not
// (RFC 4821), and the way back up. What one connection learns, IP remembers for all.
//
//   smaller  at once: a router's word about text in flight; what IP knows by now; full segments
//            that stay unanswered until the timer's third expiry
//   larger   by a probe: new text in one segment of the size in question. If it alone is lost, that
//            is an answer, not congestion, and costs one repeat in pieces of the old size
//
// A search keeps its state in the connection's extra record, and gives it back when it is over.
#include "stack/tcp/machine.hpp"

#include <algorithm>
#include <array>

namespace chiru::tcp {

using shm::Counter;

namespace {

/// Expiries of the timer in a row after which size is suspected: R1 of RFC 1122 §4.2.3.5, the
/// "full-stop timeout" of RFC 4821 §7.7.
constexpr std::uint16_t kFullStop = 3;
/// A size is too large when so many probes of it were lost (RFC 8899 §5.1.2, MAX_PROBES): one may
/// be lost for other reasons.
constexpr std::uint8_t kMaxProbes = 3;
/// RFC 4821 §7.2: 1024 bytes of text pass nearly everywhere.
constexpr std::uint16_t kBaseMtuV4 = 1024 + 40;
constexpr std::uint16_t kLeastMtuV4 = 576;
constexpr std::uint16_t kLeastMtuV6 = 1280;  // every link of IPv6 has it (RFC 8200 §5)
/// Segments that must follow a probe, so that ACKs tell of its loss: RACK needs one, duplicate ACKs
/// have to be three.
constexpr std::uint32_t kFollowersWithSack = 1;
constexpr std::uint32_t kFollowers = 3;

/// Sizes worth asking for (RFC 4821 §7.3): links and the tunnels over them, RFC 1191 §7's plateaus.
constexpr auto kSizes = std::to_array<std::uint16_t>(
    {640,  768,  900,  1064, 1280, 1300, 1350, 1400, 1420, 1440, 1450, 1460, 1472, 1480, 1492,
     1500, 2002, 4352, 8166, 8900, 8950, 9000});

/// The middle of those that the search has not decided yet; 0: there is none.
std::uint16_t next_size(const MtuSearch& search) {
    if (search.high <= search.low) return 0;
    if (search.ask_high) return search.high;
    const auto* first = std::upper_bound(kSizes.begin(), kSizes.end(), search.low);
    const auto* last = std::upper_bound(kSizes.begin(), kSizes.end(), search.high);
    return first < last ? first[(last - first) / 2] : std::uint16_t{0};
}

std::uint16_t least_mtu(const Connection& c) {
    return c.info.remote_address.is_v4() ? kLeastMtuV4 : kLeastMtuV6;
}
std::uint16_t base_mtu(const Connection& c) {
    return c.info.remote_address.is_v4() ? kBaseMtuV4 : kLeastMtuV6;
}

}  // namespace

/// Text of a full segment in packets of `mtu` bytes, as far as peer and client allow it.
std::uint32_t Machine::mss_for(const Connection& c, std::uint32_t mtu) {
    const std::uint32_t fixed = c.fixed_header_bytes();
    std::uint32_t mss = mtu - fixed;
    if (c.info.peer_mss != 0) mss = std::min<std::uint32_t>(mss, c.info.peer_mss);
    return mss - (c.header_bytes() - fixed);
}

/// What a SYN offers goes by the link, not by the path: the way back may be another one (RFC 1191
/// §3.1).
std::uint32_t Machine::offered_mss(const Path& path, const IpAddress& remote,
                                   std::uint32_t max_segment) const {
    const std::uint32_t headers = remote.is_v4() ? 40 : 60;
    const std::uint32_t mss = lower_.link_mtu(path) - headers;
    return max_segment != 0 ? std::min(mss, max_segment) : mss;
}

MtuSearch* Machine::mtu_search(const Connection& c) {
    Extra* record = extra(c);
    return record != nullptr && (record->uses & kForMtu) != 0 ? &record->mtu : nullptr;
}

/// What IP knows of the path has changed. Less is obeyed at once. More means that what was known
/// is too old: that is tried out (RFC 8899 §5.1.1, PMTU_RAISE_TIMER), or without probing just
/// done (RFC 1191 §6.3).
void Machine::follow_path_mtu(Connection& c) {
    const std::uint32_t mss = mss_for(c, c.path.mtu);
    if (mss < c.info.mss) return lower_mtu(c, c.path.mtu);
    if (mss == c.info.mss || mtu_search(c) != nullptr) return;
    const auto now_sent = static_cast<std::uint16_t>(c.packet_bytes());
    const auto possible = static_cast<std::uint16_t>(mss + c.header_bytes());
    const bool probes = config_.tcp.mtu_probing != MtuProbing::Off && c.path.local == 0;
    if (!probes || !begin_search(c, now_sent, possible)) c.info.mss = mss;
}

void Machine::lower_mtu(Connection& c, std::uint16_t mtu) {
    c.info.mss = mss_for(c, mtu);
    MtuSearch* search = mtu_search(c);
    if (search == nullptr) return;
    search->low = std::min(search->low, mtu);
    search->high = std::min(search->high, mtu);
}

bool Machine::begin_search(Connection& c, std::uint16_t low, std::uint16_t high) {
    Extra* record = low < high ? need_extra(c, kForMtu) : nullptr;
    if (record == nullptr) return false;
    record->mtu = MtuSearch{};
    record->mtu.low = low;
    record->mtu.high = high;
    record->mtu.ask_high = true;
    record->mtu.resume = c.snd_una();
    return true;
}

void Machine::end_search(Connection& c, Instant now) {
    const MtuSearch search = *mtu_search(c);
    give_extra(c, kForMtu);
    lower_.found_path_mtu(c.info.remote_address, search.low,
                          search.narrowed ? Lower::Larger::Vanish : Lower::Larger::May, now);
}

/// MtuProbing::Always: the path proves each size before it is used.
void Machine::begin_small(Connection& c) {
    if (config_.tcp.mtu_probing != MtuProbing::Always || c.path.local != 0) return;
    const std::uint16_t base = base_mtu(c);
    if (!begin_search(c, base, static_cast<std::uint16_t>(c.packet_bytes()))) return;
    c.info.mss = mss_for(c, base);
}

/// RFC 4821 §7.7: the timer expired again and again, and no router said why. If the oldest segment
/// is a large one, its size may be why; then smaller ones are sent, and larger ones become probes.
void Machine::suspect_black_hole(Connection& c) {
    if (config_.tcp.mtu_probing == MtuProbing::Off || c.path.local != 0 ||
        c.info.timeouts < kFullStop)
        return;
    const std::uint32_t text =
        std::min(send_.flights()[c.flight_head].text_bytes(), c.info.mss);
    const std::uint16_t mtu = c.info.timeouts > kFullStop ? least_mtu(c) : base_mtu(c);
    if (text <= mss_for(c, mtu)) return;
    const auto high = static_cast<std::uint16_t>(c.packet_bytes());
    MtuSearch* search = mtu_search(c);
    if (search == nullptr) {
        count(Counter::TcpMtuBlackHoles);
        if (begin_search(c, mtu, high)) search = mtu_search(c);
    }
    if (search != nullptr) {
        search->low = mtu;
        search->probe = 0;
        search->ask_high = true;
        search->lost = kMaxProbes - 1;  // the size has been lost often enough; once more decides
        search->narrowed = false;
    }
    c.info.mss = mss_for(c, mtu);
}

/// May a probe go out now, and how much text has it? Only while nothing is lost and there is enough
/// behind it that its loss will show (RFC 4821 §7.4, §7.5). Where nothing but the window lacks,
/// sending is held until ACKs have made room for the probe.
Machine::ProbeChoice Machine::choose_probe(Connection& c, Instant now) {
    const MtuSearch* search = mtu_search(c);
    if (search == nullptr || search->probe != 0) return {};
    if (c.recovery() != shm::RecoveryState::Open || c.lost_bytes > 0 || c.sacked_bytes > 0 ||
        c.snd_una() < search->resume || c.has_ecn(kEcnOweCwr))
        return {};
    const std::uint16_t size = next_size(*search);
    if (size == 0 || mss_for(c, size) <= c.info.mss) {
        end_search(c, now);
        return {};
    }
    const std::uint32_t text = mss_for(c, size);
    const std::uint32_t behind =
        c.info.mss *
        (c.negotiated(shm::kNegotiatedSack) ? kFollowersWithSack : kFollowers);
    if (std::min({c.unsent_bytes(), c.info.snd_wnd, c.info.cwnd_bytes}) < text + behind) return {};
    const bool fits = c.outstanding_bytes() + text <= c.info.snd_wnd &&
                      c.pipe_bytes() + text <= c.info.cwnd_bytes;
    if (!fits) c.set(kCwndLimited);
    return {.text = fits ? text : 0, .hold = !fits};
}

/// The flight that begins at `first` is a probe.
void Machine::probe_sent(Connection& c, Seq first, std::uint32_t text) {
    MtuSearch& search = *mtu_search(c);
    search.probe = next_size(search);
    search.first = first;
    search.end = first + text;
    count(Counter::TcpMtuProbes);
}

/// The probe is acknowledged, and was not sent again: packets of its size arrive (RFC 4821 §7.6.1).
void Machine::check_probe(Connection& c, Instant now) {
    MtuSearch* search = mtu_search(c);
    if (search == nullptr || search->probe == 0 || c.snd_una() < search->end) return;
    search->low = search->probe;
    search->probe = 0;
    search->lost = 0;
    search->ask_high = false;
    c.info.mss = mss_for(c, search->low);
    if (next_size(*search) == 0) end_search(c, now);
    else
        lower_.found_path_mtu(c.info.remote_address, search->low, Lower::Larger::May, now);
}

/// Losses were found. If the probe is all of them, that is no sign of congestion (RFC 4821 §7.6.2).
/// If others were lost with it, it may have been for their reason.
bool Machine::excuse_probe(Connection& c, Instant now) {
    const MtuSearch* search = mtu_search(c);
    if (search == nullptr || search->probe == 0 || c.recovery() != shm::RecoveryState::Open)
        return false;
    std::uint32_t lost = 0;
    for (Index i = c.flight_head; i != kNil; i = send_.flights()[i].next) {
        const Flight& f = send_.flights()[i];
        if (f.first >= search->end) break;
        if (f.first >= search->first && f.has(kLost)) lost += f.length;
    }
    if (lost == 0 || lost != c.lost_bytes) return false;
    c.set(kForceOne);
    probe_lost(c, now);
    return true;
}

void Machine::probe_lost(Connection& c, Instant now) {
    MtuSearch& search = *mtu_search(c);
    count(Counter::TcpMtuProbesLost);
    search.resume = c.snd_nxt();
    const auto size = search.probe;
    search.probe = 0;
    if (++search.lost < kMaxProbes) return;
    search.high = static_cast<std::uint16_t>(size - 1);
    search.lost = 0;
    search.ask_high = false;
    search.narrowed = true;
    if (next_size(search) == 0) end_search(c, now);
}

/// Nothing can be said of the probe any longer: what it carried may go out again.
void Machine::forget_probe(Connection& c) {
    MtuSearch* search = mtu_search(c);
    if (search == nullptr || search->probe == 0) return;
    search->probe = 0;
    search->resume = c.snd_nxt();
}

/// The timer expired while a probe was out. If it was the oldest, it was probably what was lost;
/// the timer's consequences stay (RFC 4821 §7.6.3).
void Machine::probe_timed_out(Connection& c, Instant now) {
    const MtuSearch* search = mtu_search(c);
    if (search == nullptr || search->probe == 0) return;
    if (send_.flights()[c.flight_head].first >= search->first) probe_lost(c, now);
    else forget_probe(c);
}

/// A router's answer to what is in flight at `seq`. What was too big is gone, and that is no sign
/// of congestion (RFC 8201 §5.4).
bool Machine::packet_too_big(Connection& c, Index self, std::uint32_t mtu, Seq seq, Instant now) {
    const auto size = static_cast<std::uint16_t>(
        std::clamp<std::uint32_t>(mtu, least_mtu(c), 0xffff));
    MtuSearch* search = mtu_search(c);
    const bool probe = search != nullptr && search->probe > size && search->first <= seq &&
                       seq < search->end && size >= c.packet_bytes();
    if (!probe && mss_for(c, size) >= c.info.mss) return false;
    const Seq first = probe ? search->first : c.snd_una();
    const Seq end = probe ? search->end : c.snd_nxt();
    if (probe) {
        count(Counter::TcpMtuProbesLost);
        forget_probe(c);
        search->high = size;
        search->ask_high = true;
        search->lost = 0;
    } else {
        forget_probe(c);
        lower_mtu(c, size);
        c.path.mtu = size;
    }
    if (search != nullptr && next_size(*search) == 0) end_search(c, now);
    for (Index i = c.flight_head; i != kNil; i = send_.flights()[i].next) {
        const Flight& f = send_.flights()[i];
        if (first <= f.first && f.first < end && f.text_bytes() > c.info.mss)
            send_.mark_lost(c, i);
    }
    mark_output(c, self);
    return true;
}

}  // namespace chiru::tcp
