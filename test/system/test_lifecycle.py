# SPDX-License-Identifier: Apache-2.0
"""Many connections come and go; a client is killed; the daemon is killed; nothing is left over."""
import json
import pathlib
import signal
import time

import pytest

from lab.daemon import Daemon
from lab.links import CHIRU, PEER, ChiruHost, memif_device, with_bits
from lab.process import wait_until
from lab.services import EchoServer, RedisServer, SilentServer

PROGRAMS = pathlib.Path(__file__).parent / "programs"
PYTHON = "/usr/bin/python3"
CONNECTIONS, ROUNDS = 2000, 10


@pytest.mark.parametrize("direction", ("accepted", "opened"))
def test_two_thousand_connections_ten_times_leave_nothing(link, family, direction):
    server, client = (link.chiru, link.peer) if direction == "accepted" else (link.peer, link.chiru)
    before = [daemon.live() for daemon in link.daemons()]
    echo = EchoServer(server, family)
    said = client.run([PYTHON, PROGRAMS / "churn.py", echo.address, echo.port, CONNECTIONS, ROUNDS],
                      seconds=120)
    assert len(said.splitlines()) == ROUNDS
    echo.stop()
    for daemon, live in zip(link.daemons(), before):
        daemon.wait_live_is_back(live, 15)


def background_load(client, server, seconds, connections=20, size=64):
    return client.start([client.built("bench_echo_client"), server.address, server.port,
                         "--connections", connections, "--bytes", size, "--seconds", seconds,
                         "--warmup", 0])


def test_a_killed_client_leaves_nothing_and_disturbs_nobody(link, family):
    bystander = EchoServer(link.chiru, family)
    daemon = link.chiru.daemon
    idle = daemon.live()["connections"]
    load = background_load(link.peer, bystander, 8)
    wait_until(lambda: daemon.live()["connections"] >= idle + 20, 10, "the bystander's load runs")
    before = daemon.live()
    victim = EchoServer(link.chiru, family, port=9001)
    busy = background_load(link.peer, victim, 30, connections=200, size=1000)
    wait_until(lambda: daemon.live()["connections"] >= before["connections"] + 200, 10,
               "200 clients are connected to the victim")
    time.sleep(0.5)  # in the thick of it

    victim.program.signal(signal.SIGKILL)
    assert busy.wait(2) != 0, "its peers did not notice"
    # The bystander's load keeps its connections; receive slots it holds vary from read to read.
    daemon.wait_live_is_back(before, 1, ("connections", "listeners", "sessions", "channels"))
    again = EchoServer(link.chiru, family, port=9001)
    afterwards = background_load(link.peer, again, 0.5)
    assert afterwards.wait(20) == 0, afterwards.tail()

    assert load.wait(20) == 0, load.tail()
    assert json.loads(load.stdout)["failures"] == 0


def test_a_killed_client_is_forgotten_within_a_second(link, family):
    before = link.chiru.daemon.live()
    victim = EchoServer(link.chiru, family)
    load = background_load(link.peer, victim, 30)
    wait_until(lambda: link.chiru.daemon.live()["connections"] >= before["connections"] + 20, 10,
               "the load runs")
    victim.program.signal(signal.SIGKILL)
    load.wait(5)
    link.chiru.daemon.wait_live_is_back(before, 1)


def test_a_killed_daemon_ends_every_wait(lab_link, family):
    link = lab_link
    server = SilentServer(link.peer, family).program
    waiters = link.chiru.start(
        [PYTHON, PROGRAMS / "waiters.py", link.peer.addresses[family], 9000], name="waiters")
    wait_until(lambda: "waiting" in waiters.stdout or not waiters.running(), 15, "waiters wait")
    assert server.running() and waiters.running(), waiters.tail()
    time.sleep(0.3)  # until the threads are in their calls
    link.chiru.daemon.kill()
    assert waiters.wait(5) == 0, waiters.tail()
    endings = dict(line.split() for line in waiters.stdout.splitlines()[1:])
    assert len(endings) == 5
    assert set(endings.values()) <= {"ECONNRESET", "EPIPE"}, endings


def test_a_killed_daemon_leaves_listeners_quiet(lab_link, family):
    link = lab_link
    program = link.chiru.start([PYTHON, PROGRAMS / "listener_end.py",
                                link.chiru.addresses[family], 9000], name="listener")
    wait_until(lambda: "waiting" in program.stdout or not program.running(), 15, "it listens")
    link.chiru.daemon.kill()
    assert program.wait(5) == 0, program.tail()
    assert program.stdout.splitlines()[1:] == ["ECONNABORTED", "EAGAIN", "0 events"]


def test_a_restarted_daemon_serves_again(lab_link, family):
    link = lab_link
    first = RedisServer(link.chiru, family)
    assert first.cli(link.peer, "ping").strip() == "PONG"
    link.chiru.daemon.kill()
    first.stop()
    link.restart_daemon()
    second = RedisServer(link.chiru, family)
    wait_until(lambda: second.cli(link.peer, "ping").strip() == "PONG", 15, "redis answers again")


@pytest.mark.parametrize("which", ("server", "client"))
def test_either_end_of_a_memif_may_come_later_or_again(lab, family, which):
    """Each end starts without the other, and goes on when the other comes, or comes back."""
    wire = lab.directory / "later.sock"
    ends = {"server": CHIRU, "client": PEER}
    first = "client" if which == "server" else "server"

    def start(role):
        daemon = Daemon(lab, namespace=lab.namespace(role), device=memif_device(role, wire),
                        addresses=with_bits(ends[role]), extra={"tcp": {"time_wait": "500ms"}})
        return ChiruHost(lab, daemon, ends[role])

    stays = start(first)
    comes = start(which)
    for _ in range(2):
        for host in (stays, comes):
            wait_until(host.daemon.addresses_usable, 10, "addresses can be used")
        server = RedisServer(comes, family)
        assert server.cli(stays, "ping").strip() == "PONG"
        comes.daemon.kill()
        server.stop()
        comes.daemon.start()
    assert stays.daemon.alive()


def test_an_orderly_end_closes_connections_and_leaves_no_file(lab_link, family):
    link = lab_link
    echo = EchoServer(link.chiru, family)
    load = background_load(link.peer, echo, 30)
    wait_until(lambda: link.chiru.daemon.live()["connections"] >= 20, 10, "the load runs")
    daemon = link.chiru.daemon
    shared_memory = set(pathlib.Path("/dev/shm").iterdir())
    assert daemon.program.stop(10) == 0, daemon.program.tail()
    assert load.wait(10) != 0, "the peer did not notice the end"
    assert not daemon.socket.exists()
    left = [path for path in pathlib.Path("/run/dpdk").glob("*")
            if str(daemon.program.pid) in path.name]
    assert not left and set(pathlib.Path("/dev/shm").iterdir()) <= shared_memory


def test_programs_start_while_the_daemon_is_away(lab):
    """On the kernel, with a warning; never refused, never ended."""
    space = lab.namespace("away")
    environment = {"CHIRU_SOCKET": str(lab.directory / "nobody.sock")}
    program = lab.start([lab.built("chiru"), PYTHON, "-c", "print('ran')"], env=environment,
                                 namespace=space)
    assert program.expect_success(20).strip() == "ran"
