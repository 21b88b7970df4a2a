// SPDX-License-Identifier: Apache-2.0
//
// Explicit congestion notification (RFC 3168): who agrees to it, what a receiver says of marks,
// and which segments may be marked. A receiver whose own controller is DCTCP tells of every byte
// whether it was marked (RFC 8257 §3.2); any other repeats ECE until the sender has reacted.
#include "stack/tcp/machine.hpp"

#include "stack/wire/tcp.hpp"

#include <algorithm>

namespace chiru::tcp {

using shm::CongestionAlgorithm;
using shm::Counter;
using wire::kAck;
using wire::kCwr;
using wire::kEce;

namespace {

bool tells_all(const Connection& c) {
    return c.info.congestion == static_cast<std::uint8_t>(CongestionAlgorithm::Dctcp);
}

}  // namespace

void Machine::ask_ecn(Connection& c) {
    if (tells_all(c) || choice(c.info.interface).ecn == EcnPolicy::On) c.set_ecn(kEcnAsk);
}

/// RFC 3168 §6.1.1. A SYN and ACK that has both bits only mirrors ours.
void Machine::negotiate_ecn(Connection& c, const Segment& seg) {
    const bool agreed = seg.has(kAck)
                            ? c.has_ecn(kEcnAsk) && seg.has(kEce) && !seg.has(kCwr)
                            : seg.has(kEce) && seg.has(kCwr) &&
                                  (c.has_ecn(kEcnAsk) || tells_all(c) ||
                                   choice(c.info.interface).ecn != EcnPolicy::Off);
    if (!agreed) return;
    c.info.negotiated |= shm::kNegotiatedEcn;
    count(Counter::TcpEcnConnections);
}

/// Text came, with a mark or without, and perhaps with the sender's word that it slowed down.
void Machine::take_mark(Connection& c, const Arrival& a) {
    const bool marked = (a.in.tos & wire::kEcnBits) == wire::kEcnMarked;
    if (marked) count(Counter::TcpMarksReceived);
    if (tells_all(c)) {
        if (marked == c.has_ecn(kEcnEcho)) return;
        // What came before and was not acknowledged yet was not like this.
        if (c.rcv_nxt() != c.last_ack_sent) add_edge(c, a.self, !marked);
    } else {
        if (a.seg.has(kCwr)) c.clear_ecn(kEcnEcho);
        if (!marked || c.has_ecn(kEcnEcho)) return;
    }
    if (marked) c.set_ecn(kEcnEcho);
    else c.clear_ecn(kEcnEcho);
    owe_ack(c, a.self);
}

// Beyond the bound of one turn the sender counts some bytes wrongly, and nothing else happens.
void Machine::add_edge(const Connection& c, Index self, bool marked) {
    if (edge_count_ == kEdges) return;
    edges_[edge_count_++] = {self, c.info.generation, c.rcv_nxt(), marked};
}

void Machine::emit_edges(Sink& out) {
    std::size_t done = 0;
    for (; done < edge_count_ && !out.full(); ++done) {
        const MarkEdge& edge = edges_[done];
        Connection& c = connections_[edge.connection];
        const bool alive = c.info.generation == edge.generation && synchronized(c.info.state);
        if (!alive || c.has(kParked | kOweReset)) continue;
        const std::uint8_t flags = edge.marked ? kAck | kEce : kAck;
        // Not deliverable now: then nor is the ACK that follows, and that tells of all.
        static_cast<void>(build(c, edge.connection, out, c.snd_nxt(), flags, {}, &edge));
    }
    std::copy(edges_.begin() + static_cast<std::ptrdiff_t>(done),
              edges_.begin() + static_cast<std::ptrdiff_t>(edge_count_), edges_.begin());
    edge_count_ -= done;
}

/// What the TCP header says of marks, for any segment but SYN, SYN and ACK, and an edge.
std::uint8_t Machine::ecn_flags(Connection& c, bool new_text) {
    std::uint8_t flags = c.has_ecn(kEcnEcho) ? kEce : 0;
    if (new_text && c.has_ecn(kEcnOweCwr)) {
        flags = static_cast<std::uint8_t>(flags | kCwr);
        c.clear_ecn(kEcnOweCwr);
    }
    return flags;
}

}  // namespace chiru::tcp
