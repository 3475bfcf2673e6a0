"""Which cluster a run joins."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

JOIN = """
import ray
from depo.config.runtime import RuntimeConfig
from depo.stages.cluster import connect
connect(RuntimeConfig(num_cpus=1))
print("cluster of", ray.cluster_resources()["CPU"], "CPUs")
"""


def join(folder: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RAY_TMPDIR": folder, "RAY_AUTH_MODE": "disabled"}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.run(
        [sys.executable, "-c", JOIN], env=environment, capture_output=True, text=True, check=False
    )


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def folder():
    # Ray's socket paths have to fit in 107 bytes.
    with tempfile.TemporaryDirectory(prefix="depo", dir="/tmp") as folder:
        yield folder


def test_what_a_killed_cluster_left_behind_does_not_stop_a_run(folder):
    noted = Path(folder) / "ray" / "ray_current_cluster"
    noted.parent.mkdir()
    noted.write_text(f"127.0.0.1:{free_port()}")
    joined = join(folder)
    assert "cluster of 1.0 CPUs" in joined.stdout, joined.stderr


def test_a_cluster_of_this_machine_is_joined(folder):
    port = free_port()
    ray = Path(sys.executable).with_name("ray")
    # `ray stop` would end every cluster of the machine; one that blocks ends with its process.
    command = f"{ray} start --head --block --num-cpus 3 --port {port} --include-dashboard false"
    cluster = subprocess.Popen(
        command.split(),
        env={**os.environ, "RAY_TMPDIR": folder, "RAY_AUTH_MODE": "disabled"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (answers(port) and (Path(folder) / "ray" / "ray_current_cluster").exists()):
            assert cluster.poll() is None, "ray start failed"
            time.sleep(0.2)
        joined = join(folder)
    finally:
        cluster.terminate()
        cluster.wait()
    assert "cluster of 3.0 CPUs" in joined.stdout, joined.stderr
