# SPDX-License-Identifier: Apache-2.0
"""A program with UDP sockets, unaware of what carries them.

    datagrams.py echo ADDRESS PORT                 answers each datagram, "end" ends it
    datagrams.py ask ADDRESS PORT SIZE...          sends each size and wants it back, then "end"
    datagrams.py refused ADDRESS PORT              a connected socket hears that nobody is there
    datagrams.py member GROUP PORT INTERFACE       joins, prints one datagram
    datagrams.py announce GROUP PORT INTERFACE     sends "hello" to it each 50 ms until killed
    datagrams.py burst ADDRESS PORT COUNT          sends and exits at once
    datagrams.py count PORT COUNT                  receives so many on any address
"""
import ipaddress
import random
import select
import socket
import struct
import sys
import time

PATIENCE = 20


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def bound(address, port):
    made = socket.socket(family_of(address), socket.SOCK_DGRAM)
    made.bind((address, port))
    return made


def echo(address, port):
    server = bound(address, int(port))
    print("ready", flush=True)
    while True:
        text, peer = server.recvfrom(65536)
        if text == b"end":
            return
        server.sendto(text, peer)


def exchange(client, to, text):
    """UDP may lose one; three times in a row it does not."""
    for _ in range(3):
        client.sendto(text, to)
        if select.select([client], [], [], PATIENCE / 3)[0]:
            back, peer = client.recvfrom(65536)
            assert back == text, f"{len(text)} bytes came back as {len(back)}"
            assert peer[:2] == to, peer
            return
    raise SystemExit(f"{len(text)} bytes: no answer")


def ask(address, port, *sizes):
    to = (address, int(port))
    client = socket.socket(family_of(address), socket.SOCK_DGRAM)
    for size in sizes:
        exchange(client, to, random.randbytes(int(size)))
    client.sendto(b"end", to)


def refused(address, port):
    client = socket.socket(family_of(address), socket.SOCK_DGRAM)
    client.connect((address, int(port)))
    client.settimeout(PATIENCE)
    client.send(b"anybody?")
    try:
        client.recv(100)
    except ConnectionRefusedError:
        print("refused")


def membership(group, interface):
    if family_of(group) == socket.AF_INET:
        return (socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                socket.inet_aton(group) + socket.inet_aton(interface))
    return (socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP,
            socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", int(interface)))


def member(group, port, interface):
    any_address = "::" if ":" in group else "0.0.0.0"
    listener = bound(any_address, int(port))
    listener.setsockopt(*membership(group, interface))
    print("ready", flush=True)
    listener.settimeout(PATIENCE)
    print(listener.recv(100).decode())


def announce(group, port, interface):
    sender = socket.socket(family_of(group), socket.SOCK_DGRAM)
    if family_of(group) == socket.AF_INET:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
    else:
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, int(interface))
    while True:
        sender.sendto(b"hello", (group, int(port)))
        time.sleep(0.05)


def burst(address, port, count):
    client = socket.socket(family_of(address), socket.SOCK_DGRAM)
    for number in range(int(count)):
        client.sendto(b"%d" % number, (address, int(port)))


def count(port, wanted):
    listener = bound("::", int(port))
    listener.settimeout(PATIENCE)
    print("ready", flush=True)
    sources = set()
    for _ in range(int(wanted)):
        sources.add(listener.recvfrom(100)[1][0])
    print(*sorted(str(ipaddress.ip_address(source)) for source in sources))


if __name__ == "__main__":
    {each.__name__: each for each in (echo, ask, refused, member, announce, burst, count)}[
        sys.argv[1]](*sys.argv[2:])
