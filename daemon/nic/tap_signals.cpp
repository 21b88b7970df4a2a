// SPDX-License-Identifier: Apache-2.0
#include "daemon/nic/tap_signals.hpp"

#include <fcntl.h>

namespace chiru::daemon::nic {
namespace {

bool has_handler(int signal) {
    struct sigaction action {};
    return sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_DFL &&
           action.sa_handler != SIG_IGN;
}

}  // namespace

TapSignalsBlocked::TapSignalsBlocked() {
    sigset_t realtime;
    sigemptyset(&realtime);
    sigemptyset(&handled_before_);
    for (int signal = SIGRTMIN; signal <= SIGRTMAX; ++signal) {
        sigaddset(&realtime, signal);
        if (has_handler(signal)) sigaddset(&handled_before_, signal);
    }
    pthread_sigmask(SIG_BLOCK, &realtime, &before_);
}

TapSignalsBlocked::~TapSignalsBlocked() {
    for (int signal = SIGRTMIN; signal <= SIGRTMAX; ++signal)
        if (has_handler(signal) && sigismember(&handled_before_, signal) == 0) {
            struct sigaction ignore {};
            ignore.sa_handler = SIG_IGN;  // and what is pending is forgotten
            sigaction(signal, &ignore, nullptr);
        }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

void silence_tap(int fd) {
    const int flags = fcntl(fd, F_GETFL);
    if (flags >= 0 && (flags & O_ASYNC) != 0) fcntl(fd, F_SETFL, flags & ~O_ASYNC);
}

}  // namespace chiru::daemon::nic
