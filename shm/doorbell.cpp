// SPDX-License-Identifier: Apache-2.0
#include "shm/doorbell.hpp"

#include <unistd.h>

#include <cerrno>

namespace chiru::shm {

void DoorbellRinger::wake() const {
    const int saved = errno;  // we run inside a host program's calls
    const std::uint64_t one = 1;
    // The only failure is EAGAIN, a count at its limit: the consumer is awake by then.
    [[maybe_unused]] const ssize_t written = write(event_fd_, &one, sizeof one);
    errno = saved;
}

}  // namespace chiru::shm
