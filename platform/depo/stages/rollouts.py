"""Rollouts at scale: many searches or evaluation episodes over a pool of Ray Data actors.

Generation and evaluation are the same work, policies acting in environments, and share this code.
A worker writes each finished task's trajectories to an atomic shard, so that a kill at any moment
costs only the tasks then in flight; the next start reads the shards and does the rest.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq
import ray
import ray.data

from depo.config.base import ConfigError
from depo.config.runtime import GenerationRuntime
from depo.config.schema import EnvConfig, PolicyConfig, SearchConfig, StudentConfig
from depo.data.store import write_table
from depo.envs.base import TextEnv
from depo.envs.registry import make_env
from depo.policies.base import Policy, Sampling
from depo.policies.engine import make_policy
from depo.policies.openai import EndpointError
from depo.records import Task, Trajectory, content_hash
from depo.search.driver import Finished, drive
from depo.search.run import episode, search
from depo.stages.progress import Board, Line, follow

_FLUSH_S = 4.0
T = TypeVar("T")


@dataclass(frozen=True)
class EpisodePlan:
    """One path through each task, no tree."""

    sampling: Sampling
    max_steps: int


@dataclass(frozen=True)
class RolloutJob:
    """One policy over some tasks, into one folder of trajectory shards."""

    name: str
    """The policy's name in the trajectories."""
    policy: PolicyConfig
    model_dir: str
    """Weights that an engine serves; empty for policies without."""
    plan: SearchConfig | EpisodePlan
    tasks: tuple[Task, ...]
    out_dir: str
    seed: int


@dataclass(frozen=True)
class WorkerSettings:
    """What every worker of a pool is made of."""

    env: EnvConfig
    student: StudentConfig
    runtime: GenerationRuntime
    board: Any
    """Handle of the `Board` that counts progress, or None."""


def finished_tasks(folder: Path) -> set[str]:
    """Ids of the tasks that have a shard in `folder`."""
    found = set()
    for file in folder.glob("[!.]*.parquet"):
        for row in pq.read_table(file, columns=["task"]).column("task").to_pylist():
            found.add(Task.from_row(row).id)
    return found


class RolloutWorker:
    """Runs blocks of tasks; one engine, many searches in flight."""

    def __init__(self, settings: WorkerSettings, jobs: Sequence[RolloutJob]) -> None:
        self._settings = settings
        self._jobs = jobs
        self._policy: Policy | None = None
        self._serves: tuple[PolicyConfig, str, str] | None = None
        self._free: list[TextEnv] = []

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Do one block of work: some tasks of one job.

        What no retry would mend (a missing model, an endpoint that refuses) is an answer, not a
        failure, which Ray would wrap in pages of traceback.
        """
        refused = ""
        try:
            self.run(self._jobs[row["job"]], [Task.from_row(task) for task in row["tasks"]])
        except (ConfigError, EndpointError) as error:
            refused = str(error)
        return {"tasks": len(row["tasks"]), "refused": refused}

    def run(self, job: RolloutJob, tasks: Sequence[Task]) -> None:
        """Do `tasks` of `job` and write their shards."""
        policy = self._serve(job)
        running: dict[Hashable, tuple[Task, TextEnv]] = {}

        def searches() -> Iterator[tuple[str, Any]]:
            for task in tasks:
                env = self._free.pop() if self._free else self._make_env()
                running[task.id] = (task, env)
                yield task.id, start(job, task, env, policy)

        buffer: list[Trajectory] = []
        flushed = time.monotonic()
        try:
            for finished in drive(searches(), policy, self._settings.runtime.batch_tasks):
                task, env = running.pop(finished.key)
                if finished.error is None:
                    self._free.append(env)
                buffer += outcome(job, task, finished)
                self._count(finished)
                if time.monotonic() - flushed > _FLUSH_S:
                    self._flush(job, buffer)
                    flushed = time.monotonic()
        finally:
            self._flush(job, buffer)

    def _serve(self, job: RolloutJob) -> Policy:
        """The policy of a job: the one served now, the same engine with other weights, or a new one."""
        wanted = (job.policy, job.model_dir, job.name)
        if self._policy is None or wanted != self._serves:
            self._policy = make_policy(
                job.policy,
                name=job.name,
                model_dir=job.model_dir,
                student=self._settings.student,
                runtime=self._settings.runtime,
                previous=self._policy,
            )
            self._serves = wanted
        return self._policy

    def _make_env(self) -> TextEnv:
        return make_env(self._settings.env.id, self._settings.env.options)

    def _count(self, finished: Finished) -> None:
        if self._settings.board is not None:
            done = finished.trajectories
            counts = {"tasks": 1, "rollouts": len(done), "tokens": sum(t.num_tokens for t in done)}
            if finished.error is not None:
                counts["failed"] = 1
            self._settings.board.add.remote(counts)

    def _flush(self, job: RolloutJob, buffer: list[Trajectory]) -> None:
        if buffer:
            write_table(Path(job.out_dir) / f"{uuid.uuid4().hex[:16]}.parquet", buffer, Trajectory)
            buffer.clear()


def start(job: RolloutJob, task: Task, env: TextEnv, policy: Policy) -> Any:
    """The search or episode of one task, ready to be driven."""
    seed = task_seed(job.seed, task)
    if isinstance(job.plan, SearchConfig):
        return search(task, env, job.plan, seed, job.name, policy.tokenizer_fingerprint)
    plan = job.plan
    return episode(task, env, plan.sampling, plan.max_steps, seed, job.name, policy.tokenizer_fingerprint)


def task_seed(seed: int, task: Task) -> int:
    """A task's own seed (31 bits): what is drawn for it does not depend on its neighbours."""
    return int(content_hash([seed, task.id], length=8), 16) >> 1


def outcome(job: RolloutJob, task: Task, finished: Finished) -> list[Trajectory]:
    """The trajectories of a finished task; a search that broke down leaves a row with its error."""
    if finished.error is None:
        return list(finished.trajectories)
    return [
        Trajectory(
            task=task,
            policy=job.name,
            tokenizer="",
            system="",
            steps=(),
            reward=0.0,
            success=False,
            stop_reason="error",
            error=f"{type(finished.error).__name__}: {finished.error}",
            seed=task_seed(job.seed, task),
        )
    ]


def run_jobs(
    jobs: Sequence[RolloutJob],
    env: EnvConfig,
    student: StudentConfig,
    runtime: GenerationRuntime,
    stage: str,
) -> None:
    """Run what is left of `jobs` on a pool of actors. Needs a connected Ray cluster."""
    blocks: list[dict[str, Any]] = []
    for number, job in enumerate(jobs):
        finished = finished_tasks(Path(job.out_dir))
        left = [task.to_row() for task in job.tasks if task.id not in finished]
        blocks += [{"job": number, "tasks": c} for c in chunks(left, runtime.actors, runtime.batch_tasks)]
    if not blocks:
        return
    total = sum(len(job.tasks) for job in jobs)
    before = total - sum(len(block["tasks"]) for block in blocks)
    actors = min(runtime.actors, len(blocks))
    board = Board.remote()  # type: ignore[attr-defined]
    # One dataset block is one block of work, since that is what is done again after a lost actor. The
    # tasks travel in the rows: an actor restarts safely only if what constructs it is small.
    plain = [replace(job, tasks=()) for job in jobs]
    dataset = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map(
        RolloutWorker,  # type: ignore[arg-type]  # Ray constructs callable classes itself
        fn_constructor_args=(WorkerSettings(env, student, runtime, board), plain),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
        num_cpus=runtime.num_cpus,
        num_gpus=runtime.num_gpus or None,
    )
    with follow(board, Line(stage, "tasks", total, done=before), "tasks"):
        for row in dataset.iter_rows():
            if row["refused"]:
                raise ConfigError(f"{stage}: {row['refused']}; what is finished is kept, run again to go on")


def chunks(tasks: list[T], actors: int, batch_tasks: int) -> list[list[T]]:
    """Split so that every actor gets work twice, in blocks of at least what keeps an engine full."""
    size = max(min(batch_tasks, -(-len(tasks) // actors)), -(-len(tasks) // (2 * actors)), 1)
    return [tasks[at : at + size] for at in range(0, len(tasks), size)]
