// SPDX-License-Identifier: Apache-2.0
//
// TCP_INFO, TCP_CONGESTION and TCP_MAXSEG from the stack's own record of a connection.
#pragma once

#include "libclient/posix/socket.hpp"

#include <sys/socket.h>

namespace chiru::posix {

/// All: 0 or a negative errno value, as getsockopt().
int get_tcp_info(Socket& socket, void* value, socklen_t* length);
int get_congestion(Socket& socket, void* value, socklen_t* length);
int get_path_mtu(Socket& socket, void* value, socklen_t* length);
int get_max_segment(Socket& socket, void* value, socklen_t* length);

}  // namespace chiru::posix
