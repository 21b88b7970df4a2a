#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Both ends of TCP Fast Open, on whatever stack carries this program.

    fast_open.py serve ADDRESS PORT COUNT
    fast_open.py ask   ADDRESS PORT COUNT message|connect|impatient

Each connection is a request and its answer. One line for each tells whether data in the SYN was
taken, as TCP_INFO has it.
"""
import select
import socket
import sys

TCP_FASTOPEN_CONNECT = 30
MSG_FASTOPEN = 0x20000000
SYN_DATA = 32  # of tcpi_options


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def syn_data(connection):
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
    return int(info[5] & SYN_DATA != 0)


def serve(address, port, count):
    listener = socket.socket(family_of(address))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
    listener.listen(16)
    print("ready", flush=True)
    for _ in range(count):
        connection, _ = listener.accept()
        request = connection.recv(1000)
        connection.sendall(request[::-1])
        print("syn_data", syn_data(connection), flush=True)
        assert connection.recv(1) == b""
        connection.close()


def begin(how, address, port, request):
    s = socket.socket(family_of(address))
    if how == "message":
        sent = s.sendto(request, MSG_FASTOPEN, (address, port))
        assert sent == len(request), sent
        s.getpeername()  # a blocking call returns with a connection
        return s
    if how == "connect":
        s.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        s.connect((address, port))
        s.sendall(request)
        return s
    s.setblocking(False)
    try:
        sent = s.sendto(request, MSG_FASTOPEN, (address, port))
        assert sent == len(request), sent
    except BlockingIOError:  # EINPROGRESS: no cookie yet, and nothing was sent
        select.select([], [s], [])
        assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        s.sendall(request)
    s.setblocking(True)
    return s


def ask(address, port, count, how):
    for i in range(count):
        request = f"request {i} by {how}".encode()
        s = begin(how, address, port, request)
        answer = b""
        while len(answer) < len(request):
            some = s.recv(1000)
            assert some, "the connection ended"
            answer += some
        assert answer == request[::-1], answer
        print("syn_data", syn_data(s), flush=True)
        s.close()


if __name__ == "__main__":
    role, where, at, times, *more = sys.argv[1:]
    {"serve": serve, "ask": ask}[role](where, int(at), int(times), *more)
