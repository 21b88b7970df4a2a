// SPDX-License-Identifier: Apache-2.0
//
// Survives the end of a memif peer. DPDK's driver unmaps the shared rings in its own thread when
// the peer's socket closes, whatever a shard is doing with them; and it follows what the peer
// wrote into them. So a burst can fault at any access to the rings. It holds no lock there and has
// nothing half done that matters: the fault ends the burst, and not the daemon.
#pragma once

#include <csetjmp>

namespace chiru::daemon::nic {

/// Once a process, before the first call of guarded().
void install_memif_guard();

/// Where a fault of this thread goes; nullptr: where faults always go.
extern thread_local sigjmp_buf* memif_fault_exit;

/// Runs `burst`, and returns false if it was cut short by a fault. Whatever `burst` writes it
/// writes through references, and nothing in it needs a destructor.
template <class Burst>
bool guarded(Burst&& burst) {
    sigjmp_buf exit;
    if (sigsetjmp(exit, 0) != 0) {
        memif_fault_exit = nullptr;
        return false;
    }
    memif_fault_exit = &exit;
    burst();
    memif_fault_exit = nullptr;
    return true;
}

}  // namespace chiru::daemon::nic
