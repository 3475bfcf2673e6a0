"""Generation: tree search over training tasks, every finished rollout kept."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc

from depo.config.base import ConfigError
from depo.config.runtime import RuntimeConfig
from depo.config.schema import (
    CustomConfig,
    EnvConfig,
    ImportedConfig,
    PolicyConfig,
    RoundConfig,
    StudentConfig,
    TeacherConfig,
    TinyConfig,
)
from depo.data.imports import IMPORTED
from depo.data.store import finished_ids, read_trajectories, shard_columns, write_table
from depo.envs.registry import make_env
from depo.policies.base import Sampling
from depo.records import Task, Trajectory
from depo.stages.accounting import spent_metrics, total_spent
from depo.stages.base import Outcome
from depo.stages.cluster import absolute, apart, connect
from depo.stages.jobs import EpisodePlan, RolloutJob
from depo.stages.rollouts import run_jobs
from depo.stages.shards import quarantined
from depo.training.metrics import METRICS


def generate(
    round_: RoundConfig,
    model_dir: str,
    env: EnvConfig,
    student: StudentConfig,
    runtime: RuntimeConfig,
    seed: int,
    out_dir: Path,
) -> Outcome:
    """Search every task of a round into `out_dir`. `model_dir` holds the weights of an engine's policy.

    An imported round's trajectories are taken over. Raises `ConfigError` where they are of another
    environment.
    """
    if isinstance(round_.policy, ImportedConfig):
        return _taken_over(Path(round_.policy.path), env, out_dir)
    job = RolloutJob(
        name=policy_name(round_.policy),
        policy=round_.policy,
        model_dir=model_dir,
        plan=round_.search,
        tasks=training_tasks(env, round_.skip, round_.tasks),
        out_dir=absolute(out_dir),
        seed=seed,
    )
    connect(runtime)
    run_jobs([job], env, student, runtime.generation, f"generate {round_.name}", out_dir / METRICS)
    return apart(summary, out_dir, size=len(job.tasks))


def _taken_over(folder: Path, env: EnvConfig, out_dir: Path) -> Outcome:
    trajectories = read_trajectories(folder)
    for trajectory in trajectories:
        if trajectory.task.env != env.id:
            raise ConfigError(
                f"{folder}: task {trajectory.task.id} is of another environment than env.id={env.id!r}; "
                "import with the right --env"
            )
    write_table(out_dir / IMPORTED, trajectories, Trajectory)
    return summary(out_dir)


def policy_name(policy: PolicyConfig) -> str:
    """Who acts, as the trajectories say it."""
    if isinstance(policy, TeacherConfig):
        return "teacher"
    return policy.cls.partition(":")[2] if isinstance(policy, CustomConfig) else policy.model


def script_episodes(
    tiny: TinyConfig, env: EnvConfig, student: StudentConfig, runtime: RuntimeConfig, seed: int, out_dir: Path
) -> Outcome:
    """The scripted teacher's plain episodes, on which a tiny student is pre-trained."""
    plan = EpisodePlan(Sampling(), tiny.max_steps)
    tasks = training_tasks(env, tiny.skip, tiny.episodes)
    connect(runtime)
    job = RolloutJob("teacher", tiny.teacher, "", plan, tasks, absolute(out_dir), seed)
    run_jobs([job], env, student, runtime.generation, "script episodes", out_dir / METRICS)
    return apart(summary, out_dir, size=len(job.tasks))


def training_tasks(env: EnvConfig, skip: int, count: int) -> tuple[Task, ...]:
    """Training tasks `skip` to `skip + count`. Raises `ConfigError` where there are not so many."""
    tasks = make_env(env.id, env.options).tasks("train", skip + count)
    if len(tasks) < skip + count:
        raise ConfigError(f"rounds.tasks: {env.id} has {len(tasks)} training tasks, not {skip + count}")
    return tuple(tasks[skip:])


def summary(folder: Path) -> Outcome:
    """Counts and means of a round, errors apart, and what it took; a shard in memory at a time."""
    rows = good = 0
    sums = dict.fromkeys(("success", "reward", "tokens", "steps"), 0.0)
    for shard in shard_columns(folder, ["stop_reason", "success", "reward", "steps.list.element.num_tokens"]):
        rows += len(shard)
        shard = shard.filter(pc.not_equal(shard["stop_reason"], "error"))
        good += len(shard)
        tokens = pc.struct_field(pc.list_flatten(shard["steps"]), "num_tokens")
        sums["success"] += pc.sum(shard["success"]).as_py() or 0
        sums["reward"] += pc.sum(shard["reward"]).as_py() or 0
        sums["tokens"] += pc.sum(tokens).as_py() or 0
        sums["steps"] += len(tokens)
    given_up = len(quarantined(folder))
    return Outcome(
        rows=rows,
        errors=rows - good,
        metrics={
            "tasks": len(finished_ids(folder)),
            **{name: value / max(good, 1) for name, value in sums.items()},
            **({"quarantined": given_up} if given_up else {}),
            "spent": spent_metrics(total_spent(folder)),
        },
    )
