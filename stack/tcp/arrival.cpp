// SPDX-License-Identifier: Apache-2.0
//
// A segment meets its connection, a listener, or nobody (RFC 9293 §3.10.7.1).
#include "stack/tcp/machine.hpp"

#include "stack/wire/checksum.hpp"
#include "stack/wire/tcp.hpp"

namespace chiru::tcp {

using shm::Counter;

namespace {

constexpr std::uint8_t kProtocolTcp = 6;
/// After so long without a segment a timestamp tells nothing (RFC 7323 §5.5).
constexpr std::int64_t kTimestampAgeUs = 24ll * 24 * 3600 * 1'000'000;

bool checksum_right(const Incoming& in) {
    wire::ChecksumSum sum =
        wire::pseudo_header(in.source, in.destination, kProtocolTcp, in.l4.size());
    sum.add(in.l4);
    return sum.checksum() == 0;
}

/// What no honest host sends: port 0, no flag at all, SYN with FIN or RST. Not even answered.
bool impossible(const wire::TcpHeader& header) {
    constexpr std::uint8_t kAny = wire::kSyn | wire::kFin | wire::kRst | wire::kAck;
    const bool two = (header.flags & wire::kSyn) != 0 &&
                     (header.flags & (wire::kFin | wire::kRst)) != 0;
    return two || (header.flags & kAny) == 0 || header.source_port == 0 ||
           header.destination_port == 0;
}

Tuple tuple_of(const Incoming& in, const wire::TcpHeader& header) {
    return {in.destination, in.source, header.destination_port, header.source_port};
}

}  // namespace

void Machine::prefetch(std::span<Incoming> burst) const {
    std::uint64_t hash = 0;
    for (Incoming& in : burst) {
        if (!in.follows) {
            const auto header = read_header<wire::TcpHeader>(in.l4);
            hash = header ? hash_of(tuple_of(in, *header)) : 0;
            if (header) demux_.prefetch(hash);
        }
        in.hash = hash;
    }
    for (const Incoming& in : burst) {
        if (in.hash == 0 || in.follows) continue;
        const Connection& guessed = connections_[demux_.guess(in.hash)];
        const auto* block = reinterpret_cast<const std::byte*>(&guessed);
        for (std::size_t line = 0; line < sizeof(Connection) / kCacheLine; ++line)
            __builtin_prefetch(block + line * kCacheLine, 1);
    }
}

Fate Machine::receive(const Incoming& in, Instant now) {
    now_ = now;
    if (!in.checksum_good && !checksum_right(in)) return {Counter::InBadChecksum};
    const auto header = read_header<wire::TcpHeader>(in.l4);
    const auto seg = Segment::parse(in.l4);
    if (!seg) return {Counter::InMalformed};
    if (impossible(*header)) return {Counter::InImpossible};

    Arrival a{.in = in, .seg = *seg, .now = now};
    const Tuple tuple = tuple_of(in, *header);
    a.self = demux_.find(tuple, in.hash != 0 ? in.hash : hash_of(tuple));
    if (a.self == kNil) return meet_nobody(a, tuple);

    count(Counter::TcpSegmentsIn);
    Connection& c = connections_[a.self];
    // Where nobody listens it would end by any stranger's SYN, with nothing in its place.
    if (recycles(c, a.seg) && find_listener(tuple) != kNil) {
        count(Counter::TcpTimeWaitRecycled);
        end(c, a.self, 0);
        return meet_nobody(a, tuple);
    }
    ++c.info.rx_segments;
    const std::int64_t now_us = now.time_since_epoch().count();
    a.long_idle = now_us - c.info.last_received_us > kTimestampAgeUs;
    c.info.last_received_us = now_us;
    c.keep_probes = 0;
    const Counter counter = c.info.state == TcpState::SynSent ? syn_sent_arrives(c, a)
                                                              : segment_arrives(c, a);
    if (c.info.state != TcpState::Closed && c.info.state != TcpState::Free) schedule(c, a.self);
    return {counter, a.kept_slot};
}

Fate Machine::meet_nobody(Arrival& a, const Tuple& tuple) {
    const Index listener = find_listener(tuple);
    if (listener != kNil) {
        count(Counter::TcpSegmentsIn);
        const Counter counter = listen_arrives(a, tuple, listeners_[listener]);
        return {counter, a.kept_slot};
    }
    answer_nobody(a, tuple);
    return {Counter::InNoSocket};
}

// "If the incoming segment does not contain an ACK": the reset acknowledges what came, so that
// the peer believes it. Else it has the number the peer waits for.
void Machine::answer_nobody(const Arrival& a, const Tuple& tuple) {
    const Segment& seg = a.seg;
    if (seg.has(wire::kRst)) return;
    if (seg.has(wire::kAck)) reply_reset(a, tuple, seg.ack, Seq(0), wire::kRst);
    else reply_reset(a, tuple, Seq(0), seg.end(), wire::kRst | wire::kAck);
}

void Machine::reply(const Reply& reply) {
    if (reply_count_ == kReplies) return;  // a flood gets no more answers than fit in one turn
    replies_[(reply_first_ + reply_count_++) % kReplies] = reply;
}

// Each costs the sender one segment and us one; a flood must not make us a source of floods.
void Machine::reply_reset(const Arrival& a, const Tuple& tuple, Seq seq, Seq ack,
                          std::uint8_t flags) {
    if (!resets_.take(hash_key_, now_)) {
        count(Counter::TcpResetsLimited);
        return;
    }
    reply({.tuple = tuple, .link = a.in.interface, .seq = seq, .ack = ack, .flags = flags});
}

void Machine::challenge_ack(Connection& c, Index self, Instant now) {
    if (!challenges_.take(hash_key_, now)) {
        count(Counter::TcpChallengeLimited);
        return;
    }
    count(Counter::TcpChallengeAcks);
    owe_ack(c, self);
}

// Text that comes again cannot loop, and its sender needs the answer; what is empty may be one.
void Machine::answer_refused(Connection& c, const Arrival& a) {
    if (a.seg.length() == 0 && !refusal_limit_.take(a.self, a.now)) {
        count(Counter::TcpChallengeLimited);
        return;
    }
    owe_ack(c, a.self);
}

// Only an error about data that is in flight can be answered for by somebody on the path
// (RFC 5927 §4.1).
bool Machine::icmp_error(const IcmpError& error, Instant now) {
    using Kind = IcmpError::Kind;
    now_ = now;
    const Tuple tuple{error.local.address, error.remote.address, error.local.port,
                      error.remote.port};
    const Index self = demux_.find(tuple, hash_of(tuple));
    if (self == kNil) return false;
    Connection& c = connections_[self];
    const Seq seq(error.sequence);
    if (c.snd_una() > seq || seq >= c.snd_nxt()) return false;

    if (error.kind == Kind::PacketTooBig) return packet_too_big(c, self, error.mtu, seq, now);
    const int code = error.kind == Kind::NetUnreachable ? ENETUNREACH
                     : error.kind == Kind::PortUnreachable ||
                             error.kind == Kind::ProtocolUnreachable
                         ? ECONNREFUSED
                         : EHOSTUNREACH;
    // An open that fails may fail at once; for an established connection these are soft errors
    // (RFC 5461 §4, RFC 1122 §4.2.3.9), and the retransmission timer has the last word.
    const bool opening = c.info.state == TcpState::SynSent;
    if (opening && error.kind != Kind::TimeExceeded) {
        count(Counter::TcpOpenFailed);
        end(c, self, code);
    } else {
        c.info.error = static_cast<std::uint16_t>(code);
    }
    return true;
}

}  // namespace chiru::tcp
