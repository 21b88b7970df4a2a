# SPDX-License-Identifier: Apache-2.0
"""The Lab: whatever a test makes is made through it, and is gone when it closes."""
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from .process import Program

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
_NAMESPACES = pathlib.Path("/run/netns")
_PREFIX = "chirulab"
_numbers = itertools.count(1)  # of the process: two labs of one must not choose the same name


def ip(*words, namespace=None):
    """Runs ip(8); its complaint becomes the exception's text."""
    command = ["ip"] + (["-n", namespace] if namespace else []) + [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def find_built(build, name):
    """A program of the build tree, wherever its folder is."""
    found = [path for path in pathlib.Path(build).rglob(name)
             if path.is_file() and os.access(path, os.X_OK) and ".p" not in path.suffixes]
    if not found:
        raise FileNotFoundError(f"{name} is not in {build}; run ninja -C {build} first")
    return found[0]


class Lab:
    """Owns namespaces, programs and a directory for as long as the `with` block lasts."""

    def __init__(self):
        self.build = pathlib.Path(os.environ.get("CHIRU_BUILD") or REPOSITORY / "build")
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix=f"{_PREFIX}-"))
        self.programs = []
        self._namespaces = []
        _remove_orphaned_namespaces()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def built(self, name):
        # chirud alone may come from a tree with sanitizers; programs under `chiru` need plain ones.
        build = os.environ.get("CHIRU_DAEMON_BUILD") if name == "chirud" else None
        return find_built(build or self.build, name)

    def number(self):
        return next(_numbers)

    def namespace(self, label):
        """A new network namespace with its loopback up."""
        name = f"{_PREFIX}-{os.getpid()}-{label}{self.number()}"
        ip("netns", "add", name)
        self._namespaces.append(name)
        ip("link", "set", "lo", "up", namespace=name)
        # The kernel's connect() slows down a hundredfold once half of its ports are taken.
        subprocess.run(["ip", "netns", "exec", name, "sysctl", "-qw",
                        "net.ipv4.ip_local_port_range=10240 65535"], check=True)
        return name

    def veth(self, end_a, end_b, queues=1):
        """A veth pair; each end is (namespace, interface name)."""
        (space_a, name_a), (space_b, name_b) = end_a, end_b
        counts = ["numrxqueues", queues, "numtxqueues", queues]
        # Made inside the namespace, so that its names cannot meet the machine's own.
        ip("link", "add", name_a, *counts, "type", "veth", "peer", "name", name_b, *counts,
           "netns", space_b, namespace=space_a)
        for space, name in (end_a, end_b):
            ip("link", "set", name, "up", namespace=space)

    def start(self, argv, *, name=None, namespace=None, env=None, cpus=None):
        """Starts a program that ends with the lab at the latest."""
        label = f"{self.number():03}-{name or pathlib.Path(str(argv[0])).name}"
        program = Program(argv, directory=self.directory, name=label, namespace=namespace, env=env,
                          cpus=cpus)
        self.programs.append(program)
        return program

    def forget_ended(self):
        """Drops programs that ended, so that a long session does not collect them."""
        self.programs = [program for program in self.programs if program.running()]

    def report(self):
        """What every program said last: for a failed test."""
        tails = (program.tail() for program in self.programs)
        return "\n".join(tail for tail in tails if tail)

    def close(self):
        for program in reversed(self.programs):
            program.kill()
        for name in self._namespaces:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        if "CHIRU_KEEP_LOGS" not in os.environ:
            shutil.rmtree(self.directory, ignore_errors=True)


def _remove_orphaned_namespaces():
    """Namespaces of labs whose process was killed and could not clean up."""
    for path in _NAMESPACES.glob(f"{_PREFIX}-*"):
        owner = re.match(rf"{_PREFIX}-(\d+)-", path.name)
        if owner and not pathlib.Path(f"/proc/{owner[1]}").exists():
            subprocess.run(["ip", "netns", "del", path.name], capture_output=True)
