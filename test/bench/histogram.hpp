// SPDX-License-Identifier: Apache-2.0
//
// A histogram of durations with a bounded relative error: 64 linear steps in each power of two,
// so a percentile is at most 1.6 % off, whatever its size.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace chiru::bench {

class Histogram {
public:
    void add(std::uint64_t nanoseconds) {
        ++buckets_[bucket_of(nanoseconds)];
        ++count_;
        if (nanoseconds > largest_) largest_ = nanoseconds;
    }
    std::uint64_t count() const { return count_; }
    std::uint64_t largest() const { return largest_; }

    /// The smallest value that `fraction` of all are not above.
    std::uint64_t percentile(double fraction) const {
        const auto wanted = static_cast<std::uint64_t>(fraction * static_cast<double>(count_));
        std::uint64_t seen = 0;
        for (std::size_t i = 0; i < buckets_.size(); ++i) {
            seen += buckets_[i];
            if (seen > wanted) return upper_end(i);
        }
        return largest_;
    }

private:
    static constexpr std::size_t kSteps = 64;
    static constexpr std::size_t kStepBits = 6;

    static constexpr std::size_t bucket_of(std::uint64_t value) {
        if (value < kSteps) return value;
        const auto shift = static_cast<std::size_t>(std::bit_width(value)) - 1 - kStepBits;
        return (shift + 1) * kSteps + ((value >> shift) - kSteps);
    }
    static constexpr std::uint64_t upper_end(std::size_t bucket) {
        if (bucket < kSteps) return bucket;
        const std::size_t shift = bucket / kSteps - 1;
        return ((bucket % kSteps + kSteps + 1) << shift) - 1;
    }

    std::array<std::uint64_t, (64 - kStepBits + 1) * kSteps> buckets_{};
    std::uint64_t count_ = 0;
    std::uint64_t largest_ = 0;
};

}  // namespace chiru::bench
