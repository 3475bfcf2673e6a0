"""Whatever dies, whenever: every tree is there once, as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import ray
from chaos_jobs import RUNTIME, TASKS, faulty, generate, limited, slow
from ray.cluster_utils import Cluster

from depo.config.base import ConfigError
from depo.config.runtime import RuntimeConfig
from depo.stages.accounting import total_spent
from depo.stages.cluster import connect
from depo.stages.shards import finished_tasks, quarantined

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HERE = Path(__file__).parent
POISON = TASKS[9].id


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Two nodes with a CPU each; workers find this folder's policies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *sys.path]))
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes.add_node(num_cpus=1)
        connect(RuntimeConfig(ray_address=nodes.address))
        yield nodes
        ray.shutdown()
        nodes.shutdown()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, cluster) -> list:
    return generate(tmp_path_factory.mktemp("undisturbed"))


def others(trajectories: list, *without: str) -> list:
    return [t for t in trajectories if t.task.id not in without]


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


def under_way(out: Path) -> bool:
    """Something is on disk, and not all of it."""
    return 0 < len(finished_tasks(out)) < len(TASKS)


def test_a_killed_driver_is_taken_up_where_it_was(undisturbed, tmp_path, cluster):
    out = tmp_path / "out"
    command = [sys.executable, str(HERE / "drive.py"), cluster.address, str(out), str(tmp_path / "pids")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        wait_for(lambda: under_way(out))
        driver.send_signal(signal.SIGKILL)
    before = finished_tasks(out)
    assert len(before) < len(TASKS)
    shards = {file: file.stat().st_mtime_ns for file in out.glob("[!.]*.parquet")}
    assert generate(out, slow(tmp_path / "pids", 0)) == undisturbed
    assert all(file.stat().st_mtime_ns == written for file, written in shards.items())


def test_a_killed_actor_loses_and_doubles_nothing(undisturbed, tmp_path):
    out, pids = tmp_path / "out", tmp_path / "pids"

    def kill() -> None:
        wait_for(lambda: under_way(out))
        os.kill(int(next(pids.iterdir()).name), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    found = generate(out, slow(pids))
    killer.join()
    assert len(list(pids.iterdir())) > 2, "no worker was started in the dead one's place"
    assert found == undisturbed


def test_a_dead_engine_is_replaced_and_its_trees_are_searched_again(undisturbed, tmp_path):
    assert generate(tmp_path / "out", faulty(tmp_path / "log", "dead", [POISON], times=2)) == undisturbed
    assert total_spent(tmp_path / "out").retried >= 2
    assert not quarantined(tmp_path / "out")


@pytest.mark.parametrize("how", ["dead", "exit", "error"])
def test_a_poisonous_tree_is_quarantined_and_the_rest_are_finished(how, undisturbed, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    found = generate(out, faulty(log, how, [POISON]))
    assert others(found, POISON) == others(undisturbed, POISON)
    (given_up,) = [t for t in found if t.task.id == POISON]
    assert given_up.stop_reason == "error"
    assert len(log.read_text().splitlines()) == 3
    (note,) = [json.loads(file.read_text()) for file in (out / "quarantine").iterdir()]
    assert note["task"] == POISON
    assert note["error"] == given_up.error
    if how == "error":
        assert "no reply to be had" in note["error"]
        generate(out)
        assert quarantined(out) == {POISON}, "nobody asked for it to be tried again"
        again = RUNTIME.model_copy(update={"retry_quarantined": True})
        assert generate(out, runtime=again) == undisturbed
        assert not quarantined(out)


def test_a_spent_budget_stops_in_one_line_and_a_larger_one_goes_on(undisturbed, tmp_path):
    with pytest.raises(ConfigError, match="max_tokens_total: all of it is spent") as raised:
        generate(tmp_path, limited(60))
    assert "\n" not in str(raised.value)
    kept = finished_tasks(tmp_path)
    assert 0 < len(kept) < len(TASKS)
    assert generate(tmp_path) == undisturbed


def test_a_lost_node_takes_nothing_with_it(undisturbed, tmp_path, cluster):
    out, pids = tmp_path / "out", tmp_path / "pids"

    def remove() -> None:
        wait_for(lambda: under_way(out) and len(list(pids.iterdir())) == 2)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    remover = threading.Thread(target=remove)
    remover.start()
    found = generate(out, slow(pids, 0.05))
    remover.join()
    assert len([node for node in ray.nodes() if node["Alive"]]) == 1
    assert found == undisturbed
