# SPDX-License-Identifier: Apache-2.0
"""ICMP echo from the kernel: small, exactly one frame, and in fragments both ways."""
import re

import pytest

from lab.links import CHIRU

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("size", (56, 1472, 8000))
def test_every_ping_is_answered(link, family, size):
    said = link.peer.run(["ping", "-n", "-c", "20", "-i", "0.02", "-W", "2", "-s", size,
                          CHIRU[family]])
    assert re.search(r" 20 received, 0% packet loss", said), said
    assert "DUP!" not in said
