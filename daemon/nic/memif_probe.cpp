// SPDX-License-Identifier: Apache-2.0
#include "daemon/nic/memif_probe.hpp"

#include "daemon/nic/device_string.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <cstring>
#include <ctime>

namespace chiru::daemon::nic {
namespace {

// The driver's own defaults.
constexpr const char* kDefaultSocket = "/run/memif.sock";

}  // namespace

MemifProbe::MemifProbe(const std::string& device) {
    if (!device.starts_with("net_memif")) return;
    const std::string role = device_argument(device, "role").value_or("client");
    is_client_ = role == "client" || role == "slave";
    is_abstract_ = device_argument(device, "socket-abstract").value_or("yes") == "yes";
    path_ = device_argument(device, "socket").value_or(kDefaultSocket);
}

bool MemifProbe::knock() {
    sockaddr_un address{};
    const std::size_t skipped = is_abstract_ ? 1 : 0;
    if (path_.empty() || path_.size() + skipped >= sizeof address.sun_path) return false;
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + skipped, path_.data(), path_.size());
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path_.size() + 1);
    socket_.reset(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0)
        return true;
    socket_.reset();  // nobody is there, or too many wait already: whoever is there hangs
    return false;
}

bool MemifProbe::answered(Micros patience) {
    if (!socket_ && !knock()) return false;
    pollfd hello{.fd = socket_.get(), .events = POLLIN, .revents = 0};
    const timespec timeout{.tv_sec = patience.count() / 1'000'000,
                           .tv_nsec = patience.count() % 1'000'000 * 1000};
    if (ppoll(&hello, 1, &timeout, nullptr) != 1) return false;  // it may come yet
    char first = 0;
    const bool greeted = recv(socket_.get(), &first, 1, 0) == 1;
    socket_.reset();
    return greeted;
}

}  // namespace chiru::daemon::nic
