# SPDX-License-Identifier: Apache-2.0
"""Which VLAN tags the frames of an interface have.

    sniff_tags.py INTERFACE FRAMES

Prints "listening", and after so many IP and ARP frames "tags: " and the ids seen, 0 for none.
"""
import socket
import struct
import sys

SOL_PACKET, PACKET_AUXDATA, VLAN_VALID = 263, 8, 0x10
KINDS = (0x0800, 0x0806, 0x86DD, 0x8100)


def main():
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    wire.bind((sys.argv[1], 3))
    print("listening", flush=True)
    seen, left = set(), int(sys.argv[2])
    while left > 0:
        frame, ancillary, _, _ = wire.recvmsg(2048, 256)
        kind, = struct.unpack_from("!H", frame, 12)
        if kind not in KINDS:
            continue
        tag = struct.unpack_from("!H", frame, 14)[0] & 0xFFF if kind == 0x8100 else 0
        for level, what, data in ancillary:
            if (level, what) == (SOL_PACKET, PACKET_AUXDATA):
                status, _, _, _, _, tci, _ = struct.unpack("IIIHHHH", data[:20])
                if status & VLAN_VALID:
                    tag = tci & 0xFFF
        seen.add(tag)
        left -= 1
    print("tags:", *sorted(seen))


main()
