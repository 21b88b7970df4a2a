#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""chiru's sender beside the kernel's over a network that delays, loses and reorders.

Each sender has a wire of its own (bench_impair, the simulator's link in real time, 500 Mbit/s with
a queue in front) to a receiver on the kernel's TCP. The senders take turns in short rounds; the
tables show the median goodput of one stream, and completion times of 64 KB requests on so many
connections as chosen, each with one request under way. Losses and delay are in both directions;
reordering lets 1 % of the sender's frames be overtaken, by half a round trip.

    scripts/bench --lossy [--loss PERCENT]... [--rtt MS]... [--rounds N] [--seconds S]
                          [--senders NAME,...] [--requests [--connections N]] [--json FILE]
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "system"))

from lab.daemon import Daemon  # noqa: E402
from lab.lab import Lab, ip  # noqa: E402
from lab.links import ChiruHost, KernelHost, complete_frames, silence_kernel  # noqa: E402
from lab.process import wait_until  # noqa: E402

SENDER, RECEIVER = "10.7.0.1", "10.7.0.2"
PORT = 9000
RATE_MBIT, QUEUE_KB = 500, 512


class Rig:
    """One sender, a wire whose faults can be chosen anew, and a receiver."""

    def __init__(self, lab, name, on_chiru):
        self._lab = lab
        self.name = name
        self._wire_space = lab.namespace("wire")
        receiver = lab.namespace("receiver")
        sender = lab.namespace("sender")
        lab.veth((sender, "s0"), (self._wire_space, "a0"))
        lab.veth((receiver, "r0"), (self._wire_space, "b0"))
        for end in ("a0", "b0"):
            silence_kernel(self._wire_space, end)
        complete_frames(receiver, "r0")
        complete_frames(sender, "s0")
        ip("addr", "add", f"{RECEIVER}/24", "dev", "r0", namespace=receiver)
        self.receiver = KernelHost(lab, receiver, {4: RECEIVER}, "r0", cpus={1})
        self._wire = None
        self.set_wire(0, 0.1, False)
        if on_chiru:
            silence_kernel(sender, "s0")
            daemon = Daemon(lab, namespace=sender, device="net_af_packet0,iface=s0,qpairs=1",
                            addresses=[f"{SENDER}/24"], cpus={0})
            self.sender = ChiruHost(lab, daemon, {4: SENDER}, cpus={0})
        else:
            ip("addr", "add", f"{SENDER}/24", "dev", "s0", namespace=sender)
            self.sender = KernelHost(lab, sender, {4: SENDER}, "s0", cpus={0})
        server = self.receiver.start([lab.built("bench_transfer"), "--serve", PORT])
        wait_until(lambda: "ready" in server.stdout, 10, "the receiver listens")

    def set_wire(self, loss_percent, rtt_ms, reorder):
        if self._wire is not None:
            self._wire.kill()
        half_us = round(rtt_ms * 1000 / 2)
        late = ["--late-ppm", 10_000, "--late-us", half_us] if reorder else []
        self._wire = self._lab.start(
            [self._lab.built("bench_impair"), "--a", "a0", "--b", "b0", "--delay-us", half_us,
             "--loss-ppm", round(loss_percent * 10_000), "--rate-mbit", RATE_MBIT,
             "--queue-kb", QUEUE_KB, *late], namespace=self._wire_space, cpus={1})
        wait_until(lambda: "ready" in self._wire.stdout, 10, "the wire carries")

    def measure(self, mode, seconds, congestion, connections=1):
        chosen = ["--congestion", congestion] if congestion else []
        said = self.sender.run(
            [self.sender.built("bench_transfer"), "--to", RECEIVER, PORT, "--mode", mode,
             "--seconds", seconds, "--connections", connections, *chosen], seconds + 60)
        return json.loads(said)


def available_congestion():
    said = subprocess.run(["sysctl", "-n", "net.ipv4.tcp_available_congestion_control"],
                          capture_output=True, text=True, check=True).stdout.split()
    return [name for name in ("cubic", "bbr") if name in said]


def make_senders(lab, wanted):
    """{name: (rig, congestion control)}; chiru's share a wire, and so do the kernel's."""
    senders = {}
    ours = {name: congestion for name, congestion in {"chiru": None, "chiru-bbr": "bbr"}.items()
            if name in wanted}
    if ours:
        rig = Rig(lab, "chiru", True)
        senders |= {name: (rig, congestion) for name, congestion in ours.items()}
    kernel = [f"linux-{name}" for name in available_congestion() if f"linux-{name}" in wanted]
    if kernel:
        rig = Rig(lab, "linux", False)
        senders |= {name: (rig, name.removeprefix("linux-")) for name in kernel}
    return senders


def run_cell(senders, cell, rounds, seconds, connections):
    """{sender: {"mbit_per_s": median, "p50_us":, "p99_us":}}"""
    for rig in {id(rig): rig for rig, _ in senders.values()}.values():
        rig.set_wire(*cell)
    goodput = {name: [] for name in senders}
    times = {name: [] for name in senders}
    for turn in range(rounds):
        names = list(senders)
        for name in names if turn % 2 == 0 else names[::-1]:
            rig, congestion = senders[name]
            goodput[name].append(rig.measure("stream", seconds, congestion)["mbit_per_s"])
            if connections:
                times[name].append(rig.measure("requests", seconds, congestion, connections))
    return {name: {"mbit_per_s": statistics.median(goodput[name]),
                   **({key: statistics.median(entry[key] for entry in times[name])
                       for key in ("p50_us", "p99_us")} if connections else {})}
            for name in senders}


def rows(cell, results):
    loss, rtt, reorder = cell
    label = f"{loss:>5}%  {rtt:>5} ms  {'yes' if reorder else 'no':>9}"
    yield "  ".join([label, *(f"{entry['mbit_per_s']:11.1f}" for entry in results.values())])
    if "p99_us" in next(iter(results.values())):
        for key in ("p50_us", "p99_us"):
            yield "  ".join([f"{'requests ' + key:>27}",
                             *(f"{entry[key]:11,.0f}" for entry in results.values())])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loss", type=float, action="append", help="percent; may be repeated")
    parser.add_argument("--rtt", type=float, action="append", help="ms; may be repeated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--senders", default="chiru,linux-cubic,chiru-bbr,linux-bbr")
    parser.add_argument("--requests", action="store_true", help="completion times as well")
    parser.add_argument("--connections", type=int, default=4, help="for requests")
    parser.add_argument("--json", type=pathlib.Path)
    wish = parser.parse_args()
    cells = [(loss, rtt, reorder) for loss in wish.loss or (0, 0.1, 1, 5)
             for rtt in wish.rtt or (0.1, 1, 20) for reorder in (False, True)]
    everything = []
    with Lab() as lab:
        senders = make_senders(lab, wish.senders.split(","))
        print("Mbit/s  ".rjust(28) + "  ".join(f"{name:>11}" for name in senders))
        print(" loss  round trip  reordered")
        for cell in cells:
            results = run_cell(senders, cell, wish.rounds, wish.seconds,
                               wish.connections if wish.requests else 0)
            everything.append({"cell": cell, "results": results})
            print(*rows(cell, results), sep="\n", flush=True)
    if wish.json:
        wish.json.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
