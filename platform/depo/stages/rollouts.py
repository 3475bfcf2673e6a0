"""Rollouts at scale: many searches or evaluation episodes over a pool of Ray Data actors.

Generation and evaluation are the same work, policies acting in environments, and share this code.
Each tree's rows are on disk soon after it ends, so that a kill at any moment costs only the trees
then under way; the next start reads the shards and does the rest.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.data

from depo.config.base import ConfigError
from depo.config.endpoint import OpenAIConfig
from depo.config.runtime import GenerationRuntime
from depo.config.schema import EnvConfig, SearchConfig, StudentConfig, TeacherConfig
from depo.policies.base import BudgetSpent
from depo.records import Task
from depo.stages.accounting import (
    Spent,
    after_text,
    before_text,
    total_spent,
    within_budget,
)
from depo.stages.cluster import apart
from depo.stages.jobs import RolloutJob, WorkerSettings, pack
from depo.stages.progress import Line, follow, make_board, say
from depo.stages.shards import finished_array, unfinished
from depo.stages.worker import RolloutWorker
from depo.threads import Background
from depo.training.metrics import read_metrics

_MOST_BLOCKS = 512
"""Each costs the driver some 20 kB and 2 ms, so their number is bounded, whatever that of tasks."""
_STOP_WITHIN_S = 30.0
_INTERRUPTED_S = 5.0
_SAMPLE = 16
"""Finished trees by which the bill of all is estimated."""


def run_jobs(
    jobs: Sequence[RolloutJob],
    env: EnvConfig,
    student: StudentConfig,
    runtime: GenerationRuntime,
    stage: str,
    curve: Path | None = None,
) -> None:
    """Run what is left of `jobs` on a pool of actors. Needs a connected Ray cluster.

    `curve` is a `metrics.jsonl` to which totals are added every ten seconds. Raises `ConfigError`
    where the work cannot go on (a spent budget, an endpoint that refuses, a model that is not
    there); what is finished is on disk then, and another start goes on from it.
    """
    blocks: list[dict[str, Any]] = []
    counts: list[int] = []
    for number, job in enumerate(jobs):
        folder, many = Path(job.out_dir), len(job.tasks)
        finished = apart(finished_array, folder, runtime.retry_quarantined, size=many)
        left = sum(1 for _ in unfinished(job.tasks, finished))
        pieces = cut(unfinished(job.tasks, finished), block_size(job, left, runtime))
        blocks += [
            {"block": len(blocks) + n, "job": number, "tasks": piece} for n, piece in enumerate(pieces)
        ]
        counts.append(left)
    if not blocks:
        return
    total, to_do = sum(len(job.tasks) for job in jobs), sum(counts)
    say(f"[{stage}] {before_text(jobs, counts)}")
    board = make_board()
    actors = min(runtime.actors, len(blocks))
    # The tasks travel in the rows: an actor restarts safely only if what constructs it is small.
    plain = [replace(_within_budget(job, stage), tasks=()) for job in jobs]
    runtime = runtime.model_copy(update={"actors": actors})
    dataset = _dataset(blocks, WorkerSettings(env, student, runtime, board), plain)
    del blocks
    line = Line(stage, "tasks", total, done=total - to_do)
    with follow(board, line, "tasks", _Teller(line, curve)):
        drain = Background(partial(_drain, dataset, board, stage), stage)
        try:
            drain.over.wait()
        except KeyboardInterrupt:
            # What the workers have finished goes to the disk yet.
            board.stop.remote("interrupted")
            drain.over.wait(_INTERRUPTED_S)
            raise
        if drain.error is not None:
            raise drain.error
    lost = sum(_missing(job) for job in jobs)
    if lost > 0:
        raise ConfigError(f"{stage}: {lost} tasks were reported done and have no rows; run again")


def _missing(job: RolloutJob) -> int:
    """How many of its tasks have no rows."""
    finished = apart(finished_array, Path(job.out_dir), size=len(job.tasks))
    return sum(1 for _ in unfinished(job.tasks, finished))


def block_size(job: RolloutJob, tasks: int, runtime: GenerationRuntime) -> int:
    """Tasks in a block. A block is a call to an actor, so one tree where trees are dear, and more where
    they are cheap beside the call."""
    least = -(-tasks // _MOST_BLOCKS)
    if isinstance(job.policy, TeacherConfig):
        cheap = 8 if isinstance(job.plan, SearchConfig) else 64
    elif isinstance(job.policy, OpenAIConfig) or isinstance(job.plan, SearchConfig):
        cheap = 1
    else:
        cheap = 8
    # Every actor gets work eight times, where there is so much of it.
    return max(least, min(cheap, tasks // (8 * runtime.actors)), 1)


def cut(tasks: Iterable[Task], size: int) -> Iterator[bytes]:
    """The tasks in pieces of `size`, packed, in which form a driver can hold very many."""
    waiting = iter(tasks)
    while piece := list(itertools.islice(waiting, size)):
        yield pack(piece)


def _dataset(blocks: list[dict[str, Any]], settings: WorkerSettings, jobs: list[RolloutJob]) -> Any:
    """One dataset block a row, since that is what is done again after a lost actor."""
    runtime = settings.runtime
    in_flight = calls_in_flight(len(blocks), runtime)
    return ray.data.from_items(blocks, override_num_blocks=len(blocks)).map(
        RolloutWorker,  # type: ignore[arg-type]  # Ray constructs callable classes itself
        fn_constructor_args=(settings, jobs),
        compute=ray.data.ActorPoolStrategy(
            min_size=min(runtime.min_actors, runtime.actors),
            max_size=runtime.actors,
            initial_size=runtime.actors,
            max_tasks_in_flight_per_actor=in_flight,
            max_concurrent_calls_per_actor=in_flight,
            enable_true_multi_threading=True,
        ),
        num_cpus=runtime.num_cpus,
        num_gpus=runtime.num_gpus or None,
    )


def calls_in_flight(blocks: int, runtime: GenerationRuntime) -> int:
    """Blocks an actor has at a time: one a tree, so that each may be down to its slowest one, and some
    in reserve; fewer where there is not so much for every actor."""
    wanted = runtime.batch_tasks + runtime.batch_tasks // 4 + 2
    return max(1, min(wanted, -(-blocks // runtime.actors)))


def _within_budget(job: RolloutJob, stage: str) -> RolloutJob:
    """The job with its hard budget less what earlier starts have spent."""
    if not isinstance(job.policy, OpenAIConfig):
        return job
    try:
        return replace(job, policy=within_budget(job.policy, total_spent(Path(job.out_dir))))
    except BudgetSpent as error:
        raise ConfigError(f"{stage}: {error}") from None


def _drain(dataset: Any, board: Any, stage: str) -> None:
    """Wait for all blocks; after a refusal only until the other workers have put away what they finished."""
    refused, since = "", 0.0
    for row in dataset.iter_rows():
        if row["refused"] and not refused:
            refused, since = row["refused"], time.monotonic()
            board.stop.remote(refused)
        if refused and time.monotonic() - since > _STOP_WITHIN_S:
            break
    if refused:
        raise ConfigError(f"{stage}: {refused}; what is finished is kept, run again to go on")


class _Teller:
    """Tells of the totals as they grow: a curve for tracking, and once what all of it will come to."""

    def __init__(self, line: Line, curve: Path | None) -> None:
        self._line, self._curve = line, curve
        rows = read_metrics(curve) if curve is not None else []
        self._before = int(rows[-1]["step"]) if rows else 0
        self._told = False

    def __call__(self, counts: Mapping[str, float]) -> None:
        done = int(counts.get("tasks", 0))
        spent = Spent(
            requests=int(counts.get("requests", 0)),
            prompt_tokens=int(counts.get("prompt_tokens", 0)),
            tokens=int(counts.get("tokens", 0)),
            money=float(counts.get("money", 0)),
        )
        if not self._told and _SAMPLE <= done < self._line.total - self._line.before:
            self._told = True
            say(f"[{self._line.stage}] {after_text(spent, done, self._line.total)}")
        if self._curve is not None:
            self._append(done, counts)

    def _append(self, done: int, counts: Mapping[str, float]) -> None:
        """A row; its step is the seconds of all starts together."""
        assert self._curve is not None
        seconds = self._line.seconds
        row = {
            "step": self._before + max(1, round(seconds)),
            "done": self._line.before + done,
            **{k: v for k, v in counts.items() if k != "tasks"},
            "tokens_per_second": counts.get("tokens", 0) / max(seconds, 1e-9),
        }
        self._curve.parent.mkdir(parents=True, exist_ok=True)
        with self._curve.open("a") as file:
            file.write(json.dumps(row) + "\n")
