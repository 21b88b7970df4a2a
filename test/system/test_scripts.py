# SPDX-License-Identifier: Apache-2.0
"""The packet scripts of test/script over a wire: against chirud, and against the kernel's TCP.

Both are the host 10.7.0.2 at the other end of a device on which `script-wire` speaks raw frames for
peers that nobody else knows. What a script's program does is done by `script-puppet` over there.
"""
import os
import pathlib
import subprocess

import pytest

from lab.daemon import Daemon
from lab.lab import REPOSITORY, ip
from lab.links import complete_frames, silence_kernel
from lab.process import wait_until

HOST = {4: "10.7.0.2", 6: "fd07::2"}
PEERS = {4: "10.7.0.100", 6: "fd07::100"}
VLAN = 7
VLAN_HOST = {4: "10.8.0.2", 6: "fd08::2"}
VLAN_PEERS = {4: "10.8.0.100", 6: "fd08::100"}
SCRIPTS = pathlib.Path(os.environ.get("CHIRU_SCRIPTS", REPOSITORY / "test" / "script"))

# What differs between networks, not between stacks: nothing is remembered from one script to the
# next, and what is refused is answered each time.
KERNEL_SETTINGS = {
    "net.ipv4.tcp_no_metrics_save": 1,
    "net.ipv4.tcp_autocorking": 0,
    "net.ipv4.tcp_invalid_ratelimit": 0,
    "net.ipv4.tcp_fastopen": 3,
}


def mac_of(namespace, device):
    command = ["ip", "netns", "exec", namespace, "cat", f"/sys/class/net/{device}/address"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


class Stage:
    """A host under test, the device in front of it, and how to start a program on it."""

    def __init__(self, lab, target, namespace, device, stack_mac, puppet):
        self._lab, self._target = lab, target
        self._namespace, self._device = namespace, device
        self._stack_mac, self._puppet = stack_mac, puppet

    def play(self, stack, peers, *, vlan=0, seconds=120):
        done = self._lab.start(
            [self._lab.built("script-wire"), "--target", self._target, "--interface", self._device,
             "--stack-mac", self._stack_mac, "--stack", stack, "--peers", peers,
             "--vlan", vlan, SCRIPTS, "--", *self._puppet], namespace=self._namespace,
            name="script-wire")
        code = done.wait(seconds)
        print(done.stdout)
        assert code == 0, f"\n{done.stdout}{done.stderr}"


def linux(lab):
    kernel, peer = lab.namespace("kernel"), lab.namespace("peer")
    lab.veth((kernel, "k0"), (peer, "p0"))
    silence_kernel(peer, "p0")
    for space, name in ((kernel, "k0"), (peer, "p0")):
        complete_frames(space, name)
    for address in (f"{HOST[4]}/24", f"{HOST[6]}/64"):
        ip("addr", "add", address, "dev", "k0", *(["nodad"] if ":" in address else []),
           namespace=kernel)
    for name, value in KERNEL_SETTINGS.items():
        subprocess.run(["ip", "netns", "exec", kernel, "sysctl", "-qw", f"{name}={value}"],
                       check=True)
    puppet = ["ip", "netns", "exec", kernel, lab.built("script-puppet")]
    return Stage(lab, "linux", peer, "p0", mac_of(kernel, "k0"), puppet)


def chirud(lab):
    space = lab.namespace("tap")
    daemon = Daemon(lab, namespace=space, device="net_tap0,iface=chiru0",
                    addresses=[f"{HOST[4]}/24", f"{HOST[6]}/64"],
                    extra={"tcp": {"min_rto": "200ms", "delayed_ack": "40ms"}},
                    vlans={VLAN: [f"{VLAN_HOST[4]}/24", f"{VLAN_HOST[6]}/64"]})
    silence_kernel(space, "chiru0")
    ip("link", "set", "chiru0", "up", namespace=space)
    wait_until(lambda: all(address["state"].lower() == "preferred"
                           for interface in daemon.show("status")["interfaces"]
                           for address in interface["addresses"]), 15, "addresses are preferred")
    # The kernel's end has the device's own address; chirud's differs from it in the last bit.
    mac = mac_of(space, "chiru0").split(":")
    mac[5] = f"{int(mac[5], 16) ^ 1:02x}"
    puppet = ["env", *(f"{name}={value}" for name, value in daemon.environment().items()),
              lab.built("chiru"), lab.built("script-puppet")]
    return Stage(lab, "chirud", space, "chiru0", ":".join(mac), puppet)


@pytest.mark.parametrize("make", (chirud, linux), ids=("chirud", "linux"))
def test_scripts(lab, make, family):
    make(lab).play(HOST[family], PEERS[family])


def test_scripts_in_a_vlan(lab, family, request):
    if family == 6 and not request.config.getoption("--full"):
        pytest.skip("only with --full")
    chirud(lab).play(VLAN_HOST[family], VLAN_PEERS[family], vlan=VLAN)
