"""Generation on real Ray Data: nothing finished is lost or doubled, whatever dies."""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import ray

from depo.config.base import ConfigError
from depo.config.endpoint import OpenAIConfig
from depo.config.runtime import GenerationRuntime, RuntimeConfig
from depo.config.schema import EnvConfig, SearchConfig, StudentConfig, TeacherConfig
from depo.data.store import read_table, read_trajectories
from depo.envs.registry import make_env
from depo.policies.base import Sampling
from depo.records import Trajectory
from depo.stages.accounting import total_spent
from depo.stages.cluster import connect
from depo.stages.generate import summary
from depo.stages.jobs import EpisodePlan, RolloutJob, WorkerSettings, pack, unpack
from depo.stages.progress import make_board
from depo.stages.rollouts import block_size, calls_in_flight, cut, run_jobs
from depo.stages.shards import finished_tasks
from depo.stages.worker import RolloutWorker
from depo.training.metrics import METRICS, read_metrics

pytestmark = pytest.mark.slow

LEVELS = ["GoToObjS6-v1"]
PLAIN = EnvConfig(options={"levels": LEVELS, "show_actions": False, "instructions": "brief"})
TASKS = tuple(make_env("babyai", PLAIN.options).tasks("train", 24))
RUNTIME = GenerationRuntime(actors=2, batch_tasks=4)
SEARCH = SearchConfig(simulations=4, width=3)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    # Workers import this folder's environments.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
        connect(RuntimeConfig(num_cpus=2))
        yield
        ray.shutdown()


def job(out_dir: Path, plan=SEARCH, tasks=TASKS) -> RolloutJob:
    return RolloutJob("teacher", TeacherConfig(), "", plan, tasks, str(out_dir), seed=5)


def run(out_dir: Path, env: EnvConfig = PLAIN, runtime: GenerationRuntime = RUNTIME, **changes) -> list:
    run_jobs([job(out_dir, **changes)], env, StudentConfig(), runtime, "test")
    return read_trajectories(out_dir)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, cluster) -> list:
    return run(tmp_path_factory.mktemp("undisturbed"))


def test_every_task_is_searched_and_every_rollout_kept(undisturbed):
    assert {t.task.id for t in undisturbed} == {task.id for task in TASKS}
    assert len({t.id for t in undisturbed}) == len(undisturbed)
    assert len(undisturbed) > 2 * len(TASKS)
    assert all(t.stop_reason in ("terminated", "max_steps") for t in undisturbed)


def test_what_is_drawn_does_not_depend_on_actors_or_blocks(undisturbed, tmp_path):
    alone = GenerationRuntime(actors=1, batch_tasks=24)
    assert run(tmp_path, runtime=alone) == undisturbed


def test_a_killed_actor_loses_and_doubles_nothing(undisturbed, tmp_path):
    fatal = EnvConfig(
        id="mortal_env:Mortal",
        options={"levels": LEVELS, "marker": str(tmp_path / "died"), "fatal": TASKS[9].id},
    )
    survived = run(tmp_path / "out", env=fatal)
    assert (tmp_path / "died").exists()
    assert survived == undisturbed


def test_a_second_start_does_only_what_is_missing(undisturbed, tmp_path):
    first = run(tmp_path, tasks=TASKS[:10])
    shards = set(tmp_path.iterdir())
    assert finished_tasks(tmp_path) == {task.id for task in TASKS[:10]}
    assert run(tmp_path) == undisturbed
    assert shards < set(tmp_path.iterdir())
    later = [t for file in set(tmp_path.iterdir()) - shards for t in read_table(file, Trajectory)]
    assert not {t.task.id for t in first} & {t.task.id for t in later}


def test_a_task_that_breaks_is_a_row_with_its_error_and_the_rest_go_on(undisturbed, tmp_path):
    env = EnvConfig(id="mortal_env:Raising", options={"levels": LEVELS, "fatal": TASKS[3].id})
    found = run(tmp_path, env=env)
    broken = [t for t in found if t.stop_reason == "error"]
    assert [t.task.id for t in broken] == [TASKS[3].id]
    assert "no such world" in broken[0].error
    assert [t for t in found if t.stop_reason != "error"] == [
        t for t in undisturbed if t.task.id != TASKS[3].id
    ]


def test_episodes_take_one_path_a_task(tmp_path):
    found = run(tmp_path, plan=EpisodePlan(Sampling(), max_steps=12))
    assert [t.task.id for t in found] == sorted(
        (task.id for task in TASKS), key=lambda i: int(i.split("/")[-1])
    )


def test_a_job_may_act_in_an_environment_of_its_own(undisturbed, tmp_path):
    jobs = [job(tmp_path / "all"), job(tmp_path / "few", tasks=TASKS[:3])]
    jobs = [replace(j, env=PLAIN) for j in jobs]
    run_jobs(jobs, EnvConfig(id="maths"), StudentConfig(), RUNTIME, "test")
    assert read_trajectories(tmp_path / "all") == undisturbed
    assert {t.task.id for t in read_trajectories(tmp_path / "few")} == {task.id for task in TASKS[:3]}


class Completions(BaseHTTPRequestHandler):
    """An endpoint that always looks left, and after `limit` answers refuses."""

    limit = 10**9

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).limit -= 1
        message = {"role": "assistant", "content": "Thought: Look left.\nAction: turn left"}
        choices = [{"index": i, "message": message} for i in range(body["n"])]
        answer = {"choices": choices, "usage": {"prompt_tokens": 9, "completion_tokens": 8 * body["n"]}}
        data = json.dumps(answer if self.limit >= 0 else {"error": {"message": "no such model"}}).encode()
        self.send_response(200 if self.limit >= 0 else 404)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def endpoint():
    class Fresh(Completions):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Fresh)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def endpoint_job(endpoint, out_dir: Path) -> RolloutJob:
    policy = OpenAIConfig(base_url=f"http://127.0.0.1:{endpoint.server_address[1]}/v1", model="any")
    return replace(job(out_dir, plan=EpisodePlan(Sampling(), max_steps=3), tasks=TASKS[:6]), policy=policy)


def test_an_endpoint_can_be_the_policy_of_a_round(endpoint, tmp_path):
    run_jobs([endpoint_job(endpoint, tmp_path)], PLAIN, StudentConfig(), RUNTIME, "test")
    found = read_trajectories(tmp_path)
    assert {t.task.id for t in found} == {task.id for task in TASKS[:6]}
    assert {step.action for t in found for step in t.steps} == {"turn left"}
    assert found[0].steps[0].num_tokens == 8


def test_an_endpoint_that_refuses_is_one_clear_error(endpoint, tmp_path):
    endpoint.RequestHandlerClass.limit = 0
    with pytest.raises(ConfigError, match="no such model"):
        run_jobs([endpoint_job(endpoint, tmp_path)], PLAIN, StudentConfig(), RUNTIME, "test")


def test_a_block_that_is_begun_again_does_only_what_is_missing(undisturbed, tmp_path):
    settings = WorkerSettings(PLAIN, StudentConfig(), RUNTIME, make_board())
    worker = RolloutWorker(settings, [job(tmp_path)])
    row = {"block": 0, "job": 0, "tasks": pack(TASKS[:6])}
    assert worker(row)["refused"] == ""
    shards = set(tmp_path.glob("*.parquet"))
    assert worker({**row, "tasks": pack(TASKS[:8])})["refused"] == ""
    worker.close()
    later = set(tmp_path.glob("*.parquet")) - shards
    found = [t.task.id for shard in later for t in read_table(shard, Trajectory)]
    assert set(found) == {task.id for task in TASKS[6:8]}


@pytest.mark.parametrize(("tasks", "size"), [(5, 1), (400, 25), (16_000, 64), (100_000, 196)])
def test_blocks_are_small_and_not_too_many(tasks, size):
    plan = EpisodePlan(Sampling(), max_steps=3)
    assert block_size(job(Path("out"), plan=plan), tasks, RUNTIME) == size
    pieces = [unpack(piece) for piece in cut(TASKS, 5)]
    assert [len(piece) for piece in pieces] == [5, 5, 5, 5, 4]
    assert [task for piece in pieces for task in piece] == list(TASKS)


@pytest.mark.parametrize(("blocks", "calls"), [(1, 1), (24, 12), (10_000, 82)])
def test_an_actor_has_a_block_for_every_tree_and_some_in_reserve(blocks, calls):
    assert calls_in_flight(blocks, GenerationRuntime(actors=2, batch_tasks=64)) == calls


def test_totals_are_kept_beside_the_shards(tmp_path):
    run_jobs([job(tmp_path)], PLAIN, StudentConfig(), RUNTIME, "test", tmp_path / METRICS)
    row = read_metrics(tmp_path / METRICS)[-1]
    spent = total_spent(tmp_path)
    assert row["done"] == len(TASKS)
    assert (row["requests"], row["tokens"]) == (spent.requests, spent.tokens)
    assert spent.tokens >= sum(t.num_tokens for t in read_trajectories(tmp_path)[:1])
    assert summary(tmp_path).metrics["spent"]["requests"] == spent.requests
