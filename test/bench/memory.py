#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Bytes of an idle connection, daemon and client together, with 100 000 of them held.

One daemon, one process on the native API that holds both ends (examples/idle_connections); both
sides of every connection are counted, so 100 000 connections are 200 000 ends.

    scripts/bench --memory [--connections N]
"""
import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "system"))

from lab.lab import Lab  # noqa: E402
from lab.links import CHIRU, Link  # noqa: E402
from lab.process import wait_until  # noqa: E402


def resident_bytes(pid):
    """What the process holds, shared pages counted by their share, so that a sum is right."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=100_000)
    count = parser.parse_args().connections
    with Lab() as lab:
        link = Link(lab, "local", daemon_options={"connections": 2 * count + 1024})
        link.wait_reachable()
        daemon = link.chiru.daemon
        before = resident_bytes(daemon.program.pid)
        # On the native API, so not under `chiru`.
        program = lab.start(
            [lab.built("idle_connections"), "--to", f"{CHIRU[4]}:7000", "--connections", count,
             "--serve", 1, "--hold", 600], namespace=daemon.namespace, env=daemon.environment())

        def held():
            assert program.running(), program.tail()
            return daemon.live()["connections"] >= 2 * count

        wait_until(held, 120, f"{count} connections are held at both ends")
        wait_until(lambda: program.stdout.strip() or not program.running(), 30, "it says its cost")
        grown = resident_bytes(daemon.program.pid) - before
        client = resident_bytes(program.pid)
        ends = daemon.live()["connections"]
        print(f"{count} idle connections, {ends} ends, held")
        print(f"{'daemon':10} {grown / ends:8.0f} bytes for each end")
        print(f"{'client':10} {client / ends:8.0f} bytes for each end, the whole process included")
        print(f"{'together':10} {(grown + client) / count:8.0f} bytes a connection, both ends")
        print("idle_connections says:\n  " + program.stdout.strip().replace("\n", "\n  "))


if __name__ == "__main__":
    main()
