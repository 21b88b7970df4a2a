// SPDX-License-Identifier: Apache-2.0
//
// Between the program's sockaddr and our Endpoint.
#pragma once

#include "base/address.hpp"
#include "base/result.hpp"

#include <sys/socket.h>

namespace chiru::posix {

/// The endpoint that `address` names, for a socket of `family`: an AF_INET6 socket may name IPv4
/// by its mapped form. Errors are those of bind() and connect(): EINVAL, EAFNOSUPPORT.
Result<Endpoint, int> endpoint_of(const sockaddr* address, socklen_t length, int family);

/// Stores `endpoint` as a socket of `family` shows it, cut to `*length`, which becomes the full
/// length. Nothing happens if `address` is null.
void store_endpoint(const Endpoint& endpoint, int family, sockaddr* address, socklen_t* length);

}  // namespace chiru::posix
