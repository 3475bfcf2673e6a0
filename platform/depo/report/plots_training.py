"""Plots of the training: losses, log-ratios, and the audit of the gradients."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes

from depo.config.method import OBJECTIVE_FACTS
from depo.report.plots import Panel, panel

MAX_POINTS = 400  # of a curve; longer ones are averaged over equal spans

# What a panel shows of a curve's rows: label of the line style to the keys it is found under.
_DESIRABLE = re.compile(r"log_?ratio.*(\bD|_D|(?<!un)desirable)$")
_UNDESIRABLE = re.compile(r"log_?ratio.*(\bU|_U|undesirable)$")
_LOSS = re.compile(r"(^|[/_.])loss$")
_Z0 = re.compile(r"(^|[/_.])(z0|kl)$")
_BONUS = re.compile(r"(^|[/_.])bonus(_mean)?$")
_TOKENS = re.compile(r"gradient_corr_tokens$")
_STEPS = re.compile(r"gradient_corr_steps$")
_SATURATED = re.compile(r"saturated_share$")

Line = tuple[str, str, tuple[list[float], list[float]]]  # name, style, (steps, values)


def training_curves(
    curves: Mapping[str, Sequence[Mapping[str, Any]]], objectives: Mapping[str, str], ink: Mapping[str, str]
) -> list[Panel]:
    """Loss by kind of training; then log-ratios of D and U, z0, bonus and the audit of the gradients.

    `objectives` is method to objective; a curve without one is the student's pre-training. Panels
    without data are left out.
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
    drawn: list[Panel] = []
    for title, names, styles in panels:
        lines: list[Line] = [
            (name, style, series)
            for name in names
            for style, pattern in styles.items()
            if len((series := _series(curves[name], pattern))[0])
        ]
        if lines:
            draw = partial(_lines, title=title, lines=lines, ink=ink)
            drawn.append(panel(f"training-{len(drawn)}", f"Training: {title}", draw))
    return drawn


def _lines(axes: Axes, title: str, lines: Sequence[Line], ink: Mapping[str, str]) -> None:
    for name, style, (steps, values) in lines:
        label = name if style == "-" else None
        axes.plot(steps, values, style, color=ink[name], linewidth=1.4, label=label)
    axes.set_title(title)
    axes.set_xlabel("optimizer step")
    axes.legend(fontsize=9, handlelength=1.4, borderaxespad=0.2)


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
