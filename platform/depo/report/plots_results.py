"""Plots of the results: success against cost, paired differences, success within a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes

from depo.report.plots import INK, Drawer, Panel, colours, panel
from depo.report.tables import decodings_of, of_decoding

Ink = Mapping[str, str]
_STYLES = ("-", "--", ":", "-.")
_MOST_LABELS, _LONGEST_LABEL = 7, 18
_UNITS = {"tokens": "generated tokens a task", "steps": "turns a task"}


def trade_offs(results: Mapping[str, Any], ink: Ink) -> list[Panel]:
    """Success against tokens and against steps over all tasks: up and to the left is better.

    Filled points are the table's decoding, hollow ones the others; ringed ones are its Pareto set; bars
    are 95% intervals.
    """
    success = results["metrics"]["success"]["label"]
    return [
        panel(
            f"trade-{key}",
            f"{success} against {results['metrics'][key]['label']}",
            partial(_trade_off, results=results, key=key, ink=ink),
            5.0,
            3.7 if len(results["methods"]) <= _MOST_LABELS else 3.9 + 0.1 * len(results["methods"]),
        )
        for key in ("tokens_all", "steps_all")
    ]


def _trade_off(axes: Axes, results: Mapping[str, Any], key: str, ink: Ink) -> None:
    pareto = results["economics"].get("pareto", [])
    places: dict[str, tuple[float, float]] = {}
    for decoding in decodings_of(results):
        first = decoding == results["decoding"]
        for name, method in results["methods"].items():
            values = of_decoding(method, decoding)
            if not values:
                continue
            _point(axes, values[key], values["success"], ink[name], first)
            if first:
                places[name] = values[key]["mean"], values["success"]["mean"] * 100
    axes.margins(0.12)
    for name, place in places.items():
        if name in pareto:
            axes.plot(*place, "o", color=INK, markersize=12, markerfacecolor="none", markeredgewidth=1)
    _name_points(axes, places, ink)
    axes.set_xlabel(_axis(results["metrics"][key]))
    axes.set_ylabel(results["metrics"]["success"]["label"])


def _name_points(axes: Axes, places: Mapping[str, tuple[float, float]], ink: Ink) -> None:
    """A label beside each point; below the drawing where there are too many for that, or too long ones."""
    if len(places) > _MOST_LABELS or max(map(len, places), default=0) > _LONGEST_LABEL:
        for name in places:
            axes.plot([], [], "o", color=ink[name], label=name)
        axes.legend(
            fontsize=8,
            loc="upper left",
            bbox_to_anchor=(0, -0.16),
            ncols=2,
            borderaxespad=0,
            handletextpad=0.2,
        )
        return
    for name, offset in _labels(places, axes).items():
        axes.annotate(
            name, places[name], xytext=offset, textcoords="offset points", color=ink[name], fontweight="bold",
            ha="left" if offset[0] > 0 else "right", va="bottom" if offset[1] > 0 else "top",
        )  # fmt: skip


def _labels(places: Mapping[str, tuple[float, float]], axes: Axes) -> dict[str, tuple[int, int]]:
    """Where each point's label stands, in points from it: in another corner than those of its neighbours."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    corners = ((7, 5), (7, -5), (-7, 5), (-7, -5))
    chosen: dict[str, tuple[int, int]] = {}
    for name, (x, y) in places.items():
        near = {
            chosen[other]
            for other in chosen
            if abs(places[other][0] - x) < 0.2 * (right - left)
            and abs(places[other][1] - y) < 0.08 * (top - bottom)
        }
        chosen[name] = next((corner for corner in corners if corner not in near), corners[0])
    return chosen


def _axis(metric: Mapping[str, Any]) -> str:
    return f"{metric['label']}: {metric['definition'].rstrip('.').lower()}"


def _point(axes: Axes, x: Mapping[str, Any], y: Mapping[str, Any], colour: str, filled: bool) -> None:
    xerr, yerr = (
        [[0.0], [0.0]]
        if v["ci_low"] is None
        else [[max(v["mean"] - v["ci_low"], 0.0)], [max(v["ci_high"] - v["mean"], 0.0)]]
        for v in (x, y)
    )
    axes.errorbar(
        x["mean"], y["mean"] * 100, xerr=xerr, yerr=[[v[0] * 100] for v in yerr], fmt="o", color=colour,
        markersize=6.5 if filled else 5, markerfacecolor=colour if filled else "none",
        elinewidth=1.3 if filled else 0.8, alpha=1.0 if filled else 0.55,
    )  # fmt: skip


def forest(comparisons: Sequence[Mapping[str, Any]], ink: Ink) -> list[Panel]:
    """Paired differences with their intervals: success in points, costs in per cent.

    Nothing where there is nothing to compare.
    """
    if not comparisons:
        return []
    shown = (("success", "points of success"), ("tokens_all", "% of tokens"), ("steps_all", "% of steps"))
    drawn = []
    for key, label in shown:
        rows = [row for row in comparisons if row["metric"] == key]
        draw: Drawer = partial(_forest, rows=rows, key=key, label=label, ink=ink)
        height = 1.0 + 0.36 * len(rows)
        drawn.append(panel(f"forest-{key}", f"paired differences, {label}", draw, 3.9, height))
    return drawn


def _forest(axes: Axes, rows: Sequence[Mapping[str, Any]], key: str, label: str, ink: Ink) -> None:
    for y, row in enumerate(rows):
        shown = row if key == "success" else row["relative"]
        if shown["difference"] is not None:
            if shown["ci_low"] is not None:
                ends = [100 * shown["ci_low"], 100 * shown["ci_high"]]
                axes.plot(ends, [y, y], color=ink[row["a"]], linewidth=2)
            axes.plot(100 * shown["difference"], y, "o", color=ink[row["a"]], markersize=6)
    axes.axvline(0, color=INK, linewidth=0.8)
    names = [f"{row['a']} − {row['b']}" for row in rows]
    if max(map(len, names)) > _LONGEST_LABEL:
        names = [name.replace(" − ", "\n− ") for name in names]
        axes.tick_params(axis="y", labelsize=7.5)
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(label)
    axes.grid(axis="y", visible=False)


def budget_curves(results: Mapping[str, Any], ink: Ink) -> list[Panel]:
    """The share of tasks solved within so many tokens, or steps, with 95% bands; nothing if none is."""
    return [
        panel(
            f"budget-{name}",
            f"share of tasks solved within a budget of {name}",
            partial(_budget, curve=curve, unit=_UNITS[name], ink=ink),
            5.0,
            3.5,
        )
        for name, curve in results["curves"].items()
        if curve["budgets"][-1] > 0
    ]


def _budget(axes: Axes, curve: Mapping[str, Any], unit: str, ink: Ink) -> None:
    """Steps from nothing at 0 to a little beyond the last budget, after which nothing changes."""
    budgets = [0, *curve["budgets"], 1.04 * curve["budgets"][-1]]
    for name, values in curve["methods"].items():
        middle, low, high = (
            [] if None in values[k] else [0.0, *(100 * v for v in values[k]), 100 * values[k][-1]]
            for k in ("success", "ci_low", "ci_high")
        )
        if low:
            axes.fill_between(budgets, low, high, step="post", color=ink[name], alpha=0.14, linewidth=0)
        axes.step(budgets, middle, where="post", color=ink[name], linewidth=1.6, label=name)
    axes.set_xlabel(f"budget, {unit}")
    axes.set_ylabel("solved within it, %")
    axes.set_xlim(0, budgets[-1])
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=9, handlelength=1.4, loc="lower right")


def budgets_of_runs(curves: Mapping[str, Mapping[str, Any]]) -> list[Panel]:
    """Budget curves of several runs (name to `curves`): a colour for each method, a style for each run."""
    ink = colours(m for of_run in curves.values() for curve in of_run.values() for m in curve["methods"])
    units = dict.fromkeys(unit for of_run in curves.values() for unit in of_run)
    return [
        panel(
            f"budget-{unit}",
            f"share of tasks solved within a budget of {unit}",
            partial(_budgets_of_runs, curves=curves, unit=unit, ink=ink),
            5.0,
            3.5,
        )
        for unit in units
        if any(of_run[unit]["budgets"][-1] > 0 for of_run in curves.values())
    ]


def _budgets_of_runs(axes: Axes, curves: Mapping[str, Mapping[str, Any]], unit: str, ink: Ink) -> None:
    for style, (run, of_run) in zip(cycle(_STYLES), curves.items(), strict=False):
        budgets = [0, *of_run[unit]["budgets"], 1.04 * of_run[unit]["budgets"][-1]]
        for name, values in of_run[unit]["methods"].items():
            solved = [0.0, *(100 * v for v in values["success"]), 100 * values["success"][-1]]
            axes.step(budgets, solved, style, where="post", color=ink[name], linewidth=1.2)
        axes.plot([], [], style, color=INK, linewidth=1.2, label=run)
    for name, colour in ink.items():
        axes.plot([], [], color=colour, linewidth=3, label=name)
    axes.set_xlabel(f"budget, {_UNITS[unit]}")
    axes.set_ylabel("solved within it, %")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, handlelength=1.6, loc="lower right")


def thought_curves(results: Mapping[str, Any], ink: Ink) -> list[Panel]:
    """Thought utility by the turn's place in its episode, of methods that were scored."""
    found: dict[str, Sequence[tuple[int, float]]] = {}
    for name, method in results["methods"].items():
        places = method.get("thought_utility", {}).get("by_position", {})
        if places:
            found[name] = sorted((int(n), values["utility_mean"]) for n, values in places.items())
    if not found:
        return []
    return [panel("thoughts", "thought utility by turn", partial(_thoughts, found=found, ink=ink), 5.0, 3.2)]


def _thoughts(axes: Axes, found: Mapping[str, Sequence[tuple[int, float]]], ink: Ink) -> None:
    for name, points in found.items():
        axes.plot(*zip(*points, strict=True), "o-", color=ink[name], linewidth=1.4, markersize=4, label=name)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xlabel("turn")
    axes.set_ylabel("nats an action gains")
    axes.legend(fontsize=9, handlelength=1.4)
