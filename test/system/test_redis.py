# SPDX-License-Identifier: Apache-2.0
"""An unmodified redis-server on chiru, driven by redis-benchmark and redis-cli on the peer."""
import csv
import io

import pytest

from lab.services import RedisServer


@pytest.fixture
def redis(link, family):
    return RedisServer(link.chiru, family)


def rates(said):
    return {row["test"]: float(row["rps"]) for row in csv.DictReader(io.StringIO(said))}


def test_benchmark_gets_every_answer(link, redis):
    """redis-benchmark ends with an error at the first answer that is one."""
    said = link.peer.run(["redis-benchmark", *redis.where, "-n", 20000, "-c", 50, "--csv",
                          "-t", "ping_inline,set,get,incr,lpush,lrange_100,mset"], seconds=90)
    assert len(rates(said)) >= 8 and all(rate > 0 for rate in rates(said).values()), said


def test_pipelines_arrive_whole(link, redis):
    said = link.peer.run(["redis-benchmark", *redis.where, "-n", 100000, "-c", 20, "-P", 32,
                          "--csv", "-t", "set,get"], seconds=90)
    assert set(rates(said)) == {"SET", "GET"}


def test_large_values_survive(link, redis):
    said = link.peer.run(["redis-benchmark", *redis.where, "-n", 2000, "-c", 10, "-d",
                          "100000", "--csv", "-t", "set,get"], seconds=90)
    assert set(rates(said)) == {"SET", "GET"}


def test_many_connections_at_once(link, redis):
    said = link.peer.run(["redis-benchmark", *redis.where, "-n", 20000, "-c", 1000, "--csv",
                          "-t", "get"], seconds=90)
    assert set(rates(said)) == {"GET"}


def test_cli_reads_what_it_wrote(link, redis):
    for index in range(5):
        text = f"value-{index}-" + "x" * (10 ** index)
        assert redis.cli(link.peer, "set", f"key{index}", text).strip() == "OK"
        assert redis.cli(link.peer, "get", f"key{index}").strip() == text


def test_server_reads_from_the_program_on_the_peer_after_it_reconnects(link, redis):
    for _ in range(20):
        assert redis.cli(link.peer, "ping").strip() == "PONG"
