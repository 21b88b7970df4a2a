# SPDX-License-Identifier: Apache-2.0
"""chirud --check-config, run as a person runs it: the message, the stream and the exit status."""
import pathlib
import subprocess

import pytest

from lab.lab import REPOSITORY

BAD = sorted((REPOSITORY / "test/daemon/config/bad").glob("*.yaml"))
GOOD = sorted((REPOSITORY / "configs").glob("*.yaml"))


def check(lab, path):
    return subprocess.run([lab.built("chirud"), "--check-config", path], capture_output=True,
                          text=True, timeout=20)


def expected_places(path):
    """"line:column: key" of each mistake that the file's comments announce."""
    for line in path.read_text().splitlines():
        if line.startswith("# expect: "):
            place = line.removeprefix("# expect: ").split(": ")
            yield ": ".join(place[:2]) if len(place) > 2 else place[0]


def test_there_are_enough_bad_files():
    assert len(BAD) >= 25


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_file_is_refused_with_file_line_and_key(lab, path):
    said = check(lab, path)
    assert said.returncode == 2, said
    assert said.stdout == ""
    for place in expected_places(path):
        assert f"{path}:{place}" in said.stderr


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_the_packaged_examples_are_right(lab, path):
    said = check(lab, path)
    cores_missing = "is not on this machine" in said.stderr
    assert said.returncode == 0 or cores_missing, said.stderr


@pytest.mark.parametrize("path", ("/nonexistent.yaml", "/tmp", "/dev/null"))
def test_a_file_that_is_none_is_refused(lab, path):
    said = check(lab, pathlib.Path(path))
    assert said.returncode == 2 and path in said.stderr


def test_a_daemon_does_not_start_from_a_bad_file(lab):
    program = lab.start([lab.built("chirud"), "--config", BAD[0]])
    assert program.wait(20) == 2
    assert str(BAD[0]) in program.stderr
