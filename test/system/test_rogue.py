# SPDX-License-Identifier: Apache-2.0
"""Attached clients that break the contract of the rings: their session ends, nobody else's does."""
import json

import pytest

from lab.process import wait_until
from lab.services import EchoServer

MUST_END = ("ring_positions", "unknown_operations", "slices_out_of_range", "foreign_slots")
MAY_END = ("completion_tail", "foreign_connections", "foreign_listeners", "noise",
           "connects_without_end", "fast_doorbell", "doorbell_descriptors")

pytestmark = pytest.mark.any_wire


@pytest.fixture
def bystander(link, family):
    """Connections of another session, exchanging all the while."""
    server = EchoServer(link.chiru, family)
    load = link.peer.start(
        [link.peer.built("bench_echo_client"), server.address, server.port, "--connections", 16,
         "--seconds", 6, "--warmup", 0])
    daemon = link.chiru.daemon
    wait_until(lambda: daemon.live()["connections"] >= 16, 10, "the bystander's load runs")
    yield server
    assert load.wait(20) == 0, load.tail()
    assert json.loads(load.stdout)["failures"] == 0


@pytest.mark.parametrize("way", MUST_END + MAY_END)
def test_a_rogue_client_disturbs_nobody(link, family, bystander, way):
    daemon = link.chiru.daemon
    before = daemon.live()
    target = EchoServer(link.peer, family, port=7001)
    # Not under `chiru`: it speaks to the daemon by itself.
    said = link.lab.start([link.chiru.built("rogue_client"), way, target.address, target.port],
                          namespace=daemon.namespace, env=daemon.environment()).expect_success(30)
    if way in MUST_END:
        assert said.strip() == "ended", daemon.program.tail()
    target.stop()
    daemon.wait_live_is_back(before, 5, ("connections", "listeners", "sessions", "channels"))


def echo_rate(link, server, seconds):
    said = link.peer.run([link.peer.built("bench_echo_client"), server.address, server.port,
                          "--connections", 16, "--seconds", seconds, "--warmup", 0])
    measured = json.loads(said)
    assert measured["failures"] == 0
    return measured["rate"]


def test_connects_without_end_leave_others_their_share(link, family):
    """The rogue takes a core for itself and fills its rings; its shard still serves the others."""
    server = EchoServer(link.chiru, family)
    alone = echo_rate(link, server, 2)
    target = EchoServer(link.peer, family, port=7001)
    daemon = link.chiru.daemon
    opens = daemon.counters()["tcp.active_opens"]
    rogue = link.lab.start(
        [link.chiru.built("rogue_client"), "connects_without_end", target.address, target.port],
        namespace=daemon.namespace, env=daemon.environment())
    wait_until(lambda: daemon.counters()["tcp.active_opens"] > opens + 100, 5, "the rogue connects")
    beside = echo_rate(link, server, 2)
    rogue.kill()
    assert beside > alone / 8, f"{beside:.0f} requests/s beside the rogue, {alone:.0f} without"
