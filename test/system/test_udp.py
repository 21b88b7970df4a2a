# SPDX-License-Identifier: Apache-2.0
"""UDP between unchanged programs: one side on chiru, the other on the kernel, another daemon, or
the same daemon once more."""
import json
import pathlib
import subprocess

import pytest

from lab.lab import REPOSITORY
from lab.process import wait_until
from lab.services import Iperf

PROGRAM = pathlib.Path(__file__).parent / "programs" / "datagrams.py"
PYTHON = "/usr/bin/python3"
GROUPS = {4: "239.7.7.7", 6: "ff15::777"}


@pytest.fixture(params=("chiru_serves", "chiru_asks"))
def sides(request, link):
    """(server, client)"""
    pair = (link.chiru, link.peer)
    return pair if request.param == "chiru_serves" else pair[::-1]


def start(host, *words):
    program = host.start([PYTHON, PROGRAM, *words], name=f"datagrams-{words[0]}")
    if words[0] in ("echo", "member", "count"):
        wait_until(lambda: "ready" in program.stdout or not program.running(), 15, "it is ready")
    return program


def test_datagrams_of_all_sizes_come_back(link, family, sides):
    server, client = sides
    address = server.addresses[family]
    echo = start(server, "echo", address, 7007)
    # Over af_packet the kernel reassembles IPv4 first, into frames of at most 16 KiB.
    largest = 15000 if link.transport == "af_packet" and family == 4 else 65000
    sizes = (0, 1, 100, 1452, 1472, 1473, 3000, 8000, largest)
    client.run([PYTHON, PROGRAM, "ask", address, 7007, *sizes])
    echo.expect_success(15)


def test_a_server_on_any_address_is_reached_through_both_stacks(link, family):
    server = start(link.chiru, "count", 7008, 20)
    start(link.peer, "burst", link.chiru.addresses[family], 7008, 10).expect_success(15)
    loopback = {4: "127.0.0.1", 6: "::1"}[family]
    start(link.chiru, "burst", loopback, 7008, 10).expect_success(15)
    said = server.expect_success(25)
    assert len(said.split("\n")[1].split()) == 2, said


def test_what_was_sent_before_exit_arrives(link, family):
    """The last words of a program that does not wait for anything."""
    server = start(link.peer, "count", 7009, 50)
    start(link.chiru, "burst", link.peer.addresses[family], 7009, 50).expect_success(15)
    server.expect_success(25)


def test_a_closed_port_refuses(link, family, sides):
    server, client = sides
    said = client.run([PYTHON, PROGRAM, "refused", server.addresses[family], 7010])
    assert "refused" in said


def test_the_port_of_a_killed_program_is_free_again(link, family):
    address = link.chiru.addresses[family]
    first = start(link.chiru, "echo", address, 7011)
    assert first.running(), first.stderr
    first.kill()
    # The session ends when the daemon sees its control socket close; others may come earlier.
    wait_until(lambda: start(link.chiru, "echo", address, 7011).running(), 15, "the port is free")
    link.peer.run([PYTHON, PROGRAM, "ask", address, 7011, 100])


@pytest.mark.kernel
def test_a_group_reaches_its_members_on_chiru(link, family):
    if family == 4:
        here, there = link.chiru.addresses[4], link.peer.addresses[4]
    else:
        here, there = "0", device_number(link.peer)
    member = start(link.chiru, "member", GROUPS[family], 7012, here)
    announcer = start(link.peer, "announce", GROUPS[family], 7012, there)
    assert "hello" in member.expect_success(25)
    announcer.kill()


@pytest.mark.kernel
def test_a_group_reaches_its_members_in_the_kernel(link):
    member = start(link.peer, "member", GROUPS[4], 7013, link.peer.addresses[4])
    announcer = start(link.chiru, "announce", GROUPS[4], 7013, link.chiru.addresses[4])
    assert "hello" in member.expect_success(25)
    announcer.kill()


@pytest.mark.parametrize("reverse", (False, True), ids=("there", "back"))
def test_iperf3_moves_datagrams(link, sides, reverse):
    server, client = sides
    iperf = Iperf(server, 4)
    said = json.loads(client.run(["iperf3", *iperf.where, "-u", "-b", "20M", "-t", 1, "-J",
                                  *(["-R"] if reverse else [])]))
    assert "error" not in said, said.get("error")
    assert said["end"]["sum"]["packets"] > 500, said["end"]["sum"]
    assert said["end"]["sum"]["lost_percent"] < 50, said["end"]["sum"]


def device_number(host):
    said = subprocess.run(["ip", "-n", host.namespace, "-o", "link", "show", host.device],
                          capture_output=True, text=True, check=True).stdout
    return said.split(":")[0]


def test_the_same_calls_give_the_same_results(link, family):
    """posix datagram cases on the kernel and on chiru: they print the same."""
    if link.transport != "tap":
        pytest.skip("over one wire is enough: the program talks to itself")
    program = link.lab.start(
        [PYTHON, REPOSITORY / "test" / "libclient" / "posix" / "differential",
         link.lab.built("posix_datagram_cases"), link.lab.built("chiru"), "--at",
         link.chiru.addresses[family]],
        namespace=link.chiru.namespace, env=link.chiru.daemon.environment(), name="differential")
    assert program.expect_success(100).strip() == ""
