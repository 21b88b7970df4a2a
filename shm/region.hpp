// SPDX-License-Identifier: Apache-2.0
//
// Memory that two processes share: made, sized and sealed by the daemon as a memfd, handed over
// as a file descriptor, mapped with Boost.Interprocess. It has no name, so nothing is left behind
// and nobody can map what was not handed to him.
#pragma once

#include "base/result.hpp"
#include "shm/unique_fd.hpp"

#include <boost/interprocess/mapped_region.hpp>

#include <cstddef>
#include <span>
#include <string>

namespace chiru::shm {

/// Huge: 2 MiB pages (MFD_HUGETLB), or an error if there are none free.
enum class Pages { Normal, Huge };

/// What the other side may do with the descriptor. ReadOnly is a seal (F_SEAL_FUTURE_WRITE), not
/// a mode of the descriptor: it holds however the descriptor is reopened.
enum class PeerAccess { ReadOnly, ReadWrite };

enum class MapAccess { ReadOnly, ReadWrite };

/// A mapping. The descriptor stays open with the daemon, which hands out duplicates; a client
/// closes it after mapping.
class Region {
public:
    Region() = default;

    /// Makes a memfd of `bytes` (rounded up to whole pages), zeroed, maps it read-write here and
    /// seals it: its size is final, and with PeerAccess::ReadOnly nobody can ever map it writable
    /// again. `name` shows in /proc/<pid>/maps. Returns an errno value on failure.
    static Result<Region, int> create(const std::string& name, std::size_t bytes,
                                      PeerAccess peer_access, Pages pages = Pages::Normal);

    /// Maps a descriptor that the other side made; `bytes` is what it claims to hold, and is
    /// checked against the file and its seals: a region that could shrink under us is refused
    /// (EPERM), a short one too (EINVAL). Takes the descriptor.
    static Result<Region, int> map(UniqueFd fd, std::size_t bytes, MapAccess access);

    std::span<std::byte> bytes() const {
        return {static_cast<std::byte*>(mapping_.get_address()), mapping_.get_size()};
    }
    int fd() const { return fd_.get(); }
    explicit operator bool() const { return mapping_.get_size() != 0; }
    void close_fd() { fd_.reset(); }

private:
    UniqueFd fd_;
    boost::interprocess::mapped_region mapping_;
};

}  // namespace chiru::shm
