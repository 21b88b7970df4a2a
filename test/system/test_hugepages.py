# SPDX-License-Identifier: Apache-2.0
"""With huge pages: they are used when there are enough, and come back however the daemon ends."""
import pathlib

import pytest

from lab.daemon import Daemon
from lab.links import CHIRU, Link, with_bits
from lab.process import Failed, wait_until
from lab.services import RedisServer

KIND = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
WANTED = 192
FEW = {"dataplane": {"buffers": 4096, "hugepages": "on"}}


def free_pages():
    return int((KIND / "free_hugepages").read_text())


@pytest.fixture
def pages():
    """So many free pages of 2 MiB for the length of a test; the machine's number comes back."""
    total = KIND / "nr_hugepages"
    if not total.exists():
        pytest.skip("this kernel has no huge pages of 2 MiB")
    before = total.read_text()
    try:
        total.write_text(str(int(before) + WANTED))
        if free_pages() < WANTED:
            pytest.skip(f"this machine has no memory for {WANTED} huge pages")
        yield free_pages()
    finally:
        total.write_text(before)


@pytest.mark.parametrize("end", ("orderly", "killed"))
def test_huge_pages_carry_traffic_and_come_back(lab, family, pages, end):
    link = Link(lab, "tap", daemon_options={"extra": FEW})
    link.wait_reachable()
    assert free_pages() <= pages - 5, "no huge page is in use"
    redis = RedisServer(link.chiru, family)
    said = link.peer.run(["redis-benchmark", *redis.where, "-n", 2000, "-c", 10, "-d", 3000,
                          "-t", "set,get", "-q"], seconds=60)
    assert said.count("requests per second") >= 2, said
    redis.stop()
    if end == "orderly":
        assert link.chiru.daemon.program.stop(10) == 0
    else:
        link.chiru.daemon.kill()
    wait_until(lambda: free_pages() == pages, 5, f"{pages} pages are free again")


def test_a_daemon_that_needs_huge_pages_says_what_is_missing(lab):
    if free_pages() >= WANTED:
        pytest.skip("there are huge pages on this machine")
    with pytest.raises(Failed, match="vm.nr_hugepages="):
        Daemon(lab, namespace=lab.namespace("huge"), device="net_tap0,iface=chiru0",
               addresses=with_bits(CHIRU), extra=FEW)
