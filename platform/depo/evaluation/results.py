"""From evaluation episodes to `results.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from depo.config.endpoint import PriceConfig
from depo.config.schema import EvaluationConfig, ExperimentConfig
from depo.evaluation.comparisons import headline, pairs
from depo.evaluation.curves import success_curves
from depo.evaluation.economics import economics_of, frontier, means_on_axes
from depo.evaluation.interquartile import stratified_intervals
from depo.evaluation.metrics import (
    METRICS,
    Tasks,
    by_task,
    describe,
    episode_terms,
    judged,
    paired_sums,
    share_columns,
    success_definition,
    task_sums,
)
from depo.evaluation.statistics import intervals, paired_differences, probability, signed_intervals
from depo.records import Episode

RESULTS_VERSION = 2

Groups = Mapping[tuple[str, str], Tasks]


def build_results(
    episodes: Iterable[Episode],
    config: ExperimentConfig,
    provenance: Mapping[str, Any],
    per_method_info: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The machine-readable answer of an experiment, as plain JSON values (docs/evaluation.md lists them).

    `episodes` are those of the evaluation and of all its suites, judged by the environment; what counts
    as success is settled here. `per_method_info` is what the caller tells of a method; its "thoughts" go to
    `thought_utility`, the rest to `info`.

    Raises `ValueError` without episodes of the evaluation's own tasks, or for a task tried twice by one
    method, decoding and seed; `ConfigError` for a pattern of `difficulty` that matches no level.
    """
    evaluation = config.evaluation
    by_suite: dict[str, list[Episode]] = {}
    for episode in episodes:
        by_suite.setdefault(episode.suite, []).append(episode)
    groups = by_task(judged(by_suite.pop("", []), evaluation.success_reward))
    if not groups:
        raise ValueError("evaluation: no episodes; evaluate at least one method")
    names = _method_order(groups, config)
    primary = {name: groups[name, d] for name in names if (name, d := evaluation.decoding[0]) in groups}
    frontiers = frontier({name: means_on_axes(tasks) for name, tasks in primary.items()}) if primary else {}
    sorted_levels = evaluation.difficulty_of(
        episode.level for tasks in groups.values() for tried in tasks.values() for episode in tried
    )
    info = per_method_info or {}
    return {
        "version": RESULTS_VERSION,
        "name": config.name,
        "env": config.env.id,
        "split": evaluation.split,
        "tasks": _count_tasks(groups),
        "seeds": list(evaluation.seeds),
        "decoding": evaluation.decoding[0],
        "reference": evaluation.reference,
        "headline": headline(config, list(primary)),
        "success": success_definition(evaluation.success_reward),
        "metrics": {metric.key: describe(metric) for metric in METRICS},
        "methods": {
            name: _method(name, groups, config, sorted_levels)
            | _economics(name, primary, config, frontiers)
            | _told(info.get(name, {}))
            for name in names
        },
        "comparisons": _comparisons(names, groups, config),
        "economics": {
            "prices": {name: price.model_dump(mode="json") for name, price in evaluation.prices.items()},
            **frontiers,
        },
        "curves": success_curves(primary) if primary else {},
        "suites": {
            suite: _suite(by_suite[suite], suite, config)
            for suite in [*evaluation.suites, *sorted(by_suite.keys() - evaluation.suites.keys())]
            if suite in by_suite
        },
        "provenance": dict(provenance),
    }


def summarise(episodes: Sequence[Episode], resamples: int = 0, seed: int = 0) -> dict[str, Any]:
    """Metrics of one method and decoding, with counts of episodes and errors.

    `resamples` and `seed` are read by nobody, here and in `compare`: see `intervals`.
    """
    tasks: dict[str, list[Episode]] = {}
    for episode in sorted(episodes, key=lambda e: (e.task_id, e.seed)):
        tasks.setdefault(episode.task_id, []).append(episode)
    sums = task_sums(tasks)
    found = intervals(sums, shares=share_columns(sums))
    return {
        **{metric.key: interval.to_json() for metric, interval in zip(METRICS, found, strict=True)},
        "episodes": len(episodes),
        "errors": sum(episode.stop_reason == "error" for episode in episodes),
    }


def compare(a: Tasks, b: Tasks, resamples: int = 0, seed: int = 0) -> list[dict[str, Any]]:
    """Of every metric: the paired difference a - b over the tasks and seeds in both, and P(a better).

    The probability is that of a doing better than b on a task drawn at random, ties half.
    """
    paired = paired_sums(a, b)
    differences = paired_differences(paired.a, paired.b, shares=share_columns(paired.a, paired.b))
    chances = signed_intervals(paired.a_better)
    return [
        {"metric": metric.key, **difference.to_json(), "probability": probability(chance)}
        for metric, difference, chance in zip(METRICS, differences, chances, strict=True)
    ]


def _method_order(groups: Groups, config: ExperimentConfig) -> list[str]:
    """Methods with episodes: as the evaluation lists them, else as they are defined."""
    wanted = config.evaluated
    found = {method for method, _ in groups}
    return [*(name for name in wanted if name in found), *sorted(found - set(wanted))]


def _count_tasks(groups: Groups) -> int:
    return len({task_id for tasks in groups.values() for task_id in tasks})


def _method(
    name: str, groups: Groups, config: ExperimentConfig, sorted_levels: Mapping[str, str]
) -> dict[str, Any]:
    """One method's numbers under every decoding; those of the first stand at the top."""
    evaluation = config.evaluation
    decodings = {
        decoding: _by_parts(tasks, sorted_levels, list(evaluation.difficulty))
        for (method, decoding), tasks in sorted(groups.items(), key=lambda item: item[0])
        if method == name
    }
    primary = evaluation.decoding[0]
    own = groups.get((name, primary))
    return {
        "decoding": primary,
        **decodings.pop(primary, {}),
        "decodings": decodings,
        **(_by_seed(own, evaluation) if own else {}),
    }


def _by_parts(tasks: Tasks, sorted_levels: Mapping[str, str], difficulties: Sequence[str]) -> dict[str, Any]:
    """The metrics of all episodes, of each level, and of each difficulty."""
    episodes = [episode for tried in tasks.values() for episode in tried]
    by_level: dict[str, list[Episode]] = {}
    for episode in episodes:
        by_level.setdefault(episode.level, []).append(episode)
    by_group = {
        group: [e for level, found in by_level.items() if sorted_levels.get(level) == group for e in found]
        for group in difficulties
    }

    return {
        **summarise(episodes),
        "levels": {level: summarise(by_level[level]) for level in sorted(by_level)},
        "difficulties": {group: summarise(found) for group, found in by_group.items() if found},
    }


def _by_seed(tasks: Tasks, evaluation: EvaluationConfig) -> dict[str, Any]:
    """Means of each seed; with several, interquartile means over (seed, task) scores too.

    Those of metrics over all episodes: what a failure has no value of has no middle half either.
    """
    episodes = [episode for tried in tasks.values() for episode in tried]
    seeds = sorted({episode.seed for episode in episodes})
    of_seed = {
        str(seed): {
            metric.key: None if value != value else float(value)
            for metric, value in zip(
                METRICS, episode_terms([e for e in episodes if e.seed == seed]).ratios, strict=True
            )
        }
        for seed in seeds
    }
    if len(seeds) < 2:
        return {"by_seed": of_seed}
    columns = [column for column, metric in enumerate(METRICS) if metric.over == "all"]
    found = stratified_intervals(
        episode_terms(episodes).numerator[:, columns],
        [len(tried) for tried in tasks.values()],
        evaluation.bootstrap,
        evaluation.seeds[0],
    )
    iqm = {METRICS[c].key: interval.to_json() for c, interval in zip(columns, found, strict=True)}
    return {"by_seed": of_seed, "iqm": iqm}


def _economics(
    name: str,
    primary: Mapping[str, Tasks],
    config: ExperimentConfig,
    frontiers: Mapping[str, Any],
) -> dict[str, Any]:
    if name not in primary:
        return {}
    found = economics_of(primary[name], _price(name, config))
    return {"economics": {**found, "pareto": name in frontiers["pareto"]}}


def _price(name: str, config: ExperimentConfig) -> PriceConfig | None:
    """What a policy's tokens cost: as named, as the policy that a controlled one holds, or by default."""
    prices, controlled = config.evaluation.prices, config.evaluation.controlled
    names = [name, *([controlled[name].method] if name in controlled else []), "default"]
    return next((prices[n] for n in names if n in prices), None)


def _told(info: Mapping[str, Any]) -> dict[str, Any]:
    """What the caller knows of a method."""
    rest = {key: value for key, value in info.items() if key != "thoughts"}
    thoughts = {"thought_utility": dict(info["thoughts"])} if "thoughts" in info else {}
    return {**thoughts, "info": rest}


def _comparisons(names: Sequence[str], groups: Groups, config: ExperimentConfig) -> list[dict[str, Any]]:
    """Every pair that is compared, under each decoding."""
    decodings = dict.fromkeys([*config.evaluation.decoding, *sorted({d for _, d in groups})])
    return [
        {"a": a, "b": b, "decoding": decoding, **row}
        for a, b in pairs(config, names)
        for decoding in decodings
        if (a, decoding) in groups and (b, decoding) in groups
        for row in compare(groups[a, decoding], groups[b, decoding])
    ]


def _suite(episodes: Sequence[Episode], suite: str, config: ExperimentConfig) -> dict[str, Any]:
    """The numbers of one further task set, under the first decoding that it was tried with."""
    evaluation = config.evaluation
    settings = evaluation.suites[suite]
    groups = by_task(judged(episodes, settings.success_reward))
    tried = {decoding for _, decoding in groups}
    decoding = next((d for d in evaluation.decoding if d in tried), min(tried))
    groups = {key: tasks for key, tasks in groups.items() if key[1] == decoding}
    names = _method_order(groups, config)
    return {
        "env": settings.env.id,
        "split": settings.split,
        "tasks": _count_tasks(groups),
        "success": success_definition(settings.success_reward),
        "decoding": decoding,
        "methods": {name: _by_parts(groups[name, decoding], {}, []) for name in names},
        "comparisons": _comparisons(names, groups, config),
    }
