# SPDX-License-Identifier: Apache-2.0
"""chiructl: every command for people and for programs, agreeing with what the peer's kernel says"""
import json
import re
import subprocess

import pytest

from lab.links import CHIRU
from lab.process import wait_until
from lab.services import EchoServer

COMMANDS = ("status", "topology", "stats", "conns", "sockets", "neigh", "routes", "paths", "ports",
            "clients")


@pytest.fixture
def busy(link, family):
    """A link with an echo server on chiru and some connections that exchange."""
    server = EchoServer(link.chiru, family)
    load = link.peer.start(
        [link.peer.built("bench_echo_client"), server.address, server.port, "--connections", 12,
         "--seconds", 20, "--warmup", 0])
    wait_until(lambda: len(established(link, server)) >= 12, 10, "12 connections are established")
    yield server
    load.kill()


def established(link, server):
    endings = (f":{server.port}",)
    return [entry for entry in link.chiru.daemon.connections()
            if entry["state"] == "ESTABLISHED" and entry["local"].endswith(endings)]


@pytest.mark.any_wire
@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_speaks_to_people_and_to_programs(link, command):
    daemon = link.chiru.daemon
    assert daemon.text(command).strip()
    assert isinstance(daemon.show(command), dict)


@pytest.mark.kernel
def test_connections_agree_with_the_kernel_of_the_peer(link, busy):
    ours = {entry["remote"]: entry for entry in established(link, busy)}
    said = link.peer.run(["ss", "-Htni", "state", "established", f"dport = :{busy.port}"])
    theirs = {re.sub(r"[\[\]]", "", match)
              for match in re.findall(r"^\d+\s+\d+\s+(\S+)\s", said, re.M)}
    assert {re.sub(r"[\[\]]", "", remote) for remote in ours} == theirs
    for entry in ours.values():
        assert entry["rx_bytes"] > 0 and entry["tx_bytes"] > 0, entry
        assert entry["program"].startswith("bench_echo"), entry


@pytest.mark.kernel
def test_neighbours_are_those_of_the_kernel(link, busy):
    shown = link.peer.run(["ip", "link", "show", "dev", link.peer.device])
    mac = re.search(r"link/ether ([0-9a-f:]+)", shown)[1]
    assert mac in json.dumps(link.chiru.daemon.show("neigh"))


def test_topology_draws_the_way_from_port_to_program(link, busy):
    drawn = link.chiru.daemon.text("topology")
    places = [drawn.find(word) for word in ("nic0", "storage", "shard", "channel", "bench_echo")]
    assert all(place >= 0 for place in places), drawn


def test_frames_are_counted_as_they_pass(link, busy):
    daemon = link.chiru.daemon
    before = daemon.counters()["rx.frames"]
    wait_until(lambda: daemon.counters()["rx.frames"] > before + 100, 5, "frames are counted")


def test_addresses_are_shown(link):
    drawn = json.dumps(link.chiru.daemon.show("status")) + json.dumps(
        link.chiru.daemon.show("routes"))
    assert all(address in drawn for address in CHIRU.values())


def test_without_a_daemon_it_says_so(lab):
    for command in COMMANDS:
        said = subprocess.run(
            [lab.built("chiructl"), "--socket", lab.directory / "none.sock", command],
            capture_output=True, text=True, timeout=20)
        assert said.returncode != 0 and "none.sock" in said.stderr, said


def test_an_unknown_command_is_explained(lab):
    said = subprocess.run([lab.built("chiructl"), "connz"], capture_output=True, text=True,
                          timeout=20)
    assert said.returncode == 2 and "connz" in said.stderr
