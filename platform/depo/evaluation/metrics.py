"""What is measured on an evaluation episode, and the six metrics of the results table.

Tokens are the agent's own generated tokens, end-of-turn excluded. Steps are the agent's turns;
invalid and malformed turns count. Success is the environment's own flag at the episode's end. An
episode that broke off with an error counts as a failure, with the tokens and steps it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from depo.records import Episode

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """One column of the results table: the mean of an episode's quantity over some tasks."""

    key: str
    label: str
    definition: str
    over: Literal["all", "success"]
    """Tasks the mean is taken over: all, or those the method succeeded on."""
    better: Literal["higher", "lower"]
    scale: float = 1.0
    """Factor from the stored value to the printed one."""
    digits: int = 1
    """Decimals of the printed value."""


METRICS: tuple[Metric, ...] = (
    Metric("success", "Succ. %", "Share of tasks that ended in success.", "all", "higher", 100.0, 1),
    Metric("reward", "Reward", "Mean return over all tasks.", "all", "higher", 1.0, 3),
    Metric("tokens_all", "T@All", "Mean tokens the agent generated, over all tasks.", "all", "lower"),
    Metric("steps_all", "S@All", "Mean turns of the agent, over all tasks.", "all", "lower", 1.0, 2),
    Metric("tokens_success", "T@Succ", "Mean tokens, over successful tasks.", "success", "lower"),
    Metric("steps_success", "S@Succ", "Mean turns, over successful tasks.", "success", "lower", 1.0, 2),
    Metric(
        "input_tokens_all", "In@All", "Mean tokens read as context, over all tasks.", "all", "lower", 1.0, 0
    ),
)


def succeeded(episode: Episode) -> bool:
    """The environment's flag; an episode that broke off with an error did not succeed."""
    return episode.success and episode.stop_reason != "error"


def metric_values(episode: Episode) -> tuple[float, ...]:
    """The episode's value of each of `METRICS`, in order; NaN where the metric leaves it out."""
    success = succeeded(episode)
    of_success = (episode.num_tokens, episode.num_steps) if success else (float("nan"), float("nan"))
    return (
        float(success),
        episode.reward,
        episode.num_tokens,
        episode.num_steps,
        *of_success,
        episode.input_tokens,
    )


def value_matrix(episodes: Sequence[Episode]) -> Values:
    """Values of one method and decoding, `[tasks, len(METRICS)]`, in the order of `episodes`."""
    rows = [metric_values(episode) for episode in episodes]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(METRICS))


def by_task(episodes: Iterable[Episode]) -> dict[tuple[str, str], dict[str, Episode]]:
    """(method, decoding) to task id to its one episode, tasks in sorted order.

    Raises `ValueError` where a task was tried twice by the same method and decoding: intervals
    over tasks would then count it as two.
    """
    groups: dict[tuple[str, str], dict[str, Episode]] = {}
    for episode in sorted(episodes, key=lambda e: e.task_id):
        group = groups.setdefault((episode.method, episode.decoding), {})
        if episode.task_id in group:
            raise ValueError(
                f"evaluation: {episode.method}/{episode.decoding} has two episodes of task "
                f"{episode.task_id}; keep one"
            )
        group[episode.task_id] = episode
    return groups
