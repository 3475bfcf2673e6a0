"""Evaluation: every policy on the same held-out tasks, through the same engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from depo.config.evaluation import ControlledConfig
from depo.config.runtime import RuntimeConfig
from depo.config.schema import EngineConfig, EnvConfig, EvaluationConfig, StudentConfig
from depo.data.store import read_trajectories, write_table
from depo.policies.base import Sampling
from depo.records import Episode, Task, Trajectory
from depo.search.episode import UNCONTROLLED, TurnControl, repeats
from depo.stages.accounting import Spent, spent_metrics, total_spent
from depo.stages.base import Outcome
from depo.stages.cluster import absolute, connect
from depo.stages.jobs import EpisodePlan, RolloutJob
from depo.stages.rollouts import run_jobs
from depo.stages.tasksets import draws

EPISODES = "episodes.parquet"

BUDGET_NOTE = "Use at most {tokens} tokens in each reply, thought and action together."
"""What a policy of `evaluation.controlled` that is held to tokens reads at the end of its system prompt."""


def evaluation_jobs(
    method: str,
    model_dir: str,
    tasks: tuple[Task, ...],
    config: EvaluationConfig,
    out_dir: Path,
    env: EnvConfig | None = None,
) -> list[RolloutJob]:
    """One job a decoding and seed; `env` where it is not that of the pool."""
    controlled = config.controlled.get(method)
    return [
        RolloutJob(
            name=method,
            policy=EngineConfig(model=method),
            model_dir=model_dir,
            plan=EpisodePlan(
                sampling_of(decoding, config), turns_of(controlled, config), turn_control(controlled)
            ),
            tasks=tasks,
            out_dir=absolute(out_dir / folder),
            seed=seed,
            env=env,
        )
        for decoding, seed, folder in draws(config)
    ]


def turn_control(controlled: ControlledConfig | None) -> TurnControl:
    """What a policy is told of its turns and tokens, and when it is stopped."""
    if controlled is None:
        return UNCONTROLLED
    return TurnControl(
        note=BUDGET_NOTE.format(tokens=controlled.tokens) if controlled.tokens is not None else "",
        show_turns=controlled.show_turns,
        remind_at=controlled.remind_at,
        stop_after_repeats=controlled.stop_after_repeats,
    )


def turns_of(controlled: ControlledConfig | None, config: EvaluationConfig) -> int:
    """Turns after which an episode is cut."""
    return config.max_steps if controlled is None else controlled.turns(config.max_steps)


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


def collect(
    method: str, config: EvaluationConfig, out_dir: Path, tasks: Sequence[Task] | None = None, suite: str = ""
) -> Outcome:
    """Write the episodes of one method's finished jobs as one table.

    `tasks` are those that are asked for, where rollouts of others may lie there too.
    """
    wanted = None if tasks is None else {task.id for task in tasks}
    controlled = config.controlled.get(method)
    control, turns = turn_control(controlled), turns_of(controlled, config)
    episodes = [
        to_episode(trajectory, method, decoding, seed, suite, plain_observations(trajectory, control, turns))
        for decoding, seed, folder in draws(config)
        for trajectory in read_trajectories(out_dir / folder)
        if wanted is None or trajectory.task.id in wanted
    ]
    write_table(out_dir / EPISODES, episodes, Episode)
    primary = [e for e in episodes if e.decoding == config.decoding[0]]
    n = len(primary)
    spent = [total_spent(out_dir / folder) for _, _, folder in draws(config)]
    return Outcome(
        rows=len(episodes),
        errors=sum(e.stop_reason == "error" for e in episodes),
        metrics={
            "success": sum(e.success for e in primary) / n,
            "tokens_all": sum(e.num_tokens for e in primary) / n,
            "steps_all": sum(e.num_steps for e in primary) / n,
            "spent": spent_metrics(sum(spent, Spent())),
        },
    )


def plain_observations(trajectory: Trajectory, control: TurnControl, turns: int) -> list[str]:
    """What the environment said before each step of an episode of at most `turns`."""
    return control.plain((step.observation for step in trajectory.steps), turns)


def to_episode(
    trajectory: Trajectory,
    method: str,
    decoding: str,
    seed: int,
    suite: str = "",
    observations: Sequence[str] | None = None,
) -> Episode:
    """What the metrics need of a trajectory; `observations` are its own without what turn control added."""
    if observations is None:
        observations = [step.observation for step in trajectory.steps]
    said = [step.action or step.text for step in trajectory.steps]
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
        suite=suite,
        invalid=sum(not step.valid and not step.malformed for step in trajectory.steps),
        malformed=sum(step.malformed for step in trajectory.steps),
        repeated=sum(repeats(zip(observations, said, strict=True))),
    )
