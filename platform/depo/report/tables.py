"""The report's main tables as plain rows of text, and how its numbers are printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
    chance: str = ""
    """The probability that a is better than b on a task, with its interval, for comparisons."""
    reason: str = ""
    """Why there is no interval."""


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    name: str
    cells: tuple[Cell, ...]
    note: str = ""
    source: str = ""
    """The stages its numbers come from: fingerprints, shortened."""


def metrics_of(results: Mapping[str, Any], group: str) -> dict[str, Mapping[str, Any]]:
    """Key to description of the metrics of a group: "paper" the six of the main table, "more" the others."""
    return {key: m for key, m in results["metrics"].items() if m["group"] == group}


def decodings_of(results: Mapping[str, Any]) -> list[str]:
    """The table's decoding first, then the others."""
    others = {name for method in results["methods"].values() for name in method.get("decodings", {})}
    return [results["decoding"], *sorted(others)]


def of_decoding(method: Mapping[str, Any], decoding: str) -> Mapping[str, Any] | None:
    """A method's metrics under a decoding, or None where it was not tried."""
    found = method.get("decodings", {}).get(decoding, method)
    tried = found is not method or decoding == method["decoding"]
    return found if tried and "success" in found else None


def source_of(results: Mapping[str, Any], stage: str) -> str:
    """The stage and the beginning of its fingerprint; "" where the results do not name it."""
    fingerprint = results.get("provenance", {}).get("manifests", {}).get(stage, "")
    return f"{stage} {fingerprint[:8]}" if fingerprint else ""


def result_rows(results: Mapping[str, Any], decoding: str) -> list[Row]:
    """A row a method that was tried under the decoding, a cell for each of the paper's metrics."""
    paper = metrics_of(results, "paper")
    return [
        Row(
            name,
            tuple(estimate(values[key], metric, f"{decoding}/{name}/{key}") for key, metric in paper.items()),
            "reference" if name == results["reference"] else "",
            source_of(results, f"evaluate {name}"),
        )
        for name, method in results["methods"].items()
        if (values := of_decoding(method, decoding))
    ]


def comparison_rows(results: Mapping[str, Any], decoding: str, prefix: str = "") -> list[Row]:
    """A row a pair: differences a - b with interval and per cent, and how likely a is better."""
    paper = metrics_of(results, "paper")
    pairs: dict[tuple[str, str], dict[str, Any]] = {}
    for row in results["comparisons"]:
        if row["decoding"] == decoding:
            pairs.setdefault((row["a"], row["b"]), {})[row["metric"]] = row
    return [
        Row(
            f"{a} − {b}",
            tuple(
                difference(found[key], metric, f"{prefix}{decoding}/{a}-{b}/{key}")
                if key in found
                else Cell("–")
                for key, metric in paper.items()
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
        interval(row, metric, signed=True),
        "" if relative is None else per_cent(relative),
        tone,
        key,
        _chance(row.get("probability")),
        no_interval(row),
    )


def headline(results: Mapping[str, Any]) -> tuple[str, list[tuple[str, Cell]]]:
    """The pair in question, and its success, tokens and steps; ("", []) where there is nothing to compare."""
    pair, decoding = results.get("headline", []), results["decoding"]
    found = {
        row["metric"]: row
        for row in results["comparisons"]
        if [row["a"], row["b"], row["decoding"]] == [*pair, decoding]
    }
    if not found:
        return "", []
    keys = ("tokens_all", "steps_all", "success")
    return " − ".join(pair), [
        (results["metrics"][key]["label"], difference(found[key], results["metrics"][key])) for key in keys
    ]


def estimate(row: Mapping[str, Any] | None, metric: Mapping[str, Any], key: str = "") -> Cell:
    """A mean with its interval; "–" over nothing."""
    if row is None or row["mean"] is None:
        return Cell("–", key=key)
    return Cell(number(row["mean"], metric), interval(row, metric), key=key, reason=no_interval(row))


def rounded(row: Mapping[str, Any] | None, scale: float = 1.0, key: str = "") -> Cell:
    """As `estimate`, in four significant digits, for what has no metric that says how it is printed.

    An interval without an upper end is open.
    """
    if row is None or row["mean"] is None:
        return Cell("–", key=key)
    mean = plain(float(row["mean"]) * scale)
    if row["ci_low"] is None:
        return Cell(mean, key=key, reason=no_interval(row))
    end = "∞)" if row["ci_high"] is None else f"{plain(float(row['ci_high']) * scale)}]"
    return Cell(mean, f"[{plain(float(row['ci_low']) * scale)}, {end}", key=key)


def interval(row: Mapping[str, Any], metric: Mapping[str, Any], signed: bool = False) -> str:
    """The interval as its metric is printed; "" where there is none."""
    if row["ci_low"] is None:
        return ""
    return f"[{number(row['ci_low'], metric, signed)}, {number(row['ci_high'], metric, signed)}]"


def no_interval(row: Mapping[str, Any]) -> str:
    """Why an estimate has no interval; "" where it has one."""
    return f"no interval: {row['reason']}" if row.get("reason") else ""


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
    return f"{value:.4g}".replace("-", "−") if isinstance(value, float) else str(value)


def _chance(row: Mapping[str, Any] | None) -> str:
    if row is None or row["mean"] is None:
        return ""
    limits = "" if row["ci_low"] is None else f" [{row['ci_low']:.2f}, {row['ci_high']:.2f}]"
    return f"P {row['mean']:.2f}{limits}"
