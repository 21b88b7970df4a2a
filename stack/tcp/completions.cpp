// SPDX-License-Identifier: Apache-2.0
//
// What clients are told. Nothing is stored for it but a few bits: a completion is made from the
// connection when there is room for it in the ring. For one connection the order is: Accepted, or
// Opening and Connected, Received, PeerClosed, Closed; `sent_bytes` rides on whichever comes next.
#include "stack/tcp/machine.hpp"

#include "base/check.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace chiru::tcp {

/// Written beyond the window, at most.
static constexpr std::uint32_t kAheadBytes = 256u << 10;

using shm::Completion;
using shm::CompletionOp;
using shm::Counter;

void Machine::channel_ready(ChannelIndex channel) {
    ChannelState& state = channels_[channel];
    if (state.ready) return;
    state.ready = true;
    ready_.push_back(channels_.data(), channel);
}

void Machine::channel_idle_if_empty(ChannelIndex channel) {
    ChannelState& state = channels_[channel];
    if (!state.ready || !state.events.empty() || state.refusals != kNil) return;
    state.ready = false;
    ready_.remove(channels_.data(), channel);
}

std::size_t Machine::ready_channels(std::span<ChannelIndex> channels) const {
    std::size_t count = 0;
    for (Index i = ready_.head; i != kNil && count < channels.size(); i = channels_[i].next)
        channels[count++] = static_cast<ChannelIndex>(i);
    return count;
}

std::size_t Machine::complete(ChannelIndex channel, std::span<Completion> completions) {
    if (channel >= channels_.size()) return 0;
    ChannelState& state = channels_[channel];
    std::size_t used = 0;
    while (state.refusals != kNil && used < completions.size()) {
        const Index i = state.refusals;
        Completion& out = completions[used++];
        out = Completion{};
        out.op = CompletionOp::Closed;
        out.error = refusals_[i].error;
        out.count = static_cast<std::uint8_t>(refusals_[i].shard);
        out.user = refusals_[i].user;
        if (refusals_[i].returned != shm::kNoConnection) {
            out.connection = refusals_[i].returned;
            out.count = 1;
        }
        state.refusals = refusals_[i].next;
        refusals_.give(i);
        --state.refusal_count;
    }
    while (!state.events.empty() && used < completions.size()) {
        const Index self = state.events.head;
        if (!emit_events(connections_[self], self, completions, used)) break;
    }
    channel_idle_if_empty(channel);
    flush_slots();
    return used;
}

// Returns whether the connection has said all; it is out of the list then.
bool Machine::emit_events(Connection& c, Index self, std::span<Completion> out,
                          std::size_t& used) {
    const auto begin = [&](CompletionOp op) -> Completion* {
        if (used == out.size()) return nullptr;
        Completion& made = out[used++];
        made = Completion{};
        made.op = op;
        made.sent_bytes = c.info.sent_bytes;
        c.info.sent_bytes = 0;
        made.connection = {self, c.info.generation};
        made.user = c.info.user;
        return &made;
    };
    if ((c.events & kEventOpening) != 0) {
        Completion* made = begin(CompletionOp::Opening);
        if (made == nullptr) return false;
        made->endpoints.remote = {c.info.remote_address, c.info.remote_port};
        made->endpoints.local = {c.info.local_address, c.info.local_port};
        const bool waits = (c.info.fast_open & shm::kFastOpenDeferred) != 0;
        made->endpoints.syn_room = waits ? syn_room(c) : 0;
        c.events &= static_cast<std::uint8_t>(~kEventOpening);
    }
    if ((c.events & (kEventAccepted | kEventConnected)) != 0) {
        const bool accepted = (c.events & kEventAccepted) != 0;
        Completion* made = begin(accepted ? CompletionOp::Accepted : CompletionOp::Connected);
        if (made == nullptr) return false;
        made->endpoints.remote = {c.info.remote_address, c.info.remote_port};
        made->endpoints.local = {c.info.local_address, c.info.local_port};
        made->endpoints.peer_mss = c.info.peer_mss;
        c.events &= static_cast<std::uint8_t>(~(kEventAccepted | kEventConnected));
    }
    while (c.receive_head != kNil) {
        if (used == out.size()) return false;
        Session& session = sessions_[c.session];
        if (!session.private_slots.empty() && session.private_free.empty()) {
            unmark_event(c, self);
            c.set(kInEvents | kBlocked);
            session.blocked.push_back(connections_.data(), self);
            return true;
        }
        Completion* made = begin(CompletionOp::Received);
        while (made->count < shm::kSlicesPerDescriptor && deliver(c, self, *made)) {}
    }
    if ((c.events & kEventPeerClosed) != 0) {
        if (begin(CompletionOp::PeerClosed) == nullptr) return false;
        c.events &= static_cast<std::uint8_t>(~kEventPeerClosed);
    }
    // The last word waits until no device holds a byte of the client's.
    if ((c.events & kEventClosed) != 0 && c.send_head == kNil) {
        Completion* made = begin(CompletionOp::Closed);
        if (made == nullptr) return false;
        made->error = c.info.error;
        release_client(c, self);
        return true;
    }
    if (c.info.sent_bytes > 0 || (c.events & kEventLaunched) != 0) {
        Completion* made = begin(CompletionOp::Sent);
        if (made == nullptr) return false;
        made->sent.room_bytes = send_room(c);
        made->sent.left_bytes = take_launched(c);
    }
    unmark_event(c, self);
    return true;
}

// One window under way and one to follow it at once; of a large one a part, enough until the
// client has written more. What waits longer than that has left the cache when its turn comes. What
// has arrived behind a gap is queued until that is filled, and takes no part of the window.
std::uint32_t Machine::send_room(const Connection& c) const {
    const std::uint32_t window =
        std::min({c.info.cwnd_bytes, c.info.max_snd_wnd, 1u << 30});
    return std::min(c.sacked_bytes + window + std::min(window, kAheadBytes),
                    config_.tcp.send_buffer_bytes);
}

// From now on the client hears what was sent, counted from what it has queued so far.
void Machine::watch_unsent(Connection& c, Index self, std::uint64_t low_water) {
    const Extra* had = extra(c);
    const bool first = had == nullptr || (had->uses & kForUnsent) == 0;
    Extra* e = need_extra(c, kForUnsent);
    if (e == nullptr) return;
    e->unsent_low_water =
        low_water == 0 ? 0xffff'ffffu : static_cast<std::uint32_t>(low_water);
    if (!first) return tell_launched(c, self);
    e->launched_told = static_cast<std::uint32_t>(c.info.tx_bytes) + c.unsent_bytes();
    tell(c, self, kEventLaunched);
}

// Worth a completion once the client thinks it is at its mark, and is well below it.
void Machine::tell_launched(Connection& c, Index self) {
    const Extra* e = extra(c);
    if (e == nullptr || (e->uses & kForUnsent) == 0) return;
    const std::uint64_t unsent = c.unsent_bytes();
    const std::uint32_t untold =
        static_cast<std::uint32_t>(c.info.tx_bytes) - e->launched_told;
    if (2 * unsent < e->unsent_low_water && 2 * (unsent + untold) >= e->unsent_low_water)
        tell(c, self, kEventLaunched);
}

std::int32_t Machine::take_launched(Connection& c) {
    c.events &= static_cast<std::uint8_t>(~kEventLaunched);
    Extra* e = extra(c);
    if (e == nullptr || (e->uses & kForUnsent) == 0) return 0;
    const std::uint32_t before = e->launched_told;
    e->launched_told = static_cast<std::uint32_t>(c.info.tx_bytes);
    return static_cast<std::int32_t>(e->launched_told - before);
}

// The next slice of queued text; false if there is none.
bool Machine::deliver(Connection& c, Index self, Completion& completion) {
    if (c.receive_head == kNil) return false;
    Session& session = sessions_[c.session];
    if (!session.private_slots.empty()) return deliver_private(c, self, session, completion);
    const Index slot = rx_.deliver(c);
    session.delivered.push_back(rx_.records(), slot);
    completion.slices[completion.count++] = rx_.slice_of(slot);
    return true;
}

// Isolated sessions: the text moves to the session's own arena, short ones together.
bool Machine::deliver_private(Connection& c, Index self, Session& session,
                              Completion& completion) {
    if (session.private_free.empty()) return false;
    const std::uint32_t number = session.private_free.back();
    session.private_free.pop_back();
    PrivateSlot& p = session.private_slots[number];
    p = {self, c.info.generation, 0};
    const ArenaView& arena = session.config.private_rx_arena;
    const std::uint64_t at =
        std::uint64_t{session.config.private_first_slot + number} * arena.slot_bytes;
    while (c.receive_head != kNil) {
        RxSlot& s = rx_[c.receive_head];
        const std::uint32_t piece = std::min(std::uint32_t{s.length}, arena.slot_bytes - p.length);
        if (piece == 0 || (p.length > 0 && piece < s.length)) break;
        std::memcpy(arena.base + at + p.length, rx_.bytes_of(c.receive_head), piece);
        p.length += piece;
        s.offset = static_cast<std::uint16_t>(s.offset + piece);
        s.length = static_cast<std::uint16_t>(s.length - piece);
        if (s.length == 0) free_slot(rx_.drop_queued(c));
    }
    count(Counter::CopiedRxPrivate, p.length);
    ++session.slots_held;
    ++c.info.rx_slots;
    if (session.config.counters != nullptr)
        session.config.counters->rx_slots_held.set(session.slots_held);
    completion.slices[completion.count++] = {at, p.length, shm::kPrivateRxArena, 0};
    return true;
}

}  // namespace chiru::tcp
