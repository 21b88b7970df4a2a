// SPDX-License-Identifier: Apache-2.0
//
// A one-way link that loses, delays, reorders, duplicates and marks, the same way for the same
// seed.
#pragma once

#include "base/time.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <queue>
#include <random>
#include <vector>

namespace chiru::sim {

struct LinkOptions {
    std::uint64_t seed = 1;  ///< printed by every failing test; the run repeats exactly from it
    Micros delay{50};
    Micros jitter{0};  ///< up to this much more; reorders once it exceeds the spacing
    std::uint32_t lose_ppm = 0;       ///< frames per million
    std::uint32_t duplicate_ppm = 0;  ///< the same
    std::uint32_t corrupt_ppm = 0;    ///< one bit of the frame is turned over
    std::uint64_t bits_per_second = 0;  ///< 0: unlimited
    std::size_t queue_bytes = 1u << 20;  ///< in front of the bottleneck; what does not fit is lost
    std::size_t mark_bytes = ~std::size_t{0};  ///< behind so much, frames that may be are marked
};

/// Sets CE in an untagged frame that may be marked (RFC 3168 §5); others stay as they are.
inline bool mark(std::vector<std::byte>& frame) {
    if (frame.size() < 34) return false;
    const auto byte = [&frame](std::size_t at) { return std::to_integer<unsigned>(frame[at]); };
    const unsigned type = byte(12) << 8 | byte(13);
    if (type == 0x86dd && (byte(15) >> 4 & 3) != 0) {
        frame[15] |= std::byte{0x30};
        return true;
    }
    if (type != 0x0800 || (byte(15) & 3) == 0) return false;
    const unsigned before = byte(14) << 8 | byte(15);
    frame[15] |= std::byte{3};
    // RFC 1624 §3, eq. (3)
    unsigned sum = (~(byte(24) << 8 | byte(25)) & 0xffff) + (~before & 0xffff) +
                   (byte(14) << 8 | byte(15));
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
    frame[24] = static_cast<std::byte>(~sum >> 8 & 0xff);
    frame[25] = static_cast<std::byte>(~sum & 0xff);
    return true;
}

class Link {
public:
    using Frame = std::vector<std::byte>;

    explicit Link(const LinkOptions& options) : options_(options), random_(options.seed) {}

    void send(Frame frame, Instant now) {
        ++sent_;
        if (happens(options_.lose_ppm)) return;
        const std::size_t copies = happens(options_.duplicate_ppm) ? 2 : 1;
        if (happens(options_.corrupt_ppm)) {
            const auto bit = static_cast<std::size_t>(below(frame.size() * 8));
            frame[bit / 8] ^= std::byte{1} << (bit % 8);
        }
        for (std::size_t i = 0; i < copies; ++i) {
            Instant leaves = now;
            if (options_.bits_per_second != 0) {
                const Micros backlog = busy_until_ > now ? busy_until_ - now : Micros(0);
                const auto queued = static_cast<std::uint64_t>(backlog.count()) *
                                    options_.bits_per_second / 8'000'000;
                if (queued + frame.size() > options_.queue_bytes) {
                    ++overflowed_;
                    continue;
                }
                longest_queue_ = std::max(longest_queue_, queued);
                if (queued > options_.mark_bytes && mark(frame)) ++marked_;
                const auto takes = frame.size() * 8'000'000 / options_.bits_per_second;
                leaves = std::max(busy_until_, now) + Micros(static_cast<std::int64_t>(takes));
                busy_until_ = leaves;
            }
            const Micros extra(below(static_cast<std::uint64_t>(options_.jitter.count()) + 1));
            flying_.push({leaves + options_.delay + extra, order_++, frame});
        }
    }

    /// Calls arrive(frame) for every frame due by `now`, in order of arrival.
    template <class Arrive>
    void deliver(Instant now, Arrive&& arrive) {
        while (!flying_.empty() && flying_.top().at <= now) {
            const Flight next = flying_.top();
            flying_.pop();
            arrive(next.frame);
        }
    }

    /// When deliver() next has work: the simulator steps from deadline to deadline.
    Instant next_arrival() const { return flying_.empty() ? kNever : flying_.top().at; }
    std::uint64_t sent_frames() const { return sent_; }
    std::uint64_t marked_frames() const { return marked_; }
    std::uint64_t overflowed_frames() const { return overflowed_; }
    std::uint64_t longest_queue() const { return longest_queue_; }
    void forget_queue() { longest_queue_ = 0; }
    /// From now on, everything is lost, or not.
    void cut(bool off) { options_.lose_ppm = off ? 1'000'000 : 0; }

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

    LinkOptions options_;
    std::mt19937_64 random_;
    std::priority_queue<Flight> flying_;
    std::uint64_t order_ = 0;
    std::uint64_t sent_ = 0;
    std::uint64_t marked_ = 0;
    std::uint64_t overflowed_ = 0;  ///< lost because the queue was full
    std::uint64_t longest_queue_ = 0;
    Instant busy_until_{};
};

}  // namespace chiru::sim
