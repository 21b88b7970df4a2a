// SPDX-License-Identifier: Apache-2.0
#include "daemon/nic/memif_guard.hpp"

#include <csignal>

namespace chiru::daemon::nic {

thread_local sigjmp_buf* memif_fault_exit = nullptr;

namespace {

void leave_burst(int signal) {
    if (memif_fault_exit != nullptr) siglongjmp(*memif_fault_exit, 1);
    std::signal(signal, SIG_DFL);  // a fault of our own: it repeats, and ends the process
}

}  // namespace

void install_memif_guard() {
    struct sigaction action {};
    action.sa_handler = leave_burst;
    action.sa_flags = SA_NODEFER;  // the jump out of the handler leaves the mask as it is
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);
}

}  // namespace chiru::daemon::nic
