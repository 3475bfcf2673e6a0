"""What rollouts are asked for: a policy, tasks, and a plan for each task."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from depo.config.runtime import GenerationRuntime
from depo.config.schema import EnvConfig, PolicyConfig, SearchConfig, StudentConfig
from depo.envs.base import TextEnv
from depo.policies.base import Policy, Sampling
from depo.records import Task, Trajectory, content_hash
from depo.search.episode import UNCONTROLLED, TurnControl
from depo.search.run import Search, episode, search


@dataclass(frozen=True)
class EpisodePlan:
    """One path through each task, no tree."""

    sampling: Sampling
    max_steps: int
    control: TurnControl = UNCONTROLLED


@dataclass(frozen=True)
class RolloutJob:
    """One policy over some tasks, into one folder of trajectory shards."""

    name: str
    """The policy's name in the trajectories."""
    policy: PolicyConfig
    model_dir: str
    """Weights that an engine serves; empty for policies without."""
    plan: SearchConfig | EpisodePlan
    tasks: Sequence[Task]
    out_dir: str
    seed: int
    env: EnvConfig | None = None
    """Where it acts; None is the environment of the pool."""


@dataclass(frozen=True)
class WorkerSettings:
    """What every worker of a pool is made of."""

    env: EnvConfig
    """Of the jobs that name no other."""
    student: StudentConfig
    runtime: GenerationRuntime
    board: Any
    """Handle of the `Board` that counts progress, or None."""


def start(job: RolloutJob, task: Task, env: TextEnv, policy: Policy) -> Search:
    """The search or episode of one task, ready to be driven."""
    seed = task_seed(job.seed, task)
    if isinstance(job.plan, SearchConfig):
        return search(task, env, job.plan, seed, job.name, policy.tokenizer_fingerprint)
    plan = job.plan
    tokenizer = policy.tokenizer_fingerprint
    return episode(task, env, plan.sampling, plan.max_steps, seed, job.name, tokenizer, plan.control)


def task_seed(seed: int, task: Task) -> int:
    """A task's own seed (31 bits): what is drawn for it does not depend on its neighbours."""
    return int(content_hash([seed, task.id], length=8), 16) >> 1


def error_row(job: RolloutJob, task: Task, error: str) -> Trajectory:
    """The one row of a tree that is given up."""
    return Trajectory(
        task=task,
        policy=job.name,
        tokenizer="",
        system="",
        steps=(),
        reward=0.0,
        success=False,
        stop_reason="error",
        error=error,
        seed=task_seed(job.seed, task),
    )


def pack(tasks: Sequence[Task]) -> bytes:
    """Tasks in a few bytes each, to travel in a row."""
    return zlib.compress(json.dumps([[t.env, t.level, t.seed, t.split] for t in tasks]).encode())


def unpack(packed: bytes) -> list[Task]:
    """The tasks that `pack` was given."""
    return [Task(*row) for row in json.loads(zlib.decompress(packed))]
