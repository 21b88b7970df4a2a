// SPDX-License-Identifier: Apache-2.0
#include "daemon/dataplane/turn_credit.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <vector>

using namespace chiru;
using namespace chiru::daemon;
using shm::SubmissionOp;

namespace {

std::vector<shm::Submission> batch_of(SubmissionOp op, std::size_t count) {
    shm::Submission one;
    one.op = op;
    return std::vector<shm::Submission>(count, one);
}

/// How many a session that always has more gets through in `turns` turns, 64 at a time.
std::size_t taken_in(std::uint64_t turns, SubmissionOp op) {
    TurnCredit credit;
    std::size_t taken = 0;
    for (std::uint64_t turn = 1; turn <= turns; ++turn) {
        if (!credit.left_in(turn)) continue;
        while (credit.left()) {
            credit.charge(batch_of(op, 64));
            taken += 64;
        }
    }
    return taken;
}

}  // namespace

TEST_CASE("Connects count for more of a turn than sends", "[dataplane]") {
    CHECK(taken_in(1000, SubmissionOp::Send) == 256'000);
    CHECK(taken_in(1000, SubmissionOp::Connect) == 16'000);
    CHECK(taken_in(1000, SubmissionOp::Close) == 64'000);
}

TEST_CASE("What was taken too much is missing later, and rest is not saved up", "[dataplane]") {
    TurnCredit credit;
    REQUIRE(credit.left_in(1));
    credit.charge(batch_of(SubmissionOp::Connect, 64));
    CHECK_FALSE(credit.left());
    CHECK_FALSE(credit.left_in(2));
    CHECK_FALSE(credit.left_in(3));
    CHECK_FALSE(credit.left_in(4));
    CHECK(credit.left_in(5));
    CHECK(credit.left_in(1'000'000));  // long idle, and still one turn's worth
    credit.charge(batch_of(SubmissionOp::Send, 256));
    CHECK_FALSE(credit.left());
    CHECK(credit.left_in(1'000'001));
}
