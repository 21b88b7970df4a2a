// SPDX-License-Identifier: Apache-2.0
//
// The C library's own functions, behind ours of the same names. The library that answers
// socket() must not call its own socket() for its control connection, nor lock for it; whatever
// here speaks to the kernel goes through real().
#pragma once

#include <atomic>
#include <cstdio>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

namespace chiru::posix {

struct Real {
#define REAL(name) decltype(&::name) name;
#include "libclient/posix/real.def"
#undef REAL
};

extern Real real_functions;
extern std::atomic<bool> real_ready;
void find_real_functions();

/// Usable from the first instruction of the process on: a constructor of another library may
/// call us before ours ran.
inline const Real& real() {
    if (!real_ready.load(std::memory_order_acquire)) [[unlikely]] find_real_functions();
    return real_functions;
}

}  // namespace chiru::posix
