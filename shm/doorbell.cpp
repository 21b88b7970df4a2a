// SPDX-License-Identifier: Apache-2.0
#include "shm/doorbell.hpp"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace chiru::shm {

void DoorbellRinger::wake() const {
    const int saved = errno;  // we run inside a host program's calls
    const std::uint64_t one = 1;
    // Not write(), at which a host program's thread may be cancelled, with its lock held.
    // The only failure is EAGAIN, a count at its limit: the consumer is awake by then.
    [[maybe_unused]] const long written = syscall(SYS_write, event_fd_, &one, sizeof one);
    errno = saved;
}

Result<ClientDoorbell, int> make_client_doorbell() {
    ClientDoorbell doorbell;
    doorbell.ring.reset(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (!doorbell.ring) return std::unexpected(errno);
    doorbell.client.reset(epoll_create1(EPOLL_CLOEXEC));
    if (!doorbell.client) return std::unexpected(errno);
    epoll_event each_write{};
    each_write.events = EPOLLIN | EPOLLET;
    if (epoll_ctl(doorbell.client.get(), EPOLL_CTL_ADD, doorbell.ring.get(), &each_write) != 0)
        return std::unexpected(errno);
    return doorbell;
}

}  // namespace chiru::shm
