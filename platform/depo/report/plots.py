"""The report's plots as inline SVG that takes its ink from the page, so dark mode needs no second set."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from depo.config.method import OBJECTIVE_FACTS
from depo.report.tables import decodings_of, of_decoding

COLOURS = ("#8b93a1", "#3b82f6", "#d98a1f", "#a566e8", "#12a27a", "#e2557a", "#0ea5b7", "#94a32b")
INK = "#010203"  # stands for the page's text colour until the SVG is written
MAX_POINTS = 400  # of a curve; longer ones are averaged over equal spans

_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#8b93a1",
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}

# What a panel shows of a curve's rows: label of the line style to the keys it is found under.
_DESIRABLE = re.compile(r"log_?ratio.*(\bD|_D|(?<!un)desirable)$")
_UNDESIRABLE = re.compile(r"log_?ratio.*(\bU|_U|undesirable)$")
_LOSS = re.compile(r"(^|[/_.])loss$")
_Z0 = re.compile(r"(^|[/_.])(z0|kl)$")
_BONUS = re.compile(r"(^|[/_.])bonus(_mean)?$")
_TOKENS = re.compile(r"gradient_corr_tokens$")
_STEPS = re.compile(r"gradient_corr_steps$")
_SATURATED = re.compile(r"saturated_share$")


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name (`ink` below), the same in all plots; names may come twice."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(dict.fromkeys(names))}


def trade_off(results: Mapping[str, Any], key: str, ink: Mapping[str, str]) -> str:
    """Success against `key` (tokens or steps over all tasks): up and to the left is better.

    Filled points are the table's decoding, hollow ones the others; bars are 95% intervals.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.6, 4.0), layout="constrained")
        axes = figure.subplots()
        for decoding in decodings_of(results):
            first = decoding == results["decoding"]
            for name, method in results["methods"].items():
                values = of_decoding(method, decoding)
                if values:
                    _point(axes, values[key], values["success"], ink[name], name if first else "", first)
        metric = results["metrics"][key]
        axes.set_xlabel(f"{metric['label']}: {metric['definition'].rstrip('.').lower()}")
        axes.set_ylabel(results["metrics"]["success"]["label"])
        axes.margins(0.12)
        return _svg(figure, f"trade-{key}")


def _point(
    axes: Axes, x: Mapping[str, Any], y: Mapping[str, Any], colour: str, label: str, filled: bool
) -> None:
    low_high = [[v["mean"] - v["ci_low"], v["ci_high"] - v["mean"]] for v in (x, y)]
    xerr, yerr = ([[max(low, 0.0)], [max(high, 0.0)]] for low, high in low_high)
    axes.errorbar(
        x["mean"], y["mean"] * 100, xerr=xerr, yerr=[[v[0] * 100] for v in yerr], fmt="o", color=colour,
        markersize=6.5 if filled else 5, markerfacecolor=colour if filled else "none",
        elinewidth=1.3 if filled else 0.8, alpha=1.0 if filled else 0.55,
    )  # fmt: skip
    if label:
        axes.annotate(
            label, (x["mean"], y["mean"] * 100), xytext=(6, 6), textcoords="offset points", color=colour,
            fontweight="bold",
        )  # fmt: skip


def forest(results: Mapping[str, Any], ink: Mapping[str, str]) -> str:
    """Paired differences from the reference with their intervals: success in points, costs in per cent.

    Empty where there is nothing to compare.
    """
    reference, decoding = results["reference"], results["decoding"]
    rows = [c for c in results["comparisons"] if c["b"] == reference and c["decoding"] == decoding]
    names = list(dict.fromkeys(row["a"] for row in rows))
    if not names:
        return ""
    panels = (("success", "points of success"), ("tokens_all", "% of tokens"), ("steps_all", "% of steps"))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(11.4, 0.75 + 0.42 * len(names)), layout="constrained")
        for axes, (key, label) in zip(figure.subplots(1, 3, sharey=True), panels, strict=True):
            for y, name in enumerate(names):
                row = next(r for r in rows if r["a"] == name and r["metric"] == key)
                shown = row if key == "success" else row["relative"]
                if shown["difference"] is not None:
                    middle, low, high = (100 * shown[k] for k in ("difference", "ci_low", "ci_high"))
                    axes.plot([low, high], [y, y], color=ink[name], linewidth=2)
                    axes.plot(middle, y, "o", color=ink[name], markersize=6)
            axes.axvline(0, color=INK, linewidth=0.8)
            axes.set_yticks(range(len(names)), [f"{name} − {reference}" for name in names])
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.set_xlabel(label)
            axes.grid(axis="y", visible=False)
        return _svg(figure, "forest")


def training_curves(
    curves: Mapping[str, Sequence[Mapping[str, Any]]], objectives: Mapping[str, str], ink: Mapping[str, str]
) -> str:
    """Loss by kind of training; then log-ratios of D and U, z0, bonus and the audit of the gradients.

    `objectives` is method to objective; a curve without one is the student's pre-training. Panels
    without data are left out; empty where none has any.
    """
    supervised = {name for name, facts in OBJECTIVE_FACTS.items() if facts.kind == "supervised"}
    sft = [name for name in curves if objectives.get(name) in supervised]
    other = [name for name in curves if name not in objectives]
    preference = [name for name in curves if name not in {*sft, *other}]
    panels: list[tuple[str, list[str], dict[str, re.Pattern[str]]]] = [
        ("loss, pre-training", other, {"-": _LOSS}),
        ("loss, SFT", sft, {"-": _LOSS}),
        ("loss, preference stage", preference, {"-": _LOSS}),
        ("log-ratio: D solid, U dashed", preference, {"-": _DESIRABLE, "--": _UNDESIRABLE}),
        ("z0 (KL estimate)", preference, {"-": _Z0}),
        ("bonus b of desirable samples", preference, {"-": _BONUS}),
        ("gradient weight against tokens (solid), steps (dashed)", preference, {"-": _TOKENS, "--": _STEPS}),
        ("share of saturated samples", preference, {"-": _SATURATED}),
    ]
    drawn = []
    for title, names, styles in panels:
        lines = [
            (name, style, series)
            for name in names
            for style, pattern in styles.items()
            if len((series := _series(curves[name], pattern))[0])
        ]
        if lines:
            drawn.append((title, lines))
    if not drawn:
        return ""
    with matplotlib.rc_context(_STYLE):
        columns = min(3, len(drawn))
        rows = -(-len(drawn) // columns)
        spacing = ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.08)
        figure = Figure(figsize=(11.4, 2.75 * rows), layout=spacing)
        for axes, (title, lines) in zip(
            figure.subplots(rows, columns, squeeze=False).flat, drawn, strict=False
        ):
            for name, style, (steps, values) in lines:
                label = name if style == "-" else None
                axes.plot(steps, values, style, color=ink[name], linewidth=1.4, label=label)
            axes.set_title(title)
            axes.legend(fontsize=9, handlelength=1.4, borderaxespad=0.2)
        for axes in list(figure.axes)[len(drawn) :]:
            axes.remove()
        figure.supxlabel("optimizer step", fontsize=10)
        return _svg(figure, "curves")


def sweep_plot(trials: Sequence[Mapping[str, Any]], metric: str) -> str:
    """A line over one swept setting, a heat map over two; empty for more, or without variation.

    Each trial is `{"params": {...}, "metrics": {...}}`.
    """
    points = [
        (t["params"], t["metrics"][metric])
        for t in trials
        if isinstance(t["metrics"].get(metric), (int, float))
    ]
    varied = [
        key
        for key in dict.fromkeys(key for params, _ in points for key in params)
        if len({params.get(key) for params, _ in points}) > 1
    ]
    if len(varied) not in (1, 2):
        return ""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.6, 4.0), layout="constrained")
        axes = figure.subplots()
        if len(varied) == 1:
            xs, ys = zip(*sorted((params[varied[0]], value) for params, value in points), strict=True)
            axes.plot(xs, ys, "o-", color=COLOURS[4], linewidth=1.6)
            axes.set_xlabel(varied[0])
            axes.set_ylabel(metric)
        else:
            _heat(axes, points, varied[0], varied[1])
            axes.set_title(metric)
        return _svg(figure, "sweep")


def _heat(axes: Axes, points: Sequence[tuple[Mapping[str, Any], float]], x: str, y: str) -> None:
    across, down = (sorted({params[key] for params, _ in points}) for key in (x, y))
    cells: dict[tuple[int, int], list[float]] = {}
    for params, value in points:
        cells.setdefault((down.index(params[y]), across.index(params[x])), []).append(value)
    means = {cell: sum(values) / len(values) for cell, values in cells.items()}
    grid = [[means.get((i, j), float("nan")) for j in range(len(across))] for i in range(len(down))]
    axes.pcolormesh(grid, cmap="viridis", edgecolor="none")
    middle = (min(means.values()) + max(means.values())) / 2
    for (i, j), value in means.items():
        colour = "#ffffff" if value < middle else "#000000"
        axes.text(j + 0.5, i + 0.5, f"{value:.4g}", ha="center", va="center", color=colour)
    axes.set_xticks([j + 0.5 for j in range(len(across))], [f"{v:g}" for v in across])
    axes.set_yticks([i + 0.5 for i in range(len(down))], [f"{v:g}" for v in down])
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=False)


def _series(rows: Sequence[Mapping[str, Any]], pattern: re.Pattern[str]) -> tuple[list[float], list[float]]:
    """(steps, values) of the first key that matches, averaged down to `MAX_POINTS`."""
    keys = dict.fromkeys(key for row in rows for key in row if pattern.search(key))
    if not keys:
        return [], []
    key = next(iter(keys))
    points = [(row["step"], row[key]) for row in rows if row.get(key) is not None and "step" in row]
    span = -(-len(points) // MAX_POINTS) or 1
    parts = [points[i : i + span] for i in range(0, len(points), span)]
    return tuple([sum(p[axis] for p in part) / len(part) for part in parts] for axis in (0, 1))  # type: ignore[return-value]


def _svg(figure: Figure, name: str) -> str:
    """The figure as an `<svg>` element: no ids shared with another, no prologue, the page's ink."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*"',
        r"\1",
        re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1),
        count=1,
    )
    return text.replace(INK, "currentColor").strip()
