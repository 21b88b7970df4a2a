# SPDX-License-Identifier: Apache-2.0
"""Data in the SYN (RFC 7413) between unchanged programs, with chiru on either side."""
import pathlib
import subprocess

import pytest

from lab.process import wait_until

PROGRAM = pathlib.Path(__file__).parent / "programs" / "fast_open.py"
PYTHON = "/usr/bin/python3"
COUNT = 6
PORTS = {"message": 7101, "connect": 7102, "impatient": 7103}


@pytest.fixture(params=("chiru_serves", "chiru_asks"))
def sides(request, link):
    """(server, client)"""
    if not link.peer.on_chiru:
        subprocess.run(["ip", "netns", "exec", link.peer.namespace, "sysctl", "-qw",
                        "net.ipv4.tcp_fastopen=3"], check=True)
    pair = (link.chiru, link.peer)
    return pair if request.param == "chiru_serves" else pair[::-1]


@pytest.mark.parametrize("how", PORTS)
def test_requests_travel_with_the_syn(link, family, sides, how):
    server, client = sides
    address = server.addresses[family]
    serving = server.start([PYTHON, PROGRAM, "serve", address, PORTS[how], COUNT], name="serve")
    wait_until(lambda: "ready" in serving.stdout or not serving.running(), 15, "it listens")
    said = client.run([PYTHON, PROGRAM, "ask", address, PORTS[how], COUNT, how], seconds=30)
    serving.expect_success(15)
    # A stack asks for a cookie once; of chiru's each shard may do so before it hears of others'.
    asked = link.shards if client.on_chiru else 1
    assert said.count("syn_data 1") >= COUNT - asked, said
    assert serving.stdout.count("syn_data 1") == said.count("syn_data 1"), serving.stdout
    if server.on_chiru:
        assert server.daemon.counters()["tcp.fast_open_passive"] > 0
    if client.on_chiru:
        assert client.daemon.counters()["tcp.fast_open_active"] > 0
