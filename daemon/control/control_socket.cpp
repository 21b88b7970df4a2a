// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/control_socket.hpp"

#include "daemon/control/clock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <thread>

namespace chiru::daemon {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr int kBacklog = 128;
constexpr Micros kLockPatience = 2s;

std::string reason(int error) { return std::generic_category().message(error); }

sockaddr_un address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(),
                std::min(path.size(), sizeof address.sun_path - 1));
    return address;
}

shm::UniqueFd seqpacket_socket() {
    return shm::UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

/// Makes way for a new socket. The error says who is in the way.
Result<void, std::string> clear_path(const std::string& path) {
    struct stat status {};
    if (lstat(path.c_str(), &status) != 0) {
        if (errno == ENOENT) return {};
        return std::unexpected(path + ": " + reason(errno));
    }
    if (!S_ISSOCK(status.st_mode))
        return std::unexpected(path + " is there and is not a socket; remove it, or choose "
                                      "another path with --socket or control.socket");
    const shm::UniqueFd probe = seqpacket_socket();
    const sockaddr_un address = address_of(path);
    const int error =
        connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0
            ? 0
            : errno;
    if (error == 0 || error == EAGAIN) {  // EAGAIN: it lives, and its queue is full
        ucred owner{};
        socklen_t length = sizeof owner;
        getsockopt(probe.get(), SOL_SOCKET, SO_PEERCRED, &owner, &length);
        const std::string pid = error == 0 ? " (pid " + std::to_string(owner.pid) + ")" : "";
        return std::unexpected("another chirud" + pid + " serves " + path +
                               "; stop it, or give this one a socket of its own with --socket");
    }
    if (error != ECONNREFUSED)
        return std::unexpected(path + " is another program's socket (" + reason(error) +
                               "); choose another path with --socket or control.socket");
    if (unlink(path.c_str()) != 0)
        return std::unexpected(path + ", left by a dead daemon, cannot be removed: " +
                               reason(errno));
    return {};
}

/// Held while one daemon looks for another and takes the path, which is done in a moment. Whoever
/// may read the folder can hold it longer.
Result<shm::UniqueFd, std::string> lock_folder(const std::string& folder) {
    shm::UniqueFd lock(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!lock) return std::unexpected(folder + " cannot be opened: " + reason(errno));
    const Instant deadline = monotonic_now() + kLockPatience;
    while (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK)
            return std::unexpected(folder + " cannot be locked: " + reason(errno));
        if (monotonic_now() >= deadline)
            return std::unexpected("another process holds a lock on " + folder + " (lslocks and "
                                   "fuser show which); end it, or choose another folder with "
                                   "--socket or control.socket");
        std::this_thread::sleep_for(10ms);
    }
    return lock;
}

}  // namespace

Result<ControlSocket, std::string> ControlSocket::open(const std::string& path,
                                                       const SocketAccess& access) {
    ControlSocket made;
    made.path_ = path;
    if (path.size() >= sizeof(sockaddr_un::sun_path))
        return std::unexpected(path + " is too long for a socket");
    const fs::path folder = fs::absolute(path).parent_path();
    std::error_code error;
    if (fs::create_directories(folder, error)) made.made_folder_ = folder;
    if (error)
        return std::unexpected("cannot make the folder " + folder.string() + " for the control "
                               "socket: " + error.message() + "; run as root, or choose a path "
                               "you may write with --socket");
    const Result<shm::UniqueFd, std::string> lock = lock_folder(folder);
    if (!lock) return std::unexpected(lock.error());
    if (const Result<void, std::string> clear = clear_path(path); !clear)
        return std::unexpected(clear.error());

    made.fd_ = seqpacket_socket();
    const sockaddr_un address = address_of(path);
    const mode_t mask = umask(0777);  // nobody connects before the permissions are right
    const bool bound = bind(made.fd(), reinterpret_cast<const sockaddr*>(&address),
                            sizeof address) == 0;
    const int bind_error = errno;
    umask(mask);
    if (!bound) return std::unexpected("cannot make " + path + ": " + reason(bind_error));
    struct stat status {};
    const gid_t group = access.group.value_or(static_cast<gid_t>(-1));
    if (lstat(path.c_str(), &status) != 0 ||
        chown(path.c_str(), static_cast<uid_t>(-1), group) != 0 ||
        chmod(path.c_str(), access.mode) != 0 || listen(made.fd(), kBacklog) != 0) {
        const int failed = errno;
        unlink(path.c_str());
        return std::unexpected("cannot set up " + path + ": " + reason(failed));
    }
    made.device_ = status.st_dev;
    made.inode_ = status.st_ino;
    return made;
}

ControlSocket::~ControlSocket() {
    if (!fd_) return;
    struct stat status {};
    if (lstat(path_.c_str(), &status) == 0 && status.st_dev == device_ &&
        status.st_ino == inode_)
        unlink(path_.c_str());
    if (!made_folder_.empty()) rmdir(made_folder_.c_str());  // fails if others use it: fine
}

}  // namespace chiru::daemon
