# SPDX-License-Identifier: Apache-2.0
"""Two hosts that can talk. Tests ask a Host to run programs and do not care what carries them.

    Link.chiru   a daemon: its programs run under `chiru`
    Link.peer    the kernel's TCP (tap, af_packet, af_xdp), another daemon (memif), or the same
                 daemon once more (local)
"""
import subprocess

from .daemon import Daemon
from .lab import ip
from .process import wait_until

CHIRU = {4: "10.7.0.2", 6: "fd07::2"}
PEER = {4: "10.7.0.1", 6: "fd07::1"}
_BITS = {4: 24, 6: 64}
TRANSPORTS = ("tap", "af_packet", "af_xdp", "memif", "local")
ORACLE = "kernel"  # the kernel on both sides: shows that a test itself is right
TO_KERNEL = ("tap", "af_packet", "af_xdp")


def with_bits(addresses):
    return [f"{address}/{_BITS[family]}" for family, address in addresses.items()]


class KernelHost:
    """Programs on the kernel's TCP in a namespace."""
    on_chiru = False

    def __init__(self, lab, namespace, addresses, device, cpus=None):
        self._lab = lab
        self.namespace = namespace
        self.addresses = addresses
        self.device = device
        self._cpus = cpus

    def start(self, argv, **options):
        if options.get("cpus") is None:
            options["cpus"] = self._cpus
        return self._lab.start(argv, namespace=self.namespace, **options)

    def built(self, name):
        return self._lab.built(name)

    def lab_directory(self, name):
        """A new directory that vanishes with the lab."""
        path = self._lab.directory / f"{name}-{self._lab.number()}"
        path.mkdir()
        return path

    def run(self, argv, seconds=60, **options):
        """Runs to a good end and returns what was printed."""
        return self.start(argv, **options).expect_success(seconds)


class ChiruHost(KernelHost):
    """Programs under `chiru` on one daemon."""
    on_chiru = True

    def __init__(self, lab, daemon, addresses, cpus=None):
        super().__init__(lab, daemon.namespace, addresses, device=None, cpus=cpus)
        self.daemon = daemon

    def start(self, argv, env=None, name=None, **options):
        name = name or f"chiru-{str(argv[0]).rsplit('/', 1)[-1]}"
        environment = {**self.daemon.environment(), **(env or {})}
        return super().start([self._lab.built("chiru"), *argv], env=environment, name=name,
                             **options)


class Link:
    """Two hosts over one transport."""

    def __init__(self, lab, transport, shards=1, *, mtu=1500, daemon_options=None):
        self.lab = lab
        self.transport = transport
        self.shards = shards
        self.mtu = mtu
        # Connections that linger for a minute would hide those that were forgotten.
        self._options = {"cores": list(range(shards)), "mtu": mtu,
                         "extra": {"tcp": {"time_wait": "500ms"}}, **(daemon_options or {})}
        getattr(self, f"_make_{transport}")()

    def daemons(self):
        hosts = [host for host in (self.chiru, self.peer) if host.on_chiru]
        return list({id(host.daemon): host.daemon for host in hosts}.values())

    def wait_reachable(self):
        """Until the peers answer each other over both families (DAD takes a second)."""
        for family, address in CHIRU.items():
            wait_until(lambda: self._answers(address), 15, f"{address} answers over {self}")

    def _answers(self, address):
        if self.peer.on_chiru:
            return all(daemon.addresses_usable() for daemon in self.daemons())
        command = ["ip", "netns", "exec", self.peer.namespace, "ping", "-c1", "-W1", address]
        return subprocess.run(command, capture_output=True).returncode == 0

    def restart_daemon(self):
        """After its end; a tap that went with it gets its kernel side again."""
        self.chiru.daemon.start()
        if self.transport == "tap":
            self._kernel_peer(self.chiru.namespace, self.peer.device)
        self.wait_reachable()

    def __str__(self):
        return f"{self.transport}-{self.shards}"

    def _daemon(self, namespace, device, addresses=None, **options):
        return Daemon(self.lab, namespace=namespace, device=device,
                      addresses=with_bits(addresses or CHIRU), **{**self._options, **options})

    def _kernel_peer(self, namespace, device):
        for address in with_bits(PEER):
            ip("addr", "add", address, "dev", device, *(["nodad"] if ":" in address else []),
               namespace=namespace)
        ip("link", "set", device, "mtu", self.mtu, "up", namespace=namespace)
        return KernelHost(self.lab, namespace, PEER, device)

    def _make_tap(self):
        space = self.lab.namespace("tap")
        daemon = self._daemon(space, "net_tap0,iface=chiru0")
        self.chiru = ChiruHost(self.lab, daemon, CHIRU)
        self.peer = self._kernel_peer(space, "chiru0")

    def _veth_to_kernel(self, device, queues):
        kernel = self.lab.namespace("kernel")
        chiru = self.lab.namespace("chiru")
        self.lab.veth((kernel, "k0"), (chiru, "c0"), queues=queues)
        silence_kernel(chiru, "c0")
        for space, name in ((kernel, "k0"), (chiru, "c0")):
            complete_frames(space, name)
            ip("link", "set", name, "mtu", self.mtu, namespace=space)
        daemon = self._daemon(chiru, device)
        self.chiru = ChiruHost(self.lab, daemon, CHIRU)
        self.peer = self._kernel_peer(kernel, "k0")

    def _make_af_packet(self):
        self._veth_to_kernel(f"net_af_packet0,iface=c0,qpairs={self.shards}", self.shards)

    def _make_af_xdp(self):
        # Its driver takes several queues only where an interface has "combined" channels (ethtool
        # -l); a veth has none, so with two shards this one is steered in software.
        self._veth_to_kernel("net_af_xdp0,iface=c0,start_queue=0,queue_count=1", queues=1)

    def _make_memif(self):
        wire = self.lab.directory / f"memif{self.lab.number()}.sock"
        hosts = []
        for role, addresses in (("server", CHIRU), ("client", PEER)):
            daemon = self._daemon(self.lab.namespace(role), memif_device(role, wire), addresses)
            hosts.append(ChiruHost(self.lab, daemon, addresses))
        self.chiru, self.peer = hosts

    def _make_kernel(self):
        spaces = [self.lab.namespace("kernel") for _ in range(2)]
        self.lab.veth((spaces[0], "k0"), (spaces[1], "k0"))
        hosts = []
        for space, addresses in zip(spaces, (CHIRU, PEER)):
            for address in with_bits(addresses):
                ip("addr", "add", address, "dev", "k0", *(["nodad"] if ":" in address else []),
                   namespace=space)
            hosts.append(KernelHost(self.lab, space, addresses, "k0"))
        self.chiru, self.peer = hosts

    def _make_local(self):
        daemon = self._daemon(self.lab.namespace("local"), "net_tap0,iface=chiru0")
        self.chiru = ChiruHost(self.lab, daemon, CHIRU)
        self.peer = ChiruHost(self.lab, daemon, CHIRU)


def memif_device(role, wire):
    return (f"net_memif0,role={role},id=0,socket={wire},socket-abstract=no,"
            f"rsize=11,zero-copy=no")


def silence_kernel(namespace, device):
    """The kernel must not answer for addresses that chiru owns on this interface."""
    subprocess.run(["ip", "netns", "exec", namespace, "sysctl", "-qw",
                    f"net.ipv6.conf.{device}.disable_ipv6=1"], check=True)


def complete_frames(namespace, device):
    """A veth leaves checksums and segmentation to a receiver in the same kernel; chiru is none."""
    subprocess.run(["ip", "netns", "exec", namespace, "ethtool", "-K", device, "tx", "off", "tso",
                    "off", "gso", "off", "gro", "off"], check=True, capture_output=True)
