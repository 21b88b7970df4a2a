// SPDX-License-Identifier: Apache-2.0
//
// Which addresses are chiru's. What the daemon's interfaces own or route is; all else is the
// kernel's, and costs the program nothing.
//
//   bind     an own address -> chiru; 0.0.0.0 or :: -> both stacks; else the kernel
//   connect  an own address, or one that a chiru interface routes (longest prefix, a default
//            route included) -> chiru; else the kernel
//
// Loopback is the kernel's unless a switch gives it to chiru, for test suites that talk to
// themselves over 127.0.0.1. Link-local IPv6 destinations and multicast stay with the kernel:
// they mean nothing without an interface, which a TCP program names in kernel terms.
#pragma once

#include "base/address.hpp"
#include "shm/directory.hpp"

#include <cstdint>
#include <vector>

namespace chiru::posix {

enum class Stack : std::uint8_t { Kernel, Chiru, Both };

class Policy {
public:
    explicit Policy(bool loopback = false) : loopback_(loopback) {}

    /// Takes over the daemon's interfaces, if they changed since the last call.
    void refresh(const shm::Directory& directory);
    void refresh(const std::vector<shm::InterfaceInfo>& interfaces);
    /// Without a daemon, everything is the kernel's.
    void forget();

    Stack for_bind(const IpAddress& address) const;
    Stack for_connect(const IpAddress& address) const;
    /// Which of chiru's interfaces has this address, counted from 1; 0: none.
    std::uint16_t interface_of(const IpAddress& address) const;

private:
    bool owns(const IpAddress& address) const;

    bool loopback_;
    bool known_ = false;
    std::uint32_t seen_ = 0;  ///< Directory::interfaces_changed of what is below
    std::vector<IpAddress> own_;
    std::vector<std::uint16_t> own_interface_;  ///< of each of those, from 1
    std::vector<IpPrefix> routed_;
};

}  // namespace chiru::posix
