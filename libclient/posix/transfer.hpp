// SPDX-License-Identifier: Apache-2.0
//
// Moving bytes through a socket of chiru's, with all that MSG_ flags, timeouts and signals ask.
#pragma once

#include "libclient/posix/process.hpp"
#include "libclient/posix/socket.hpp"

#include <cstddef>
#include <span>

#include <sys/types.h>
#include <sys/uio.h>

namespace chiru::posix {

/// Bytes received, 0 at the end of data, or a negative errno value.
ssize_t receive(Guard& guard, Socket& socket, std::span<const iovec> pieces, int flags);

/// Bytes taken over, or a negative errno value; -EPIPE wants a SIGPIPE (see raise_sigpipe).
ssize_t transmit(Guard& guard, Socket& socket, std::span<const iovec> pieces, int flags);

/// Copies from a file that the kernel reads; `offset` null: from its position, which moves.
ssize_t transmit_file(Guard& guard, Socket& socket, int file, off_t* offset, std::size_t bytes);

/// As the kernel does it for a write() to a connection that is over. Without the lock.
void raise_sigpipe();

}  // namespace chiru::posix
