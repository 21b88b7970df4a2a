# SPDX-License-Identifier: Apache-2.0
"""What every system test has at hand.

    pytest test/system                 the default set
    pytest test/system --full          every case of every transport, 1 GB files everywhere
    pytest test/system --transport tap --family 4
    CHIRU_BUILD=build-asan pytest ...  another build tree
"""
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from lab.lab import Lab  # noqa: E402
from lab.links import ORACLE, TO_KERNEL, TRANSPORTS, Link  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="every case of every transport")
    parser.addoption("--transport", action="append", choices=(*TRANSPORTS, ORACLE),
                     help="only this one")
    parser.addoption("--shards", type=int, action="append", help="only this number of shards")
    parser.addoption("--family", type=int, action="append", choices=(4, 6), help="only this one")


def pytest_configure(config):
    config.addinivalue_line("markers", "kernel: needs the kernel's TCP as peer")
    config.addinivalue_line("markers", "any_wire: the same over each; without --full only tap")
    if os.geteuid() != 0:
        raise pytest.UsageError("the system tests make network namespaces: run them as root")


def pytest_generate_tests(metafunc):
    option = metafunc.config.getoption
    if "link_key" in metafunc.fixturenames:
        transports = option("--transport") or TRANSPORTS
        if metafunc.definition.get_closest_marker("kernel"):
            transports = [name for name in transports if name in (*TO_KERNEL, ORACLE)]
        if metafunc.definition.get_closest_marker("any_wire") and not option("--full"):
            transports = [name for name in transports if name == "tap"]
        links = [(name, shards) for name in transports for shards in option("--shards") or (1, 2)]
        metafunc.parametrize("link_key", links, indirect=True, scope="session",
                             ids=[f"{name}-{shards}shard" for name, shards in links])
    if "lab_link" in metafunc.fixturenames:
        wanted = [name for name in option("--transport") or TRANSPORTS
                  if name in ("tap", "af_packet", "memif")]
        metafunc.parametrize("lab_link", wanted, indirect=True)
    if "family" in metafunc.fixturenames:
        families = option("--family") or (4, 6)
        metafunc.parametrize("family", families, ids=[f"ipv{family}" for family in families])


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows what the programs of its lab said last."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for lab in {id(lab): lab for lab in _labs_of(item)}.values():
            report.sections.append(("programs", lab.report()))


def _labs_of(item):
    for value in getattr(item, "funcargs", {}).values():
        if isinstance(value, Lab):
            yield value
        elif isinstance(value, Link):
            yield value.lab


@pytest.fixture
def lab():
    """A laboratory for one test."""
    with Lab() as made:
        yield made


@pytest.fixture
def lab_link(request):
    """A link of this test's own, for tests that end daemons."""
    with Lab() as made:
        link = Link(made, request.param)
        link.wait_reachable()
        yield link


class _LinkCache:
    """One link at a time: tests of the same link follow each other and share it."""

    def __init__(self):
        self.key = None
        self.link = None

    def get(self, key):
        if self.key != key or not all(daemon.alive() for daemon in self.link.daemons()):
            self.drop()
            lab = Lab()
            try:
                self.link = Link(lab, *key)
                self.link.wait_reachable()
            except BaseException as error:
                error.args = (f"{error}\n{lab.report()}",)
                lab.close()
                raise
            self.key = key
        return self.link

    def drop(self):
        if self.link is not None:
            self.link.lab.close()
        self.key = self.link = None


_links = _LinkCache()


@pytest.fixture(scope="session")
def link_key(request):
    """Transport and number of shards; scope `session` groups the tests of one link."""
    return request.param


@pytest.fixture(scope="session", autouse=True)
def _drop_last_link():
    yield
    _links.drop()


@pytest.fixture
def link(link_key):
    """Two hosts over one transport, made anew if a test before broke it."""
    made = _links.get(link_key)
    yield made
    dead = [daemon for daemon in made.daemons() if not daemon.alive()]
    for program in made.lab.programs:
        if program.running() and all(program is not daemon.program for daemon in made.daemons()):
            program.kill()
    made.lab.forget_ended()
    if dead:
        codes = [daemon.program.code() for daemon in dead]
        pytest.fail(f"the daemon ended during this test with {codes}\n"
                    + "\n".join(daemon.program.tail(60) for daemon in dead))
