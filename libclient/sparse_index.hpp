// SPDX-License-Identifier: Apache-2.0
//
// From a shard's connection index to our socket's: a table in two levels, because a client holds
// some of the many connections of a shard, with numbers that it does not choose. Pages of 1024
// entries are mapped when first needed; the first level costs address space, not memory.
#pragma once

#include "libclient/paged_pool.hpp"

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

namespace chiru::client {

class SparseIndex {
public:
    static constexpr std::uint32_t kLimit = 1u << 24;  ///< no shard numbers as many

    SparseIndex() = default;
    ~SparseIndex() {
        if (directory_ == nullptr) return;
        for (std::size_t i = 0; i < kPages; ++i)
            if (directory_[i] != nullptr) munmap(directory_[i], kPageBytes);
        munmap(directory_, kDirectoryBytes);
    }
    SparseIndex(const SparseIndex&) = delete;
    SparseIndex& operator=(const SparseIndex&) = delete;

    /// kNone if nothing was set.
    std::uint32_t find(std::uint32_t key) const {
        if (key >= kLimit || directory_ == nullptr) return kNone;
        const std::uint32_t* page = directory_[key / kPerPage];
        // Stored plus one, so that fresh zeroes mean kNone.
        return page == nullptr ? kNone : page[key % kPerPage] - 1;
    }

    /// False without memory, or for a key beyond the limit. Setting kNone is forgetting.
    bool set(std::uint32_t key, std::uint32_t value) {
        if (key >= kLimit) return false;
        if (directory_ == nullptr) directory_ = static_cast<std::uint32_t**>(map(kDirectoryBytes));
        if (directory_ == nullptr) return false;
        std::uint32_t*& page = directory_[key / kPerPage];
        if (page == nullptr) page = static_cast<std::uint32_t*>(map(kPageBytes));
        if (page == nullptr) return false;
        page[key % kPerPage] = value + 1;
        return true;
    }

private:
    static constexpr std::uint32_t kPerPage = 1024;
    static constexpr std::size_t kPageBytes = kPerPage * sizeof(std::uint32_t);
    static constexpr std::size_t kPages = kLimit / kPerPage;
    static constexpr std::size_t kDirectoryBytes = kPages * sizeof(std::uint32_t*);

    static void* map(std::size_t bytes) {
        void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return memory == MAP_FAILED ? nullptr : memory;
    }

    std::uint32_t** directory_ = nullptr;
};

}  // namespace chiru::client
