// SPDX-License-Identifier: Apache-2.0
//
// Which descriptors a driver opened. DPDK's software drivers sit on sockets and tap descriptors
// that could wake a sleeping shard, but most of them do not hand these out. So we look at
// what is open before and after.
#pragma once

#include <cstdint>
#include <set>
#include <vector>

namespace chiru::daemon::nic {

/// Everything this process has open now.
std::set<int> open_fds();

/// Those of `after` that are not in `before` and can wake a reader of frames: tap descriptors,
/// AF_PACKET and AF_XDP sockets. In the order in which they were opened, as long as nobody else
/// closes descriptors meanwhile.
std::vector<int> frame_fds(const std::set<int>& before, const std::set<int>& after);

bool is_tap_fd(int fd);

}  // namespace chiru::daemon::nic
