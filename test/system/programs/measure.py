#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""serve ADDRESS PORT: counts what comes on each connection and says so to the peer.
send ADDRESS PORT BYTES: sends so many, and prints how long that took and what IP_MTU says then."""
import socket
import sys
import time

IP_MTU, IPV6_MTU = 14, 24


def serve(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family) as server:
        print("listening", flush=True)
        while True:
            peer, _ = server.accept()
            with peer:
                wanted = int.from_bytes(peer.recv(8, socket.MSG_WAITALL), "big")
                count = 0
                while count < wanted and (piece := peer.recv(1 << 16)):
                    count += len(piece)
                peer.sendall(str(count).encode())
                peer.recv(1)  # until it has asked what it wants to know


def send(address, port, count):
    with socket.create_connection((address, port), timeout=30) as peer:
        begun = time.monotonic()
        peer.sendall(count.to_bytes(8, "big") + bytes(count))
        level, name = ((socket.IPPROTO_IPV6, IPV6_MTU) if ":" in address
                       else (socket.IPPROTO_IP, IP_MTU))
        told = int(peer.recv(64))
        mtu = peer.getsockopt(level, name)
        print(f"{told} bytes in {time.monotonic() - begun:.3f} s, MTU {mtu}", flush=True)


if sys.argv[1] == "serve":
    serve(sys.argv[2], int(sys.argv[3]))
else:
    send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
