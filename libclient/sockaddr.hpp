// SPDX-License-Identifier: Apache-2.0
//
// Between the kernel's socket addresses and ours.
#pragma once

#include "base/address.hpp"

#include <sys/socket.h>

#include <optional>

namespace chiru::client {

/// Nothing if it is too short, or neither AF_INET nor AF_INET6. A mapped IPv4 address in a
/// sockaddr_in6 becomes the IPv4 address it stands for.
std::optional<Endpoint> from_sockaddr(const sockaddr* address, socklen_t bytes);

/// Writes as much as fits into *bytes bytes and sets *bytes to the whole length, as getsockname(2).
void to_sockaddr(const Endpoint& endpoint, sockaddr* address, socklen_t* bytes);

}  // namespace chiru::client
