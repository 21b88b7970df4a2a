// SPDX-License-Identifier: Apache-2.0
#include "shm/region.hpp"

#include <boost/interprocess/exceptions.hpp>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace chiru::shm {
namespace {

namespace bi = boost::interprocess;

constexpr std::size_t kNormalPage = 4096;
constexpr std::size_t kHugePage = 2u << 20;
constexpr unsigned kHuge2MiB = 21u << 26;  // MFD_HUGE_2MB, which glibc 2.36 does not define
constexpr int kSizeSeals = F_SEAL_SHRINK | F_SEAL_GROW;

/// What Boost.Interprocess wants to know of a thing it maps. It has shared_memory_object and
/// file_mapping for things with names; a memfd has none.
class MemfdMapping {
public:
    MemfdMapping(int fd, bi::mode_t mode) : fd_(fd), mode_(mode) {}
    bi::mapping_handle_t get_mapping_handle() const {
        return bi::ipcdetail::mapping_handle_from_file_handle(fd_);
    }
    bi::mode_t get_mode() const { return mode_; }

private:
    int fd_;
    bi::mode_t mode_;
};

Result<bi::mapped_region, int> map_fd(int fd, std::size_t bytes, bi::mode_t mode) {
    try {
        return bi::mapped_region(MemfdMapping(fd, mode), mode, 0, bytes);
    } catch (const bi::interprocess_exception& e) {
        return std::unexpected(e.get_native_error() != 0 ? e.get_native_error() : ENOMEM);
    }
}

}  // namespace

Result<Region, int> Region::create(const std::string& name, std::size_t bytes,
                                   PeerAccess peer_access, Pages pages) {
    const std::size_t page = pages == Pages::Huge ? kHugePage : kNormalPage;
    const std::size_t size = (bytes + page - 1) / page * page;
    const unsigned flags =
        MFD_CLOEXEC | MFD_ALLOW_SEALING | (pages == Pages::Huge ? MFD_HUGETLB | kHuge2MiB : 0u);
    Region region;
    region.fd_.reset(memfd_create(name.c_str(), flags));
    if (!region.fd_) return std::unexpected(errno);
    if (ftruncate(region.fd(), static_cast<off_t>(size)) != 0) return std::unexpected(errno);

    Result<bi::mapped_region, int> mapping = map_fd(region.fd(), size, bi::read_write);
    if (!mapping) return std::unexpected(mapping.error());
    region.mapping_ = std::move(*mapping);

    // After our own writable mapping, which FUTURE_WRITE leaves alone.
    const int seals = kSizeSeals | F_SEAL_SEAL |
                      (peer_access == PeerAccess::ReadOnly ? F_SEAL_FUTURE_WRITE : 0);
    if (fcntl(region.fd(), F_ADD_SEALS, seals) != 0) return std::unexpected(errno);
    return region;
}

Result<Region, int> Region::map(UniqueFd fd, std::size_t bytes, MapAccess access) {
    struct stat status {};
    if (fstat(fd.get(), &status) != 0) return std::unexpected(errno);
    if (bytes == 0 || status.st_size < 0 || static_cast<std::size_t>(status.st_size) < bytes)
        return std::unexpected(EINVAL);
    const int seals = fcntl(fd.get(), F_GET_SEALS);
    if (seals < 0) return std::unexpected(errno);
    if ((seals & kSizeSeals) != kSizeSeals) return std::unexpected(EPERM);

    Result<bi::mapped_region, int> mapping = map_fd(
        fd.get(), bytes, access == MapAccess::ReadOnly ? bi::read_only : bi::read_write);
    if (!mapping) return std::unexpected(mapping.error());
    Region region;
    region.fd_ = std::move(fd);
    region.mapping_ = std::move(*mapping);
    return region;
}

}  // namespace chiru::shm
