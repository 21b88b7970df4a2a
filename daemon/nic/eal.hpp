// SPDX-License-Identifier: Apache-2.0
//
// DPDK's environment layer, started so that it keeps out of everybody's way: no files in /run or
// on hugetlbfs, no telemetry socket, no thread pinned, nothing printed. Several daemons on one
// machine never meet.
#pragma once

#include "base/result.hpp"
#include "daemon/nic/log.hpp"

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace chiru::daemon::nic {

struct EalSetup {
    bool hugepages = false;
    std::size_t memory_bytes = 0;          ///< for DPDK itself; used without hugepages only
    std::vector<std::string> pci_devices;  ///< addresses; none: the PCI bus is not looked at
    LogSink log;
};

/// Once in the life of a process. The calling thread keeps its CPU affinity and signal mask.
Result<void, std::string> start_eal(const EalSetup& setup);
void stop_eal();

/// Bytes in free 2 MiB hugepages.
std::size_t free_hugepage_bytes();

/// Is `device` a PCI address ("0000:03:00.0", "03:00.0", either with ",key=value" behind)? Else it
/// is an EAL vdev string.
bool is_pci_device(const std::string& device);

/// Makes memory that is not DPDK's known to it, so that devices may be told of it. Returns an errno
/// value on failure.
Result<void, int> register_memory(std::span<std::byte> memory);
void unregister_memory(std::span<std::byte> memory);

/// For a thread of ours that will touch packet buffers: gives it DPDK's per-thread caches. Returns
/// whether that worked; without, everything works, only slower.
bool register_thread();
void unregister_thread();

}  // namespace chiru::daemon::nic
