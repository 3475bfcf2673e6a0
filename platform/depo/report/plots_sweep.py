"""Plots of a sweep: each metric over the settings, all trials at once, and what their trade-off is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from depo.report.parallel import parallel_panels
from depo.report.plots import BAD, COLOURS, INK, SOFT, Drawer, Panel, panel, sheet
from depo.report.trials import (
    SHOWN,
    Column,
    Trial,
    columns,
    is_log,
    is_numeric,
    measured,
    setting_text,
    varied,
)

MAX_CELLS = 12  # along an axis of a heat map; draws from a range have as many values as trials


def sweep_panels(results: Mapping[str, Any], name: str) -> list[Panel]:
    """All drawings of a sweep's `results.json`; none without a trial that got through."""
    drawn = [panel(f"{name}-{i}", title, draw) for i, (title, draw) in enumerate(_responses(results))]
    trade = _trade_off(results)
    if trade is not None:
        drawn.append(panel(f"{name}-pareto", trade[0], trade[1]))
    return [*drawn, *parallel_panels(results, name)]


def sweep_figure(results: Mapping[str, Any], name: str) -> str:
    """The sweep's figure as the text of an SVG file: each objective over the settings, and the trade-off."""
    drawers = [draw for _, draw in _responses(results)]
    trade = _trade_off(results)
    if trade is not None:
        drawers.append(trade[1])
    return sheet(f"{name}-figure", drawers or [_nothing])


def _nothing(axes: Axes) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, "no trial has results", ha="center", va="center")


def _responses(results: Mapping[str, Any]) -> list[tuple[str, Drawer]]:
    """(title, drawing) of each objective, and of success, tokens and steps, over the varied settings."""
    shown = [c for c in columns(results) if c.key in {*results["objectives"], *SHOWN}]
    drawn: list[tuple[str, Drawer]] = []
    for metric in shown:
        trials = measured(results["trials"], metric.key, ("done", "stopped"))
        axes_keys = varied(trials)
        if not axes_keys or not measured(trials, metric.key):
            continue
        over = [key for key in axes_keys if is_numeric(trials, key)][:2] or axes_keys[:1]
        title = f"{metric.label} over {' and '.join(over)}"
        if len(over) == 2:
            rest = [key for key in axes_keys if key not in over]
            draw: Drawer = partial(_surface, trials=trials, over=over, rest=rest, metric=metric)
        else:
            draw = partial(_line, trials=trials, over=over[0], metric=metric, log=is_log(results, over[0]))
        drawn.append((title, draw))
    return drawn


def _line(axes: Axes, trials: Sequence[Trial], over: str, metric: Column, log: bool) -> None:
    """The metric over one setting: a line for each choice of the others; trials stopped early are hollow."""
    numeric = is_numeric(trials, over)
    places = {setting_text(t["settings"].get(over)): i for i, t in enumerate(_first_of(trials, over))}
    others = [key for key in varied(trials) if key != over]

    def x(trial: Trial) -> float:
        value = trial["settings"].get(over)
        return float(value) if numeric else places[setting_text(value)]

    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        label = ", ".join(f"{key} {setting_text(trial['settings'].get(key))}" for key in others)
        groups.setdefault(label, []).append(trial)
    for i, (label, group) in enumerate(groups.items()):
        colour = COLOURS[(i + 4) % len(COLOURS)]
        done = sorted((x(t), t["metrics"][metric.key] * metric.scale) for t in measured(group, metric.key))
        if done:
            style = "o-" if numeric else "o"
            axes.plot(*zip(*done, strict=True), style, color=colour, linewidth=1.5, markersize=5, label=label)
        for t in measured(group, metric.key, ("stopped",)):
            axes.plot(
                x(t), t["metrics"][metric.key] * metric.scale, "o", color=colour, markerfacecolor="none"
            )
    if log and numeric:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    if not numeric:
        axes.set_xticks(list(places.values()), list(places))
        axes.margins(x=0.2)
    if 1 < len(groups) <= 6:
        axes.legend(fontsize=8, handlelength=1.2, borderaxespad=0.2)
    axes.set_xlabel(over)
    axes.set_ylabel(metric.label)


def _first_of(trials: Sequence[Trial], key: str) -> list[Trial]:
    """One trial for each of a setting's values, in the order they come."""
    return list({setting_text(t["settings"].get(key)): t for t in trials}.values())


def _surface(
    axes: Axes, trials: Sequence[Trial], over: Sequence[str], rest: Sequence[str], metric: Column
) -> None:
    """The metric over two numbers: a heat map of a grid's cells, or coloured points of draws."""
    x, y = over
    done = measured(trials, metric.key)
    across, down = (sorted({t["settings"][key] for t in done}) for key in (x, y))
    cells: dict[tuple[int, int], list[float]] = {}
    for t in done:
        at = down.index(t["settings"][y]), across.index(t["settings"][x])
        cells.setdefault(at, []).append(t["metrics"][metric.key])
    means = {at: sum(values) / len(values) for at, values in cells.items()}
    colours = "viridis_r" if metric.goal == "min" else "viridis"
    if max(len(across), len(down)) <= MAX_CELLS and 2 * len(means) >= len(across) * len(down):
        _heat(axes, means, across, down, metric, colours)
        mean = f", mean over {', '.join(rest)}" if rest else ""
        axes.set_title(f"{metric.label}{mean}")
    else:
        xs, ys = ([t["settings"][key] for t in done] for key in (x, y))
        values = [t["metrics"][metric.key] * metric.scale for t in done]
        points = axes.scatter(xs, ys, c=values, cmap=colours, s=36)
        axes.set_title(metric.label)
        bar = axes.figure.colorbar(points, ax=axes)
        bar.outline.set_visible(False)  # type: ignore[operator]
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _heat(
    axes: Axes, means: Mapping[tuple[int, int], float], across: list[Any], down: list[Any], metric: Column,
    colours: str,
) -> None:  # fmt: skip
    """Cells with their value; brighter is better, the best is framed, a cell without a trial stays empty."""
    grid = [[means.get((i, j), math.nan) for j in range(len(across))] for i in range(len(down))]
    axes.pcolormesh(grid, cmap=colours, edgecolor="none")
    low, high = min(means.values()), max(means.values())
    size = 9 if max(len(across), len(down)) <= 6 else 6.5
    for (i, j), value in means.items():
        share = (value - low) / (high - low) if high > low else 0.0
        bright = share if metric.goal != "min" else 1 - share
        text = metric.text(value)
        axes.text(
            j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=size,
            color="#000000" if bright > 0.55 else "#ffffff",
        )  # fmt: skip
    best = low if metric.goal == "min" else high
    for (i, j), value in means.items():
        if value == best and high > low:
            frame = matplotlib.patches.Rectangle(
                (j + 0.04, i + 0.04), 0.92, 0.92, fill=False, edgecolor=BAD, linewidth=1.8
            )
            axes.add_patch(frame)
    axes.set_xticks([j + 0.5 for j in range(len(across))], [setting_text(v) for v in across])
    axes.set_yticks([i + 0.5 for i in range(len(down))], [setting_text(v) for v in down])
    axes.grid(visible=False)


def _trade_off(results: Mapping[str, Any]) -> tuple[str, Drawer] | None:
    """What is to be large against what is to be small, the Pareto set of the trials filled."""
    known = columns(results)
    ups = [c for c in known if c.goal == "max"]
    downs = [c for c in known if c.goal == "min"]
    if not ups or not downs:
        return None
    up, down = ups[0], downs[0]
    found = [
        (number, trial)
        for number, trial in enumerate(results["trials"], 1)
        if measured(measured([trial], up.key), down.key)
    ]
    if len(found) < 2:
        return None
    return f"{up.label} against {down.label}, a point each trial", partial(
        _points, found=found, up=up, down=down, best=results["best"]
    )


def _points(
    axes: Axes, found: Sequence[tuple[int, Trial]], up: Column, down: Column, best: int | None
) -> None:
    for number, t in found:
        x, y = (t["metrics"][c.key] * c.scale for c in (down, up))
        member = bool(t["pareto"])
        colour = COLOURS[4] if member else SOFT
        axes.plot(x, y, "o", color=colour, markersize=6.5, markerfacecolor=colour if member else "none")
        if number - 1 == best:
            axes.plot(x, y, "o", color=INK, markersize=11, markerfacecolor="none", markeredgewidth=1.2)
        if member or number - 1 == best or len(found) <= 20:
            axes.annotate(str(number), (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8)
    axes.set_xlabel(down.label)
    axes.set_ylabel(up.label)
    axes.margins(0.12)
