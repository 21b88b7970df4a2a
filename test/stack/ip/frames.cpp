// SPDX-License-Identifier: Apache-2.0
#include "test/stack/ip/frames.hpp"

#include "stack/wire/arp.hpp"
#include "stack/wire/checksum.hpp"
#include "stack/wire/icmpv4.hpp"
#include "stack/wire/icmpv6.hpp"
#include "stack/wire/ipv6.hpp"
#include "stack/wire/udp.hpp"

#include <cstring>

namespace chiru::test {

Bytes operator+(Bytes a, const Bytes& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

Bytes pattern(std::size_t bytes) {
    Bytes data(bytes);
    for (std::size_t i = 0; i < bytes; ++i) data[i] = static_cast<std::byte>(i * 7 + i / 256);
    return data;
}

Bytes ethernet(const Link& link, wire::EtherType type, const Bytes& payload) {
    if (link.vlan == 0)
        return as_bytes(wire::EthernetHeader{link.to, link.from,
                                             static_cast<std::uint16_t>(type)}) +
               payload;
    return as_bytes(wire::EthernetHeader{link.to, link.from, std::uint16_t{0x8100}}) +
           as_bytes(wire::VlanTag{link.vlan, static_cast<std::uint16_t>(type)}) + payload;
}

Bytes ipv4(const V4& fields, const Bytes& payload) {
    wire::Ipv4Header header;
    const std::size_t header_bytes = sizeof header + fields.options.size();
    header.version_length = static_cast<std::uint8_t>(0x40 | header_bytes / 4);
    header.tos = fields.tos;
    header.total_length = static_cast<std::uint16_t>(header_bytes + payload.size());
    header.id = fields.id;
    header.fragment = static_cast<std::uint16_t>(fields.offset / 8 |
                                                 (fields.more ? wire::kIpv4MoreFragments : 0));
    header.ttl = fields.ttl;
    header.protocol = static_cast<std::uint8_t>(fields.protocol);
    header.source = fields.source.v4_bits();
    header.destination = fields.destination.v4_bits();
    Bytes bytes = as_bytes(header) + fields.options;
    const be16 checksum = wire::checksum(bytes);
    std::memcpy(bytes.data() + offsetof(wire::Ipv4Header, checksum), &checksum, 2);
    return bytes + payload;
}

Bytes ipv6(const V6& fields, const Bytes& payload) {
    const wire::Ipv6Header header{.version_class_flow =
                                      0x6000'0000u | std::uint32_t{fields.traffic_class} << 20,
                                  .payload_length = static_cast<std::uint16_t>(payload.size()),
                                  .next_header = static_cast<std::uint8_t>(fields.next),
                                  .hop_limit = fields.hop_limit,
                                  .source = fields.source,
                                  .destination = fields.destination};
    return as_bytes(header) + payload;
}

Bytes fragment_header(wire::Protocol next, std::size_t offset, bool more, std::uint32_t id) {
    return as_bytes(wire::FragmentHeader{
        .next_header = static_cast<std::uint8_t>(next),
        .offset_flags = static_cast<std::uint16_t>(offset | (more ? 1 : 0)),
        .id = id});
}

Bytes echo_request_v4(std::uint16_t id, const Bytes& data) {
    Bytes bytes = as_bytes(wire::Icmpv4Header{.type = 8, .word0 = id, .word1 = std::uint16_t{1}}) +
                  data;
    const be16 checksum = wire::checksum(bytes);
    std::memcpy(bytes.data() + 2, &checksum, 2);
    return bytes;
}

Bytes icmpv6(const IpAddress& source, const IpAddress& destination, const Bytes& message) {
    Bytes bytes = message;
    wire::ChecksumSum sum = wire::pseudo_header(source, destination, 58, bytes.size());
    sum.add(bytes);
    const be16 checksum = sum.checksum();
    std::memcpy(bytes.data() + 2, &checksum, 2);
    return bytes;
}

Bytes echo_request_v6(const IpAddress& source, const IpAddress& destination, const Bytes& data) {
    return icmpv6(source, destination,
                  as_bytes(wire::Icmpv6Header{.type = 128, .word = 0x1234'0001u}) + data);
}

Bytes udp_datagram(const IpAddress& source, const IpAddress& destination, std::uint16_t port,
          const Bytes& data) {
    wire::UdpHeader header;
    header.source_port = std::uint16_t{4000};
    header.destination_port = port;
    header.length = static_cast<std::uint16_t>(sizeof header + data.size());
    Bytes bytes = as_bytes(header) + data;
    wire::ChecksumSum sum = wire::pseudo_header(source, destination, 17, bytes.size());
    sum.add(bytes);
    const be16 checksum = sum.checksum();
    std::memcpy(bytes.data() + 6, &checksum, 2);
    return bytes;
}

Bytes arp(bool request, const MacAddress& sender, const IpAddress& sender_ip,
          const MacAddress& target, const IpAddress& target_ip) {
    return as_bytes(wire::arp_packet(
        request ? wire::ArpOperation::Request : wire::ArpOperation::Reply, sender, sender_ip,
        target, target_ip));
}

}  // namespace chiru::test
