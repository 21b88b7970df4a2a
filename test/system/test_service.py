# SPDX-License-Identifier: Apache-2.0
"""chirud.service as it is installed, under a systemd that is booted for it: its sandbox lets the
daemon do all of its work, and the unit starts, stops, and starts again as it says."""
import pathlib
import shutil

import pytest

HERE = pathlib.Path(__file__).parent / "service"


def test_the_unit_works_in_its_sandbox(lab):
    if not shutil.which("systemd-nspawn"):
        pytest.skip("there is no systemd-nspawn")
    if not pathlib.Path("/sys/fs/cgroup/cgroup.procs").exists() and \
            not pathlib.Path("/sys/fs/cgroup/systemd").exists():
        pytest.skip("systemd needs control groups, and none are mounted")
    boot = lab.start(["unshare", "--mount", HERE / "boot", lab.build], name="boot")
    assert "== good" in boot.expect_success(180)
