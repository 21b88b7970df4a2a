# SPDX-License-Identifier: Apache-2.0
"""Programs under test: started in their own session, never outliving us, waited for by deadline."""
import ctypes
import os
import signal
import subprocess
import time

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Failed(AssertionError):
    """A program ended otherwise than it should; carries the end of what it said."""


def wait_until(condition, seconds, what):
    """Returns condition()'s first true value, or fails naming `what` once the deadline is over.

    `what` is a text, or a function that makes it of what is the case then."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"after {seconds} s still not: {what() if callable(what) else what}")
        time.sleep(0.02)


class Program:
    """A running program. Its output goes to files, so that no pipe can fill up and stop it."""

    def __init__(self, argv, *, directory, name, namespace=None, env=None, cpus=None):
        self.argv = [str(word) for word in argv]
        self.name = name
        self.stdout_path = directory / f"{name}.out"
        self.stderr_path = directory / f"{name}.err"
        command = (["ip", "netns", "exec", namespace] if namespace else []) + self.argv
        environment = {**os.environ, **(env or {})}

        def prepare():
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if cpus is not None:
                os.sched_setaffinity(0, cpus)

        with open(self.stdout_path, "wb") as out, open(self.stderr_path, "wb") as err:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out,
                                             stderr=err, env=environment, preexec_fn=prepare,
                                             start_new_session=True)
        self.pid = self._process.pid

    @property
    def stdout(self):
        return self.stdout_path.read_text(errors="replace")

    @property
    def stderr(self):
        return self.stderr_path.read_text(errors="replace")

    def running(self):
        return self._process.poll() is None

    def code(self):
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def wait(self, seconds):
        """Waits for the end and returns the exit code; fails if it does not come."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} still runs after {seconds} s\n{self.tail()}") from None

    def expect_success(self, seconds):
        """Waits for a good end and returns what the program printed."""
        if (code := self.wait(seconds)) != 0:
            raise Failed(f"{self.name} ended with {code}: {' '.join(self.argv)}\n{self.tail()}")
        return self.stdout

    def signal(self, number):
        """To the program alone, not to what it started."""
        if self.running():
            os.kill(self.pid, number)

    def kill(self):
        """Kills the program and everything it started."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait(10)

    def stop(self, seconds=10):
        """Asks for an orderly end; returns the exit code."""
        self.signal(signal.SIGTERM)
        try:
            return self.wait(seconds)
        finally:
            self.kill()

    def tail(self, lines=25):
        """The last lines of both outputs, for messages."""
        parts = []
        for label, text in (("stdout", self.stdout), ("stderr", self.stderr)):
            if text.strip():
                last = "\n".join(text.splitlines()[-lines:])[-4000:]
                parts.append(f"--- {self.name} {label}\n" + last)
        return "\n".join(parts)
