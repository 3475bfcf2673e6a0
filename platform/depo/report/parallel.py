"""Parallel coordinates of a sweep: an axis for each setting and metric, a line for each trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib.axes import Axes

from depo.report.plots import BAD, COLOURS, INK, SOFT, Panel, panel
from depo.report.trials import SHOWN, STATES, Column, Trial, columns, is_log, measured, setting_text, varied

_TICKS = 6  # values of a setting that are all named; of more only the ends are


@dataclass(frozen=True)
class Scale:
    """One axis: values to heights in [0, 1]."""

    values: tuple[Any, ...]
    """Distinct; sorted where they are numbers."""
    numeric: bool
    log: bool = False
    metric: Column | None = None

    def place(self, value: Any) -> float | None:
        """The height of one of `values`; None of None."""
        if value is None:
            return None
        if len(self.values) == 1:
            return 0.5
        if not self.numeric:
            return self.values.index(value) / (len(self.values) - 1)
        ends = (self.values[0], self.values[-1], value)
        low, high, at = (math.log(v) if self.log else float(v) for v in ends)
        return (at - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """(height, label)s: every value of a setting with few, else the ends."""
        few = self.metric is None and len(self.values) <= _TICKS
        shown = self.values if few else dict.fromkeys([self.values[0], self.values[-1]])
        text = setting_text if self.metric is None else self.metric.text
        return [(self.place(v) or 0.0, text(v)) for v in shown]


def scale_of(values: Sequence[Any], log: bool = False, metric: Column | None = None) -> Scale:
    """The axis of these values; None among them has no place on it."""
    distinct = list(dict.fromkeys(v for v in values if v is not None))
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in distinct)
    log = log and numeric and min(distinct) > 0
    return Scale(tuple(sorted(distinct) if numeric else distinct), numeric, log, metric)


def parallel_panels(results: Mapping[str, Any], name: str) -> list[Panel]:
    """The drawing, or nothing where no setting varies or no trial has a metric."""
    trials = results["trials"]
    settings = varied(trials)
    metrics = [
        c
        for c in columns(results)
        if c.key in {*results["objectives"], *SHOWN} and measured(trials, c.key, ("done", "stopped"))
    ]
    if not settings or not metrics:
        return []
    draw = partial(_draw, results=results, settings=settings, metrics=metrics)
    width = max(6.5, 1.25 * (len(settings) + len(metrics)) + 1.0)
    return [panel(f"{name}-parallel", "All trials, a line each", draw, width, 3.3, wide=True)]


def _draw(axes: Axes, results: Mapping[str, Any], settings: Sequence[str], metrics: Sequence[Column]) -> None:
    trials = results["trials"]
    scales = [scale_of([t["settings"].get(k) for t in trials], is_log(results, k)) for k in settings]
    for c in metrics:
        found = measured(trials, c.key, ("done", "stopped"))
        scales.append(scale_of([t["metrics"][c.key] for t in found], metric=c))
    for t in trials:
        through = t["state"] in ("done", "stopped")
        values = [t["settings"].get(k) for k in settings]
        values += [t["metrics"][c.key] if through and measured([t], c.key, STATES) else None for c in metrics]
        places = [scale.place(v) for scale, v in zip(scales, values, strict=True)]
        points = [(i, y) for i, y in enumerate(places) if y is not None]
        style, colour, width, order = _looks(t)
        axes.plot(*zip(*points, strict=True), style, color=colour, linewidth=width, alpha=0.85, zorder=order)
        if not through:
            axes.plot(*points[-1], "x", color=colour, markersize=6, zorder=4)
    for i, scale in enumerate(scales):
        axes.axvline(i, color=INK, linewidth=0.6)
        for y, label in scale.ticks():
            axes.text(i + 0.03, y, label, fontsize=8, va="bottom", zorder=5)
    names = [*settings, *(f"{c.label} {'↓' if c.goal == 'min' else '↑'}" for c in metrics)]
    axes.set_xticks(range(len(names)), names)
    axes.tick_params(axis="x", length=0)
    axes.set_yticks([])
    axes.set_xlim(-0.15, len(names) - 0.55)
    axes.grid(visible=False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def _looks(trial: Trial) -> tuple[str, str, float, int]:
    """Line style, colour, width and order of a trial's line."""
    if trial["state"] == "failed":
        return ":", BAD, 1.2, 3
    if trial["state"] in ("stopped", "missing"):
        return "--", SOFT, 1.0, 1
    return ("-", COLOURS[4], 1.9, 3) if trial["pareto"] else ("-", SOFT, 1.0, 2)
