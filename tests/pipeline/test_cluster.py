"""Which cluster a run joins."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from depo.stages.shards import finished_tasks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

CONFIG = """
name: r
env: {{id: babyai, options: {{levels: [GoToRedBall]}}}}
rounds: [{{name: t, tasks: 20000, policy: {{kind: teacher}}, search: {{simulations: 4, width: 2}}}}]
methods: {{bc: {{objective: sft, init: student, samples: t, view: raw}}}}
tracking: {{enabled: false}}
runtime: {{runs_dir: {runs}}}
"""
JOIN = """
import os, psutil, ray
from depo.config.runtime import RuntimeConfig
from depo.stages.cluster import connect
connect(RuntimeConfig(num_cpus=1))
print("cluster of", ray.cluster_resources()["CPU"], "CPUs, by", os.environ.get("RAY_AUTH_MODE"))
for process in psutil.Process().children(recursive=True):
    for one in process.net_connections("inet"):
        if one.status == "LISTEN":
            print("listens on", one.laddr.ip.removeprefix("::ffff:"))
"""


def environment(folder: str, home: str) -> dict[str, str]:
    """Ray's files below `folder`, its token in `home`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_A")}
    return {**kept, "RAY_TMPDIR": folder, "HOME": str(Path(folder) / home)}


def join(folder: str, home: str = "own") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", JOIN],
        env=environment(folder, home),
        capture_output=True,
        text=True,
        check=False,
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
    assert "cluster of 1.0 CPUs, by token" in joined.stdout, joined.stderr
    listening = {line for line in joined.stdout.splitlines() if line.startswith("listens")}
    assert listening == {"listens on 127.0.0.1"}
    token = Path(folder) / "own" / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600


def test_a_cluster_of_this_machine_is_joined_with_its_token_and_passed_over_without(folder):
    port = free_port()
    token = Path(folder) / "own" / ".ray" / "auth_token"
    token.parent.mkdir(parents=True)
    token.write_text("a" * 64)
    ray = Path(sys.executable).with_name("ray")
    # `ray stop` would end every cluster of the machine; one that blocks ends with its process.
    command = f"{ray} start --head --block --num-cpus 3 --port {port} --include-dashboard false"
    cluster = subprocess.Popen(
        command.split(),
        env=environment(folder, "own"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (answers(port) and (Path(folder) / "ray" / "ray_current_cluster").exists()):
            assert cluster.poll() is None, "ray start failed"
            time.sleep(0.2)
        joined = join(folder)
        stranger = join(folder, "another")
    finally:
        cluster.terminate()
        cluster.wait()
    assert "cluster of 3.0 CPUs, by token" in joined.stdout, joined.stderr
    assert "wants its token: a cluster of this run's own is started instead" in stranger.stdout
    assert "cluster of 1.0 CPUs" in stranger.stdout, stranger.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_generation_keeps_what_is_finished_and_leaves_no_process(number, tmp_path):
    (tmp_path / "run.yaml").write_text(CONFIG.format(runs=tmp_path / "runs"))
    command = [sys.executable, "-m", "depo.cli", "generate", str(tmp_path / "run.yaml"), "t"]
    shards = tmp_path / "runs" / "r" / "trajectories" / "t"
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as run:
        while not finished_tasks(shards):
            assert run.poll() is None
            time.sleep(0.2)
        processes = psutil.Process(run.pid).children(recursive=True)
        began = time.monotonic()
        run.send_signal(number)
        assert run.stderr is not None
        said = run.stderr.read()
    assert run.returncode == 130
    assert time.monotonic() - began < 15
    # Ray itself warns of the arguments of the worker's actor.
    lines = [line for line in said.splitlines() if "core_worker.cc" not in line]
    assert lines == ["depo: interrupted: the same command goes on"]
    assert psutil.wait_procs(processes, timeout=10)[1] == []
