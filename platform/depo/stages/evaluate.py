"""Evaluation: every policy on the same held-out tasks, through the same engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from depo.config.base import ConfigError
from depo.config.runtime import RuntimeConfig
from depo.config.schema import EngineConfig, EnvConfig, EvaluationConfig, StudentConfig
from depo.data.store import read_trajectories, write_table
from depo.envs.registry import make_env
from depo.policies.base import Sampling
from depo.records import Episode, Step, Task, Trajectory
from depo.stages.accounting import Spent, spent_metrics, total_spent
from depo.stages.base import Outcome
from depo.stages.cluster import absolute, connect
from depo.stages.jobs import EpisodePlan, RolloutJob
from depo.stages.rollouts import run_jobs

EPISODES = "episodes.parquet"

BUDGET_NOTE = "Use at most {tokens} tokens in each reply, thought and action together."
"""What a policy of `evaluation.controlled` reads at the end of its system prompt."""


def evaluation_tasks(env: EnvConfig, config: EvaluationConfig) -> tuple[Task, ...]:
    """The held-out tasks. Raises `ConfigError` where the split has not so many."""
    wanted = config.skip + config.tasks
    tasks = make_env(env.id, env.options).tasks(config.split, wanted)
    if len(tasks) < wanted:
        raise ConfigError(
            f"evaluation.tasks: {env.id} has {len(tasks)} {config.split} tasks, not the {wanted} asked for"
        )
    return tuple(tasks[config.skip :])


def evaluation_jobs(
    method: str, model_dir: str, tasks: tuple[Task, ...], config: EvaluationConfig, out_dir: Path
) -> list[RolloutJob]:
    """One job a decoding."""
    controlled = config.controlled.get(method)
    note = BUDGET_NOTE.format(tokens=controlled.tokens) if controlled is not None else ""
    return [
        RolloutJob(
            name=method,
            policy=EngineConfig(model=method),
            model_dir=model_dir,
            plan=EpisodePlan(sampling_of(decoding, config), config.max_steps, note),
            tasks=tasks,
            out_dir=absolute(out_dir / decoding),
            seed=config.seeds[0],
        )
        for decoding in config.decoding
    ]


def sampling_of(decoding: str, config: EvaluationConfig) -> Sampling:
    """How "sampled" or "greedy" draws."""
    temperature = config.temperature if decoding == "sampled" else 0.0
    return Sampling(temperature=temperature, max_tokens=config.max_tokens)


def evaluate(
    jobs: Sequence[RolloutJob], env: EnvConfig, student: StudentConfig, runtime: RuntimeConfig
) -> None:
    """Run all jobs on one pool of actors, each engine serving one policy after the other."""
    connect(runtime)
    methods = sorted({job.name for job in jobs})
    run_jobs(jobs, env, student, runtime.generation, f"evaluate {' '.join(methods)}")


def collect(method: str, config: EvaluationConfig, out_dir: Path) -> Outcome:
    """Write the episodes of one method's finished jobs as one table."""
    episodes = [
        to_episode(trajectory, method, decoding, config.seeds[0])
        for decoding in config.decoding
        for trajectory in read_trajectories(out_dir / decoding)
    ]
    write_table(out_dir / EPISODES, episodes, Episode)
    primary = [e for e in episodes if e.decoding == config.decoding[0]]
    n = len(primary)
    return Outcome(
        rows=len(episodes),
        errors=sum(e.stop_reason == "error" for e in episodes),
        metrics={
            "success": sum(e.success for e in primary) / n,
            "tokens_all": sum(e.num_tokens for e in primary) / n,
            "steps_all": sum(e.num_steps for e in primary) / n,
            "spent": spent_metrics(sum((total_spent(out_dir / d) for d in config.decoding), Spent())),
        },
    )


def to_episode(trajectory: Trajectory, method: str, decoding: str, seed: int) -> Episode:
    """What the metrics need of a trajectory."""
    return Episode(
        method=method,
        decoding=decoding,
        task_id=trajectory.task.id,
        level=trajectory.task.level,
        success=trajectory.success,
        reward=trajectory.reward,
        num_tokens=trajectory.num_tokens,
        num_steps=trajectory.num_steps,
        input_tokens=sum(step.input_tokens for step in trajectory.steps),
        stop_reason=trajectory.stop_reason,
        trajectory_id=trajectory.id,
        seed=seed,
        invalid=sum(not step.valid and not step.malformed for step in trajectory.steps),
        malformed=sum(step.malformed for step in trajectory.steps),
        repeated=repeated_turns(trajectory.steps),
    )


def repeated_turns(steps: Sequence[Step]) -> int:
    """Turns that do again, at the same observation, what an earlier turn of the episode did there."""
    seen: set[tuple[str, str]] = set()
    count = 0
    for step in steps:
        turn = (step.observation, step.action or step.text)
        count += turn in seen
        seen.add(turn)
    return count
