// SPDX-License-Identifier: Apache-2.0
//
// The listening end of the control socket: made in a folder that may have to be made too, instead
// of one a dead daemon left behind, but never instead of a living daemon's.
#pragma once

#include "base/result.hpp"
#include "shm/unique_fd.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <sys/types.h>

namespace chiru::daemon {

struct SocketAccess {
    std::uint32_t mode = 0600;
    std::optional<gid_t> group;
};

class ControlSocket {
public:
    /// The error is a sentence for the operator that says what to do.
    static Result<ControlSocket, std::string> open(const std::string& path,
                                                   const SocketAccess& access);
    ControlSocket(ControlSocket&&) = default;
    ControlSocket& operator=(ControlSocket&&) = delete;
    /// Removes the socket, if it is still this one, and the folder, if it was made for it.
    ~ControlSocket();

    int fd() const { return fd_.get(); }
    const std::string& path() const { return path_; }

private:
    ControlSocket() = default;

    shm::UniqueFd fd_;
    std::string path_;
    std::string made_folder_;  ///< empty: it was there
    dev_t device_ = 0;
    ino_t inode_ = 0;
};

}  // namespace chiru::daemon
