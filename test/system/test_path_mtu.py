# SPDX-License-Identifier: Apache-2.0
"""Paths narrower than the link: behind a router that says so, and where frames vanish silently."""
import pathlib
import re

import pytest

from lab.daemon import Daemon
from lab.lab import ip
from lab.links import CHIRU, PEER, ChiruHost, KernelHost, complete_frames, silence_kernel, with_bits
from lab.process import wait_until

PROGRAM = pathlib.Path(__file__).parent / "programs" / "measure.py"
FAR = {4: "10.9.0.2", 6: "fd09::2"}
FAR_ROUTER = {4: "10.9.0.1", 6: "fd09::1"}
PORT = 7700
BYTES = 3_000_000


def give(space, device, addresses, mtu):
    for address in with_bits(addresses):
        ip("addr", "add", address, "dev", device, *(["nodad"] if ":" in address else []),
           namespace=space)
    ip("link", "set", device, "mtu", mtu, "up", namespace=space)
    complete_frames(space, device)


def chiru_on(lab, space, wide, routes=()):
    silence_kernel(space, "c0")
    complete_frames(space, "c0")
    ip("link", "set", "c0", "mtu", wide, namespace=space)
    daemon = Daemon(lab, namespace=space, device="net_af_packet0,iface=c0", mtu=wide,
                    addresses=with_bits(CHIRU), cores=(0, 1), routes=routes)
    wait_until(daemon.addresses_usable, 15, "its addresses are usable")
    return ChiruHost(lab, daemon, CHIRU)


def offer_full_segments(space, family, route, wide):
    """The far end's own link is narrow: what it offers must not save us."""
    ip(f"-{family}", "route", "replace", *route, "advmss", wide - (40 if family == 4 else 60),
       namespace=space)


def serve(host, address):
    server = host.start(["/usr/bin/python3", PROGRAM, "serve", address, PORT], name="serve")
    wait_until(lambda: "listening" in server.stdout, 10, "the server listens")


def send(host, address, size=BYTES):
    """Returns the seconds that took, and IP_MTU at the end."""
    said = host.run(["/usr/bin/python3", PROGRAM, "send", address, PORT, size], name="send")
    count, seconds, mtu = re.fullmatch(r"(\d+) bytes in ([\d.]+) s, MTU (\d+)\n", said).groups()
    assert int(count) == size
    return float(seconds), int(mtu)


def known_paths(host, address):
    return [path for path in host.daemon.show("paths")["paths"] if path["remote"] == address]


def lay_path(lab, family, wide, narrow, silent):
    """chiru, a kernel that routes, and a far host whose own link is the narrow one. A veth drops
    what is larger than its other end takes, without a word; that the router knows better, and
    tells, is the other case."""
    spaces = [lab.namespace(label) for label in ("chiru", "router", "far")]
    lab.veth((spaces[0], "c0"), (spaces[1], "r0"))
    lab.veth((spaces[1], "r1"), (spaces[2], "f0"))
    give(spaces[1], "r0", PEER, wide)
    give(spaces[1], "r1", FAR_ROUTER, wide if silent else narrow)
    give(spaces[2], "f0", FAR, narrow)
    router = KernelHost(lab, spaces[1], PEER, "r0")
    router.run(["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
    offer_full_segments(spaces[2], family, ["default", "via", FAR_ROUTER[family]], wide)
    chiru = chiru_on(lab, spaces[0], wide,
                     [{"to": "default", "via": PEER[4]}, {"to": "default", "via": PEER[6]}])
    serve(KernelHost(lab, spaces[2], FAR, "f0"), FAR[family])
    # Neighbours are found now: after a lost SYN the timer begins at 3 s (RFC 6298 5.7).
    send(chiru, FAR[family], 100)
    return chiru


def wait_shared(chiru, remote):
    wait_until(lambda: [path["shards"] for path in known_paths(chiru, remote)] == [[0, 1]], 5,
               "both shards know")


@pytest.mark.parametrize("wide, narrow", [(1500, 1300), (9000, 1500)])
def test_a_router_says_so(lab, family, wide, narrow):
    chiru = lay_path(lab, family, wide, narrow, silent=False)
    _, mtu = send(chiru, FAR[family])
    assert mtu == narrow
    wait_shared(chiru, FAR[family])
    assert known_paths(chiru, FAR[family])[0]["mtu"] == narrow
    told = chiru.daemon.counters()["ip.path_mtus_told"]
    for _ in range(4):  # over both shards; nobody has to be told again
        assert send(chiru, FAR[family])[1] == narrow
    assert chiru.daemon.counters()["ip.path_mtus_told"] == told


@pytest.mark.parametrize("wide, narrow", [(1500, 1300), (9000, 1500)])
def test_nobody_says_so(lab, family, wide, narrow):
    chiru = lay_path(lab, family, wide, narrow, silent=True)
    seconds, mtu = send(chiru, FAR[family])
    counters = chiru.daemon.counters()
    assert counters["tcp.mtu_black_holes"] == 1, counters
    assert counters["ip.path_mtus_told"] == 0, counters
    assert narrow * 9 // 10 <= mtu <= narrow + 18, mtu  # a veth lets a tag's length more through
    assert seconds < 5
    wait_shared(chiru, FAR[family])
    for _ in range(4):
        send(chiru, FAR[family])
    assert chiru.daemon.counters()["tcp.mtu_black_holes"] == 1
