# SPDX-License-Identifier: Apache-2.0
"""iperf3 both ways, with one stream and with several."""
import json

import pytest

from lab.services import Iperf


@pytest.mark.parametrize("streams", (1, 4))
@pytest.mark.parametrize("reverse", (False, True), ids=("to_chiru", "from_chiru"))
def test_streams_flow(link, family, reverse, streams):
    server = Iperf(link.chiru, family)
    said = json.loads(link.peer.run(
        ["iperf3", *server.where, "-t", 1, "-J", "-P", streams, *(["-R"] if reverse else [])]))
    assert "error" not in said, said.get("error")
    received = said["end"]["sum_received"]
    assert received["bits_per_second"] > 20e6, received


def test_iperf_on_chiru_as_the_client(link, family):
    server = Iperf(link.peer, family)
    said = json.loads(link.chiru.run(["iperf3", *server.where, "-t", 1, "-J"]))
    assert said["end"]["sum_received"]["bits_per_second"] > 20e6
