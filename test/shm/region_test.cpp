// SPDX-License-Identifier: Apache-2.0
#include "shm/region.hpp"

#include <catch2/catch.hpp>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

using namespace chiru;
using namespace chiru::shm;

namespace {

UniqueFd duplicate(const Region& region) {
    return UniqueFd(fcntl(region.fd(), F_DUPFD_CLOEXEC, 0));
}

/// Opens the file behind a descriptor once more, as a peer of the same user can.
UniqueFd reopen(int fd, int mode) {
    return UniqueFd(open(("/proc/self/fd/" + std::to_string(fd)).c_str(), mode | O_CLOEXEC));
}

bool can_map_writable(int fd) {
    void* address = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (address == MAP_FAILED) return false;
    munmap(address, 4096);
    return true;
}

}  // namespace

TEST_CASE("a region is zeroed, whole pages, and shared with who maps it", "[shm]") {
    Result<Region, int> made = Region::create("chiru-test", 5000, PeerAccess::ReadWrite);
    REQUIRE(made);
    CHECK(made->bytes().size() == 8192);
    for (const std::byte b : made->bytes())
        if (b != std::byte{0}) FAIL("not zeroed");

    Result<Region, int> seen = Region::map(duplicate(*made), 8192, MapAccess::ReadWrite);
    REQUIRE(seen);
    made->bytes()[17] = std::byte{42};
    CHECK(seen->bytes()[17] == std::byte{42});
    seen->bytes()[4999] = std::byte{7};
    CHECK(made->bytes()[4999] == std::byte{7});
}

TEST_CASE("nobody maps a read-only region writable, however it is reopened", "[shm][hostile]") {
    Result<Region, int> made = Region::create("chiru-test", 4096, PeerAccess::ReadOnly);
    REQUIRE(made);
    made->bytes()[0] = std::byte{1};  // its maker still writes

    CHECK_FALSE(can_map_writable(made->fd()));
    const UniqueFd again = reopen(made->fd(), O_RDWR);
    REQUIRE(again);
    CHECK_FALSE(can_map_writable(again.get()));
    CHECK(write(again.get(), "x", 1) < 0);
    CHECK(pwrite(made->fd(), "x", 1, 0) < 0);

    // A read-only mapping cannot be made writable later either.
    void* view = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, again.get(), 0);
    REQUIRE(view != MAP_FAILED);
    CHECK(mprotect(view, 4096, PROT_READ | PROT_WRITE) != 0);
    munmap(view, 4096);

    Result<Region, int> refused = Region::map(duplicate(*made), 4096, MapAccess::ReadWrite);
    REQUIRE_FALSE(refused);
    CHECK(refused.error() == EPERM);
    Result<Region, int> reader = Region::map(duplicate(*made), 4096, MapAccess::ReadOnly);
    REQUIRE(reader);
    CHECK(reader->bytes()[0] == std::byte{1});
}

TEST_CASE("nobody changes a region's size or its seals", "[shm][hostile]") {
    Result<Region, int> made = Region::create("chiru-test", 8192, PeerAccess::ReadWrite);
    REQUIRE(made);
    CHECK(ftruncate(made->fd(), 4096) != 0);
    CHECK(ftruncate(made->fd(), 16'384) != 0);
    CHECK(fallocate(made->fd(), 0, 0, 16'384) != 0);
    CHECK(fcntl(made->fd(), F_ADD_SEALS, F_SEAL_WRITE) != 0);
    const UniqueFd again = reopen(made->fd(), O_RDWR);
    REQUIRE(again);
    CHECK(ftruncate(again.get(), 4096) != 0);
}

TEST_CASE("holes punched into a read-write region harm no reader", "[shm][hostile]") {
    Result<Region, int> made = Region::create("chiru-test", 8192, PeerAccess::ReadWrite);
    REQUIRE(made);
    made->bytes()[5000] = std::byte{9};
    CHECK(fallocate(made->fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096) == 0);
    CHECK(made->bytes()[5000] == std::byte{0});  // zero again, no SIGBUS
}

TEST_CASE("a region that could shrink under its reader is refused", "[shm][hostile]") {
    UniqueFd unsealed(memfd_create("chiru-test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    REQUIRE(unsealed);
    REQUIRE(ftruncate(unsealed.get(), 4096) == 0);
    Result<Region, int> refused = Region::map(std::move(unsealed), 4096, MapAccess::ReadOnly);
    REQUIRE_FALSE(refused);
    CHECK(refused.error() == EPERM);

    UniqueFd grows_only(memfd_create("chiru-test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    REQUIRE(ftruncate(grows_only.get(), 4096) == 0);
    REQUIRE(fcntl(grows_only.get(), F_ADD_SEALS, F_SEAL_GROW) == 0);
    CHECK_FALSE(Region::map(std::move(grows_only), 4096, MapAccess::ReadOnly));
}

TEST_CASE("a region shorter than it is said to be is refused", "[shm][hostile]") {
    Result<Region, int> made = Region::create("chiru-test", 4096, PeerAccess::ReadWrite);
    REQUIRE(made);
    Result<Region, int> refused = Region::map(duplicate(*made), 4097, MapAccess::ReadOnly);
    REQUIRE_FALSE(refused);
    CHECK(refused.error() == EINVAL);
    CHECK(Region::map(duplicate(*made), 0, MapAccess::ReadOnly).error() == EINVAL);
}

TEST_CASE("a descriptor that is no memfd is refused", "[shm][hostile]") {
    int ends[2];
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    const UniqueFd writer(ends[1]);
    CHECK_FALSE(Region::map(UniqueFd(ends[0]), 4096, MapAccess::ReadOnly));
    CHECK_FALSE(Region::map(UniqueFd(open("/proc/self/exe", O_RDONLY | O_CLOEXEC)), 4096,
                            MapAccess::ReadOnly));
    CHECK_FALSE(Region::map(UniqueFd(), 4096, MapAccess::ReadOnly));
}

TEST_CASE("a region leaves no name behind and outlives its maker's descriptor", "[shm]") {
    Result<Region, int> made = Region::create("chiru-test", 4096, PeerAccess::ReadWrite);
    REQUIRE(made);
    made->close_fd();
    CHECK(made->fd() == -1);
    made->bytes()[0] = std::byte{3};
    const Region moved = std::move(*made);
    CHECK(moved.bytes()[0] == std::byte{3});
}

TEST_CASE("huge pages are used or refused, never half", "[shm]") {
    Result<Region, int> made =
        Region::create("chiru-test", 1, PeerAccess::ReadWrite, Pages::Huge);
    if (!made) {
        CHECK((made.error() == ENOMEM || made.error() == ENOSYS || made.error() == EINVAL ||
               made.error() == ENOSPC || made.error() == EPERM));
        return;
    }
    CHECK(made->bytes().size() == 2u << 20);
}
