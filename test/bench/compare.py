#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""chiru beside the kernel: the same unmodified programs, the same pinning, in one run.

Two hosts each, and each host is one core: on the kernel two namespaces joined by a veth pair, on
chiru two daemons joined by memif, daemon and program together on their host's core. Short rounds
alternate between the two, and the table shows the median of the rounds.

    scripts/bench [--rounds N] [--seconds N] [--on kernel --on chiru] [--case NAME] [--mtu N]
                  [--json FILE]
"""
import argparse
import csv
import dataclasses
import io
import json
import os
import pathlib
import platform
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "system"))

from lab.daemon import Daemon  # noqa: E402
from lab.lab import Lab, ip  # noqa: E402
from lab.links import CHIRU, PEER, ChiruHost, KernelHost, memif_device, with_bits  # noqa: E402
from lab.services import EchoServer, Iperf, RedisServer  # noqa: E402

FAMILY = 4
ECHO_CONNECTIONS = (1, 32, 256)


@dataclasses.dataclass
class Rig:
    """Two hosts and the servers that run on the first of them."""
    name: str
    server: object
    client: object
    servers: dict = dataclasses.field(default_factory=dict)

    def serve(self, kind):
        if kind not in self.servers:
            self.servers[kind] = kind(self.server, FAMILY)
        return self.servers[kind]


def kernel_rig(lab, cores, mtu):
    spaces = [lab.namespace("kernel") for _ in cores]
    lab.veth((spaces[0], "eth0"), (spaces[1], "eth0"))
    hosts = []
    for space, addresses, core in zip(spaces, (CHIRU, PEER), cores):
        ip("link", "set", "eth0", "mtu", str(mtu), namespace=space)
        for address in with_bits(addresses):
            ip("addr", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []),
               namespace=space)
        hosts.append(KernelHost(lab, space, addresses, "eth0", cpus={core}))
    return Rig("kernel", *hosts)


def chiru_rig(lab, cores, idle, mtu=1500):
    wire = lab.directory / "wire.sock"
    hosts = []
    for role, addresses, core in zip(("server", "client"), (CHIRU, PEER), cores):
        daemon = Daemon(lab, namespace=lab.namespace("chiru"), device=memif_device(role, wire),
                        addresses=with_bits(addresses), cores=[core], cpus={core}, idle=idle,
                        mtu=mtu)
        hosts.append(ChiruHost(lab, daemon, addresses, cpus={core}))
    return Rig("chiru", *hosts)


# Each case returns {figure: value}. Names say the unit; figures in HIGHER_IS_BETTER are rates.

HIGHER_IS_BETTER = ("rate", "gbit_per_s")


def echo(connections):
    def measure(rig, seconds):
        server = rig.serve(EchoServer)
        said = json.loads(rig.client.run(
            [rig.client.built("bench_echo_client"), server.address, server.port, "--connections",
             connections, "--seconds", seconds, "--warmup", 0.3]))
        return {key: said[key] for key in ("rate", "p50_us", "p99_us", "p999_us")}
    return measure


def redis(command, pipeline, requests):
    def measure(rig, seconds):
        server = rig.serve(RedisServer)
        said = rig.client.run(
            ["redis-benchmark", *server.where, "-t", command, "-n", int(requests * seconds),
             "-c", 50, "-P", pipeline, "--csv"])
        row = next(csv.DictReader(io.StringIO(said)))
        return {"rate": float(row["rps"]), "p50_us": float(row["p50_latency_ms"]) * 1000,
                "p99_us": float(row["p99_latency_ms"]) * 1000}
    return measure


def stream(rig, seconds):
    server = rig.serve(Iperf)
    said = json.loads(rig.client.run(["iperf3", *server.where, "-t", max(1, seconds), "-J"]))
    return {"gbit_per_s": said["end"]["sum_received"]["bits_per_second"] / 1e9}


CASES = {
    **{f"echo 64 B, {count} connection{'s' if count > 1 else ''}": echo(count)
       for count in ECHO_CONNECTIONS},
    "redis GET, 50 connections": redis("get", 1, 50_000),
    "redis SET, 50 connections": redis("set", 1, 50_000),
    "redis GET, pipeline of 16": redis("get", 16, 400_000),
    "redis SET, pipeline of 16": redis("set", 16, 400_000),
    "iperf3, one stream": stream,
}


def machine():
    """What the figures were measured on."""
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo")
                if line.startswith("model name")), platform.machine())
    return f"{cpu}, {os.cpu_count()} cores seen, Linux {platform.release()}"


def run_rounds(rigs, cases, rounds, seconds):
    """{case: {rig: [figures of each round]}}; the rigs take turns, so drift hits both alike."""
    results = {case: {rig.name: [] for rig in rigs} for case in cases}
    for turn in range(rounds):
        for case in cases:
            for rig in rigs if turn % 2 == 0 else rigs[::-1]:
                tell(f"round {turn + 1}/{rounds}: {case} on {rig.name}")
                results[case][rig.name].append(CASES[case](rig, seconds))
    tell("")
    return results


def tell(what):
    """How far it is, on a terminal; a log needs no such line."""
    if sys.stderr.isatty():
        print(f"\r{what:76}\r", end="", file=sys.stderr, flush=True)


def median(rounds, figure):
    return statistics.median(entry[figure] for entry in rounds)


def table(results):
    """Lines of text; the ratio is above 1 wherever chiru is better."""
    yield f"{'':28} {'figure':>11} {'kernel':>12} {'chiru':>12} {'chiru is':>10}"
    for case, by_rig in results.items():
        label = case
        for figure in next(rounds[0] for rounds in by_rig.values() if rounds):
            medians = {name: median(rounds, figure) for name, rounds in by_rig.items() if rounds}
            cells = [f"{medians[name]:12,.1f}" if name in medians else f"{'-':>12}"
                     for name in ("kernel", "chiru")]
            ratio = ""
            if len(medians) == 2:
                better, worse = medians["chiru"], medians["kernel"]
                if figure not in HIGHER_IS_BETTER:
                    better, worse = worse, better
                ratio = f"{better / worse:8.2f} x"
            yield f"{label:28} {figure:>11} {cells[0]} {cells[1]} {ratio:>10}"
            label = ""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--on", action="append", choices=("kernel", "chiru"))
    parser.add_argument("--case", action="append", help="cases whose name contains this text")
    parser.add_argument("--cores", default="0,1", help="server's and client's core")
    parser.add_argument("--idle", default="adaptive", choices=("poll", "adaptive", "interrupt"))
    parser.add_argument("--mtu", type=int, default=1500, help="of the wire between the hosts")
    parser.add_argument("--json", type=pathlib.Path, help="all rounds, for other programs")
    return parser.parse_args()


def main():
    options = arguments()
    cores = [int(core) for core in options.cores.split(",")]
    cases = [name for name in CASES if any(text in name for text in options.case or [""])]
    wanted = options.on or ["kernel", "chiru"]
    with Lab() as lab:
        rigs = []
        if "kernel" in wanted:
            rigs.append(kernel_rig(lab, cores, options.mtu))
        if "chiru" in wanted:
            rigs.append(chiru_rig(lab, cores, options.idle, options.mtu))
        try:
            results = run_rounds(rigs, cases, options.rounds, options.seconds)
        except BaseException:
            print(lab.report(), file=sys.stderr)
            raise
    print(f"{machine()}\nmedian of {options.rounds} rounds of {options.seconds} s; "
          f"server on core {cores[0]}, client on core {cores[1]}\n")
    print("\n".join(table(results)))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "results": results}, indent=1))


if __name__ == "__main__":
    main()
