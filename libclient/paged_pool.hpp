// SPDX-License-Identifier: Apache-2.0
//
// Records named by a 32-bit index, in pages that are mapped when first needed and never move: a
// pointer to a record stays good until the record is put back. Freed records are used again, the
// last one first, while it is warm in the cache. No exceptions: without memory take() says kNone.
#pragma once

#include <sys/mman.h>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>

namespace chiru::client {

inline constexpr std::uint32_t kNone = ~0u;  ///< no record

/// `T` has a member `std::uint32_t next`, which links free records.
template <class T>
    requires std::is_trivially_destructible_v<T>
class PagedPool {
public:
    static constexpr std::uint32_t kPageBytes = 65'536;
    static constexpr std::uint32_t kPerPage = std::bit_floor(kPageBytes / std::uint32_t{sizeof(T)});
    static constexpr std::uint32_t kMaxPages = 32'768;

    PagedPool() = default;
    ~PagedPool() {
        for (std::uint32_t i = 0; i < pages_; ++i) munmap(directory_[i], kPageBytes);
        if (directory_ != nullptr) munmap(directory_, kDirectoryBytes);
    }
    PagedPool(const PagedPool&) = delete;
    PagedPool& operator=(const PagedPool&) = delete;

    /// A record in whatever state it was put back (zeroes at first), or kNone.
    std::uint32_t take() {
        if (free_ != kNone) {
            const std::uint32_t index = free_;
            free_ = (*this)[index].next;
            ++live_;
            return index;
        }
        if (used_ == pages_ * kPerPage && !grow()) return kNone;
        ++live_;
        return used_++;
    }

    void put(std::uint32_t index) {
        (*this)[index].next = free_;
        free_ = index;
        --live_;
    }

    T& operator[](std::uint32_t index) {
        return directory_[index / kPerPage][index % kPerPage];
    }
    const T& operator[](std::uint32_t index) const {
        return directory_[index / kPerPage][index % kPerPage];
    }
    /// Was this index ever handed out?
    bool knows(std::uint32_t index) const { return index < used_; }
    std::uint32_t high() const { return used_; }  ///< indexes ever handed out are below
    std::uint32_t live() const { return live_; }

private:
    static constexpr std::size_t kDirectoryBytes = kMaxPages * sizeof(T*);

    static void* map(std::size_t bytes) {
        void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return memory == MAP_FAILED ? nullptr : memory;
    }

    bool grow() {
        if (directory_ == nullptr) directory_ = static_cast<T**>(map(kDirectoryBytes));
        if (directory_ == nullptr || pages_ == kMaxPages) return false;
        void* page = map(kPageBytes);
        if (page == nullptr) return false;
        directory_[pages_++] = new (page) T[kPerPage];
        return true;
    }

    T** directory_ = nullptr;
    std::uint32_t pages_ = 0;
    std::uint32_t used_ = 0;
    std::uint32_t live_ = 0;
    std::uint32_t free_ = kNone;
};

}  // namespace chiru::client
