# SPDX-License-Identifier: Apache-2.0
"""Opens many connections to an echo server at once, uses each, closes them all; several times.

    churn.py ADDRESS PORT COUNT ROUNDS
"""
import socket
import sys


def main():
    address, port, count, rounds = sys.argv[1], *map(int, sys.argv[2:5])
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for turn in range(rounds):
        sockets = []
        for index in range(count):
            connection = socket.socket(family, socket.SOCK_STREAM)
            connection.settimeout(20)
            connection.connect((address, port))
            sockets.append(connection)
        for index, connection in enumerate(sockets):
            connection.sendall(b"%08d" % index)
        for index, connection in enumerate(sockets):
            got = b""
            while len(got) < 8:
                part = connection.recv(8 - len(got))
                if not part:
                    sys.exit(f"round {turn}: connection {index} ended early")
                got += part
            if got != b"%08d" % index:
                sys.exit(f"round {turn}: connection {index} got {got!r}")
        for connection in sockets:
            connection.close()
        print(f"round {turn}: {count} connections", flush=True)


main()
