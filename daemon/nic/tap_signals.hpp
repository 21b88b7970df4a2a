// SPDX-License-Identifier: Apache-2.0
//
// DPDK's tap driver has the kernel send a real-time signal to the process for every frame that
// arrives, takes the first signal nobody uses, and only looks at its descriptor after one. That
// costs more than looking, interrupts our system calls, and once the queue of signals overflows
// the kernel sends SIGIO, which ends the process. We take it back: while the driver sets a
// queue up its signals are blocked; then they are turned off, and a driver that never saw a signal
// looks every time.
#pragma once

#include <csignal>

namespace chiru::daemon::nic {

/// Blocks real-time signals for as long as it lives.
class TapSignalsBlocked {
public:
    TapSignalsBlocked();
    ~TapSignalsBlocked();
    TapSignalsBlocked(const TapSignalsBlocked&) = delete;
    TapSignalsBlocked& operator=(const TapSignalsBlocked&) = delete;

private:
    sigset_t before_;
    sigset_t handled_before_;  ///< real-time signals that had a handler
};

/// Stops the signals of a descriptor that a driver opened; nothing for those that send none.
void silence_tap(int fd);

}  // namespace chiru::daemon::nic
