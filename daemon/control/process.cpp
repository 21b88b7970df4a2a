// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/process.hpp"

#include <grp.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

#include <csignal>

namespace chiru::daemon {

shm::UniqueFd take_over_signals() {
    std::signal(SIGPIPE, SIG_IGN);
    sigset_t taken;
    sigemptyset(&taken);
    for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&taken, signal);
    pthread_sigmask(SIG_BLOCK, &taken, nullptr);
    return shm::UniqueFd(signalfd(-1, &taken, SFD_NONBLOCK | SFD_CLOEXEC));
}

void raise_descriptor_limit() {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

std::uint64_t random_64() {
    std::uint64_t value = 0;
    while (getrandom(&value, sizeof value, 0) != sizeof value) {
    }
    return value;
}

SipKey random_key() { return {.k0 = random_64(), .k1 = random_64()}; }

SocketAccess socket_access(const ControlSettings& settings) {
    SocketAccess access;
    access.mode = settings.mode.value_or(settings.group.empty() ? 0600 : 0660);
    if (const group* operators =
            settings.group.empty() ? nullptr : getgrnam(settings.group.c_str()))
        access.group = operators->gr_gid;
    return access;
}

}  // namespace chiru::daemon
