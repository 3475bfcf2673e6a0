"""The report's further tables: behaviour, economics, levels, seeds, suites, thoughts, data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from depo.report.tables import (
    Cell,
    Row,
    comparison_rows,
    decodings_of,
    estimate,
    metrics_of,
    number,
    of_decoding,
    plain,
    result_rows,
    rounded,
    source_of,
)

LEVEL_METRICS = ("success", "tokens_all", "steps_all", "input_tokens_all")
GROUPS = {"levels": "level", "difficulties": "difficulty"}
"""Key of a method's groups in `results.json` to what one is called."""


@dataclass(frozen=True)
class Suite:
    """A further task set as the page shows it."""

    name: str
    facts: str
    metrics: tuple[Mapping[str, Any], ...]
    rows: tuple[Row, ...]
    comparisons: tuple[Row, ...]
    levels: tuple[tuple[str, list[Row]], ...]


def group_rows(results: Mapping[str, Any], groups: str) -> list[tuple[str, list[Row]]]:
    """(level or difficulty, a row a method) under the table's decoding; `groups` is a key of `GROUPS`."""
    methods = results["methods"]
    names = dict.fromkeys(name for m in methods.values() for name in m.get(groups, {}))
    return [
        (
            name,
            [
                Row(
                    method,
                    tuple(estimate(m[groups][name][key], results["metrics"][key]) for key in LEVEL_METRICS),
                    str(m[groups][name]["episodes"]),
                )
                for method, m in methods.items()
                if name in m.get(groups, {})
            ],
        )
        for name in names
    ]


def behaviour_rows(results: Mapping[str, Any]) -> list[tuple[str, Row]]:
    """(decoding, a method's row): context tokens, and what went wrong on how many of the turns.

    The cells end in the number of episodes and of errors.
    """
    more = metrics_of(results, "more")
    found = []
    for decoding in decodings_of(results):
        for name, method in results["methods"].items():
            values = of_decoding(method, decoding)
            if values:
                cells = [estimate(values[key], m, f"{decoding}/{name}/{key}") for key, m in more.items()]
                counts = [Cell(str(values["episodes"])), Cell(str(values["errors"]))]
                found.append(
                    (decoding, Row(name, (*cells, *counts), "", source_of(results, f"evaluate {name}")))
                )
    return found


def economics_table(results: Mapping[str, Any]) -> tuple[list[str], list[Row]]:
    """(header, a row a method): share of tokens on failures, cost where prices are set, Pareto set.

    The last column is what the set would lose in hypervolume without the method.
    """
    methods = results["methods"]
    found = {name: m["economics"] for name, m in methods.items() if "economics" in m}
    priced = any(row["cost"]["mean"] is not None for row in found.values())
    header = ["tokens on failures, %", *(["cost a task", "cost of pass"] if priced else [])]
    header += ["in the Pareto set", "hypervolume lost without it"]
    rows = []
    for name, row in found.items():
        cells = [rounded(row["tokens_on_failures"], 100.0, f"economics/{name}/tokens_on_failures")]
        if priced:
            cells += [rounded(row[key], 1.0, f"economics/{name}/{key}") for key in ("cost", "cost_of_pass")]
        lost = results["economics"]["hypervolume"]["contributions"][name]
        cells += [Cell("yes" if row["pareto"] else "no"), Cell(plain(lost))]
        rows.append(Row(name, tuple(cells), "", source_of(results, f"evaluate {name}")))
    return header, rows


def interquartile_table(results: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], list[Row]]:
    """(metrics over all tasks, a row a method) of interquartile means; no rows with one seed."""
    shown = {k: d for k, d in metrics_of(results, "paper").items() if d["over"] == "all"}
    rows = [
        Row(name, tuple(estimate(m["iqm"][k], d, f"iqm/{name}/{k}") for k, d in shown.items()))
        for name, m in results["methods"].items()
        if "iqm" in m
    ]
    return list(shown.values()), rows


def seed_rows(results: Mapping[str, Any]) -> list[tuple[str, list[Row]]]:
    """(seed, a row a method) of plain means; nothing with one seed."""
    paper, methods = metrics_of(results, "paper"), results["methods"]
    seeds = dict.fromkeys(seed for m in methods.values() for seed in m.get("by_seed", {}))
    if len(seeds) < 2:
        return []
    return [
        (
            seed,
            [
                Row(name, tuple(_mean(m["by_seed"][seed][k], d) for k, d in paper.items()))
                for name, m in methods.items()
                if seed in m.get("by_seed", {})
            ],
        )
        for seed in seeds
    ]


def _mean(value: float | None, metric: Mapping[str, Any]) -> Cell:
    return Cell("–" if value is None else number(value, metric))


def suites(results: Mapping[str, Any]) -> list[Suite]:
    """The further task sets, each with a table of its own."""
    found = []
    for name, suite in results["suites"].items():
        own = {"metrics": results["metrics"], "reference": results["reference"], **suite}
        facts = (
            f"{suite['tasks']} {suite['split']} tasks of {suite['env']}, {suite['decoding']}; "
            f"success: {suite['success']}"
        )
        methods = {
            method: {"decoding": suite["decoding"], "decodings": {}, **values}
            for method, values in suite["methods"].items()
        }
        own |= {"methods": methods}
        rows = [
            Row(r.name, tuple(_prefixed(c, name) for c in r.cells), r.note,
                source_of(results, f"evaluate {r.name} on {name}"))
            for r in result_rows(own, suite["decoding"])
        ]  # fmt: skip
        metrics = tuple(metrics_of(own, "paper").values())
        compared = comparison_rows(own, suite["decoding"], f"{name}/")
        levels = group_rows(own, "levels")
        found.append(Suite(name, facts, metrics, tuple(rows), tuple(compared), tuple(levels)))
    return found


def _prefixed(cell: Cell, suite: str) -> Cell:
    return replace(cell, key=f"{suite}/{cell.key}" if cell.key else "")


def thought_rows(results: Mapping[str, Any]) -> list[Row]:
    """A row a scored method: utility an action and a token of it (nats), share of useful thoughts, counts."""
    rows = []
    for name, method in results["methods"].items():
        found = method.get("thought_utility") or {}
        if not found.get("turns"):
            continue
        cells = [
            rounded(found["intervals"][key], scale, f"thoughts/{name}/{key}")
            for key, scale in (("utility_mean", 1.0), ("utility_per_token", 1.0), ("share_positive", 100.0))
        ]
        cells += [
            Cell(plain(found["thought_tokens_mean"])),
            Cell(str(found["turns"])),
            Cell(str(found["episodes"])),
        ]
        rows.append(Row(name, tuple(cells), "", source_of(results, f"thoughts {name}")))
    return rows


def stage_tables(
    manifests: Sequence[Mapping[str, Any]], kinds: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """(header, rows): a column for each stage whose name starts with one of `kinds`, a row a measure."""
    chosen = [m for m in manifests if m["stage"].split()[0] in kinds]
    counted = [{"rows": m["rows"], "errors": m["errors"], **_scalars(m["metrics"])} for m in chosen]
    keys = dict.fromkeys(key for column in counted for key in column)
    rows = [[key.replace("_", " "), *(plain(column.get(key)) for column in counted)] for key in keys]
    return ["", *(f"{m['stage']} {m['fingerprint'][:8]}" for m in chosen)], rows


def _scalars(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of a nested mapping, under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}.{name}": inner for name, inner in _scalars(value).items()})
        elif isinstance(value, (int, float, str, bool)):
            flat[key] = value
    return flat
