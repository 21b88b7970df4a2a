# SPDX-License-Identifier: Apache-2.0
"""The unmodified servers that tests and benchmarks start on either kind of host."""

from .lab import REPOSITORY
from .process import Failed, wait_until

_NGINX = """\
daemon off;
master_process {master};
worker_processes {workers};
user root;
pid {directory}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    keepalive_requests 1000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen {endpoint};
        root {root};
    }}
}}
"""


def bracketed(address):
    return f"[{address}]" if ":" in address else address


class _Server:
    """A program that serves on one address and port of a host."""

    def __init__(self, host, family, port):
        self.host = host
        self.family = family
        self.address = host.addresses[family]
        self.port = port
        self.program = None
        if host.on_chiru:  # the one before us may still be on its way out of a shard
            wait_until(lambda: not self._is_listed(), 5, f"port {port} is free")

    def _wait_listening(self):
        """Until the port is bound: asked of chiru, or of the kernel, never by connecting."""
        wait_until(self._listening, 15, f"{self.program.name} listens on port {self.port}")

    def _listening(self):
        if not self.program.running():
            raise Failed(f"{self.program.name} ended: {self.program.code()}\n{self.program.tail()}")
        if self.host.on_chiru:
            return self._is_listed()
        said = self.host.run(["ss", "-Hltn", f"sport = :{self.port}"], name="ss")
        return bool(said.strip())

    def _is_listed(self):
        return any(self._is_ours(entry) for entry in self.host.daemon.listeners())

    def _is_ours(self, endpoint):
        return endpoint.rsplit(":", 1)[-1] == str(self.port)

    def stop(self):
        self.program.kill()


class RedisServer(_Server):
    def __init__(self, host, family, port=6379, cpus=None):
        super().__init__(host, family, port)
        directory = host.lab_directory(f"redis{port}")
        self.program = host.start(
            ["redis-server", "--bind", self.address, "--port", port, "--save", "", "--appendonly",
             "no", "--protected-mode", "no", "--dir", directory, "--loglevel", "warning"],
            cpus=cpus)
        self.where = ["-h", self.address, "-p", str(port)]
        self._wait_listening()

    def cli(self, host, *words):
        """redis-cli on `host`."""
        return host.run(["redis-cli", *self.where, *words], name="redis-cli")


class Nginx(_Server):
    """`master` says whether a master process forks the workers, as Debian's own does."""

    def __init__(self, host, family, root, port=8080, master=True, workers=1, cpus=None):
        super().__init__(host, family, port)
        directory = host.lab_directory(f"nginx{port}")
        config = directory / "nginx.conf"
        config.write_text(_NGINX.format(directory=directory, root=root,
                                        master="on" if master else "off", workers=workers,
                                        endpoint=f"{bracketed(self.address)}:{port}"))
        self.program = host.start(["nginx", "-p", directory, "-c", config], cpus=cpus)
        self.url = f"http://{bracketed(self.address)}:{port}"
        self._wait_listening()


class Iperf(_Server):
    def __init__(self, host, family, port=5201, cpus=None):
        super().__init__(host, family, port)
        self.program = host.start(["iperf3", "-s", "-B", self.address, "-p", port], cpus=cpus)
        self.where = ["-c", self.address, "-p", str(port)]
        self._wait_listening()


class EchoServer(_Server):
    """bench_echo_server: plain POSIX, epoll."""

    def __init__(self, host, family, port=7777, cpus=None):
        super().__init__(host, family, port)
        self.program = host.start([host.built("bench_echo_server"), self.address, port], cpus=cpus)
        self._wait_listening()


class SilentServer(_Server):
    """Accepts, and neither reads nor writes."""

    def __init__(self, host, family, port=9000, cpus=None):
        super().__init__(host, family, port)
        program = REPOSITORY / "test/system/programs/silent_server.py"
        self.program = host.start(["/usr/bin/python3", program, self.address, port], cpus=cpus)
        self._wait_listening()
