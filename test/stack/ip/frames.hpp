// SPDX-License-Identifier: Apache-2.0
//
// Frames for tests, built and taken apart field by field.
#pragma once

#include "base/address.hpp"
#include "stack/wire/ethernet.hpp"
#include "stack/wire/ipv4.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace chiru::test {

using Bytes = std::vector<std::byte>;

template <class T>
Bytes as_bytes(const T& value) {
    const auto view = std::as_bytes(std::span(&value, 1));
    return {view.begin(), view.end()};
}
Bytes operator+(Bytes a, const Bytes& b);
Bytes pattern(std::size_t bytes);

inline IpAddress ip(const char* text) { return *IpAddress::parse(text); }
inline MacAddress mac(std::uint8_t last) { return {{0x02, 0, 0, 0, 0, last}}; }

struct Link {
    MacAddress from;
    MacAddress to;
    std::uint16_t vlan = 0;
};

Bytes ethernet(const Link& link, wire::EtherType type, const Bytes& payload);

struct V4 {
    IpAddress source;
    IpAddress destination;
    wire::Protocol protocol{};
    std::uint16_t id = 1;
    std::size_t offset = 0;
    bool more = false;
    Bytes options{};
    std::uint8_t ttl = 64;
    std::uint8_t tos = 0;
};
Bytes ipv4(const V4& fields, const Bytes& payload);

struct V6 {
    IpAddress source;
    IpAddress destination;
    wire::Protocol next{};
    std::uint8_t hop_limit = 64;
    std::uint8_t traffic_class = 0;
};
Bytes ipv6(const V6& fields, const Bytes& payload);
Bytes fragment_header(wire::Protocol next, std::size_t offset, bool more, std::uint32_t id);

/// With checksums; for IPv6 over the pseudo header of the two addresses.
Bytes echo_request_v4(std::uint16_t id, const Bytes& data);
Bytes icmpv6(const IpAddress& source, const IpAddress& destination, const Bytes& message);
Bytes echo_request_v6(const IpAddress& source, const IpAddress& destination, const Bytes& data);
Bytes udp_datagram(const IpAddress& source, const IpAddress& destination, std::uint16_t port,
          const Bytes& data);
Bytes arp(bool request, const MacAddress& sender, const IpAddress& sender_ip,
          const MacAddress& target, const IpAddress& target_ip);

/// The part of `bytes` from `at` on, as a header.
template <class T>
T header_at(const Bytes& bytes, std::size_t at) {
    return read_header<T>(std::span(bytes).subspan(at)).value();
}

}  // namespace chiru::test
