"""The report's tables as plain rows of text: all formatting of numbers stands here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PAPER_METRICS = ("success", "reward", "tokens_all", "steps_all", "tokens_success", "steps_success")
LEVEL_METRICS = ("success", "tokens_all", "steps_all", "input_tokens_all")


@dataclass(frozen=True)
class Cell:
    """A printed estimate."""

    value: str
    interval: str = ""
    relative: str = ""
    """The difference in per cent, for comparisons."""
    tone: str = ""
    """"good" or "bad" where a difference's interval excludes zero; else empty."""
    key: str = ""
    """decoding/method/metric or decoding/a-b/metric, for whoever reads the page by machine."""


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    name: str
    cells: tuple[Cell, ...]
    note: str = ""


def decodings_of(results: Mapping[str, Any]) -> list[str]:
    """The table's decoding first, then the others."""
    others = {name for method in results["methods"].values() for name in method["decodings"]}
    return [results["decoding"], *sorted(others)]


def of_decoding(method: Mapping[str, Any], decoding: str) -> Mapping[str, Any] | None:
    """A method's metrics under a decoding, or None where it was not tried."""
    found = method if decoding == method["decoding"] else method["decodings"].get(decoding)
    return found if found and "success" in found else None


def result_rows(results: Mapping[str, Any]) -> list[Row]:
    """A row a method; the cells of every decoding side by side, metric by metric."""
    rows = []
    for name, method in results["methods"].items():
        cells: list[Cell] = []
        for decoding in decodings_of(results):
            values = of_decoding(method, decoding)
            for key in PAPER_METRICS:
                metric = results["metrics"][key]
                cells.append(
                    _estimate(values[key], metric, f"{decoding}/{name}/{key}") if values else Cell("–")
                )
        rows.append(Row(name, tuple(cells), "reference" if name == results["reference"] else ""))
    return rows


def comparison_rows(results: Mapping[str, Any], decoding: str) -> list[Row]:
    """A row a pair: differences a - b with interval and per cent."""
    pairs: dict[tuple[str, str], dict[str, Any]] = {}
    for row in results["comparisons"]:
        if row["decoding"] == decoding:
            pairs.setdefault((row["a"], row["b"]), {})[row["metric"]] = row
    return [
        Row(
            f"{a} − {b}",
            tuple(
                difference(found[key], results["metrics"][key], f"{decoding}/{a}-{b}/{key}")
                for key in PAPER_METRICS
            ),
            f"{found['success']['n']} tasks, {found['tokens_success']['n']} solved by both",
        )
        for (a, b), found in pairs.items()
    ]


def difference(row: Mapping[str, Any], metric: Mapping[str, Any], key: str = "") -> Cell:
    """A paired difference, of a cost in per cent too.

    Its tone says which way it goes, once its interval excludes zero.
    """
    if row["difference"] is None:
        return Cell("–", key=key)
    better = (row["difference"] > 0) == (metric["better"] == "higher")
    tone = ("good" if better else "bad") if row["excludes_zero"] else ""
    relative = row["relative"]["difference"] if metric["better"] == "lower" else None
    return Cell(
        number(row["difference"], metric, signed=True),
        _interval(row["ci_low"], row["ci_high"], metric, signed=True),
        "" if relative is None else per_cent(relative),
        tone,
        key,
    )


def level_rows(results: Mapping[str, Any]) -> list[tuple[str, list[Row]]]:
    """(level, a row a method) under the table's decoding."""
    levels = sorted({level for m in results["methods"].values() for level in m.get("levels", {})})
    return [
        (
            level,
            [
                Row(
                    name,
                    tuple(
                        _estimate(method["levels"][level][key], results["metrics"][key])
                        for key in LEVEL_METRICS
                    ),
                    str(method["levels"][level]["episodes"]),
                )
                for name, method in results["methods"].items()
                if level in method.get("levels", {})
            ],
        )
        for level in levels
    ]


def whole_rows(results: Mapping[str, Any]) -> list[tuple[str, str, Cell, int, int]]:
    """(method, decoding, context tokens, episodes, errors): what the main table leaves out."""
    return [
        (
            name,
            decoding,
            _estimate(values["input_tokens_all"], results["metrics"]["input_tokens_all"]),
            values["episodes"],
            values["errors"],
        )
        for name, method in results["methods"].items()
        for decoding in decodings_of(results)
        if (values := of_decoding(method, decoding))
    ]


def headline(results: Mapping[str, Any]) -> tuple[str, list[tuple[str, Cell]]]:
    """The pair in question, and its success, tokens and steps: DEPO, or else the last method.

    ("", []) where there is nothing to compare.
    """
    reference, decoding = results["reference"], results["decoding"]
    others = [name for name in results["methods"] if name != reference]
    name = "depo" if "depo" in others else (others or [""])[-1]
    found = {
        row["metric"]: row
        for row in results["comparisons"]
        if (row["a"], row["b"], row["decoding"]) == (name, reference, decoding)
    }
    if not found:
        return "", []
    keys = ("tokens_all", "steps_all", "success")
    return f"{name} − {reference}", [
        (results["metrics"][key]["label"], difference(found[key], results["metrics"][key])) for key in keys
    ]


def stage_tables(
    manifests: Sequence[Mapping[str, Any]], kinds: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """(header, rows): a column for each stage whose name starts with one of `kinds`, a row a measure."""
    chosen = [m for m in manifests if m["stage"].split()[0] in kinds]
    columns = [{"rows": m["rows"], "errors": m["errors"], **_scalars(m["metrics"])} for m in chosen]
    keys = dict.fromkeys(key for column in columns for key in column)
    rows = [[key.replace("_", " "), *(plain(column.get(key)) for column in columns)] for key in keys]
    return ["", *(m["stage"] for m in chosen)], rows


def sweep_table(trials: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of trials `{"params": {...}, "metrics": {...}}`; metrics of the training left out."""
    params = list(dict.fromkeys(key for trial in trials for key in trial["params"]))
    found = dict.fromkeys(key for trial in trials for key in _scalars(trial["metrics"]))
    metrics = [key for key in found if not key.startswith("train/")]
    rows = [
        [
            *(plain(trial["params"].get(key)) for key in params),
            *(plain(_scalars(trial["metrics"]).get(key)) for key in metrics),
        ]
        for trial in trials
    ]
    return [*params, *metrics], rows


def number(value: float, metric: Mapping[str, Any], signed: bool = False) -> str:
    """A value as its metric is printed."""
    text = format(value * metric["scale"], f"{'+' if signed else ''}.{metric['digits']}f")
    return text.replace("-", "−")


def per_cent(share: float) -> str:
    return f"{share * 100:+.1f}%".replace("-", "−")


def plain(value: Any) -> str:
    """A cell of a table that knows nothing of its columns."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _estimate(row: Mapping[str, Any], metric: Mapping[str, Any], key: str = "") -> Cell:
    if row["mean"] is None:
        return Cell("–", key=key)
    return Cell(number(row["mean"], metric), _interval(row["ci_low"], row["ci_high"], metric), key=key)


def _interval(low: float, high: float, metric: Mapping[str, Any], signed: bool = False) -> str:
    return f"[{number(low, metric, signed)}, {number(high, metric, signed)}]"


def _scalars(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of a nested mapping, under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}.{name}": inner for name, inner in _scalars(value).items()})
        elif isinstance(value, (int, float, str, bool)):
            flat[key] = value
    return flat
