# SPDX-License-Identifier: Apache-2.0
"""Accepts, and neither reads nor writes: for peers that are to wait.

    silent_server.py ADDRESS PORT
"""
import socket
import sys


def main():
    address, port = sys.argv[1], int(sys.argv[2])
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family, backlog=128) as listener:
        accepted = []
        while True:
            accepted.append(listener.accept())


main()
