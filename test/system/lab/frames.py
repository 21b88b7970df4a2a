# SPDX-License-Identifier: Apache-2.0
"""Frames by hand, right or wrong in one place: every field can be given."""
import ipaddress
import struct

IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
ICMP, TCP, UDP, FRAGMENT, ICMPV6 = 1, 6, 17, 44, 58
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packed(address):
    return ipaddress.ip_address(address).packed


def ethernet(destination, source, payload, kind=None):
    """`kind`: the EtherType; by default what the payload's version says."""
    if kind is None:
        kind = IPV6 if payload and payload[0] >> 4 == 6 else IPV4
    return bytes.fromhex(destination.replace(":", "")) + bytes.fromhex(
        source.replace(":", "")) + struct.pack("!H", kind) + payload


def ip(source, destination, protocol, payload, **fields):
    """IPv4 or IPv6, by the addresses.

    Fields: id, flags, offset, ttl, header_checksum, length, ihl.
    """
    if ":" in source:
        length = fields.get("length", len(payload))
        return struct.pack("!IHBB", 6 << 28, length, protocol, fields.get("ttl", 64)) + packed(
            source) + packed(destination) + payload
    length = fields.get("length", 20 + len(payload))
    fragment = fields.get("flags", 0) << 13 | fields.get("offset", 0)
    head = struct.pack("!BBHHHBBH", 4 << 4 | fields.get("ihl", 5), 0, length, fields.get("id", 1),
                       fragment, fields.get("ttl", 64), protocol, 0) + packed(source) + packed(
                           destination)
    total = fields.get("header_checksum", checksum(head))
    return head[:10] + struct.pack("!H", total) + head[12:] + payload


def upper_checksum(source, destination, protocol, segment):
    pseudo = packed(source) + packed(destination)
    pseudo += struct.pack("!IHBB", len(segment), 0, 0, protocol) if ":" in source else struct.pack(
        "!BBH", 0, protocol, len(segment))
    return checksum(pseudo + segment)


def tcp(source, destination, source_port, port, flags, text=b"", options=b"", **fields):
    """Fields: seq, ack, window, offset (in words), checksum."""
    options += b"\0" * (-len(options) % 4)
    words = fields.get("offset", 5 + len(options) // 4)
    segment = struct.pack("!HHIIBBHHH", source_port, port, fields.get("seq", 1000),
                          fields.get("ack", 0), words << 4, flags, fields.get("window", 65535), 0,
                          0) + options + text
    total = fields.get("checksum", upper_checksum(source, destination, TCP, segment))
    return segment[:16] + struct.pack("!H", total) + segment[18:]


def echo_request(source, destination, text=b"hello", **fields):
    protocol, kind = (ICMPV6, 128) if ":" in source else (ICMP, 8)
    message = struct.pack("!BBHHH", kind, 0, 0, 7, fields.get("sequence", 1)) + text
    total = (upper_checksum(source, destination, ICMPV6, message)
             if protocol == ICMPV6 else checksum(message))
    return message[:2] + struct.pack("!H", total) + message[4:]


def fragment_v6(source, destination, protocol, payload, offset, more, identity):
    """`offset` in units of 8 bytes."""
    header = struct.pack("!BBHI", protocol, 0, offset << 3 | more, identity)
    return ip(source, destination, FRAGMENT, header + payload)
