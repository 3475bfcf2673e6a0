"""What is measured on an evaluation episode, and the metrics of the results table.

Tokens are the agent's own generated tokens, end-of-turn excluded. Steps are the agent's turns; invalid
and malformed turns count. Success is the environment's own flag at the episode's end, or a return of at
least `evaluation.success_reward`. An episode that broke off with an error counts as a failure, with the
tokens and steps it had.

Every metric is a ratio of sums over episodes: T@Succ is the tokens of successes over their number,
an invalid rate the invalid turns over all turns. So a task tried with several seeds weighs by its
episodes, successes or turns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from depo.evaluation.statistics import Sums, Values, divide
from depo.records import Episode

Tasks = Mapping[str, Sequence[Episode]]
"""Task id to its episodes, one a seed."""


@dataclass(frozen=True)
class Metric:
    """One column of the results table."""

    key: str
    label: str
    definition: str
    over: Literal["all", "success", "turns"]
    """What the mean is taken over: all episodes, those that succeeded, or the turns of all."""
    better: Literal["higher", "lower"]
    scale: float = 1.0
    """Factor from the stored value to the printed one."""
    digits: int = 1
    """Decimals of the printed value."""
    group: Literal["paper", "more"] = "paper"
    """Whether it is one of the paper's six."""

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1 by its nature."""
        return self.scale == 100.0


METRICS: tuple[Metric, ...] = (
    Metric("success", "Succ. %", "Share of tasks that ended in success.", "all", "higher", 100.0, 1),
    Metric("reward", "Reward", "Mean return over all tasks.", "all", "higher", 1.0, 3),
    Metric("tokens_all", "T@All", "Mean tokens the agent generated, over all tasks.", "all", "lower"),
    Metric("steps_all", "S@All", "Mean turns of the agent, over all tasks.", "all", "lower", 1.0, 2),
    Metric("tokens_success", "T@Succ", "Mean tokens, over successful tasks.", "success", "lower"),
    Metric("steps_success", "S@Succ", "Mean turns, over successful tasks.", "success", "lower", 1.0, 2),
    Metric(
        "input_tokens_all", "In@All", "Mean tokens read as context, over all tasks.", "all", "lower",
        1.0, 0, "more",
    ),
    Metric(
        "invalid_rate", "Invalid %", "Share of turns whose action the environment could not carry out.",
        "turns", "lower", 100.0, 1, "more",
    ),
    Metric(
        "malformed_rate", "Malformed %", "Share of turns without a readable action.",
        "turns", "lower", 100.0, 1, "more",
    ),
    Metric(
        "repeated_rate", "Repeated %", "Share of turns that do again, at the same observation, what was done "
        "there.", "turns", "lower", 100.0, 1, "more",
    ),
)  # fmt: skip

_REWARD = [metric.key for metric in METRICS].index("reward")
_HIGHER = np.array([metric.better == "higher" for metric in METRICS])


def describe(metric: Metric) -> dict[str, Any]:
    """What a reader of `results.json` needs to know of a metric."""
    return {
        "label": metric.label,
        "definition": metric.definition,
        "over": metric.over,
        "better": metric.better,
        "scale": metric.scale,
        "digits": metric.digits,
        "group": metric.group,
    }


def judged(episodes: Iterable[Episode], success_reward: float | None) -> list[Episode]:
    """The episodes with success as the evaluation defines it.

    None keeps the environment's own flag; else a return of at least `success_reward` is a success. An
    episode that broke off with an error is a failure either way.
    """
    if success_reward is None:
        return [replace(e, success=succeeded(e)) for e in episodes]
    return [replace(e, success=e.reward >= success_reward and e.stop_reason != "error") for e in episodes]


def success_definition(success_reward: float | None) -> str:
    """What counts as a success, in words."""
    if success_reward is None:
        return "the environment's own end"
    return f"return of at least {success_reward:g}"


def succeeded(episode: Episode) -> bool:
    """The episode's flag; one that broke off with an error did not succeed."""
    return episode.success and episode.stop_reason != "error"


def by_task(episodes: Iterable[Episode]) -> dict[tuple[str, str], dict[str, list[Episode]]]:
    """(method, decoding) to task id to its episodes, one a seed; tasks and seeds in sorted order.

    Raises `ValueError` where a task was tried twice by the same method, decoding and seed: it would
    weigh double.
    """
    groups: dict[tuple[str, str], dict[str, list[Episode]]] = {}
    for episode in sorted(episodes, key=lambda e: (e.task_id, e.seed)):
        tried = groups.setdefault((episode.method, episode.decoding), {}).setdefault(episode.task_id, [])
        if tried and tried[-1].seed == episode.seed:
            raise ValueError(
                f"evaluation: {episode.method}/{episode.decoding} has two episodes of task "
                f"{episode.task_id} with seed {episode.seed}; keep one"
            )
        tried.append(episode)
    return groups


def episode_terms(episodes: Sequence[Episode]) -> Sums:
    """Numerators and denominators of `METRICS`, `[episodes, len(METRICS)]`."""
    rows = [
        (
            succeeded(e),
            e.reward,
            e.num_tokens,
            e.num_steps,
            e.input_tokens,
            e.invalid,
            e.malformed,
            e.repeated,
        )
        for e in episodes
    ]
    table = np.array(rows, dtype=np.float64).reshape(len(rows), 8)
    success, reward, tokens, steps, read, invalid, malformed, repeated = table.T
    one = np.ones(len(rows))
    numerators = [
        success, reward, tokens, steps, success * tokens, success * steps, read, invalid, malformed, repeated
    ]  # fmt: skip
    denominators = [one, one, one, one, success, success, one, steps, steps, steps]
    return Sums(np.column_stack(numerators), np.column_stack(denominators))


def task_sums(tasks: Tasks) -> Sums:
    """Numerators and denominators of `METRICS`, summed over each task's seeds, `[tasks, len(METRICS)]`."""
    terms = episode_terms([episode for tried in tasks.values() for episode in tried])
    return sum_by_task(terms, [len(tried) for tried in tasks.values()])


def sum_by_task(terms: Sums, sizes: Sequence[int]) -> Sums:
    """Rows of consecutive episodes added up task by task; `sizes` says how many each task has."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.intp)
    if not len(sizes):
        return terms
    return Sums(*(np.add.reduceat(part, starts, axis=0) for part in (terms.numerator, terms.denominator)))


def share_columns(*sums: Sums) -> NDArray[np.bool_]:
    """Which of `METRICS` are shares in all of `sums`, `[len(METRICS)]`.

    Shares by their nature, and returns that lie between 0 and 1 throughout.
    """
    found = np.array([metric.is_share for metric in METRICS])
    found[_REWARD] = all(
        np.all((s.numerator >= 0) & (s.numerator <= s.denominator + 1e-9), axis=0)[_REWARD] for s in sums
    )
    return found


@dataclass(frozen=True)
class Paired:
    """Two methods over the tasks and seeds that both tried; each `[tasks, len(METRICS)]`."""

    a: Sums
    b: Sums
    a_better: Sums
    """Seeds on which a's value was the better one less those on which b's was, over all that both have."""


def paired_sums(a: Tasks, b: Tasks) -> Paired:
    """Sums of both methods over episodes of the same task and seed.

    A metric over successes counts those episodes where both succeed; one over turns all turns of both.
    """
    left: list[Episode] = []
    right: list[Episode] = []
    sizes = []
    for task in sorted(a.keys() & b.keys()):
        others = {episode.seed: episode for episode in b[task]}
        pairs = [(episode, others[episode.seed]) for episode in a[task] if episode.seed in others]
        left += [x for x, _ in pairs]
        right += [y for _, y in pairs]
        if pairs:
            sizes.append(len(pairs))
    terms_a, terms_b = episode_terms(left), episode_terms(right)
    both = (terms_a.denominator > 0) & (terms_b.denominator > 0)
    terms_a, terms_b = (_where(both, terms) for terms in (terms_a, terms_b))
    better = Sums(np.where(both, _better(terms_a, terms_b), 0.0), both.astype(np.float64))
    return Paired(*(sum_by_task(terms, sizes) for terms in (terms_a, terms_b, better)))


def _where(both: NDArray[np.bool_], terms: Sums) -> Sums:
    return Sums(np.where(both, terms.numerator, 0.0), np.where(both, terms.denominator, 0.0))


def _better(a: Sums, b: Sums) -> Values:
    """1 where a's value is the better one, 0 where they are equal, else -1."""
    gap = divide(a.numerator, a.denominator) - divide(b.numerator, b.denominator)
    return np.sign(np.where(_HIGHER, gap, -gap))
