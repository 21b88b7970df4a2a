# SPDX-License-Identifier: Apache-2.0
"""nginx and curl, each on either side; what arrives has the SHA-256 of what was sent."""
import hashlib
import os
import re
import signal

import pytest

from lab.process import wait_until
from lab.services import Nginx

MEGA = 1 << 20
SIZES = {"empty": 0, "byte": 1, "mega": MEGA}
GIGA = 1 << 30


def write_file(path, size):
    """Every megabyte differs from the others and is random inside; returns the SHA-256."""
    digest = hashlib.sha256()
    noise = os.urandom(MEGA)
    with open(path, "wb") as file:
        for index in range(0, max(size, 1), MEGA):
            block = (index.to_bytes(8, "big") + noise[8:])[:size - index]
            file.write(block)
            digest.update(block)
    return digest.hexdigest()


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A document root, and the digest of each file in it."""
    root = tmp_path_factory.mktemp("www")
    root.chmod(0o755)
    digests = {name: write_file(root / name, size) for name, size in SIZES.items()}
    digests["giga"] = write_file(root / "giga", GIGA)
    yield root, digests
    (root / "giga").unlink()


@pytest.fixture(params=("chiru_serves", "chiru_fetches"))
def sides(request, link):
    """(server, client)"""
    pair = (link.chiru, link.peer)
    return pair if request.param == "chiru_serves" else pair[::-1]


def fetch(client, url, seconds=60):
    """The SHA-256 of what curl got."""
    script = f"set -o pipefail; curl -sS --fail --max-time {seconds} '{url}' | sha256sum"
    return client.run(["bash", "-c", script], seconds=seconds + 10, name="curl").split()[0]


def test_files_arrive_unchanged(link, family, sides, files):
    server, client = sides
    root, digests = files
    nginx = Nginx(server, family, root)
    for name in SIZES:
        assert fetch(client, f"{nginx.url}/{name}") == digests[name], name


def test_a_gigabyte_arrives_unchanged(request, link, family, sides, files):
    if not request.config.getoption("--full"):
        if link.transport not in ("tap", "memif") or link.shards != 1:
            pytest.skip("1 GB over this link only with --full")
    server, client = sides
    root, digests = files
    nginx = Nginx(server, family, root)
    assert fetch(client, f"{nginx.url}/giga", seconds=120) == digests["giga"]


def test_one_connection_serves_many_requests(link, family, sides, files):
    server, client = sides
    root, _ = files
    nginx = Nginx(server, family, root)
    urls = [word for _ in range(20) for word in ("-o", "/dev/null", f"{nginx.url}/mega")]
    said = client.run(["curl", "-sS", "--fail", "-w", "%{num_connects} ", *urls])
    assert [int(count) for count in said.split()] == [1] + [0] * 19


def test_wrk_sees_no_error(link, family, files):
    root, _ = files
    nginx = Nginx(link.chiru, family, root)
    said = link.peer.run(["wrk", "-t1", "-c64", "-d2s", f"{nginx.url}/byte"])
    assert "Socket errors" not in said and "Non-2xx" not in said, said
    assert float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1]) > 100


def test_nginx_without_a_master_process(link, family, files):
    root, digests = files
    nginx = Nginx(link.chiru, family, root, master=False)
    assert fetch(link.peer, f"{nginx.url}/mega") == digests["mega"]


def test_nginx_with_several_workers_is_reloaded_under_load(link, family, files):
    """Workers share the listener; a reload replaces them all, and no client notices."""
    root, digests = files
    nginx = Nginx(link.chiru, family, root, workers=3)
    load = link.peer.start(["wrk", "-t", 1, "-c", 16, "-d", "6s", "-H", "Connection: close",
                            f"{nginx.url}/byte"])
    for turn in range(2):
        before = nginx.program.stderr.count("start worker process ")
        nginx.program.signal(signal.SIGHUP)
        wait_until(lambda: nginx.program.stderr.count("start worker process ") >= before + 3, 10,
                   f"nginx starts new workers\n{nginx.program.tail()}")
        assert fetch(link.peer, f"{nginx.url}/mega") == digests["mega"]
        wait_until(lambda: nginx.program.stderr.count("exited with code 0") >= 3 * (turn + 1), 10,
                   "the old workers are gone")
    said = load.expect_success(20)
    assert int(re.search(r"(\d+) requests in", said).group(1)) > 100, said
    assert "Socket errors" not in said, said


def test_wrk_runs_on_chiru(link, family, files):
    root, _ = files
    nginx = Nginx(link.peer, family, root)
    said = link.chiru.run(["wrk", "-t", 2, "-c", 20, "-d", "2s", f"{nginx.url}/byte"], seconds=20)
    assert int(re.search(r"(\d+) requests in", said).group(1)) > 100, said
    assert "Socket errors" not in said, said
