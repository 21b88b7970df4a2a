// SPDX-License-Identifier: Apache-2.0
//
// One shard: a stack on a core of its own, the queues it owns on every port, and the lanes of its
// clients' channels. Its thread runs shard_loop.cpp and shares nothing but rings with others.
//
// In its loop a shard never waits for anybody, never locks, allocates, logs or throws; what it has
// to say it counts.
#pragma once

#include "daemon/dataplane/command.hpp"
#include "daemon/dataplane/plane.hpp"
#include "daemon/dataplane/spin_window.hpp"
#include "daemon/dataplane/steering.hpp"
#include "daemon/dataplane/turn_credit.hpp"
#include "daemon/nic/shard_io.hpp"
#include "shm/directory.hpp"
#include "shm/doorbell.hpp"
#include "shm/unique_fd.hpp"
#include "stack/stack.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <vector>

namespace chiru::daemon {

struct ShardSetup {
    std::uint32_t index = 0;
    unsigned core = 0;
    bool pin = true;
    bool shares_core = false;  ///< with another shard
    IdlePolicy idle = IdlePolicy::Adaptive;
    Micros spin{};
    StackConfig stack;
    std::span<std::byte> tables;
    shm::Directory* directory = nullptr;
    shm::ShardPage* page = nullptr;  ///< the shard's own, inside the directory
    const std::vector<std::unique_ptr<nic::Port>>* ports = nullptr;
    const nic::RxArena* arena = nullptr;
    const nic::TxPools* pools = nullptr;
    SteerLanes* lanes = nullptr;
    int report_fd = -1;  ///< the eventfd that wakes the control thread
    const nic::LogSink* log = nullptr;
};

class Shard {
public:
    explicit Shard(const ShardSetup& setup);
    ~Shard();
    Shard(const Shard&) = delete;
    Shard& operator=(const Shard&) = delete;

    /// Gives a shard the means to wake the others. Before any of them starts.
    void meet(std::span<const std::unique_ptr<Shard>> all);
    void start();
    /// Shows the stack's addresses and routes in the directory: the first shard's task, as all
    /// shards know the same. Before start(); later the loop does it when they change.
    void publish_interfaces();

    // For the control thread.

    /// The rings' other ends; the ringer wakes this shard after a push.
    CommandRing& commands() { return commands_; }
    ReportRing& reports() { return reports_; }
    shm::DoorbellRinger ringer() const { return {setup_.page->doorbell, wake_fd_.get()}; }
    /// Ends every session and the thread. Returns when that is done.
    void stop();
    /// Frames that come back from devices from now on are nobody's.
    void forget_stack() { io_.tell(nullptr); }

private:
    /// A channel of a client, as this shard has it.
    struct Lane {
        explicit Lane(const AttachChannel& command);

        ChannelIndex channel;
        SessionIndex session;
        int shard_event_fd;
        bool quiet = false;  ///< broke the contract; nothing more is taken or told
        bool active = false;  ///< listed in active_
        std::uint64_t active_turn = 0;  ///< when there was something in its ring last
        bool noted = false;  ///< is in awake_
        shm::RingConsumer<shm::SubmissionRing> submissions;
        shm::RingProducer<shm::CompletionRing> completions;
        shm::DoorbellRinger client;
    };

    struct Leaving {
        SessionIndex session;
        std::uint64_t tag;
    };

    void run();
    void settle_in();
    void wind_up();
    bool turn();
    void sleep();
    void arm();
    void disarm();
    bool may_spin();
    Micros spin_length() const;
    void end_idle_time();
    Micros longest_sleep() const;

    bool take_commands();
    void carry_out(const Command& command);
    void attach(const AttachChannel& command);
    DatagramConnected connect(const ConnectDatagram& command);
    void close(const CloseDatagram& command);
    void remove_lane(ChannelIndex channel);
    void detach_session(SessionIndex session, std::uint64_t tag, Parting parting);
    bool take_last_submissions(Lane& lane);
    bool see_off_sessions();
    void report(const Report& report);
    void flush_reports();
    void share_cookies();
    void report_path_mtus();
    void accuse(Lane& lane, Violation violation, bool corrupt_ring);

    std::size_t collect_steered();
    bool take_handoffs();
    void place(std::span<const RxFrame> frames);
    void steer(const RxFrame& frame, std::uint32_t shard);
    void spread(const RxFrame& frame);
    bool transmit();
    void hand_over_frames();
    void ring_others();

    bool take_submissions();
    bool look_at(Lane& lane);
    bool take_submissions(Lane& lane);
    bool complete();
    bool complete(Lane& lane);
    void note_activity(Lane& lane);
    bool neighbor_is_awake();

    ShardSetup setup_;
    shm::CounterBlock& counters_;
    nic::ShardIo io_;
    Stack stack_;
    shm::UniqueFd wake_fd_;   ///< written by control and by other shards
    shm::UniqueFd epoll_fd_;
    CommandRing commands_;
    ReportRing reports_;
    shm::RingConsumer<CommandRing> command_consumer_{commands_};
    shm::RingProducer<ReportRing> report_producer_{reports_};
    std::vector<Report> unsent_reports_;
    shm::DoorbellSleeper sleeper_;

    struct Other {
        shm::RingProducer<decltype(SteerLane::received)> frames_out;
        shm::RingProducer<decltype(SteerLane::to_send)> handoffs_out;
        shm::RingConsumer<decltype(SteerLane::received)> frames_in;
        shm::RingConsumer<decltype(SteerLane::to_send)> handoffs_in;
        shm::DoorbellRinger ringer;
        bool rang = false;  ///< got something in this turn
    };
    std::vector<std::optional<Other>> others_;  ///< by shard; empty at our own place
    std::vector<RxFrame> steered_;              ///< a burst from each of them

    static constexpr std::size_t kSubmissionBatch = 64;
    static constexpr std::size_t kCompletionBatch = 64;
    /// What a turn copies bursts into. Here, because as variables they would be initialised, ten
    /// kilobytes a turn, also in turns that find nothing.
    struct Scratch {
        std::array<RxFrame, nic::kBurst> frames;
        std::array<RxFrame, nic::kBurst> ours;
        std::array<nic::Handoff, nic::kBurst> handoffs;
        std::array<shm::Submission, kSubmissionBatch> submissions;
        std::array<shm::Completion, kCompletionBatch> completions;
    };
    Scratch scratch_;

    std::vector<Lane> lanes_;
    std::size_t next_lane_ = 0;           ///< the one before the next to be looked at in turn
    std::vector<ChannelIndex> active_;    ///< channels that had submissions lately
    std::array<std::int16_t, shm::kMaxChannels> lane_of_;  ///< position in lanes_, or -1
    std::uint64_t turn_ = 0;
    std::array<TurnCredit, shm::kMaxSessions> credits_{};
    std::vector<SessionIndex> sessions_;
    std::vector<Leaving> leaving_;

    Instant now_{};
    Instant idle_since_ = kNever;
    SpinWindow spin_window_;
    std::vector<ChannelIndex> awake_;  ///< clients on our own core that were active lately
    bool slept_ = false;       ///< in this idle time
    bool handed_over_ = false; ///< the core, to one of them, in this idle time
    bool completions_wait_ = false;  ///< a completion ring was full
    std::uint32_t interfaces_version_ = 0;  ///< of what was published last
    bool armed_ = false;
    bool pinned_ = false;
    Micros port_sleep_{};  ///< how long the ports let us sleep
    std::uint32_t cpu_ = 0;
    std::atomic<bool> stopping_{false};
    std::jthread thread_;
};

}  // namespace chiru::daemon
