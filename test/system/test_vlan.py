# SPDX-License-Identifier: Apache-2.0
"""Interfaces on a VLAN, end to end: two daemons, tagged frames between them, and nobody else."""
import pathlib

import pytest

from lab.daemon import Daemon
from lab.links import (CHIRU, PEER, ChiruHost, complete_frames, memif_device, silence_kernel,
                       with_bits)
from lab.process import wait_until
from lab.services import RedisServer

PROGRAMS = pathlib.Path(__file__).parent / "programs"


def host(lab, space, device, addresses, vlan):
    daemon = Daemon(lab, namespace=space, device=device, addresses=(),
                    vlans={vlan: with_bits(addresses)})
    return ChiruHost(lab, daemon, addresses)


def wait_preferred(*hosts):
    def ready():
        return all(address["state"] == "preferred" for one in hosts
                   for interface in one.daemon.show("status")["interfaces"]
                   for address in interface["addresses"])

    wait_until(ready, 15, "all addresses are usable")


def exchange(server_host, client_host, family):
    server = RedisServer(server_host, family)
    said = client_host.run(["redis-benchmark", *server.where, "-n", 2000, "-c", 10, "-d", 3000,
                            "-t", "set,get", "-q"], seconds=60)
    assert said.count("requests per second") >= 2, said
    server.stop()


def test_two_daemons_on_one_vlan_over_memif(lab, family):
    wire = lab.directory / "vlan.sock"
    server = host(lab, lab.namespace("a"), memif_device("server", wire), CHIRU, 7)
    client = host(lab, lab.namespace("b"), memif_device("client", wire), PEER, 7)
    wait_preferred(server, client)
    exchange(server, client, family)


def test_two_daemons_on_one_vlan_over_a_kernel_wire(lab, family):
    """Packet sockets take tags out of frames and put them back; on the wire they are there."""
    spaces = [lab.namespace("a"), lab.namespace("b")]
    lab.veth((spaces[0], "c0"), (spaces[1], "c0"))
    for space in spaces:
        silence_kernel(space, "c0")
        complete_frames(space, "c0")
    server, client = (host(lab, space, "net_af_packet0,iface=c0", addresses, 7)
                      for space, addresses in zip(spaces, (CHIRU, PEER)))
    sniffer = lab.start(["/usr/bin/python3", PROGRAMS / "sniff_tags.py", "c0", 200],
                        namespace=spaces[0], name="sniffer")
    wait_until(lambda: "listening" in sniffer.stdout, 10, "the sniffer listens")
    wait_preferred(server, client)
    exchange(server, client, family)
    assert sniffer.wait(10) == 0, sniffer.tail()
    assert "7" in sniffer.stdout.splitlines()[-1].split(), sniffer.stdout


def test_another_vlan_is_another_wire(lab, family):
    wire = lab.directory / "vlan.sock"
    server = host(lab, lab.namespace("a"), memif_device("server", wire), CHIRU, 7)
    client = host(lab, lab.namespace("b"), memif_device("client", wire), PEER, 8)
    wait_preferred(server, client)
    redis = RedisServer(server, family)
    said = client.start(["redis-cli", *redis.where, "ping"])
    with pytest.raises(AssertionError):
        said.expect_success(6)
    counters = server.daemon.counters()
    assert counters["in.not_for_us"] > 0 and counters["tcp.passive_opens"] == 0, counters
