// SPDX-License-Identifier: Apache-2.0
//
// A one-way link that loses, delays, reorders, duplicates, damages, queues, marks and refuses what
// is too large, the same way for the same seed.
#pragma once

#include "base/time.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <queue>
#include <random>
#include <vector>

namespace chiru::sim {

using Frame = std::vector<std::byte>;

struct LinkOptions {
    std::uint64_t seed = 1;  ///< printed by every failing test; the run repeats exactly from it
    Micros delay{50};
    Micros jitter{0};  ///< up to this much more; reorders once it exceeds the spacing
    std::uint32_t lose_ppm = 0;       ///< frames per million
    std::uint32_t duplicate_ppm = 0;  ///< the same
    std::uint32_t corrupt_ppm = 0;    ///< one bit of the frame is turned over
    std::uint32_t late_ppm = 0;       ///< overtaken: these take `late_by` longer
    Micros late_by{0};
    /// Gilbert and Elliott's bursts: how often one begins, how often it ends, and what is lost
    /// while it lasts.
    std::uint32_t burst_begins_ppm = 0;
    std::uint32_t burst_ends_ppm = 200'000;
    std::uint32_t burst_lose_ppm = 800'000;
    std::vector<std::uint64_t> lose_nth;  ///< these frames are lost, counted from 1
    std::uint64_t bits_per_second = 0;  ///< 0: unlimited
    std::size_t queue_bytes = 1u << 20;  ///< in front of the bottleneck; what does not fit is lost
    std::size_t mark_bytes = SIZE_MAX;   ///< a longer queue marks: CE, on packets that allow it
    std::size_t mtu = 0;  ///< IP packet bytes; 0: any. What is larger is lost
    bool silent = false;  ///< no ICMP tells of it: a black hole
};

/// Sets the CE codepoint (RFC 3168 §5) if the packet is of a transport that understands it.
bool mark_congestion(Frame& frame);

/// What a router answers to a packet that is larger than `mtu` (RFC 1191 §4, RFC 4443 §3.2);
/// empty if it answers nothing.
Frame packet_too_big(const Frame& frame, std::size_t mtu);

class Link {
public:
    explicit Link(const LinkOptions& options) : options_(options), random_(options.seed) {}

    void send(Frame frame, Instant now);

    /// Calls arrive(frame) for every frame due by `now`, in order of arrival.
    template <class Arrive>
    void deliver(Instant now, Arrive&& arrive) {
        while (!flying_.empty() && flying_.top().at <= now) {
            Flight next = flying_.top();
            flying_.pop();
            arrive(std::move(next.frame));
        }
    }

    /// When deliver() next has work: the simulator steps from deadline to deadline.
    Instant next_arrival() const { return flying_.empty() ? kNever : flying_.top().at; }
    std::uint64_t sent_frames() const { return sent_; }
    std::uint64_t lost_frames() const { return lost_; }
    std::uint64_t marked_frames() const { return marked_; }
    std::uint64_t overflowed_frames() const { return overflowed_; }
    /// Bytes, at most, since forget_queue().
    std::uint64_t longest_queue() const { return longest_queue_; }
    void forget_queue() { longest_queue_ = 0; }
    /// From now on, everything is lost, or not.
    void cut(bool off) { cut_ = off; }
    /// What may change while frames fly.
    LinkOptions& options() { return options_; }
    /// Who gets the router's ICMP messages: the sender's side.
    void on_refusal(std::function<void(Frame)> back) { back_ = std::move(back); }

private:
    struct Flight {
        Instant at;
        std::uint64_t order;  ///< breaks ties, so equal times do not depend on the heap
        Frame frame;
        bool operator<(const Flight& other) const {  // std::priority_queue: greatest first
            return at != other.at ? at > other.at : order > other.order;
        }
    };

    // Not std::uniform_int_distribution: its results differ between standard libraries.
    std::int64_t below(std::uint64_t bound) { return static_cast<std::int64_t>(random_() % bound); }
    bool happens(std::uint32_t ppm) { return ppm != 0 && below(1'000'000) < ppm; }
    bool lost();
    bool refused(const Frame& frame);
    void carry(Frame frame, Instant now);

    LinkOptions options_;
    std::mt19937_64 random_;
    std::priority_queue<Flight> flying_;
    std::function<void(Frame)> back_;
    std::uint64_t order_ = 0;
    std::uint64_t sent_ = 0;
    std::uint64_t lost_ = 0;
    std::uint64_t marked_ = 0;
    std::uint64_t overflowed_ = 0;
    std::uint64_t longest_queue_ = 0;
    bool in_burst_ = false;
    bool cut_ = false;
    Instant busy_until_{};
};

}  // namespace chiru::sim
