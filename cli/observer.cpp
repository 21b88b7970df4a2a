// SPDX-License-Identifier: Apache-2.0
#include "cli/observer.hpp"

#include "shm/control.hpp"

#include <fcntl.h>
#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <string_view>
#include <utility>

namespace chiru::cli {
namespace {

std::string start_hint(const std::string& path) {
    return "no chirud answers at " + path +
           ".\nStart one (chirud --config FILE, or systemctl start chirud), or name another's "
           "socket with --socket or CHIRU_SOCKET.";
}

/// Who may connect, from the socket's own mode.
std::string permission_hint(const std::string& path) {
    std::string hint = "not allowed to connect to " + path + ".";
    struct stat status {};
    if (stat(path.c_str(), &status) != 0) return hint + " Try again as root.";
    const group* owner = getgrgid(status.st_gid);
    if ((status.st_mode & S_IWGRP) == 0 || status.st_gid == 0 || owner == nullptr)
        return hint + " It is for its owner alone: try again as root, or set control.group.";
    return hint + " It is for the group '" + owner->gr_name + "': usermod -aG " +
           owner->gr_name + " USER, then log in anew.";
}

std::string connect_error(int error, const std::string& path, Micros timeout) {
    switch (error) {
    case ENOENT:
    case ECONNREFUSED: return start_hint(path);
    case EACCES:
    case EPERM: return permission_hint(path);
    case EAGAIN:
        return "chirud at " + path + " takes no connections: none was accepted within " +
               std::to_string(timeout.count() / 1000) + " ms. It hangs or is overloaded.";
    case ENAMETOOLONG: return "the socket's path is too long: " + path;
    case EPROTOTYPE: return path + " is a socket, but not chirud's.";
    default: return "cannot connect to " + path + ": " + std::strerror(error) + ".";
    }
}

std::string plain_text(int error) {
    return error == EPROTO ? "the daemon speaks another version of the control protocol"
                           : std::string(std::strerror(error));
}

/// Maps what the daemon sent. `bytes` are its claims, which Region::map() checks.
Result<shm::Region, std::string> map_region(shm::UniqueFd fd, std::uint64_t bytes) {
    Result<shm::Region, int> region =
        shm::Region::map(std::move(fd), bytes, shm::MapAccess::ReadOnly);
    if (!region)
        return std::unexpected("cannot map the daemon's memory: " + plain_text(region.error()));
    region->close_fd();
    return std::move(*region);
}

Result<void, std::string> take_answer(Observed& observed, shm::Parcel& parcel) {
    const shm::ObserveReply& reply = parcel.message.observed;
    if (parcel.fds.empty()) return std::unexpected("the daemon's answer holds no memory");
    const std::size_t tables = parcel.fds.size() - 1;
    if (reply.shard_count > shm::kMaxShards || tables > reply.shard_count)
        return std::unexpected("the daemon's answer contradicts itself");
    Result<shm::Region, std::string> directory =
        map_region(std::move(parcel.fds[0]), reply.directory_bytes);
    if (!directory) return std::unexpected(directory.error());
    observed.directory = std::move(*directory);
    for (std::size_t shard = 0; shard < tables; ++shard) {
        Result<shm::Region, std::string> region =
            map_region(std::move(parcel.fds[shard + 1]), reply.tables_bytes[shard]);
        if (!region) return std::unexpected(region.error());
        observed.tables.push_back(std::move(*region));
    }
    return {};
}

Result<shm::Parcel, int> ask(int socket) {
    shm::Message request;
    request.type = shm::MessageType::Observe;
    request.sequence = 1;
    if (const int error = shm::send_message(socket, request); error != 0)
        return std::unexpected(error);
    Result<shm::Parcel, int> answer = shm::receive_message(socket);
    if (answer && answer->message.error != 0) return std::unexpected(answer->message.error);
    return answer;
}

/// The pid of whoever listens on the other end; 0 if the kernel does not tell.
pid_t listener_pid(int socket) {
    ucred peer{};
    socklen_t length = sizeof peer;
    return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 ? peer.pid : 0;
}

/// Takes the regions from a daemon that does not answer, by the names that they have in
/// /proc/<pid>/fd. Needs the right to look there: root's.
void take_from_proc(Observed& observed, pid_t pid) {
    namespace fs = std::filesystem;
    const fs::path folder = "/proc/" + std::to_string(pid) + "/fd";
    std::error_code error;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
        const std::string target = fs::read_symlink(entry.path(), error).string();
        const bool directory = target.starts_with("/memfd:chiru-directory");
        if (!directory && !target.starts_with("/memfd:chiru-tables")) continue;
        shm::UniqueFd fd(open(entry.path().c_str(), O_RDONLY | O_CLOEXEC));
        struct stat status {};
        if (!fd || fstat(fd.get(), &status) != 0) continue;
        Result<shm::Region, std::string> region =
            map_region(std::move(fd), static_cast<std::uint64_t>(status.st_size));
        if (!region) continue;
        if (directory) observed.directory = std::move(*region);
        else observed.tables.push_back(std::move(*region));
    }
}

Result<void, std::string> attach_view(Observed& observed) {
    Result<const shm::Directory*, std::string> directory =
        attach_directory(observed.directory.bytes());
    if (!directory) return std::unexpected(directory.error());
    observed.view.directory = *directory;
    for (const shm::Region& region : observed.tables) {
        Result<TablesView, std::string> tables = TablesView::attach(region.bytes());
        if (!tables) return std::unexpected(tables.error());
        observed.view.tables.push_back(*tables);
    }
    std::vector<TablesView>& tables = observed.view.tables;
    std::ranges::sort(tables, {}, &TablesView::shard);
    const auto twice = std::ranges::unique(tables, {}, &TablesView::shard);
    tables.erase(twice.begin(), twice.end());
    observed.view.daemon_answers = observed.daemon_answers;
    observed.view.now_us = monotonic_us();
    return {};
}

}  // namespace

std::int64_t monotonic_us() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1'000'000 + now.tv_nsec / 1000;
}

Result<Observed, std::string> observe(const std::string& socket_path, Micros timeout) {
    Observed observed;
    Result<shm::UniqueFd, int> socket = shm::connect_control(socket_path, timeout);
    if (!socket) return std::unexpected(connect_error(socket.error(), socket_path, timeout));
    observed.socket = std::move(*socket);

    Result<shm::Parcel, int> answer = ask(observed.socket.get());
    if (answer) {
        if (const auto taken = take_answer(observed, *answer); !taken)
            return std::unexpected(taken.error());
    } else if (answer.error() == EAGAIN) {
        observed.daemon_answers = false;
        const pid_t pid = listener_pid(observed.socket.get());
        take_from_proc(observed, pid);
        if (!observed.directory)
            return std::unexpected("chirud (pid " + std::to_string(pid) +
                                   ") does not answer. As root, its memory can be read without "
                                   "its help.");
    } else if (answer.error() == EPERM || answer.error() == EACCES) {
        return std::unexpected("chirud refuses observers of this user.");
    } else if (answer.error() == EPIPE) {
        return std::unexpected("chirud closed the connection: it is ending, or has no room for "
                               "another session.");
    } else {
        return std::unexpected("chirud refused: " + plain_text(answer.error()) + ".");
    }
    if (const auto attached = attach_view(observed); !attached)
        return std::unexpected(attached.error());
    return observed;
}

std::string tables_missing(const Observed& observed) {
    if (!observed.daemon_answers)
        return "chirud does not answer, and its tables cannot be read without it.";
    return "connections and neighbours are for root and the operators' group (control.group in "
           "the daemon's configuration).";
}

}  // namespace chiru::cli
