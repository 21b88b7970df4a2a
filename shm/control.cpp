// SPDX-License-Identifier: Apache-2.0
#include "shm/control.hpp"

#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace chiru::shm {
namespace {

constexpr std::size_t kFdBytes = kMaxMessageFds * sizeof(int);

}  // namespace

int send_message(int socket, const Message& message, const std::vector<int>& fds) {
    if (fds.size() > kMaxMessageFds) return EINVAL;
    iovec payload{const_cast<Message*>(&message), sizeof message};
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kFdBytes)> control{};
    msghdr header{};
    header.msg_iov = &payload;
    header.msg_iovlen = 1;
    if (!fds.empty()) {
        header.msg_control = control.data();
        header.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
        cmsghdr* rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
        std::memcpy(CMSG_DATA(rights), fds.data(), fds.size() * sizeof(int));
    }
    ssize_t sent = -1;
    do {
        sent = sendmsg(socket, &header, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? errno : 0;
}

namespace {

Result<Parcel, int> receive(int socket, std::span<std::byte> control) {
    Parcel parcel;
    iovec payload{&parcel.message, sizeof parcel.message};
    msghdr header{};
    header.msg_iov = &payload;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    ssize_t received = -1;
    do {
        received = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
    } while (received < 0 && errno == EINTR);
    if (received < 0) return std::unexpected(errno == ECONNRESET ? EPIPE : errno);
    for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr;
         part = CMSG_NXTHDR(&header, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
        const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count; ++i) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof fd);
            parcel.fds.emplace_back(fd);
        }
    }
    if (received == 0) return std::unexpected(EPIPE);
    const bool whole = static_cast<std::size_t>(received) == sizeof parcel.message &&
                       (header.msg_flags & MSG_TRUNC) == 0;
    if (!whole || parcel.message.version != kControlVersion) return std::unexpected(EPROTO);
    // The kernel leaves out what there is no room for, and what RLIMIT_NOFILE forbids.
    parcel.fds_lost = (header.msg_flags & MSG_CTRUNC) != 0;
    if (parcel.fds_lost && parcel.fds.size() == kMaxMessageFds) return std::unexpected(EPROTO);
    return parcel;
}

}  // namespace

Result<Parcel, int> receive_message(int socket) {
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kFdBytes)> control{};
    return receive(socket, control);
}

Result<Parcel, int> receive_request(int socket) {
    Result<Parcel, int> request = receive(socket, {});
    if (request && request->fds_lost) return std::unexpected(EPROTO);
    return request;
}

Result<UniqueFd, int> connect_control(const std::string& path, Micros timeout) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) return std::unexpected(ENAMETOOLONG);
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    if (!socket) return std::unexpected(errno);
    timeval wait{};
    wait.tv_sec = timeout.count() / 1'000'000;
    wait.tv_usec = timeout.count() % 1'000'000;
    for (const int direction : {SO_SNDTIMEO, SO_RCVTIMEO})  // zero: none
        if (setsockopt(socket.get(), SOL_SOCKET, direction, &wait, sizeof wait) != 0)
            return std::unexpected(errno);
    if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return std::unexpected(errno);
    return socket;
}

std::string control_socket_path(const std::string& given) {
    if (!given.empty()) return given;
    const char* chosen = std::getenv("CHIRU_SOCKET");
    return chosen != nullptr && *chosen != '\0' ? chosen : kDefaultControlSocket;
}

}  // namespace chiru::shm
