// SPDX-License-Identifier: Apache-2.0
//
// How many answers a connection gives to empty segments out of its window. Two ends that disagree
// about their numbers, as somebody's forged text makes them, would else answer each other's answers
// for ever. RFC 5961 §7 thinks of 10 in 5 s.
//
// Counted beside the blocks, where few connections of a stack share a place: the limit is for what
// never happens between honest ends, and what shares a place with such a pair loses no more than
// the answer to a keep-alive, which is asked again.
#pragma once

#include "base/time.hpp"
#include "stack/tcp/index.hpp"

#include <array>
#include <cstddef>
#include <cstdint>

namespace chiru::tcp {

class RefusalLimit {
public:
    static constexpr std::uint8_t kPerPeriod = 10;

    bool take(Index connection, Instant now) {
        Place& place = places_[connection % kPlaces];
        const auto period =
            static_cast<std::uint16_t>(now.time_since_epoch().count() >> kPeriodBits);
        if (place.period != period) place = {.period = period};
        if (place.answers == kPerPeriod) return false;
        ++place.answers;
        return true;
    }

private:
    static constexpr int kPeriodBits = 22;  ///< µs: 4.2 s
    static constexpr std::size_t kPlaces = 1024;
    struct Place {
        std::uint16_t period = 0;
        std::uint8_t answers = 0;
    };
    std::array<Place, kPlaces> places_{};
};

}  // namespace chiru::tcp
