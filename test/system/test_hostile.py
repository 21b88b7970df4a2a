# SPDX-License-Identifier: Apache-2.0
"""What no honest host sends, and what no honest client says: the daemon drops it, counts it by
name, and serves everybody else."""
import os
import pathlib
import random
import re
import socket
import struct

import pytest

from lab import frames
from lab.frames import ACK, FIN, SYN
from lab.links import CHIRU, PEER
from lab.process import wait_until
from lab.services import EchoServer

PROGRAMS = pathlib.Path(__file__).parent / "programs"
PORT = 7777


class Wire:
    """The kernel's side of a link, for frames made by hand."""

    def __init__(self, link, family):
        self.link = link
        self.family = family
        self.ours, self.theirs = PEER[family], CHIRU[family]
        link.peer.run(["ping", "-n", "-c1", "-W2", self.theirs])  # the kernel learns the MAC
        found = link.peer.run(["ip", "neigh", "show", self.theirs])
        self.their_mac = re.search(r"lladdr ([0-9a-f:]+)", found)[1]
        shown = link.peer.run(["ip", "link", "show", "dev", link.peer.device])
        self.our_mac = re.search(r"link/ether ([0-9a-f:]+)", shown)[1]

    def send(self, payloads, kind=None):
        """IP packets (or whatever `kind` says) in Ethernet frames to chiru."""
        self.send_raw(frames.ethernet(self.their_mac, self.our_mac, payload, kind)
                      for payload in payloads)

    def send_raw(self, raw):
        path = self.link.lab.directory / f"frames-{self.link.lab.number()}.hex"
        path.write_text("".join(frame.hex() + "\n" for frame in raw))
        self.link.peer.run(["/usr/bin/python3", PROGRAMS / "send_frames.py", self.link.peer.device,
                            path], name="send_frames")

    def ip(self, protocol, payload, source=None, **fields):
        return frames.ip(source or self.ours, self.theirs, protocol, payload, **fields)

    def tcp(self, flags, source=None, source_port=5000, port=PORT, **fields):
        source = source or self.ours
        segment = frames.tcp(source, self.theirs, source_port, port, flags, **fields)
        return self.ip(frames.TCP, segment, source)

    def still_answers(self):
        said = self.link.peer.run(["ping", "-n", "-c3", "-i0.05", "-W2", self.theirs])
        assert " 0% packet loss" in said, said


@pytest.fixture
def wire(link, family):
    made = Wire(link, family)
    yield made
    assert link.chiru.daemon.alive()
    made.still_answers()


def expect_count(wire, counter, payloads, at_least=None):
    """Every one of `payloads` must end in `counter`."""
    daemon = wire.link.chiru.daemon
    before = daemon.counters()[counter]
    payloads = list(payloads)
    wire.send(payloads)
    wanted = before + (len(payloads) if at_least is None else at_least)
    wait_until(lambda: daemon.counters()[counter] >= wanted, 5,
               f"{counter} counts {wanted - before} more; it counts "
               f"{daemon.counters()[counter] - before}")


pytestmark = [pytest.mark.kernel, pytest.mark.any_wire]


def test_wrong_tcp_checksums_are_counted(wire):
    expect_count(wire, "in.bad_checksum",
                 (wire.tcp(SYN, checksum=number) for number in range(1, 50)))


def test_wrong_ip_checksums_are_counted(wire):
    if wire.family == 6:
        pytest.skip("IPv6 has none")
    segment = frames.tcp(wire.ours, wire.theirs, 5000, PORT, SYN)
    expect_count(wire, "in.bad_checksum",
                 (wire.ip(frames.TCP, segment, header_checksum=n) for n in range(1, 50)))


def test_wrong_echo_checksums_are_counted(wire):
    ping = frames.echo_request(wire.ours, wire.theirs)
    broken = ping[:2] + b"\x12\x34" + ping[4:]
    protocol = frames.ICMPV6 if wire.family == 6 else frames.ICMP
    expect_count(wire, "in.bad_checksum", [wire.ip(protocol, broken)] * 20)


def test_lengths_that_contradict_themselves_are_counted(wire):
    whole = wire.tcp(SYN)
    segment = frames.tcp(wire.ours, wire.theirs, 5000, PORT, SYN)
    wrong = [whole[:n] for n in range(1, len(whole))]               # cut short anywhere
    wrong += [wire.ip(frames.TCP, segment, length=n) for n in (1400, 65535)]
    wrong += [wire.tcp(SYN, offset=n) for n in (0, 1, 4, 6, 15)]     # TCP header length
    if wire.family == 4:
        wrong += [wire.ip(frames.TCP, segment, ihl=n) for n in (0, 4, 15)]
        wrong += [wire.ip(frames.TCP, segment, length=n) for n in (0, 19)]
    # A frame of the least size is padded by the wire, so a cut one may end as another mistake.
    daemon = wire.link.chiru.daemon
    before = daemon.counters()
    wire.send(wrong)
    names = ("in.malformed", "in.bad_checksum", "in.unknown_protocol", "in.not_for_us")

    def counted():
        now = daemon.counters()
        return sum(now[name] - before[name] for name in names)

    wait_until(lambda: counted() >= len(wrong), 5, f"{len(wrong)} wrong lengths are counted")
    assert daemon.counters()["in.accepted"] - before["in.accepted"] < len(wrong) // 2


def test_options_that_make_no_progress_are_survived(wire):
    shapes = [bytes([kind, length])
              for kind in (2, 3, 4, 5, 8, 30, 254) for length in (0, 1, 2, 255)]
    EchoServer(wire.link.chiru, wire.family)
    wire.send(wire.tcp(SYN, source_port=6000 + n, options=shape + b"\x01\x01")
              for n, shape in enumerate(shapes))


def test_land_and_other_impossible_segments_are_counted(wire):
    expect_count(wire, "in.impossible", [wire.tcp(SYN, source=wire.theirs, source_port=PORT)] * 20)
    multicast = "ff02::1" if wire.family == 6 else "224.0.0.5"
    expect_count(wire, "in.impossible", [wire.tcp(SYN, source=multicast)] * 20)


def test_unknown_protocols_are_counted(wire):
    expect_count(wire, "in.unknown_protocol", [wire.ip(200, b"x" * 40)] * 20)
    daemon = wire.link.chiru.daemon
    before = daemon.counters()["in.unknown_protocol"]
    wire.send([b"x" * 60] * 20, kind=0x88B5)
    wait_until(lambda: daemon.counters()["in.unknown_protocol"] >= before + 20, 5,
               "EtherTypes nobody speaks are counted")


def test_a_closed_port_answers_and_counts(wire):
    expect_count(wire, "in.no_socket",
                 (wire.tcp(SYN, source_port=6000 + n, port=9) for n in range(20)))


def fragments(wire, identity, offset, text, more):
    if wire.family == 6:
        return frames.fragment_v6(wire.ours, wire.theirs, frames.ICMPV6, text, offset, more,
                                  identity)
    return wire.ip(frames.ICMP, text, id=identity & 0xFFFF, flags=int(more), offset=offset)


def test_overlapping_fragments_are_dropped(wire, link, family):
    """RFC 5722 for IPv6; for IPv4 no honest host sends them either."""
    if link.transport == "af_packet" and family == 4:
        pytest.skip("the kernel reassembles IPv4 before a packet socket sees it")
    hostile = []
    for identity in range(100, 120):
        hostile += [fragments(wire, identity, 0, b"a" * 64, True),
                    fragments(wire, identity, 4, b"b" * 64, True)]  # 32..96 over 0..64
    expect_count(wire, "in.fragment_dropped", hostile, at_least=20)


def test_a_flood_of_first_fragments_is_bounded(wire):
    daemon = wire.link.chiru.daemon
    before = daemon.live()["rx_slots_held"]
    wire.send(fragments(wire, 1000 + n, 0, b"f" * 1024, True) for n in range(8000))
    wire.still_answers()
    said = wire.link.peer.run(["ping", "-n", "-c3", "-i0.05", "-W2", "-s1400", wire.theirs])
    assert " 0% packet loss" in said
    assert daemon.live()["rx_slots_held"] <= before + 100


def test_a_syn_flood_leaves_others_alone(wire):
    server = EchoServer(wire.link.chiru, wire.family)
    load = wire.link.peer.start(
        [wire.link.peer.built("bench_echo_client"), server.address, server.port, "--connections", 8,
         "--seconds", 4, "--warmup", 0])
    daemon = wire.link.chiru.daemon
    wait_until(lambda: daemon.live()["connections"] >= 8, 10, "the load runs")
    chance = random.Random(1)
    prefix = "fd07::1:" if wire.family == 6 else "10.7.0."
    wire.send(wire.tcp(SYN, source=f"{prefix}{chance.randrange(3, 250)}",
                       source_port=chance.randrange(1024, 65535), port=server.port,
                       seq=chance.randrange(1 << 32)) for _ in range(20000))
    assert daemon.live()["connections"] < 10000
    assert load.wait(15) == 0, load.tail()


def test_ten_thousand_mutations_are_survived(wire):
    """Right frames with some bits turned, from a fixed seed."""
    server = EchoServer(wire.link.chiru, wire.family)
    protocol = frames.ICMPV6 if wire.family == 6 else frames.ICMP
    models = [wire.tcp(SYN, options=bytes.fromhex("020405b40402080a000000010000000001030307")),
              wire.tcp(ACK, text=b"x" * 50, ack=5), wire.tcp(FIN | ACK), wire.tcp(SYN | FIN),
              wire.ip(protocol, frames.echo_request(wire.ours, wire.theirs, b"y" * 40)),
              fragments(wire, 7, 0, b"z" * 64, True), fragments(wire, 7, 8, b"z" * 64, False)]
    chance = random.Random(wire.family)
    mutated = []
    for _ in range(10000):
        packet = bytearray(chance.choice(models))
        for _ in range(chance.randrange(1, 6)):
            packet[chance.randrange(len(packet))] = chance.randrange(256)
        mutated.append(bytes(packet[:chance.randrange(1, len(packet) + 1)]
                             if chance.random() < 0.2 else packet))
    wire.send(mutated)
    wire.still_answers()
    load = wire.link.peer.run([wire.link.peer.built("bench_echo_client"), server.address,
                               server.port, "--connections", 8, "--seconds", 0.5])
    assert load


def test_every_frame_ends_in_exactly_one_counter(wire):
    daemon = wire.link.chiru.daemon

    def balance():
        counters = daemon.counters()
        fates = sum(count for name, count in counters.items() if name.startswith("in."))
        return counters["rx.frames"] - fates

    wire.still_answers()
    wait_until(lambda: balance() == 0, 5,
               f"rx.frames is the sum of in.*; they differ by {balance()}")


# The control socket.

def messages(chance):
    """Requests of every type with any content, whole and cut, and noise."""
    for kind in range(16):
        yield struct.pack("<HHIiI", 1, kind, 1, 0, 0) + chance.randbytes(496)
        yield struct.pack("<HHIiI", 1, kind, 1, 0, 0) + b"\xff" * 496
        yield struct.pack("<HHIiI", 2, kind, 1, 0, 0) + bytes(496)
        yield struct.pack("<HHIiI", 1, kind, 1, 0, 0)[:chance.randrange(1, 16)]
    for _ in range(200):
        yield chance.randbytes(chance.randrange(1, 4096))


def connect(daemon):
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.connect(str(daemon.socket))  # waits while the daemon has others to accept
    control.settimeout(5)
    return control


def test_garbage_on_the_control_socket_harms_nobody(wire):
    daemon = wire.link.chiru.daemon
    before = daemon.live()
    chance = random.Random(7)
    for message in messages(chance):
        with connect(daemon) as control:
            control.send(message)
    for message in messages(chance):  # after a good beginning
        with connect(daemon) as control:
            control.send(struct.pack("<HHIiI", 1, 1, 1, 0, 0) + bytes(496))
            for _ in range(3):
                try:
                    control.send(message)
                except OSError:
                    break
    daemon.wait_live_is_back(before, 5)


def test_descriptors_nobody_asked_for_are_closed(wire):
    daemon = wire.link.chiru.daemon
    descriptors = pathlib.Path(f"/proc/{daemon.program.pid}/fd")
    before = len(list(descriptors.iterdir()))
    for _ in range(50):
        with connect(daemon) as control, open("/dev/null", "rb") as gift:
            socket.send_fds(control, [struct.pack("<HHIiI", 1, 1, 1, 0, 0) + bytes(496)],
                            [gift.fileno()] * 8)
    wait_until(lambda: len(list(descriptors.iterdir())) <= before + 2, 5,
               "the daemon closed what it was handed")


def test_idle_strangers_do_not_keep_others_out(wire):
    daemon = wire.link.chiru.daemon
    strangers = [connect(daemon) for _ in range(300)]
    try:
        EchoServer(wire.link.chiru, wire.family).stop()
        assert os.path.exists(daemon.socket)
    finally:
        for control in strangers:
            control.close()
