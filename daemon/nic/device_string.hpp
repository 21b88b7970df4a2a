// SPDX-License-Identifier: Apache-2.0
//
// A port's device string, as the operator wrote it and as DPDK needs it: what follows from the
// rest of the configuration is filled in, and what cannot work is said before a driver
// fails with a number.
#pragma once

#include "base/result.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace chiru::daemon::nic {

/// "net_tap0" of "net_tap0,iface=x": what DPDK calls the device.
std::string device_name(const std::string& device);

/// The value of `key` in the device string.
std::optional<std::string> device_argument(const std::string& device, const std::string& key);

/// How many receive queues the kernel's interface has that the device string names.
std::size_t kernel_receive_queues(const std::string& device);

/// Adds what the driver needs for this many queues and this MTU, unless the operator said it.
std::string complete_device(const std::string& device, std::uint16_t queues, std::uint16_t mtu);

/// A sentence about an argument that does not go with this MTU, or nothing.
std::optional<std::string> argument_trouble(const std::string& device, std::uint16_t mtu);

/// A sentence about what is missing on this machine (the tap device, the interface, the PCI
/// device or its driver), or nothing.
std::optional<std::string> missing_on_this_machine(const std::string& device);

/// A memif server that was killed leaves its socket file, and the driver would refuse to start
/// beside it. Removes the file if nobody accepts there.
void remove_stale_socket(const std::string& device);

}  // namespace chiru::daemon::nic
