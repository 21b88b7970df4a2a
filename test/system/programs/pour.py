# SPDX-License-Identifier: Apache-2.0
"""Sends into several connections until no more is taken; then waits to be ended.

    pour.py ADDRESS FIRST_PORT PORTS CONNECTIONS_EACH

Prints "full" once nothing was taken for a second.
"""
import select
import socket
import sys
import time


def main():
    address, first, ports, each = sys.argv[1], *map(int, sys.argv[2:])
    connections = [socket.create_connection((address, first + number))
                   for number in range(ports) for _ in range(each)]
    for connection in connections:
        connection.setblocking(False)
    text = bytes(1400)
    while True:
        _, writable, _ = select.select([], connections, [], 1)
        if not writable:
            break
        for connection in writable:
            try:
                connection.send(text)
            except BlockingIOError:
                pass
    print("full", flush=True)
    while True:
        time.sleep(3600)


main()
