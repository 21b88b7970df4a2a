// SPDX-License-Identifier: Apache-2.0
//
// How much of a shard's turn one session may use, over all of its channels, so that none makes the
// others wait: a number of submissions, weighted by what they cost. A batch that was begun is
// finished; what it took beyond is missing in the turns that follow.
#pragma once

#include "shm/descriptor.hpp"

#include <algorithm>
#include <cstdint>
#include <span>

namespace chiru::daemon {

inline constexpr std::int64_t kTurnCredit = 256;

/// A plain Send is 1. A Connect looks for a route and a port, takes a block, sends a SYN, and
/// ends as a timer or a reset and a completion.
constexpr std::int64_t cost_of(shm::SubmissionOp op) {
    switch (op) {
        case shm::SubmissionOp::Connect: return 16;
        case shm::SubmissionOp::Close:
        case shm::SubmissionOp::Abort: return 4;
        default: return 1;
    }
}

class TurnCredit {
public:
    /// Is any left in turn number `turn`? Numbers only grow.
    bool left_in(std::uint64_t turn) {
        const auto passed = static_cast<std::int64_t>(std::min<std::uint64_t>(turn - turn_, 1024));
        turn_ = turn;
        left_ = std::min(left_ + passed * kTurnCredit, kTurnCredit);
        return left_ > 0;
    }
    bool left() const { return left_ > 0; }

    void charge(std::span<const shm::Submission> submissions) {
        for (const shm::Submission& submission : submissions) left_ -= cost_of(submission.op);
    }

private:
    std::uint64_t turn_ = 0;
    std::int64_t left_ = kTurnCredit;
};

}  // namespace chiru::daemon
