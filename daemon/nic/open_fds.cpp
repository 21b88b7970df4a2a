// SPDX-License-Identifier: Apache-2.0
#include "daemon/nic/open_fds.hpp"

#include <dirent.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <string>
#include <string_view>

namespace chiru::daemon::nic {
namespace {

bool is_frame_socket(int fd) {
    int domain = 0;
    socklen_t length = sizeof domain;
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 &&
           (domain == AF_PACKET || domain == AF_XDP);
}

}  // namespace

std::set<int> open_fds() {
    std::set<int> fds;
    DIR* directory = opendir("/proc/self/fd");
    if (directory == nullptr) return fds;
    const int own = dirfd(directory);
    while (const dirent* entry = readdir(directory)) {
        if (entry->d_name[0] == '.') continue;
        const int fd = std::atoi(entry->d_name);
        if (fd != own) fds.insert(fd);
    }
    closedir(directory);
    return fds;
}

bool is_tap_fd(int fd) {
    std::array<char, 64> target{};
    const std::string link = "/proc/self/fd/" + std::to_string(fd);
    const ssize_t length = readlink(link.c_str(), target.data(), target.size());
    return length > 0 &&
           std::string_view(target.data(), static_cast<std::size_t>(length)) == "/dev/net/tun";
}

std::vector<int> frame_fds(const std::set<int>& before, const std::set<int>& after) {
    std::vector<int> found;
    for (const int fd : after)
        if (!before.contains(fd) && (is_tap_fd(fd) || is_frame_socket(fd))) found.push_back(fd);
    return found;
}

}  // namespace chiru::daemon::nic
