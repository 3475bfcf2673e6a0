"""`results.json` as aligned text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def format_table(results: Mapping[str, Any]) -> str:
    """What success means, a table for each decoding and suite, and the comparisons under the first one."""
    primary = results["decoding"]
    further = sorted({d for method in results["methods"].values() for d in method["decodings"]})
    parts = [
        f"Success: {results['success']}.",
        *(_decoding_table(results, decoding) for decoding in [primary, *further]),
        *_comparison_tables(results, results["comparisons"], primary, ""),
    ]
    for name, suite in results["suites"].items():
        title = (
            f"Suite {name}: {suite['tasks']} {suite['split']} tasks of {suite['env']}, {suite['decoding']}; "
            f"success: {suite['success']}"
        )
        parts.append(_means_table(title, results, suite["methods"].items()))
        parts += _comparison_tables(results, suite["comparisons"], suite["decoding"], f", suite {name}")
    return "\n\n".join(part for part in parts if part)


def _decoding_table(results: Mapping[str, Any], decoding: str) -> str:
    # One that draws nothing is tried once a task, whatever the seeds.
    seeds = len(results["seeds"]) if decoding == "sampled" else 1
    title = (
        f"{results['tasks']} {results['split']} tasks, {decoding}"
        f"{f', {seeds} seeds' if seeds > 1 else ''}: mean [95% interval over tasks]"
    )
    rows = [
        (name, method if decoding == method["decoding"] else method["decodings"].get(decoding, {}))
        for name, method in results["methods"].items()
    ]
    return _means_table(title, results, rows)


def _means_table(
    title: str, results: Mapping[str, Any], methods: Iterable[tuple[str, Mapping[str, Any]]]
) -> str:
    metrics = _printed(results)
    rows = [["method", *(m["label"] for m in metrics.values()), "errors"]]
    shown = [(name, values) for name, values in methods if "success" in values]
    for name, values in shown:
        cells = [_cell(values[key], "mean", metric) for key, metric in metrics.items()]
        rows.append([name, *cells, str(values["errors"])])
    missing = _missing(values[key] for _, values in shown for key in metrics)
    return f"{title}\n{_align(rows)}{missing}" if shown else ""


def _comparison_tables(
    results: Mapping[str, Any], comparisons: Sequence[Mapping[str, Any]], decoding: str, where: str
) -> list[str]:
    """Differences, and how likely a is to do better; none where nothing is compared."""
    metrics = _printed(results)
    pairs: dict[tuple[str, str], dict[str, Any]] = {}
    for row in comparisons:
        if row["decoding"] == decoding:
            pairs.setdefault((row["a"], row["b"]), {})[row["metric"]] = row
    if not pairs:
        return []
    labels = [m["label"] for m in metrics.values()]
    differences, chances = [["a − b", *labels]], [["a, b", *labels]]
    for (a, b), found in pairs.items():
        cells = [_cell(found[key], "difference", metric, signed=True) for key, metric in metrics.items()]
        marks = ["*" if found[key]["excludes_zero"] else " " for key in metrics]
        differences.append([f"{a} − {b}", *(f"{c}{m}" for c, m in zip(cells, marks, strict=True))])
        chances.append([f"{a}, {b}", *(_chance(found[key]["probability"]) for key in metrics)])
    missing = _missing(found[key] for found in pairs.values() for key in metrics)
    unlikely = _missing(found[key]["probability"] for found in pairs.values() for key in metrics)
    return [
        f"Paired differences over the same tasks and seeds, {decoding}, reference {results['reference']}"
        f"{where}: mean [95% interval]; * the interval excludes zero\n{_align(differences)}{missing}",
        f"P(a better than b) on a task drawn at random, ties half, {decoding}{where}: % [95% interval]\n"
        f"{_align(chances)}{unlikely}",
    ]


def _printed(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The metrics that fit a terminal: the six of the paper."""
    return {key: m for key, m in results["metrics"].items() if m["group"] == "paper"}


def _cell(row: Mapping[str, Any], key: str, metric: Mapping[str, Any], signed: bool = False) -> str:
    if row[key] is None:
        return "–"
    spec = f"{'+' if signed else ''}.{metric['digits']}f"
    limits = ", ".join(
        format(row[k] * metric["scale"], spec) for k in ("ci_low", "ci_high") if row[k] is not None
    )
    return f"{format(row[key] * metric['scale'], spec)} [{limits or '–'}]"


def _chance(row: Mapping[str, float | None]) -> str:
    mean, low, high = row["mean"], row["ci_low"], row["ci_high"]
    if mean is None:
        return "–"
    return (
        f"{100 * mean:.0f} [{'–' if low is None or high is None else f'{100 * low:.0f}, {100 * high:.0f}'}]"
    )


def _missing(rows: Iterable[Mapping[str, Any]]) -> str:
    """A line below a table that says why some of its estimates have no interval; "" where all have one."""
    reasons = dict.fromkeys(row["reason"] for row in rows if row.get("reason"))
    return f"\n[–] no interval: {'; '.join(reasons)}" if reasons else ""


def _align(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
