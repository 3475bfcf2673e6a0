"""A sweep's trials as the plots and tables see them: which settings vary, what a metric is called."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from depo.evaluation.metrics import METRICS

Trial = Mapping[str, Any]
"""An entry of `trials` in a sweep's `results.json`."""

STATES = ("done", "stopped", "failed", "missing")
SHOWN = ("success", "tokens_all", "steps_all")
"""Metrics that are drawn beside the objectives."""
_METRICS = {metric.key: metric for metric in METRICS}


@dataclass(frozen=True)
class Column:
    """How a metric of a trial is called and printed."""

    key: str
    label: str
    scale: float = 1.0
    digits: int | None = None
    """Decimals; None prints four significant digits."""
    goal: str = ""
    """"min" or "max" where it is an objective or known to be better so; else empty."""

    def text(self, value: Any) -> str:
        """The value as printed; "–" where there is none."""
        if not is_number(value):
            return "–"
        if self.digits is None:
            return f"{value:.4g}".replace("-", "−")
        return f"{value * self.scale:.{self.digits}f}".replace("-", "−")


def column(key: str, objectives: Mapping[str, str]) -> Column:
    """How the metric is printed; one that evaluation does not know goes by its key."""
    metric = _METRICS.get(key)
    if metric is None:
        return Column(key, key, goal=objectives.get(key, ""))
    known = "max" if metric.better == "higher" else "min"
    return Column(key, metric.label, metric.scale, metric.digits, objectives.get(key, known))


def columns(results: Mapping[str, Any]) -> list[Column]:
    """The objectives, then the other metrics of the paper's table that any trial has."""
    objectives = results["objectives"]
    found = {key for trial in results["trials"] for key in trial["metrics"]}
    others = [m.key for m in METRICS[:6] if m.key in found and m.key not in objectives]
    return [column(key, objectives) for key in [*objectives, *others]]


def varied(trials: Sequence[Trial]) -> list[str]:
    """Settings of which the trials have more than one value, in the order they are first named."""
    keys = dict.fromkeys(key for trial in trials for key in trial["settings"])
    return [key for key in keys if len({repr(trial["settings"].get(key)) for trial in trials}) > 1]


def is_numeric(trials: Sequence[Trial], key: str) -> bool:
    """Whether every trial's setting is a number (true and false are not)."""
    values = [trial["settings"].get(key) for trial in trials]
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def setting_text(value: Any) -> str:
    """A setting as printed."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def is_log(results: Mapping[str, Any], key: str) -> bool:
    """Whether the space draws the setting over its logarithm."""
    space = results["space"].get(key)
    return isinstance(space, Mapping) and bool(space.get("log"))


def measured(trials: Sequence[Trial], key: str, states: tuple[str, ...] = ("done",)) -> list[Trial]:
    """Trials in one of the states that have the metric, as a finite number."""
    return [t for t in trials if t["state"] in states and is_number(t["metrics"].get(key))]


def is_number(value: Any) -> bool:
    """Whether it is a finite number: a loss may have become anything."""
    return isinstance(value, int | float) and math.isfinite(value)
