// SPDX-License-Identifier: Apache-2.0
//
// The loop of a shard.
//
//   turn:  commands -> frames in -> submissions -> timers -> frames out -> completions
//
// and when turns find nothing to do, sleep, by the policy that was chosen. Going to sleep follows
// shm/doorbell.hpp: announce it, take one more turn, and only if that found nothing either, wait
// for whoever may have something: a client, another shard, control, a port, a timer.
#include "daemon/dataplane/shard.hpp"
#include "stack/ip/flow_hash.hpp"

#include <sched.h>
#include <sys/epoll.h>

#include <algorithm>
#include <ctime>

namespace chiru::daemon {
namespace {

using shm::Counter;

constexpr int kTransmitRounds = 4;  ///< of kBurst frames in one turn
/// Every ring has a page and a cache line of its own, and looking at thousands costs more than a
/// turn should: so many are looked at in each, and besides all that had something lately.
constexpr std::size_t kLanesPerTurn = 64;
constexpr std::uint64_t kActiveTurns = 1024;
/// Nobody rings when a port or a completion ring has room again.
constexpr Micros kUnsentSleep{50};
constexpr Micros kFullRingSleep{1000};

Instant clock_now() {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return Instant(Micros(std::int64_t{time.tv_sec} * 1'000'000 + time.tv_nsec / 1000));
}

}  // namespace

void Shard::run() {
    settle_in();
    Instant started = clock_now();
    bool was_busy = false;
    while (!stopping_.load(std::memory_order_relaxed)) {  // a flag; stop() rings us awake
        now_ = clock_now();
        if (was_busy) counters_.add(Counter::BusyMicros,
                                    static_cast<std::uint64_t>((now_ - started).count()));
        started = now_;
        was_busy = turn();
        if (was_busy) {
            end_idle_time();
            if (armed_) disarm();
            if (!may_spin()) arm();  // the next turn is the second look
            continue;
        }
        counters_.add(Counter::IdleTurns);
        if (idle_since_ == kNever) idle_since_ = now_;
        if (armed_) sleep();
        else if (!may_spin() || now_ - idle_since_ >= spin_length()) arm();
    }
    wind_up();
}

bool Shard::turn() {
    setup_.page->alive_us.store(now_.time_since_epoch().count(), std::memory_order_relaxed);
    counters_.add(Counter::Turns);
    bool busy = take_commands();
    const std::size_t from_ports = io_.receive(scratch_.frames);
    const std::size_t steered = collect_steered();
    // What a client said before a frame came holds for that frame: the options of a socket whose
    // peer answers at once, say.
    busy |= take_submissions();
    if (from_ports != 0) place(std::span(scratch_.frames).first(from_ports));
    if (steered != 0) stack_.receive(std::span(steered_).first(steered), now_);
    busy |= from_ports != 0 || steered != 0;
    busy |= take_handoffs();
    stack_.advance(now_);
    busy |= transmit();
    busy |= complete();
    if (setup_.index == 0 && stack_.interfaces_version() != interfaces_version_)
        publish_interfaces();
    if (!leaving_.empty()) busy |= see_off_sessions();
    if (!others_.empty()) {
        share_cookies();
        report_path_mtus();
        ring_others();
    }
    return busy;
}

// ---- frames --------------------------------------------------------------------------------

/// Frames of our flow groups go to our stack in one burst, the others to their shards.
void Shard::place(std::span<const RxFrame> frames) {
    if (setup_.stack.shard_count == 1) return stack_.receive(frames, now_);
    std::array<RxFrame, nic::kBurst>& ours = scratch_.ours;
    std::size_t count = 0;
    for (const RxFrame& frame : frames) {
        if (io_.arrives_right(frame)) {
            ours[count++] = frame;
            continue;
        }
        const ip::Placement where = ip::place({frame.data, frame.slice.length});
        if (where.every_shard) spread(frame);
        const std::uint32_t shard =
            where.every_shard ? setup_.index
                              : setup_.stack.flow_map[ip::flow_group(where.hash)];
        if (shard == setup_.index) ours[count++] = frame;
        else steer(frame, shard);
    }
    stack_.receive(std::span(ours).first(count), now_);
}

void Shard::steer(const RxFrame& frame, std::uint32_t shard) {
    Other& other = *others_[shard];
    if (other.frames_out.push({&frame, 1}) == 0) {
        counters_.add(Counter::RxSteerFull);
        io_.drop({&frame, 1});
        return;
    }
    counters_.add(Counter::RxSteeredOut);
    other.rang = true;
}

/// Neighbour traffic concerns every shard's neighbour table: each other one gets a copy.
void Shard::spread(const RxFrame& frame) {
    for (std::uint32_t shard = 0; shard < others_.size(); ++shard) {
        if (!others_[shard]) continue;
        if (const std::optional<RxFrame> copy = io_.duplicate(frame)) steer(*copy, shard);
    }
}

/// Frames of ours that came to other shards.
std::size_t Shard::collect_steered() {
    std::size_t count = 0;
    for (std::optional<Other>& other : others_)
        if (other) count += other->frames_in.pop(std::span(steered_).subspan(count, nic::kBurst));
    if (count != 0) counters_.add(Counter::RxSteeredIn, count);
    return count;
}

/// Frames of other shards for ports of which we have the queue.
bool Shard::take_handoffs() {
    bool busy = false;
    for (std::optional<Other>& other : others_) {
        if (!other) continue;
        const std::size_t count = other->handoffs_in.pop(scratch_.handoffs);
        for (std::size_t i = 0; i < count; ++i) io_.send_for_other(scratch_.handoffs[i], now_);
        busy |= count != 0;
    }
    return busy;
}

bool Shard::transmit() {
    bool busy = false;
    for (int round = 0; round < kTransmitRounds; ++round) {
        const std::span<TxFrame> frames = io_.lend(now_);
        const std::size_t count = frames.empty() ? 0 : stack_.transmit(frames, now_);
        if (count == 0) break;
        busy = true;
        io_.send(count, now_);
        if (!io_.handoffs().empty()) hand_over_frames();
        const bool local = !io_.local().empty();
        if (local) {
            place(io_.local());
            io_.clear_local();
        }
        if (!local && count < frames.size()) break;
    }
    io_.flush(now_);
    return busy;
}

void Shard::hand_over_frames() {
    for (const nic::Handoff& handoff : io_.handoffs()) {
        Other& other = *others_[handoff.shard];
        if (other.handoffs_out.push({&handoff, 1}) == 0) {
            counters_.add(Counter::TxDropped);
            nic::ShardIo::drop(handoff);
            continue;
        }
        counters_.add(Counter::TxSteered);
        other.rang = true;
    }
    io_.clear_handoffs();
}

void Shard::ring_others() {
    for (std::optional<Other>& other : others_) {
        if (!other || !other->rang) continue;
        other->rang = false;
        other->ringer.ring();
    }
}

// ---- clients -------------------------------------------------------------------------------

bool Shard::take_submissions() {
    ++turn_;
    bool busy = false;
    const std::size_t count = lanes_.size();
    // Armed, this is the second look before we sleep: at every ring.
    const std::size_t looks = armed_ ? count : std::min(count, kLanesPerTurn);
    if (looks == count) ++next_lane_;  // each turn another one is the first
    for (std::size_t i = 0; i < looks; ++i) {
        next_lane_ = next_lane_ + 1 < count ? next_lane_ + 1 : 0;
        busy |= look_at(lanes_[next_lane_]);
    }
    if (looks == count) return busy;

    if (turn_ % kActiveTurns == 0)
        std::erase_if(active_, [this](ChannelIndex channel) {
            Lane& lane = lanes_[static_cast<std::size_t>(lane_of_[channel])];
            lane.active = turn_ - lane.active_turn < kActiveTurns;
            return !lane.active;
        });
    for (std::size_t i = 0; i < active_.size(); ++i) {
        const ChannelIndex channel = active_[(i + turn_) % active_.size()];
        busy |= look_at(lanes_[static_cast<std::size_t>(lane_of_[channel])]);
    }
    return busy;
}

/// An idle channel costs a look at its ring's head, and no more.
bool Shard::look_at(Lane& lane) {
    if (lane.quiet || (lane.submissions.empty() && !lane.submissions.peer_is_corrupt()))
        return false;
    lane.active_turn = turn_;
    if (!lane.active) active_.push_back(lane.channel);
    lane.active = true;
    return take_submissions(lane);
}

bool Shard::take_submissions(Lane& lane) {
    TurnCredit& credit = credits_[lane.session];
    if (!credit.left_in(turn_)) return true;  // there may be more, in a later turn
    std::array<shm::Submission, kSubmissionBatch>& batch = scratch_.submissions;
    std::size_t taken = 0;
    while (credit.left()) {
        // What the send queues have no room for stays in the ring: the client's back-pressure.
        const std::size_t room =
            std::min(batch.size(), stack_.submission_room(lane.channel));
        const std::size_t count = lane.submissions.pop(std::span(batch).first(room));
        if (lane.submissions.peer_is_corrupt()) {
            accuse(lane, Violation::None, true);
            return true;
        }
        if (count == 0) break;
        taken += count;
        credit.charge(std::span(batch).first(count));
        const Violation violation =
            stack_.submit(lane.channel, std::span(batch).first(count), now_);
        if (violation != Violation::None) {
            accuse(lane, violation, false);
            return true;
        }
        if (count < batch.size()) break;
    }
    if (taken == 0) return false;
    counters_.add(Counter::Submissions, taken);
    note_activity(lane);
    return true;
}

/// At most a ringful: the process may be hostile, and still there. Whether that was all.
bool Shard::take_last_submissions(Lane& lane) {
    for (std::size_t taken = 0; taken <= shm::SubmissionRing::kSlots && !lane.quiet;
         taken += kSubmissionBatch) {
        credits_[lane.session] = {};  // there is no later turn
        if (!take_submissions(lane)) break;
    }
    return !lane.quiet && lane.submissions.empty();
}

bool Shard::complete() {
    std::array<ChannelIndex, shm::kMaxChannels> ready;
    const std::size_t count = stack_.ready_channels(ready);
    completions_wait_ = false;
    bool busy = false;
    for (std::size_t i = 0; i < count; ++i) {
        const std::int16_t position = lane_of_[ready[i]];
        if (position >= 0) busy |= complete(lanes_[static_cast<std::size_t>(position)]);
    }
    return busy;
}

bool Shard::complete(Lane& lane) {
    if (lane.quiet) return false;
    std::array<shm::Completion, kCompletionBatch>& batch = scratch_.completions;
    std::size_t pushed = 0;
    while (true) {
        const std::size_t room = lane.completions.room(batch.size());
        if (lane.completions.peer_is_corrupt()) {
            accuse(lane, Violation::None, true);
            return true;
        }
        if (room == 0) {
            counters_.add(Counter::CompletionRingFull);
            completions_wait_ = true;
            break;
        }
        const std::size_t count = stack_.complete(lane.channel, std::span(batch).first(room));
        lane.completions.push(std::span(batch).first(count));
        pushed += count;
        if (count < room) break;
    }
    if (pushed == 0) return false;
    counters_.add(Counter::Completions, pushed);
    note_activity(lane);
    if (lane.client.ring()) counters_.add(Counter::DoorbellsRung);
    return true;
}

/// Clients on our own core that may have something to do: it is theirs before we spin.
void Shard::note_activity(Lane& lane) {
    if (lane.noted || lane.client.consumer_cpu() != cpu_) return;
    lane.noted = true;
    awake_.push_back(lane.channel);
}

bool Shard::neighbor_is_awake() {
    std::erase_if(awake_, [this](ChannelIndex channel) {
        const std::int16_t position = lane_of_[channel];
        if (position < 0) return true;
        Lane& lane = lanes_[static_cast<std::size_t>(position)];
        if (!lane.client.consumer_awaits_ring()) return false;
        lane.noted = false;
        return true;
    });
    return !awake_.empty();
}

// ---- idle ----------------------------------------------------------------------------------

/// Look again, or get ready to sleep? Whoever shares the core with us cannot run while we look.
bool Shard::may_spin() {
    if (setup_.idle == IdlePolicy::Poll) return true;
    if (setup_.idle == IdlePolicy::Interrupt || setup_.shares_core) return false;
    if (!neighbor_is_awake()) return spin_window_.length() > Micros::zero();
    handed_over_ = true;
    return false;
}

Micros Shard::spin_length() const {
    return setup_.idle == IdlePolicy::Poll ? Micros::max() : spin_window_.length();
}

void Shard::end_idle_time() {
    // What a client of our core needed the time for says nothing about polling.
    if (idle_since_ != kNever && !handed_over_)
        spin_window_.idle_ended(now_ - idle_since_, slept_, now_);
    idle_since_ = kNever;
    handed_over_ = slept_ = false;
}

void Shard::arm() {
    sleeper_.arm();
    port_sleep_ = io_.arm(epoll_fd_.get());
    armed_ = true;
}

void Shard::disarm() {
    sleeper_.disarm();
    io_.disarm();
    armed_ = false;
}

/// At most until the next timer, and not long beside somebody who does not ring.
Micros Shard::longest_sleep() const {
    Micros longest = std::min(port_sleep_, stack_.next_deadline() == kNever
                                               ? Micros::max()
                                               : stack_.next_deadline() - now_);
    if (io_.has_unsent()) longest = std::min(longest, kUnsentSleep);
    if (completions_wait_ || !unsent_reports_.empty())
        longest = std::min(longest, kFullRingSleep);
    if (!leaving_.empty()) longest = std::min(longest, kFullRingSleep);
    return std::max(longest, Micros(0));
}

void Shard::sleep() {
    const Micros longest = longest_sleep();
    timespec timeout{};
    timeout.tv_sec = longest.count() / 1'000'000;
    timeout.tv_nsec = longest.count() % 1'000'000 * 1000;
    counters_.add(Counter::Sleeps);
    std::array<epoll_event, 16> events;  // who rang does not matter: a turn looks everywhere
    epoll_pwait2(epoll_fd_.get(), events.data(), static_cast<int>(events.size()),
                 longest == Micros::max() ? nullptr : &timeout, nullptr);
    disarm();
    slept_ = true;
    if (!pinned_) cpu_ = static_cast<std::uint32_t>(std::max(sched_getcpu(), 0));
}

}  // namespace chiru::daemon
