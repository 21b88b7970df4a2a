# SPDX-License-Identifier: Apache-2.0
"""Puts raw Ethernet frames on an interface, one line of hexadecimal digits each.

    send_frames.py INTERFACE FILE
"""
import socket
import sys


def main():
    interface, path = sys.argv[1:3]
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.bind((interface, 0))
    with open(path, encoding="ascii") as file:
        for line in file:
            wire.send(bytes.fromhex(line))


main()
