# SPDX-License-Identifier: Apache-2.0
"""chirud with a configuration of its own, and what chiructl says of it."""
import json
import signal
import subprocess

import yaml

from .process import Failed, wait_until


class Daemon:
    """One chirud. `device` is what the configuration's `device:` says."""

    def __init__(self, lab, *, namespace, device, addresses, cores=(0,), idle="adaptive", mtu=1500,
                 connections=16384, routes=(), cpus=None, extra=None,
                 vlans=None):
        self._lab = lab
        self.namespace = namespace
        self.directory = lab.directory / f"daemon{lab.number()}"
        self.directory.mkdir()
        self.socket = self.directory / "control.sock"
        self.config_path = self.directory / "chirud.yaml"
        self.log_path = self.directory / "chirud.log"
        self._cpus = cpus
        config = {
            "control": {"socket": str(self.socket)},
            "dataplane": {"cores": list(cores), "idle": idle, "connections": connections},
            "ports": [{"name": "nic0", "device": device, "mtu": mtu}],
            "interfaces": [{"name": "storage", "port": "nic0", "addresses": list(addresses),
                            "routes": list(routes)}],
        }
        for vlan, tagged in (vlans or {}).items():
            config["interfaces"].append({"name": f"vlan{vlan}", "port": "nic0", "vlan": vlan,
                                         "addresses": list(tagged)})
        for section, values in (extra or {}).items():
            config.setdefault(section, {}).update(values)
        self.config_path.write_text(yaml.safe_dump(config, sort_keys=False))
        self.program = None
        self.start()

    def start(self):
        """Starts (again) and waits until the daemon answers on its control socket."""
        self.program = self._lab.start(
            [self._lab.built("chirud"), "--config", self.config_path], name="chirud",
            namespace=self.namespace, cpus=self._cpus)

        def answers():
            if not self.program.running():
                raise Failed(f"chirud ended with {self.program.code()}\n{self.program.tail(60)}")
            return self.socket.exists() and self._chiructl("status", "--json").returncode == 0

        wait_until(answers, 20, f"chirud answers on {self.socket}")

    def kill(self):
        """As if it had crashed."""
        self.program.signal(signal.SIGKILL)
        self.program.kill()

    def alive(self):
        return self.program.running()

    def environment(self):
        return {"CHIRU_SOCKET": str(self.socket)}

    def _chiructl(self, *words):
        return subprocess.run([self._lab.built("chiructl"), "--socket", self.socket, *words],
                              capture_output=True, text=True, timeout=20)

    def text(self, *words):
        """What chiructl prints for people."""
        done = self._chiructl(*words)
        if done.returncode != 0:
            raise Failed(f"chiructl {' '.join(words)}: {done.returncode}: {done.stderr}")
        return done.stdout

    def show(self, *words):
        """The same for programs: parsed JSON."""
        return json.loads(self.text(*words, "--json"))

    def counters(self):
        """Totals over all shards, by name."""
        return self.show("stats")["counters"]

    def connections(self):
        return self.show("conns")["connections"]

    def listeners(self):
        """Local endpoints that accept connections."""
        return [entry["local"] for entry in self.connections() if entry["state"] == "LISTEN"]

    def live(self):
        """How many connections, listeners, sessions, channels and held buffers there are now."""
        return self.show("status")["live"]

    def addresses_usable(self):
        """Duplicate address detection of IPv6 takes a second."""
        return all(str(address.get("state", "")).lower() == "preferred"
                   for interface in self.show("status").get("interfaces", [])
                   for address in interface.get("addresses", []))

    def wait_live_is_back(self, before, seconds, names=None):
        """Until nothing of what came since live() was `before` is left. What then lingered, such
        as a connection in TIME-WAIT, may have gone too."""

        def is_back():
            now = self.live()
            return all(now[name] <= before[name] for name in names or before)

        wait_until(is_back, seconds,
                   lambda: f"live things are {before} again; they are {self.live()}")
