// SPDX-License-Identifier: Apache-2.0
#include "libclient/sockaddr.hpp"

#include <netinet/in.h>

#include <algorithm>
#include <cstring>

namespace chiru::client {

std::optional<Endpoint> from_sockaddr(const sockaddr* address, socklen_t bytes) {
    if (address == nullptr || bytes < sizeof(sa_family_t)) return std::nullopt;
    if (address->sa_family == AF_INET && bytes >= sizeof(sockaddr_in)) {
        sockaddr_in v4;
        std::memcpy(&v4, address, sizeof v4);
        return Endpoint{IpAddress::v4(ntohl(v4.sin_addr.s_addr)), ntohs(v4.sin_port)};
    }
    if (address->sa_family == AF_INET6 && bytes >= sizeof(sockaddr_in6)) {
        sockaddr_in6 v6;
        std::memcpy(&v6, address, sizeof v6);
        IpAddress::Bytes raw;
        std::memcpy(raw.data(), &v6.sin6_addr, raw.size());
        return Endpoint{IpAddress(raw), ntohs(v6.sin6_port)};
    }
    return std::nullopt;
}

void to_sockaddr(const Endpoint& endpoint, sockaddr* address, socklen_t* bytes) {
    sockaddr_storage whole{};
    socklen_t length = 0;
    if (endpoint.address.is_v4()) {
        auto& v4 = reinterpret_cast<sockaddr_in&>(whole);
        v4.sin_family = AF_INET;
        v4.sin_port = htons(endpoint.port);
        v4.sin_addr.s_addr = htonl(endpoint.address.v4_bits());
        length = sizeof v4;
    } else {
        auto& v6 = reinterpret_cast<sockaddr_in6&>(whole);
        v6.sin6_family = AF_INET6;
        v6.sin6_port = htons(endpoint.port);
        std::memcpy(&v6.sin6_addr, endpoint.address.bytes().data(), 16);
        length = sizeof v6;
    }
    std::memcpy(address, &whole, std::min(length, *bytes));
    *bytes = length;
}

}  // namespace chiru::client
