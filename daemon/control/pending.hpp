// SPDX-License-Identifier: Apache-2.0
//
// Orders that were given to the shards and not yet answered by all of them.
#pragma once

#include "daemon/dataplane/command.hpp"

#include <cstdint>
#include <functional>
#include <unordered_map>
#include <utility>

namespace chiru::daemon {

class Pending {
public:
    using Then = std::function<void(const Report& last)>;

    /// A tag for orders that `answers` reports will answer; `then` runs with the last of them.
    std::uint64_t expect(std::size_t answers, Then then) {
        waiting_.emplace(++last_tag_, Waiting{answers, std::move(then)});
        return last_tag_;
    }
    void answered(const Report& report) {
        const auto found = waiting_.find(report.tag);
        if (found == waiting_.end() || --found->second.answers != 0) return;
        const Then then = std::move(found->second.then);
        waiting_.erase(found);  // first: `then` may give new orders
        then(report);
    }
    std::size_t size() const { return waiting_.size(); }

private:
    struct Waiting {
        std::size_t answers;
        Then then;
    };
    std::unordered_map<std::uint64_t, Waiting> waiting_;
    std::uint64_t last_tag_ = 0;  ///< tag 0 is a report nobody asked for
};

}  // namespace chiru::daemon
