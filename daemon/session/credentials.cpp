// SPDX-License-Identifier: Apache-2.0
#include "daemon/session/credentials.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace chiru::daemon {

bool Credentials::in_group(std::uint32_t group) const {
    return gid == group || std::find(groups.begin(), groups.end(), group) != groups.end();
}

Result<Credentials, int> peer_credentials(int socket) {
    ucred who{};
    socklen_t length = sizeof who;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &who, &length) != 0)
        return std::unexpected(errno);
    Credentials peer{.pid = who.pid, .uid = who.uid, .gid = who.gid, .groups = {}};
    length = 0;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, nullptr, &length) != 0 && errno == ERANGE) {
        peer.groups.resize(length / sizeof(gid_t));
        if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, peer.groups.data(), &length) != 0)
            return std::unexpected(errno);
    }
    return peer;
}

}  // namespace chiru::daemon
