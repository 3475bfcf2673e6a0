"""From evaluation episodes to `results.json` and to the table in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from depo.config.schema import EvaluationConfig, ExperimentConfig
from depo.evaluation.metrics import METRICS, Metric, by_task, value_matrix
from depo.evaluation.statistics import mean_intervals, paired_differences
from depo.records import Episode

RESULTS_VERSION = 1

Groups = dict[tuple[str, str], dict[str, Episode]]


def build_results(
    episodes: Iterable[Episode],
    config: ExperimentConfig,
    provenance: Mapping[str, Any],
    per_method_info: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The machine-readable answer of an experiment, as plain JSON values.

    `methods[name]` holds each metric of the first decoding as `{"mean", "ci_low", "ci_high", "n"}`
    (null over no tasks), `levels` the same by level, `decodings` the same for every further
    decoding, `info` what the caller tells of the method. `comparisons` are paired differences
    a - b over tasks that both tried; metrics over successful tasks pair those where both succeed.
    Raises `ValueError` without episodes, or for a task tried twice by one method and decoding.
    """
    groups = by_task(episodes)
    if not groups:
        raise ValueError("evaluation: no episodes; evaluate at least one method")
    evaluation = config.evaluation
    names = _method_order(groups, config)
    info = per_method_info or {}
    tasks = {task_id for group in groups.values() for task_id in group}
    return {
        "version": RESULTS_VERSION,
        "name": config.name,
        "env": config.env.id,
        "split": evaluation.split,
        "tasks": len(tasks),
        "decoding": evaluation.decoding[0],
        "reference": evaluation.reference,
        "metrics": {metric.key: _describe(metric) for metric in METRICS},
        "methods": {name: _method(name, groups, evaluation, info.get(name, {})) for name in names},
        "comparisons": _comparisons(names, groups, evaluation),
        "provenance": dict(provenance),
    }


def summarise(episodes: Sequence[Episode], resamples: int, seed: int) -> dict[str, Any]:
    """Metrics of one method and decoding (one episode a task), with counts of episodes and errors."""
    found = mean_intervals(value_matrix(episodes), resamples, seed)
    return {
        **{metric.key: interval.to_json() for metric, interval in zip(METRICS, found, strict=True)},
        "episodes": len(episodes),
        "errors": sum(episode.stop_reason == "error" for episode in episodes),
    }


def compare(
    a: Mapping[str, Episode], b: Mapping[str, Episode], resamples: int, seed: int
) -> list[dict[str, Any]]:
    """Paired differences a - b of every metric over the tasks in both (task id to episode)."""
    tasks = sorted(a.keys() & b.keys())
    values_a, values_b = (value_matrix([side[task] for task in tasks]) for side in (a, b))
    found = paired_differences(values_a, values_b, resamples, seed)
    return [{"metric": m.key, **d.to_json()} for m, d in zip(METRICS, found, strict=True)]


def _describe(metric: Metric) -> dict[str, Any]:
    return {
        "label": metric.label,
        "definition": metric.definition,
        "over": metric.over,
        "better": metric.better,
        "scale": metric.scale,
        "digits": metric.digits,
    }


def _method_order(groups: Groups, config: ExperimentConfig) -> list[str]:
    """Methods with episodes: as the evaluation lists them, else as they are defined."""
    wanted = config.evaluated
    found = {method for method, _ in groups}
    return [*(name for name in wanted if name in found), *sorted(found - set(wanted))]


def _method(
    name: str, groups: Groups, evaluation: EvaluationConfig, info: Mapping[str, Any]
) -> dict[str, Any]:
    decodings = {
        decoding: _with_levels(list(group.values()), evaluation)
        for (method, decoding), group in groups.items()
        if method == name
    }
    primary = evaluation.decoding[0]
    return {
        "decoding": primary,
        **decodings.pop(primary, {}),
        "decodings": {key: decodings[key] for key in sorted(decodings)},
        "info": dict(info),
    }


def _with_levels(episodes: list[Episode], evaluation: EvaluationConfig) -> dict[str, Any]:
    by_level: dict[str, list[Episode]] = {}
    for episode in episodes:
        by_level.setdefault(episode.level, []).append(episode)
    resamples, seed = evaluation.bootstrap, evaluation.seeds[0]
    return {
        **summarise(episodes, resamples, seed),
        "levels": {level: summarise(by_level[level], resamples, seed) for level in sorted(by_level)},
    }


def _comparisons(names: list[str], groups: Groups, evaluation: EvaluationConfig) -> list[dict[str, Any]]:
    pairs = [(name, evaluation.reference) for name in names if name != evaluation.reference]
    pairs += [("depo", "kto"), *evaluation.compare]
    return [
        {"a": a, "b": b, "decoding": decoding, **row}
        for a, b in dict.fromkeys(pairs)
        for decoding in dict.fromkeys(evaluation.decoding)
        if (a, decoding) in groups and (b, decoding) in groups
        for row in compare(
            groups[a, decoding], groups[b, decoding], evaluation.bootstrap, evaluation.seeds[0]
        )
    ]


def format_table(results: Mapping[str, Any]) -> str:
    """The results as aligned text: a table for each decoding, then the comparisons with the reference."""
    primary = results["decoding"]
    further = sorted({d for method in results["methods"].values() for d in method["decodings"]})
    parts = [_decoding_table(results, decoding) for decoding in [primary, *further]]
    parts.append(_comparison_table(results, primary))
    return "\n\n".join(part for part in parts if part)


def _decoding_table(results: Mapping[str, Any], decoding: str) -> str:
    metrics = _printed(results)
    rows = [["method", *(m["label"] for m in metrics.values()), "errors"]]
    for name, method in results["methods"].items():
        values = method if decoding == method["decoding"] else method["decodings"].get(decoding, {})
        if "success" in values:
            cells = [_cell(values[key], "mean", metrics[key]) for key in metrics]
            rows.append([name, *cells, str(values["errors"])])
    title = f"{results['tasks']} {results['split']} tasks, {decoding}: mean [95% interval over tasks]"
    return f"{title}\n{_align(rows)}" if len(rows) > 1 else ""


def _comparison_table(results: Mapping[str, Any], decoding: str) -> str:
    metrics, reference = _printed(results), results["reference"]
    pairs: dict[tuple[str, str], dict[str, Any]] = {}
    for row in results["comparisons"]:
        if row["decoding"] == decoding:
            pairs.setdefault((row["a"], row["b"]), {})[row["metric"]] = row
    rows = [["a − b", *(m["label"] for m in metrics.values())]]
    for (a, b), found in pairs.items():
        cells = [_cell(found[key], "difference", metrics[key], signed=True) for key in metrics]
        marks = ["*" if found[key]["excludes_zero"] else " " for key in metrics]
        rows.append([f"{a} − {b}", *(f"{cell}{mark}" for cell, mark in zip(cells, marks, strict=True))])
    if len(rows) == 1:
        return ""
    title = (
        f"Paired differences over the same tasks, {decoding}, reference {reference}: "
        "mean [95% interval]; * the interval excludes zero"
    )
    return f"{title}\n{_align(rows)}"


def _printed(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The metrics that fit a terminal: the six of the paper."""
    return {key: m for key, m in results["metrics"].items() if key != "input_tokens_all"}


def _cell(row: Mapping[str, Any], key: str, metric: Mapping[str, Any], signed: bool = False) -> str:
    if row[key] is None:
        return "–"
    spec = f"{'+' if signed else ''}.{metric['digits']}f"
    value, low, high = (format(row[k] * metric["scale"], spec) for k in (key, "ci_low", "ci_high"))
    return f"{value} [{low}, {high}]"


def _align(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
