"""Several runs side by side: replicas of one configuration with other seeds, and other configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from depo.config.base import ConfigError
from depo.config.schema import ExperimentConfig
from depo.evaluation.comparisons import pairs
from depo.evaluation.crossed import (
    crossed_differences,
    crossed_interval,
    crossed_intervals,
    crossed_signed,
    interquartile_influence,
)
from depo.evaluation.metrics import (
    METRICS,
    Metric,
    Tasks,
    by_task,
    describe,
    judged,
    paired_sums,
    share_columns,
    success_definition,
    task_sums,
)
from depo.evaluation.statistics import Values, divide, probability
from depo.records import Episode, content_hash

_OF_THE_RUN = {"name", "seed", "description", "departures", "runtime", "tracking", "sweep"}
_OF_THE_TABLE = {
    "methods", "suites", "seeds", "reference", "comparisons", "prices", "difficulty", "thought_utility",
    "bootstrap",
}  # fmt: skip


@dataclass(frozen=True)
class RunEpisodes:
    """A finished run, as far as a comparison needs it."""

    name: str
    path: Path
    config: ExperimentConfig
    episodes: Sequence[Episode]


@dataclass(frozen=True)
class _Policy:
    """One method in all replicas of a configuration; the tasks of every run are in one order."""

    configuration: int
    method: str
    runs: Mapping[int, Tasks]
    """Index of a run to its episodes."""


def compare_runs(runs: Sequence[RunEpisodes]) -> dict[str, Any]:
    """Methods over several runs, under the first decoding, as plain JSON values.

    Runs of the same configuration, seeds and name aside, are replicas: their numbers are over runs and
    tasks. Where there are several configurations, a method is called `<first run>/<method>`, and compared
    with itself under the first one too. `n` counts tasks. Raises `ConfigError` for no runs, and for runs
    that differ in tasks, decoding, or what counts as success, naming both.
    """
    if not runs:
        raise ConfigError("report: no runs to compare; name at least one run directory")
    tried = [_episodes_of(run) for run in runs]
    _check_comparable(runs, tried)
    configurations: dict[str, list[int]] = {}
    for index, run in enumerate(runs):
        configurations.setdefault(_identity(run.config), []).append(index)
    labels = _labels(runs)
    policies: dict[str, _Policy] = {}
    for number, members in enumerate(configurations.values()):
        prefix = f"{labels[members[0]]}/" if len(configurations) > 1 else ""
        for method in dict.fromkeys(m for index in members for m in tried[index]):
            found = {index: tried[index][method] for index in members if method in tried[index]}
            policies[prefix + method] = _Policy(number, method, found)
    config = runs[0].config
    return {
        "runs": [{"name": run.name, "path": str(run.path), "seed": run.config.seed} for run in runs],
        "decoding": config.evaluation.decoding[0],
        "success": success_definition(config.evaluation.success_reward),
        "metrics": {metric.key: describe(metric) for metric in METRICS},
        "methods": {name: _measure(policy) for name, policy in policies.items()},
        "comparisons": [
            {"a": a, "b": b, **row}
            for a, b in _pairs(policies, [runs[members[0]].config for members in configurations.values()])
            for row in _compare(policies[a], policies[b])
        ],
    }


def _episodes_of(run: RunEpisodes) -> dict[str, dict[str, list[Episode]]]:
    """Method to task to episodes, in the order of the run's table."""
    evaluation = run.config.evaluation
    own = [e for e in run.episodes if not e.suite and e.decoding == evaluation.decoding[0]]
    # Draws of two runs have nothing to do with each other, so first seed is held against first seed.
    place = {seed: index for index, seed in enumerate(sorted({e.seed for e in own}))}
    own = [replace(e, seed=place[e.seed]) for e in own]
    groups = {method: tasks for (method, _), tasks in by_task(judged(own, evaluation.success_reward)).items()}
    if not groups:
        raise ConfigError(
            f"{run.path}: no {evaluation.decoding[0]} episodes to compare; run its evaluation first"
        )
    order = [m for m in run.config.evaluated if m in groups]
    return {method: groups[method] for method in [*order, *sorted(groups.keys() - set(order))]}


def _check_comparable(runs: Sequence[RunEpisodes], tried: Sequence[Mapping[str, Tasks]]) -> None:
    first = runs[0]
    wanted = next(iter(tried[0].values())).keys()
    for run, methods in zip(runs, tried, strict=True):
        pair = f"{first.path} and {run.path}"
        mine, its = first.config.evaluation, run.config.evaluation
        if mine.decoding[0] != its.decoding[0]:
            raise ConfigError(
                f"{pair} decode differently ({mine.decoding[0]}, {its.decoding[0]}); give both the same "
                "first evaluation.decoding"
            )
        if mine.success_reward != its.success_reward:
            raise ConfigError(
                f"{pair} count success differently ({success_definition(mine.success_reward)}, "
                f"{success_definition(its.success_reward)}); give both the same evaluation.success_reward"
            )
        for method, tasks in methods.items():
            if tasks.keys() != wanted:
                odd = min(tasks.keys() ^ wanted)
                raise ConfigError(
                    f"{pair} were tried on other tasks ({method}: {len(tasks)} against {len(wanted)}, "
                    f"{odd} in one only); give both the same env and evaluation.split, tasks and skip"
                )


def _identity(config: ExperimentConfig) -> str:
    """The hash that replicas share: all that policies depend on, seeds aside."""
    values = config.model_dump(mode="json", exclude=_OF_THE_RUN)
    for key in _OF_THE_TABLE:
        del values["evaluation"][key]
    for section in (*values["methods"].values(), *values["annotation"].values()):
        del section["seed"]
    return content_hash(values)


def _labels(runs: Sequence[RunEpisodes]) -> list[str]:
    """The runs' names; their paths where two have one name."""
    names = [run.name for run in runs]
    return [run.name if names.count(run.name) == 1 else str(run.path) for run in runs]


def _pairs(policies: Mapping[str, _Policy], configs: Sequence[ExperimentConfig]) -> list[tuple[str, str]]:
    """Within a configuration the pairs that it compares; across them each method against itself under the
    first."""
    named = {(policy.configuration, policy.method): name for name, policy in policies.items()}
    found = []
    for number, config in enumerate(configs):
        own = [policy.method for policy in policies.values() if policy.configuration == number]
        found += [((number, a), (number, b)) for a, b in pairs(config, own)]
        found += [((number, m), (0, m)) for m in own if number]
    return list(dict.fromkeys((named[a], named[b]) for a, b in found if a in named and b in named))


def _measure(policy: _Policy) -> dict[str, Any]:
    """Means and interquartile means over runs and tasks, and each run's means in the order of `runs`."""
    sums = [task_sums(tasks) for tasks in policy.runs.values()]
    found = crossed_intervals(sums, share_columns(*sums))
    # A task's score is over its seeds; what failures have no value of has no middle half.
    scores = np.stack([divide(s.numerator, s.denominator) for s in sums])
    columns = list(enumerate(METRICS))
    return {
        "runs": len(sums),
        **{m.key: found[c].to_json() for c, m in columns},
        "by_run": {
            m.key: [None if np.isnan(mean) else float(mean) for mean in (s.ratios[c] for s in sums)]
            for c, m in columns
        },
        "iqm": {m.key: _middle(m, scores[:, :, c], found[c].n) for c, m in columns if m.over == "all"},
    }


def _middle(metric: Metric, scores: Values, counted: int) -> dict[str, Any]:
    mean, cells = interquartile_influence(scores)
    found = crossed_interval(mean, cells.mean(axis=0), [cells], counted)
    return (found.share() if metric.is_share else found).to_json()


def _compare(a: _Policy, b: _Policy) -> list[dict[str, Any]]:
    """Of every metric the difference a - b and P(a better).

    Methods of one configuration are paired within their runs, which share what they started from; those
    of two configurations are every run of one against every run of the other.
    """
    within = a.configuration == b.configuration
    if within:
        tried = [paired_sums(a.runs[run], b.runs[run]) for run in a.runs if run in b.runs]
    else:
        tried = [paired_sums(x, y) for x in a.runs.values() for y in b.runs.values()]
    if not tried or not tried[0].a.numerator.size:
        return []
    runs = None if within else (len(a.runs), len(b.runs))
    of_a, of_b = [pair.a for pair in tried], [pair.b for pair in tried]
    differences = crossed_differences(of_a, of_b, share_columns(*of_a, *of_b), runs)
    chances = crossed_signed([pair.a_better for pair in tried], runs)
    return [
        {"metric": metric.key, **difference.to_json(), "probability": probability(chance)}
        for metric, difference, chance in zip(METRICS, differences, chances, strict=True)
    ]
