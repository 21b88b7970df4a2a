// SPDX-License-Identifier: Apache-2.0
//
// The inside of the engine: tables, lists, and the functions that work on them. One file a
// subject, as RFC 9293 §3.10 divides them:
//
//   machine.cpp      blocks: made, found, ended        arrival.cpp     a segment meets its owner
//   handshake.cpp    LISTEN, SYN-SENT, SYN-RECEIVED    input.cpp       the eight steps
//   ack.cpp          the fifth step                    receive.cpp     the seventh and eighth
//   recovery.cpp     what was lost                     undo.cpp        what was not, after all
//   congestion.cpp   how fast to go                    ecn.cpp         marks
//   pacing.cpp       and how evenly                    timers.cpp      time-outs
//   window.cpp       what may come in                  output.cpp      what goes out, and when
//   user_calls.cpp   submissions
//   completions.cpp  what clients are told             listener.cpp    passive opens
//   sessions.cpp     clients come and go         cookies.cpp     SYNs beyond what we remember
//   fast_open.cpp    text in a SYN
//   path_mtu.cpp     how large a segment may be  frames.cpp      segments become frames
//
// Invariant: a block is free, or found by its tuple in the demux table, or Closed and waiting for
// a device or for its client to hear the last word.
#pragma once

#include "base/time.hpp"
#include "shm/counters.hpp"
#include "shm/descriptor.hpp"
#include "shm/tables.hpp"
#include "stack/config.hpp"
#include "stack/frame.hpp"
#include "stack/lower.hpp"
#include "stack/session.hpp"
#include "stack/tcp/connection.hpp"
#include "stack/tcp/demux.hpp"
#include "stack/tcp/engine.hpp"
#include "stack/tcp/extra.hpp"
#include "stack/tcp/fast_open_cookie.hpp"
#include "stack/tcp/index.hpp"
#include "stack/tcp/listener.hpp"
#include "stack/tcp/noisy_limit.hpp"
#include "stack/tcp/options.hpp"
#include "stack/tcp/receive_queue.hpp"
#include "stack/tcp/refusal_limit.hpp"
#include "stack/tcp/segment.hpp"
#include "stack/tcp/send_queue.hpp"
#include "stack/tcp/timer_wheel.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace chiru::tcp {

/// What stopped a segment, or nothing: on with the next step.
using Verdict = std::optional<shm::Counter>;
inline constexpr Verdict kContinue = std::nullopt;

/// A segment on its way through the steps.
struct Arrival {
    const Incoming& in;
    Segment seg;
    Index self = kNil;  ///< the connection
    Instant now;
    bool kept_slot = false;
    bool long_idle = false;  ///< the peer was silent for so long that timestamps may have wrapped
};

/// A segment that no connection sends: resets for those who speak to nobody, and SYN cookies.
struct Reply {
    Tuple tuple;
    std::uint16_t link = kAnyInterface;  ///< where what it answers came in
    Seq seq;
    Seq ack;
    std::uint8_t flags = 0;
    std::uint8_t option_bytes = 0;
    std::uint16_t window = 0;
    std::array<std::byte, kSynOptionBytes> options{};
};

/// An ACK that must tell of marks what it would not tell later (RFC 8257 §3.2).
struct MarkEdge {
    Index connection = kNil;
    std::uint32_t generation = 0;
    Seq ack;
    bool marked = false;
};

/// A Connect that failed before there was a block.
struct Refusal {
    Index next = kNil;
    std::uint16_t error = 0;
    std::uint16_t shard = 0;  ///< EXDEV: where to ask
    std::uint64_t user = 0;
    shm::ConnectionId returned{};  ///< not a refusal: this Return was granted
};
static_assert(sizeof(Refusal) == 24);

/// A channel may have so many that it has not taken. Each has records of its own for them: one
/// that never reads holds up nobody else.
inline constexpr std::uint32_t kChannelRefusals = 64;

/// What a connection may send before anybody accepts it.
inline constexpr std::uint32_t kMaxUnownedBytes = 65'536;
/// Where a window begins that grows by itself.
inline constexpr std::uint32_t kFirstReceiveBuffer = 128u << 10;

struct PrivateSlot {
    Index connection = kNil;  ///< kNil: free
    std::uint32_t generation = 0;
    std::uint32_t length = 0;
};

struct Session {
    SessionConfig config;
    bool attached = false;
    bool orderly = false;  ///< it said farewell
    List<Connection, &Connection::session_next, &Connection::session_prev> connections;
    std::uint32_t connection_count = 0;
    std::uint32_t unvisited = 0;   ///< connections to be ended, once it is detached
    DeliveredList delivered;       ///< slots of the shared arena the client holds
    std::uint32_t slots_held = 0;  ///< of either arena, queued or delivered
    std::uint32_t records = 0;     ///< of the send queue
    EventList blocked;             ///< wait for a private slot
    std::uint64_t drought = 0;     ///< for which hosts no source port was free, as choose_port()
    Instant drought_until{};       ///< has it, and until when that is not looked at again
    std::vector<PrivateSlot> private_slots;
    std::vector<std::uint32_t> private_free;
    SlotDivider private_divider;

    /// Of the arena that all share; the others are the private ones that are taken.
    std::uint32_t shared_slots() const {
        return slots_held - static_cast<std::uint32_t>(private_slots.size() - private_free.size());
    }
};

struct ChannelState {
    SessionIndex session = kNobody;
    bool ready = false;  ///< linked among those with completions
    EventList events;
    Index refusals = kNil;
    Index last_refusal = kNil;
    std::uint32_t refusal_count = 0;
    Index next = kNil;
    Index prev = kNil;
};

class Machine {
public:
    /// Where everything lies in the tables.
    struct Tables {
        Tables(const StackConfig& config, std::span<std::byte> region);
        Connection* connections;
        Demux::Entry* demux;
        std::uint32_t demux_entries;
        SendEntry* records;
        Flight* flights;
        Extra* extras;
        RxSlot* slots;
        Listener* listeners;
        Grant* grants;
        Refusal* refusals;
        CookieEntry* cookies;
        Index* ports;  ///< first listener of each port
        std::size_t bytes;
        bool fits;
    };

    Machine(const StackConfig& config, std::span<std::byte> region, shm::ShardTables& published,
            ArenaView rx_arena, Lower& lower, BufferPool& pool, shm::CounterBlock& counters,
            Instant now);

    // The engine's calls; see engine.hpp.
    void prefetch(std::span<Incoming> burst) const;
    Fate receive(const Incoming& incoming, Instant now);
    bool icmp_error(const IcmpError& error, Instant now);
    void path_ready(std::uint32_t neighbor, bool reachable, Instant now);
    void advance(Instant now);
    std::size_t transmit(std::span<TxFrame> frames, Instant now);
    void hold(SendRecord record);
    void sent(SendRecord record);
    Instant next_deadline() const;
    void attach_session(SessionIndex session, const SessionConfig& config);
    void detach_session(SessionIndex session, Instant now, Parting parting);
    bool session_gone(SessionIndex session) const;
    void attach_channel(ChannelIndex channel, SessionIndex session);
    void detach_channel(ChannelIndex channel, Instant now);
    void listen(shm::ListenerId id, const Endpoint& local, std::uint32_t bind_flags,
                const ListenTerms& terms);
    void share_listener(shm::ListenerId id, SessionIndex session);
    void leave_listener(shm::ListenerId id, SessionIndex session, Instant now);
    void unlisten(shm::ListenerId id, Instant now);
    bool connection_info(SessionIndex session, shm::ConnectionId name,
                         shm::ConnectionInfo& info) const;
    bool take_learnt_cookie(LearntCookie& learnt);
    void learn_cookie(const LearntCookie& learnt, Instant now);
    std::size_t submission_room(ChannelIndex channel) const;
    Violation submit(ChannelIndex channel, std::span<const shm::Submission> submissions,
                     Instant now);
    std::size_t ready_channels(std::span<ChannelIndex> channels) const;
    std::size_t complete(ChannelIndex channel, std::span<shm::Completion> completions);

private:
    /// Waiting: a timer of the connection looks again.
    enum class Outcome : std::uint8_t { Done, More, NoFrame, Waiting, Parked, Gone };
    struct Sink {
        std::span<TxFrame> frames;
        std::size_t used = 0;
        Instant now;
        bool full() const { return used == frames.size(); }
    };
    struct Payload {
        Index record = kNil;
        std::uint32_t offset = 0;
        std::uint32_t length = 0;
        bool probe = false;  ///< one segment, though larger than the MSS
    };
    /// Text of a probe for the path's MTU; or wait, and send no other.
    struct ProbeChoice {
        std::uint32_t text = 0;
        bool hold = false;
    };

    // machine.cpp
    void count(shm::Counter counter, std::uint64_t n = 1) { counters_.add(counter, n); }
    std::uint64_t hash_of(const Tuple& tuple) const { return tuple_hash(hash_key_, tuple); }
    Index open_block(const Tuple& tuple, Instant now);
    /// The connection is over: what it held comes back, its client will hear of it.
    void end(Connection& c, Index self, int error);
    /// A reset goes out first.
    void reset(Connection& c, Index self, int error);
    /// Frees a Closed block if nobody needs it any longer.
    void free_if_done(Connection& c, Index self);
    /// The client has heard the last word, or is gone.
    void release_client(Connection& c, Index self);
    void enter_time_wait(Connection& c, Index self, Instant now);
    void join_time_wait(Index self);
    void leave_time_wait(Index self);
    bool recycle_time_wait();
    /// Blocks that are free, or would be if need be.
    std::uint32_t spare_blocks() const { return connections_.available() + time_waiting_; }
    /// So many are for sessions that have few, whatever the others do.
    std::uint32_t reserved_blocks() const { return connections_.capacity() / 16; }
    bool is_orphan(const Connection& c) const;
    void tell(Connection& c, Index self, std::uint8_t event);
    void tell_closed(Connection& c, Index self, int error);
    /// There is something for the channel's next complete().
    void mark_event(Connection& c, Index self);
    void unmark_event(Connection& c, Index self);
    /// There is something for the next transmit().
    void mark_output(Connection& c, Index self);
    void owe_ack(Connection& c, Index self) {
        c.set(kOweAck);
        mark_output(c, self);
    }
    void schedule(Connection& c, Index self);
    void drop_text(Connection& c);
    void free_slot(Index slot);
    void drop_hold(Index connection, std::uint32_t generation);
    void flush_slots();
    /// May the session have one more block? The last ones are for those who have few.
    bool may_open(const Session& session) const;
    void adopt(Connection& c, Index self, SessionIndex session, ChannelIndex channel);
    void reclaim(Connection& c, Index self);
    std::uint32_t timestamp(const Connection& c, Instant now) const;
    /// The connection's extra record, or nullptr if it has none.
    Extra* extra(const Connection& c) {
        return c.extra == kNil ? nullptr : &extras_[c.extra];
    }
    /// The same; takes one if need be. nullptr if all are taken.
    Extra* need_extra(Connection& c, std::uint8_t use = kForRest);
    void give_extra(Connection& c, std::uint8_t use = kForAll);
    const Extra* extra(const Connection& c) const {
        return c.extra == kNil ? nullptr : &extras_[c.extra];
    }

    // arrival.cpp
    Fate meet_nobody(Arrival& a, const Tuple& tuple);
    void answer_nobody(const Arrival& a, const Tuple& tuple);
    void reply(const Reply& reply);
    void reply_reset(const Arrival& a, const Tuple& tuple, Seq seq, Seq ack, std::uint8_t flags);
    void challenge_ack(Connection& c, Index self, Instant now);
    void answer_refused(Connection& c, const Arrival& a);

    // handshake.cpp
    shm::Counter listen_arrives(Arrival& a, const Tuple& tuple, Listener& listener);
    shm::Counter syn_sent_arrives(Connection& c, Arrival& a);
    Verdict syn_received_ack(Connection& c, Arrival& a);
    bool deferred(const Connection& c, const Segment& seg, Instant now) const;
    void negotiate(Connection& c, const Segment& seg, Instant now);
    void established(Connection& c, Index self, Instant now);
    void measure_handshake(Connection& c, const Segment& seg, bool answered_first, Instant now);
    void begin_send_space(Connection& c, const Path& path, std::uint32_t max_segment,
                          Instant now);
    bool recycles(const Connection& c, const Segment& seg) const;

    // cookies.cpp
    bool wants_cookies(const Listener& listener) const;
    shm::Counter answer_with_cookie(Arrival& a, const Tuple& tuple, Listener& listener);
    shm::Counter cookie_arrives(Arrival& a, const Tuple& tuple, Listener& listener);

    // fast_open.cpp
    bool opens_early(Connection& c, Arrival& a, Listener& listener);
    bool take_syn_text(Connection& c, Arrival& a);
    void leave_early(Connection& c);
    void refuse_early(const Connection& c, Instant now);
    void begin_fast_open(Connection& c, Index self, Instant now);
    std::uint32_t syn_room(const Connection& c) const;
    void end_deferral(Connection& c, Index self);
    void note_syn_sent(Connection& c, std::uint32_t text_bytes, Instant now);
    std::optional<FastOpenCookie> fast_open_option(const Connection& c, Instant now) const;
    void fast_open_timeout(Connection& c);
    void fast_open_answered(Connection& c, const Segment& seg, Instant now);
    void land_syn_text(Connection& c, Index self, Seq ack);
    void take_back_syn_text(Connection& c);

    // input.cpp
    shm::Counter segment_arrives(Connection& c, Arrival& a);
    static bool is_predicted(const Connection& c, const Segment& seg);
    shm::Counter take_predicted(Connection& c, Arrival& a);
    Verdict check_sequence(Connection& c, Arrival& a);
    Verdict check_reset(Connection& c, Arrival& a);
    Verdict check_syn(Connection& c, Arrival& a);
    Verdict check_ack(Connection& c, Arrival& a);

    // ack.cpp
    void process_ack(Connection& c, Arrival& a);
    void update_window(Connection& c, const Segment& seg, Index self);
    void repeat_refused(Connection& c, Index self);
    void read_sack(Connection& c, const Segment& seg, AckReport& report);
    void note_needless(const Connection& c, const SackBlock& block, AckReport& report);
    void note_arrival(const Connection& c, const Flight& flight, AckReport& report);
    void land_acknowledged(Connection& c, const Segment& seg, AckReport& report);
    bool answers(const Connection& c, const Segment& seg, Instant sent) const;
    void fin_acknowledged(Connection& c, Index self, Instant now);

    // recovery.cpp
    void recover(Connection& c, const AckReport& report, bool duplicate, const Segment& seg);
    void recover_fast(Connection& c, const AckReport& report);
    void enter_recovery(Connection& c, shm::RecoveryState state, const LossReport& report,
                        std::uint32_t just_delivered);
    void leave_recovery(Connection& c);
    bool detect_by_time(Connection& c, Instant now);
    std::uint32_t reordering_window(const Connection& c) const;
    void widen_reordering(Connection& c);
    bool detect_by_duplicates(Connection& c, bool duplicate);
    void note_rack(Connection& c, const Flight& flight, Instant now);
    void arm_retransmit(Connection& c, Instant now);
    void arm_tail_probe(Connection& c, Instant now);
    Outcome emit_tail_probe(Connection& c, Index self, Sink& out);
    static void tail_probed(Connection& c, bool repeat);
    void judge_tail_probe(Connection& c, const AckReport& report, bool duplicate);

    // undo.cpp
    void try_undo(Connection& c, const AckReport& report, const Segment& seg);
    bool repeat_outstanding(const Connection& c) const;
    void remember_for_undo(Connection& c, Instant now);
    void undo(Connection& c);
    void begin_spurious_test(Connection& c);
    bool proven_spurious(Connection& c, const AckReport& report);
    void learn_patience(Connection& c);
    bool wait_as_others(Connection& c, Instant now);

    // path_mtu.cpp
    static std::uint32_t mss_for(const Connection& c, std::uint32_t mtu);
    std::uint32_t offered_mss(const Path& path, const IpAddress& remote,
                              std::uint32_t max_segment) const;
    /// The connection's search for the path's MTU, or nullptr.
    MtuSearch* mtu_search(const Connection& c);
    void follow_path_mtu(Connection& c);
    void lower_mtu(Connection& c, std::uint16_t mtu);
    bool begin_search(Connection& c, std::uint16_t low, std::uint16_t high);
    void end_search(Connection& c, Instant now);
    void begin_small(Connection& c);
    void suspect_black_hole(Connection& c);
    ProbeChoice choose_probe(Connection& c, Instant now);
    void probe_sent(Connection& c, Seq first, std::uint32_t text);
    void check_probe(Connection& c, Instant now);
    bool excuse_probe(Connection& c, Instant now);
    void probe_lost(Connection& c, Instant now);
    void forget_probe(Connection& c);
    void probe_timed_out(Connection& c, Instant now);
    bool packet_too_big(Connection& c, Index self, std::uint32_t mtu, Seq seq, Instant now);

    // congestion.cpp
    void choose_congestion(Connection& c, shm::CongestionAlgorithm algorithm);
    void congestion_ack(Connection& c, const AckReport& report, bool more_lost);
    static std::uint32_t proven_window(const Connection& c);
    void congestion_loss(Connection& c, const LossReport& report);
    void pay_out(Connection& c, const AckReport& report, bool more_lost);
    void measure_delivery(Connection& c, const AckReport& report);

    void restart_after_idle(Connection& c, Instant now);
    Bbr* bbr_of(const Connection& c);
    void start_bbr(Connection& c, Instant now);
    void stamp_flight(Connection& c, Flight& flight, std::uint32_t in_flight, Instant now);
    void note_application(Connection& c, Instant now);

    // pacing.cpp
    void update_pacing(Connection& c);
    bool waits_for_pace(Connection& c, Instant now);
    bool pace_runs_ahead(const Connection& c, Instant now) const;
    void use_pace(Connection& c, std::uint32_t bytes, Instant now);
    std::uint32_t paced_burst(const Connection& c) const;
    Instant pace_deadline(const Connection& c) const;
    bool nothing_left_yet(const Connection& c) const;

    // ecn.cpp
    void ask_ecn(Connection& c);
    void negotiate_ecn(Connection& c, const Segment& seg);
    void take_mark(Connection& c, const Arrival& a);
    void add_edge(const Connection& c, Index self, bool marked);
    std::uint8_t ecn_flags(Connection& c, bool new_text);
    void emit_edges(Sink& out);

    // receive.cpp
    Verdict take_text(Connection& c, Arrival& a);
    Verdict take_in_order(Connection& c, Arrival& a);
    Verdict take_out_of_order(Connection& c, Arrival& a);
    bool may_hold_slot(const Connection& c, bool in_order) const;
    void charge_slot(const Connection& c);
    void hold_slot(Connection& c, Index self, Index slot);
    bool make_room(Connection& c);
    void join_short(Connection& c, Index slot);
    void accept_bytes(Connection& c, std::uint32_t bytes);
    void fill_gaps(Connection& c);
    void owe_dsack(Connection& c, const SackBlock& duplicate);
    void note_sack(Connection& c, Seq first, Seq end);
    void trim_sack(Connection& c);
    void schedule_ack(Connection& c, Arrival& a);
    void check_fin(Connection& c, Arrival& a);
    void take_fin(Connection& c, Index self, Instant now);

    // window.cpp
    std::uint32_t slot_room(const Connection& c) const;
    std::uint32_t window_by_slots(const Connection& c) const;
    std::uint32_t wanted_window(const Connection& c) const;
    std::uint16_t window_to_send(Connection& c, Seq ack);
    void window_opened(Connection& c, Index self);
    void choose_receive_buffer(Connection& c, std::uint64_t wish);
    std::uint32_t most_receive_buffer(const Connection& c) const;
    void follow_reader(Connection& c, Index self, const Arrival& a);
    void sample_receive_rtt(Connection& c, WindowGrowth& w, const Arrival& a);
    void reader_took(Connection& c, std::uint32_t bytes);
    void rest_windows(Instant now);

    // output.cpp
    Outcome emit(Connection& c, Index self, Sink& out);
    Outcome emit_syn(Connection& c, Index self, Sink& out);
    Outcome emit_reset(Connection& c, Index self, Sink& out);
    Outcome emit_lost(Connection& c, Index self, Sink& out, bool& sent);
    Outcome emit_new(Connection& c, Index self, Sink& out, bool& sent);
    Outcome emit_probe(Connection& c, Index self, Sink& out);
    Outcome emit_ack(Connection& c, Index self, Sink& out, Seq seq);
    Outcome repeat(Connection& c, Index self, Index flight, Sink& out);
    std::uint32_t next_length(Connection& c, Instant now);
    Outcome undeliverable(Connection& c, Index self, BeginResult result, Instant now);
    void park(Connection& c, Index self);
    void unpark(Connection& c, Index self);

    // frames.cpp
    /// `edge`: an ACK of what it names, not of all.
    Outcome build(Connection& c, Index self, Sink& out, Seq seq, std::uint8_t flags,
                  const Payload& payload, const MarkEdge* edge = nullptr);
    std::uint32_t fit_slices(const Payload& payload, std::uint32_t mss) const;
    void place_payload(TxFrame& frame, const Payload& payload, const ArenaView& arena);
    void finish_frame(TxFrame& frame, const Tuple& tuple, std::size_t l4_bytes, bool offload);
    void emit_reply(const Reply& reply, Sink& out);
    void wake_replies(std::uint32_t neighbor, bool reachable);

    // timers.cpp
    void fire(Connection& c, Index self, Instant now);
    void retransmit_timeout(Connection& c, Index self, Instant now);
    void handshake_timeout(Connection& c, Index self, Instant now);
    void persist_timeout(Connection& c, Index self, Instant now);
    void life_timeout(Connection& c, Index self, Instant now);
    bool wait_for_repeat(Connection& c, Instant now);
    bool gave_up(Connection& c, Instant now, std::uint32_t limit) const;
    bool closed_to_repeats(const Connection& c) const;
    bool probed_in_vain(Connection& c, Instant now);
    Micros within_user_timeout(const Connection& c, Micros pause, Instant now) const;
    void count_timeout(Connection& c, Instant now);
    void arm_persist(Connection& c, Instant now);
    void arm_keep_alive(Connection& c, Instant now);

    // user_calls.cpp
    Violation submit_one(ChannelIndex channel, const shm::Submission& submission, Instant now);
    void user_connect(ChannelIndex channel, const shm::Submission& submission, Instant now);
    int open(ChannelIndex channel, const shm::Submission& submission, Instant now,
             std::uint32_t& shard);
    bool is_listened_by_others(const Tuple& tuple, const Session& session) const;
    int choose_port(Tuple& tuple, Session& session, Instant now, std::uint32_t& shard);
    Violation user_send(Connection& c, Index self, const shm::Submission& submission);
    Violation user_release(SessionIndex session, const shm::Submission& submission, Instant now);
    void user_shutdown(Connection& c, Index self);
    void user_close(Connection& c, Index self, Instant now);
    Violation user_option(Connection& c, Index self, const shm::OptionBody& option, Instant now);
    Violation user_credit(ChannelIndex channel, const shm::CreditBody& credit, Instant now);
    void refuse(ChannelIndex channel, std::uint64_t user, int error, std::uint32_t shard);
    void answer(ChannelIndex channel, const Refusal& refusal);
    void released(Index connection, std::uint32_t generation, std::uint32_t bytes);

    // completions.cpp
    void channel_ready(ChannelIndex channel);
    void channel_idle_if_empty(ChannelIndex channel);
    bool emit_events(Connection& c, Index self, std::span<shm::Completion> out,
                     std::size_t& used);
    std::uint32_t send_room(const Connection& c) const;
    void watch_unsent(Connection& c, Index self, std::uint64_t low_water);
    void tell_launched(Connection& c, Index self);
    std::int32_t take_launched(Connection& c);
    bool deliver(Connection& c, Index self, shm::Completion& completion);
    bool deliver_private(Connection& c, Index self, Session& session,
                         shm::Completion& completion);

    // listener.cpp
    Index find_listener(const Tuple& tuple) const;
    Index find_listener(shm::ListenerId id) const;
    void offer(Listener& listener, Instant now);
    void leave_pending(Connection& c, Index self);
    void join_half_open(Connection& c, Index self, Index listener);
    void join_waiting(Connection& c, Index self, Instant now);
    Index find_grant(const Listener& listener, SessionIndex session, ChannelIndex channel) const;
    bool is_shared(const Listener& listener, SessionIndex session) const;
    bool may_go_back(const Connection& c) const;
    void give_back(Connection& c, Index self, Listener& listener);
    void take_back(Index listener, SessionIndex session, ChannelIndex channel, Instant now);
    void user_return(ChannelIndex channel, Connection& c, Index self, Instant now);
    void user_abort(Connection& c, Index self);
    bool has_taker(const Listener& listener) const;
    void drop_grants(Listener& l, SessionIndex session, ChannelIndex channel,
                     bool but_untaken = false);

    // sessions.cpp
    void detach_some(Instant now);
    void drop_channel(ChannelIndex channel);
    void lose_client(Connection& c, Index self, Instant now);
    void close_for_client(Connection& c, Index self, Instant now);
    bool extend_farewell(Connection& c, Instant now);
    bool alive(SessionIndex session) const {
        return session != kNobody && sessions_[session].attached;
    }

    /// What the operator chose for an interface.
    struct Choice {
        shm::CongestionAlgorithm congestion;
        EcnPolicy ecn;
        PacingPolicy pacing;
    };
    Choice choice(std::uint16_t interface) const {
        if (interface < choices_.size()) return choices_[interface];
        return {config_.tcp.congestion, config_.tcp.ecn, config_.tcp.pacing};
    }

    StackConfig config_;
    std::vector<Choice> choices_;  ///< by interface
    SipKey hash_key_;
    Tables tables_;
    Pool<Connection, &Connection::output_next> connections_;
    Demux demux_;
    TimerWheel wheel_;
    SendQueue send_;
    ExtraPool extras_;
    ReceiveQueue rx_;
    CookieCache cookies_;
    ListenerPool listeners_;
    GrantPool grants_;
    Pool<Refusal, &Refusal::next> refusals_;
    shm::ShardTables& published_;
    ArenaView rx_arena_;
    Lower& lower_;
    BufferPool& pool_;
    shm::CounterBlock& counters_;

    using OutputList = List<Connection, &Connection::output_next, &Connection::output_prev>;
    using ChannelList = List<ChannelState, &ChannelState::next, &ChannelState::prev>;
    OutputList output_;
    OutputList parked_;
    List<Connection, &Connection::session_next, &Connection::session_prev> time_wait_;
    GrowthList growing_;  ///< whose windows grow; the one that was looked at longest ago first
    std::uint32_t time_waiting_ = 0;  ///< how many those are
    ChannelList ready_;
    std::vector<Session> sessions_;
    std::vector<ChannelState> channels_;
    std::vector<SessionIndex> ending_;
    std::uint32_t attached_ = 0;  ///< sessions
    std::array<Index, kListenerBuckets> listener_ids_;

    static constexpr std::size_t kReplies = 256;
    std::array<Reply, kReplies> replies_;
    std::size_t reply_first_ = 0;
    std::size_t reply_count_ = 0;
    /// Those whose neighbour is being asked for; the oldest makes room for the newest.
    struct WaitingReply {
        Reply reply;
        std::uint32_t neighbor = kNil;  ///< kNil: none
    };
    static constexpr std::size_t kWaitingReplies = 32;
    std::array<WaitingReply, kWaitingReplies> waiting_replies_;
    std::size_t next_waiting_ = 0;

    static constexpr std::size_t kEdges = 64;
    std::array<MarkEdge, kEdges> edges_;
    std::size_t edge_count_ = 0;

    /// Not told to the other shards yet. What finds no room they learn by themselves.
    static constexpr std::size_t kLearntCookies = 16;
    std::array<LearntCookie, kLearntCookies> learnt_cookies_;
    std::size_t learnt_cookie_count_ = 0;

    static constexpr std::size_t kSlotBatch = 64;
    std::array<shm::Slice, kSlotBatch> free_slots_;
    std::size_t free_slot_count_ = 0;

    std::uint32_t unowned_slots_ = 0;  ///< of connections nobody accepted yet
    std::uint32_t slot_limit_ = 0;     ///< this stack's share of the arena
    Seq rack_end_before_;  ///< RACK.end_seq of the connection before the ACK at hand
    NoisyLimit challenges_;
    RefusalLimit refusal_limit_;
    NoisyLimit resets_;
    std::uint32_t orphans_ = 0;     ///< closed, without a session, and not in TIME-WAIT yet
    std::uint32_t next_port_ = 0;
    std::uint8_t early_patience_ = 0;  ///< the most that any connection learnt, until then:
    Instant early_until_{};
    Instant now_;  ///< of the last call that had one, for those that have none
};

/// Challenge ACKs a second and stack (RFC 5961 §7).
inline constexpr std::uint32_t kChallengesPerSecond = 1000;
/// Of the connection table at most one half rests in TIME-WAIT, and a quarter are connections that
/// finish what a client left that is gone.
inline constexpr std::uint32_t kTimeWaitShare = 2;
inline constexpr std::uint32_t kOrphanShare = 4;

}  // namespace chiru::tcp
