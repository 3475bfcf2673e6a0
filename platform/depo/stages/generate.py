"""Generation: tree search over training tasks, every finished rollout kept."""

from __future__ import annotations

from pathlib import Path

from depo.config.base import ConfigError
from depo.config.runtime import RuntimeConfig
from depo.config.schema import EnvConfig, RoundConfig, StudentConfig, TinyConfig
from depo.data.store import read_trajectories
from depo.envs.registry import make_env
from depo.policies.base import Sampling
from depo.records import Task, Trajectory
from depo.stages.base import Outcome
from depo.stages.cluster import absolute, connect
from depo.stages.rollouts import EpisodePlan, RolloutJob, run_jobs


def generate(
    round_: RoundConfig,
    model_dir: str,
    env: EnvConfig,
    student: StudentConfig,
    runtime: RuntimeConfig,
    seed: int,
    out_dir: Path,
) -> Outcome:
    """Search every task of a round into `out_dir`. `model_dir` holds the weights of an engine's policy."""
    job = RolloutJob(
        name="teacher" if round_.policy.kind == "teacher" else round_.policy.model,
        policy=round_.policy,
        model_dir=model_dir,
        plan=round_.search,
        tasks=training_tasks(env, round_.skip, round_.tasks),
        out_dir=absolute(out_dir),
        seed=seed,
    )
    connect(runtime)
    run_jobs([job], env, student, runtime.generation, f"generate {round_.name}")
    return summary(read_trajectories(out_dir))


def script_episodes(
    tiny: TinyConfig, env: EnvConfig, student: StudentConfig, runtime: RuntimeConfig, seed: int, out_dir: Path
) -> Outcome:
    """The scripted teacher's plain episodes, on which a tiny student is pre-trained."""
    plan = EpisodePlan(Sampling(), tiny.max_steps)
    tasks = training_tasks(env, tiny.skip, tiny.episodes)
    connect(runtime)
    job = RolloutJob("teacher", tiny.teacher, "", plan, tasks, absolute(out_dir), seed)
    run_jobs([job], env, student, runtime.generation, "script episodes")
    return summary(read_trajectories(out_dir))


def training_tasks(env: EnvConfig, skip: int, count: int) -> tuple[Task, ...]:
    """Training tasks `skip` to `skip + count`. Raises `ConfigError` where there are not so many."""
    tasks = make_env(env.id, env.options).tasks("train", skip + count)
    if len(tasks) < skip + count:
        raise ConfigError(f"rounds.tasks: {env.id} has {len(tasks)} training tasks, not {skip + count}")
    return tuple(tasks[skip:])


def summary(trajectories: list[Trajectory]) -> Outcome:
    """Counts and means of a round, errors apart."""
    good = [t for t in trajectories if t.stop_reason != "error"]
    n = max(len(good), 1)
    return Outcome(
        rows=len(trajectories),
        errors=len(trajectories) - len(good),
        metrics={
            "tasks": len({t.task.id for t in trajectories}),
            "success": sum(t.success for t in good) / n,
            "reward": sum(t.reward for t in good) / n,
            "tokens": sum(t.num_tokens for t in good) / n,
            "steps": sum(t.num_steps for t in good) / n,
        },
    )
