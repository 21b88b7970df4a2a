// SPDX-License-Identifier: Apache-2.0
#include "libclient/posix/transfer.hpp"

#include "libclient/posix/real.hpp"
#include "libclient/posix/wait.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <vector>

namespace chiru::posix {

namespace {

constexpr std::size_t kFileChunk = client::kTxBlockBytes;
constexpr std::size_t kMostBytes = 0x7fff'f000;  // Linux's bound on one read() or write()

Deadline deadline_of(Micros timeout) {
    return timeout == Micros::zero() ? Deadline::never() : Deadline::in(timeout);
}

std::span<std::byte> bytes_of(const iovec& piece) {
    return {static_cast<std::byte*>(piece.iov_base), piece.iov_len};
}

std::size_t total_of(std::span<const iovec> pieces) {
    std::size_t total = 0;
    for (const iovec& piece : pieces) total += std::min(piece.iov_len, kMostBytes - total);
    return total;
}

/// 0 if the socket may carry data, or the errno value of a socket that cannot.
int usable(Process& process, Socket& socket) {
    if (socket.phase() == Phase::Live && socket.chiru() != nullptr) return 0;
    if (socket.phase() == Phase::Orphan)
        process.warn_once(process.warned_inherited,
                          "a connection of chiru's cannot be used by a forked child");
    return ENOTCONN;
}

/// Waits for some of `wanted` (of EPOLLIN and the like), or for the end: 0 or an errno value.
int wait_for(Guard& guard, Socket& socket, std::uint32_t wanted, const Deadline& deadline) {
    const Socket::Sleeper sleeper(socket);
    const int error = wait_until(guard.process(), guard, deadline, [&] {
        return socket.chiru() == nullptr || (socket.readiness() & (wanted | EPOLLERR)) != 0;
    });
    return socket.chiru() == nullptr ? EBADF : error;  // another thread closed it
}

/// One look: as many bytes as there are, into the pieces from `done` on.
Result<std::size_t, int> take(Socket& socket, std::span<const iovec> pieces, std::size_t done,
                              int flags) {
    client::Channel& channel = socket.channel();
    std::size_t skip = done;
    std::size_t taken = 0;
    for (const iovec& piece : pieces) {
        if (skip >= piece.iov_len) {
            skip -= piece.iov_len;
            continue;
        }
        const auto room = bytes_of(piece).subspan(skip);
        skip = 0;
        const bool peeks = (flags & MSG_PEEK) != 0;
        const bool copies = (flags & MSG_TRUNC) == 0;
        const std::size_t unread = socket.chiru()->unread_bytes();
        const auto got =
            peeks && !copies && unread > taken ? std::min(unread - taken, room.size())
            : peeks                            ? channel.peek(*socket.chiru(), room, taken)
            : copies                           ? channel.receive(*socket.chiru(), room)
                                               : channel.discard(*socket.chiru(), room.size());
        if (!got) {
            if (taken != 0) return taken;
            return got;
        }
        taken += *got;
        if (*got < room.size()) return taken;
    }
    return taken;
}

/// One go: as much as there is room for, of the pieces from `done` on.
Result<std::size_t, int> give(Socket& socket, std::span<const iovec> pieces, std::size_t done,
                              bool more) {
    std::size_t skip = done;
    std::size_t given = 0;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
        if (skip >= pieces[i].iov_len) {
            skip -= pieces[i].iov_len;
            continue;
        }
        const auto bytes = bytes_of(pieces[i]).subspan(skip);
        skip = 0;
        const bool last = i + 1 == pieces.size();
        const auto sent = socket.channel().send(*socket.chiru(), bytes, more || !last);
        if (!sent) {
            if (given != 0) return given;
            return sent;
        }
        given += *sent;
        if (*sent < bytes.size()) return given;
    }
    return given;
}

/// Waits for the end of the handshake: 0 or an errno value.
int finish_opening(Guard& guard, Socket& socket, const Deadline& deadline) {
    const Socket::Sleeper sleeper(socket);
    const int error = wait_until(guard.process(), guard, deadline, [&] {
        return socket.chiru() == nullptr ||
               socket.chiru()->state != client::SocketState::Connecting;
    });
    if (socket.chiru() == nullptr) return EBADF;  // another thread closed it
    return error != 0 ? error : socket.channel().take_error(*socket.chiru());
}

/// The one go whose bytes travel with a SYN: those of all pieces in one send.
Result<std::size_t, int> give_with_syn(Socket& socket, std::span<const iovec> pieces) {
    std::vector<std::byte> text;
    for (const iovec& piece : pieces) {
        const std::size_t room = socket.chiru()->syn_room - text.size();
        const auto bytes = bytes_of(piece);
        const auto some = bytes.first(std::min(room, bytes.size()));
        text.insert(text.end(), some.begin(), some.end());
    }
    return socket.channel().send(*socket.chiru(), text, false);
}

}  // namespace

ssize_t receive(Guard& guard, Socket& socket, std::span<const iovec> pieces, int flags) {
    Process& process = guard.process();
    if (const int error = usable(process, socket); error != 0) return -error;
    if ((flags & MSG_OOB) != 0) return -EINVAL;
    if ((flags & MSG_ERRQUEUE) != 0) return -EAGAIN;
    const std::size_t total = total_of(pieces);
    const bool waits = !socket.nonblocking() && (flags & MSG_DONTWAIT) == 0;
    const std::size_t least = std::min<std::size_t>(socket.options().receive_low_water(), total);
    const std::size_t wanted = !waits                         ? 1
                               : (flags & MSG_WAITALL) != 0 ? total
                                                            : std::max<std::size_t>(least, 1);
    const Deadline deadline = waits ? deadline_of(socket.options().receive_timeout())
                                    : Deadline::at_once();
    std::size_t done = 0;
    for (bool looked = false;;) {
        const bool peeks = (flags & MSG_PEEK) != 0;
        const bool enough = !peeks || wanted == 1 || socket.chiru()->unread_bytes() >= wanted ||
                            (socket.readiness() & EPOLLRDHUP) != 0;
        // Even a recv() of no bytes waits for some to be there.
        const bool there = total != 0 || (socket.readiness() & EPOLLIN) != 0;
        const auto got =
            enough && there ? take(socket, pieces, done, flags) : std::unexpected(EAGAIN);
        if (got) done += *got;
        if (got && (*got == 0 || done >= wanted || peeks)) return static_cast<ssize_t>(done);
        if (!got && got.error() != EAGAIN) return done != 0 ? static_cast<ssize_t>(done)
                                                            : -got.error();
        if (!looked) {
            process.process();
            looked = true;
            continue;
        }
        if (!waits) return done != 0 ? static_cast<ssize_t>(done) : -EAGAIN;
        const std::uint32_t had = socket.chiru()->unread_bytes();
        const Socket::Sleeper sleeper(socket);
        const int error = wait_until(process, guard, deadline, [&] {
            return socket.chiru() == nullptr ||
                   ((socket.readiness() & (EPOLLIN | EPOLLERR)) != 0 &&
                    (enough || socket.chiru()->unread_bytes() != had ||
                     (socket.readiness() & EPOLLRDHUP) != 0));
        });
        if (socket.chiru() == nullptr) return -EBADF;  // another thread closed it
        if (error != 0) return done != 0 ? static_cast<ssize_t>(done) : -error;
    }
}

ssize_t transmit(Guard& guard, Socket& socket, std::span<const iovec> pieces, int flags) {
    Process& process = guard.process();
    const Pin pin(socket);  // another thread may close it while this one waits
    if (const int error = usable(process, socket); error != 0)
        return socket.phase() == Phase::Orphan ? -error : -EPIPE;
    if ((flags & (MSG_OOB | MSG_FASTOPEN)) != 0) return -EOPNOTSUPP;
    const std::size_t total = total_of(pieces);
    const bool opens = socket.chiru()->state == client::SocketState::Connecting &&
                       socket.chiru()->syn_room != 0;
    if (total == 0 && !opens) {  // an end, or an error, is told to those who send nothing, too
        const auto sent = socket.channel().send(*socket.chiru(), {}, false);
        return sent ? 0 : -sent.error();
    }
    const bool waits = !socket.nonblocking() && (flags & MSG_DONTWAIT) == 0;
    const Deadline deadline = waits ? deadline_of(socket.options().send_timeout())
                                    : Deadline::at_once();
    std::size_t done = 0;
    int error = 0;
    if (opens) {
        const auto sent = give_with_syn(socket, pieces);
        if (sent) done = *sent;
        else if (sent.error() != EAGAIN) return -sent.error();
        socket.channel().flush();
        // A call that waits does so until the handshake is complete, and fails if it does.
        if (waits) error = finish_opening(guard, socket, deadline);
        if (error != 0) return error == EAGAIN ? static_cast<ssize_t>(done) : -error;
    }
    for (bool looked = false; done < total;) {
        const auto sent = give(socket, pieces, done, (flags & MSG_MORE) != 0);
        if (sent) {
            done += *sent;
            continue;
        }
        error = sent.error();
        if (error != EAGAIN) break;
        if (!looked) {
            process.process();
            looked = true;
            continue;
        }
        if (!waits) break;
        error = wait_for(guard, socket, EPOLLOUT | EPOLLHUP, deadline);
        if (error != 0) break;
        looked = false;
    }
    if (socket.chiru() != nullptr) socket.channel().flush();
    return done != 0 ? static_cast<ssize_t>(done) : -error;
}

ssize_t transmit_file(Guard& guard, Socket& socket, int file, off_t* offset, std::size_t bytes) {
    const off_t start = offset != nullptr ? *offset : ::lseek(file, 0, SEEK_CUR);
    if (start < 0) return offset != nullptr ? -EINVAL : -errno;
    const Pin pin(socket);  // the lock is away while the disk is read
    std::vector<std::byte> chunk(std::min(bytes, kFileChunk));
    std::size_t done = 0;
    ssize_t error = 0;
    while (done < bytes) {
        const std::size_t ask = std::min(bytes - done, chunk.size());
        ssize_t got = 0;
        {
            const Away away(guard);
            got = ::pread(file, chunk.data(), ask, start + static_cast<off_t>(done));
            if (got < 0) error = -errno;
        }
        if (got <= 0) break;
        if (socket.phase() == Phase::Live && socket.chiru() == nullptr) {
            error = -EBADF;  // another thread closed it
            break;
        }
        const iovec piece{.iov_base = chunk.data(), .iov_len = static_cast<std::size_t>(got)};
        const ssize_t sent = transmit(guard, socket, {&piece, 1}, 0);
        if (sent <= 0) {
            error = sent;
            break;
        }
        done += static_cast<std::size_t>(sent);
        if (sent < got) break;
    }
    const off_t end = start + static_cast<off_t>(done);
    if (offset != nullptr) *offset = end;
    else ::lseek(file, end, SEEK_SET);
    return done != 0 ? static_cast<ssize_t>(done) : error;
}

void raise_sigpipe() { ::raise(SIGPIPE); }

}  // namespace chiru::posix
