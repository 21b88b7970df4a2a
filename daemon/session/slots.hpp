// SPDX-License-Identifier: Apache-2.0
//
// Numbers of the directory's tables, handed out and taken back. The one that was free longest goes
// first, so a reader who remembers a number is unlikely to meet another owner soon.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

namespace chiru::daemon {

class Slots {
public:
    explicit Slots(std::size_t count) {
        for (std::size_t i = 0; i < count; ++i) free_.push_back(static_cast<std::uint16_t>(i));
    }
    std::optional<std::uint16_t> take() {
        if (free_.empty()) return std::nullopt;
        const std::uint16_t slot = free_.front();
        free_.pop_front();
        return slot;
    }
    void give_back(std::uint16_t slot) { free_.push_back(slot); }
    std::size_t left() const { return free_.size(); }

private:
    std::deque<std::uint16_t> free_;
};

}  // namespace chiru::daemon
