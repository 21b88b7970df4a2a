// SPDX-License-Identifier: Apache-2.0
//
// Who is at the other end of a control socket, as the kernel knows it. Nothing a peer says about
// itself is used.
#pragma once

#include "base/result.hpp"

#include <cstdint>
#include <vector>

namespace chiru::daemon {

struct Credentials {
    std::int32_t pid = 0;
    std::uint32_t uid = ~0u;
    std::uint32_t gid = ~0u;
    std::vector<std::uint32_t> groups;  ///< supplementary ones

    bool in_group(std::uint32_t group) const;
};

/// Of the process that connected, at that time. Returns an errno value on failure.
Result<Credentials, int> peer_credentials(int socket);

}  // namespace chiru::daemon
