# SPDX-License-Identifier: Apache-2.0
"""Listens at ADDRESS PORT; tells how accept() ends with the daemon, and what epoll says then."""
import errno
import select
import socket
import sys

address, port = sys.argv[1], int(sys.argv[2])
listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
listener.bind((address, port))
listener.listen()
listener.setblocking(False)
epoll = select.epoll()
epoll.register(listener, select.EPOLLIN)
print("waiting", flush=True)
epoll.poll()
for _ in range(2):
    try:
        listener.accept()
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
print(len(epoll.poll(0.2)), "events", flush=True)
