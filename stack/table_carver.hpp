// SPDX-License-Identifier: Apache-2.0
//
// Cuts the stack's one region of memory into tables. Run without memory it only adds up, so what
// is needed and what is taken come from the same lines of code.
#pragma once

#include "base/cache.hpp"
#include "base/check.hpp"

#include <cstddef>
#include <memory>
#include <span>
#include <type_traits>

namespace chiru {

class TableCarver {
public:
    /// Counts only.
    TableCarver() = default;
    /// `memory` is kNoSharing-aligned.
    explicit TableCarver(std::span<std::byte> memory) : memory_(memory), real_(true) {}

    /// The next table, of `count` records at their default values. Empty if only counting.
    template <class T>
        requires(std::is_trivially_copyable_v<T> && alignof(T) <= kNoSharing)
    std::span<T> take(std::size_t count) {
        const std::size_t first = used_;
        used_ += (count * sizeof(T) + kNoSharing - 1) / kNoSharing * kNoSharing;
        if (!real_) return {};
        CHECK(used_ <= memory_.size());
        T* table = reinterpret_cast<T*>(memory_.data() + first);
        std::uninitialized_value_construct_n(table, count);
        return {table, count};
    }

    std::size_t used_bytes() const { return used_; }

private:
    std::span<std::byte> memory_;
    std::size_t used_ = 0;
    bool real_ = false;
};

}  // namespace chiru
