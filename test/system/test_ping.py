# SPDX-License-Identifier: Apache-2.0
"""ICMP echo from the kernel: small, exactly one frame, and in fragments both ways."""
import pathlib
import re

import pytest

from lab.lab import ip
from lab.links import CHIRU, Link
from lab.process import wait_until
from lab.services import SilentServer

POUR = pathlib.Path(__file__).parent / "programs/pour.py"


@pytest.mark.kernel
@pytest.mark.parametrize("size", (56, 1472, 8000))
def test_every_ping_is_answered(link, family, size):
    said = link.peer.run(["ping", "-n", "-c", "20", "-i", "0.02", "-W", "2", "-s", size,
                          CHIRU[family]])
    assert re.search(r" 20 received, 0% packet loss", said), said
    assert "DUP!" not in said


def test_pings_are_answered_however_slow_the_readers(lab, family):
    """Three programs never read, and hold all the receive buffers they can get."""
    extra = {"dataplane": {"buffers": 1024}, "sessions": {"max_rx_buffers": 1024},
             "tcp": {"receive_buffer": "4M"}}
    link = Link(lab, "tap", daemon_options={"extra": extra})
    link.wait_reachable()
    for number in range(3):
        SilentServer(link.chiru, family, port=9000 + number)
    pour = link.peer.start(["/usr/bin/python3", POUR, CHIRU[family], 9000, 3, 8])
    daemon = link.chiru.daemon
    wait_until(lambda: "full" in pour.stdout, 60, "nothing more is taken")
    assert daemon.counters()["in.no_buffer"] > 0, "the buffers were not the bound"
    for _ in range(3):
        ip("neigh", "flush", "dev", link.peer.device, namespace=link.peer.namespace)
        said = link.peer.run(["ping", "-n", "-c", "5", "-i", "0.02", "-W", "2", CHIRU[family]])
        assert " 5 received" in said, said
