// SPDX-License-Identifier: Apache-2.0
#include "libclient/posix/address.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <netinet/in.h>

namespace chiru::posix {

Result<Endpoint, int> endpoint_of(const sockaddr* address, socklen_t length, int family) {
    if (address == nullptr || length < sizeof(sa_family_t)) return std::unexpected(EINVAL);
    sa_family_t named = AF_UNSPEC;
    std::memcpy(&named, &address->sa_family, sizeof named);
    if (named != family) return std::unexpected(EAFNOSUPPORT);
    if (family == AF_INET) {
        if (length < sizeof(sockaddr_in)) return std::unexpected(EINVAL);
        sockaddr_in v4;
        std::memcpy(&v4, address, sizeof v4);
        return Endpoint{IpAddress::v4(ntohl(v4.sin_addr.s_addr)), ntohs(v4.sin_port)};
    }
    constexpr socklen_t kShortest = offsetof(sockaddr_in6, sin6_scope_id);  // RFC 2133's
    if (length < kShortest) return std::unexpected(EINVAL);
    sockaddr_in6 v6{};
    std::memcpy(&v6, address, std::min<std::size_t>(length, sizeof v6));
    IpAddress::Bytes bytes;
    std::memcpy(bytes.data(), &v6.sin6_addr, bytes.size());
    return Endpoint{IpAddress(bytes), ntohs(v6.sin6_port)};
}

void store_endpoint(const Endpoint& endpoint, int family, sockaddr* address, socklen_t* length) {
    if (address == nullptr || length == nullptr) return;
    sockaddr_storage whole{};
    socklen_t bytes = sizeof(sockaddr_in);
    if (family == AF_INET) {
        sockaddr_in v4{};
        v4.sin_family = AF_INET;
        v4.sin_port = htons(endpoint.port);
        v4.sin_addr.s_addr = htonl(endpoint.address.v4_bits());
        std::memcpy(&whole, &v4, sizeof v4);
    } else {
        sockaddr_in6 v6{};
        v6.sin6_family = AF_INET6;
        v6.sin6_port = htons(endpoint.port);
        std::memcpy(&v6.sin6_addr, endpoint.address.bytes().data(), 16);
        std::memcpy(&whole, &v6, sizeof v6);
        bytes = sizeof v6;
    }
    std::memcpy(address, &whole, std::min(*length, bytes));
    *length = bytes;
}

}  // namespace chiru::posix
