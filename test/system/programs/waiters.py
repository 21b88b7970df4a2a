# SPDX-License-Identifier: Apache-2.0
"""Waits in every way a program can for a peer that says nothing, and tells how each wait ended.

    waiters.py ADDRESS PORT

Prints "waiting" once all wait, then one line for each: its name and the errno that ended it.
"""
import errno
import os
import select
import socket
import sys
import threading

WAIT_SECONDS = 60


def by_recv(connection):
    connection.recv(1)


def by_poll(connection):
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    if not poll.poll(WAIT_SECONDS * 1000):
        raise TimeoutError(errno.ETIMEDOUT, "poll")
    connection.recv(1)


def by_select(connection):
    if not select.select([connection], [], [], WAIT_SECONDS)[0]:
        raise TimeoutError(errno.ETIMEDOUT, "select")
    connection.recv(1)


def by_epoll(connection):
    with select.epoll() as epoll:
        epoll.register(connection, select.EPOLLIN | select.EPOLLET)
        if not epoll.poll(WAIT_SECONDS):
            raise TimeoutError(errno.ETIMEDOUT, "epoll")
    connection.recv(1)


def by_blocked_send(connection):
    while True:
        connection.send(b"x" * 65536)


def main():
    address, port = sys.argv[1], int(sys.argv[2])
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    endings = {}

    def wait(way, connection):
        try:
            way(connection)
            endings[way.__name__] = "EOF"
        except OSError as error:
            endings[way.__name__] = errno.errorcode.get(error.errno, str(error))
        os.write(1, f"{way.__name__} {endings[way.__name__]}\n".encode())  # whole, unlike print()

    threads = []
    for way in (by_recv, by_poll, by_select, by_epoll, by_blocked_send):
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.connect((address, port))
        threads.append(threading.Thread(target=wait, args=(way, connection), daemon=True))
    for thread in threads:
        thread.start()
    print("waiting", flush=True)
    for thread in threads:
        thread.join(WAIT_SECONDS)
    sys.exit(0 if len(endings) == len(threads) else 1)


main()
