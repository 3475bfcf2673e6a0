"""What the report's plots share: ink taken from the page, colours by name, figures as inline SVG.

The page's text colour stands in the SVG as `currentColor`, so dark mode needs no second set.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = (
    "#8b93a1", "#3b82f6", "#d98a1f", "#a566e8", "#12a27a", "#e2557a", "#0ea5b7", "#94a32b",
    "#b0663a", "#5b6ee1", "#c04fae", "#3f8f3f",
)  # fmt: skip
INK = "#010203"  # stands for the page's text colour until the SVG is written
SOFT = "#8b93a1"
BAD = "#d2434f"

Drawer = Callable[[Axes], None]

_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
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


@dataclass(frozen=True)
class Panel:
    """One drawing of the page."""

    title: str
    """What it shows, for those who do not see it."""
    svg: str
    """An `<svg>` element; the text in it is escaped."""
    wide: bool = False
    """Takes the page's whole width, and scrolls inside itself where that is little."""


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name (`ink` elsewhere), the same in all plots; names may come twice."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(dict.fromkeys(names))}


def panel(
    name: str, title: str, draw: Drawer, width: float = 3.9, height: float = 2.9, wide: bool = False
) -> Panel:
    """One drawing as a panel; `name` keeps its ids apart from others', sizes are in inches."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
        return Panel(title, inline_svg(figure, re.sub(r"[^A-Za-z0-9_-]+", "-", name)), wide)


def sheet(name: str, drawers: Sequence[Drawer], width: float = 4.2, height: float = 3.4) -> str:
    """Drawings side by side as the text of an SVG file, dark on white; sizes are of each, in inches."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width * len(drawers), height), layout="constrained")
        for axes, draw in zip(figure.subplots(1, len(drawers), squeeze=False).flat, drawers, strict=True):
            draw(axes)
        svg = inline_svg(figure, re.sub(r"[^A-Za-z0-9_-]+", "-", name))
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    look = 'style="background:#ffffff;color:#1c2330"'
    return '<?xml version="1.0" encoding="utf-8"?>\n' + svg.replace("<svg", f"<svg {spaces} {look}", 1) + "\n"


def inline_svg(figure: Figure, name: str) -> str:
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
    for side in ("width", "height"):
        text = re.sub(rf'(<svg[^>]*?) {side}="[^"]*"', r"\1", text, count=1)
    return text.replace(INK, "currentColor").strip()
