// SPDX-License-Identifier: Apache-2.0
//
// Is somebody there at the other end of a memif, as server? DPDK's driver, as client, connects
// once, when the device is started; it fails if nobody listens, and blocks in connect() if the
// server's queue is full because the server hangs. So a probe goes first, which never blocks: it
// connects, and the server's hello, which every server sends unasked, is the answer.
#pragma once

#include "base/time.hpp"
#include "shm/unique_fd.hpp"

#include <string>

namespace chiru::daemon::nic {

class MemifProbe {
public:
    /// For a device string of net_memif.
    explicit MemifProbe(const std::string& device);

    /// Is the device a client's end, so that there is somebody to look for?
    bool is_client() const { return is_client_; }

    /// Has a server answered? Call now and then: each call goes on from where the one before left
    /// off. Waits at most `patience` for the answer.
    bool answered(Micros patience = Micros(0));

private:
    bool knock();

    bool is_client_ = false;
    bool is_abstract_ = false;  ///< the socket's name is in no file system
    std::string path_;
    shm::UniqueFd socket_;
};

}  // namespace chiru::daemon::nic
