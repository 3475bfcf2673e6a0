"""How pages and tables reach the disk: templates filled, files written whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from depo.report.plots import Panel

HERE = Path(__file__).parent


def fill(template: str, **values: Any) -> str:
    """A template of this folder as a page that needs nothing beside itself; values are escaped."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"drawn": drawn, "lower_first": lambda text: text[:1].lower() + text[1:]}
    style = Markup((HERE / "page.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(style=style, **values)


def drawn(panel: Panel) -> Markup:
    """A panel's SVG, in which the SVG writer has escaped what is not ours."""
    return Markup(panel.svg)


def write_text(path: Path, text: str) -> Path:
    """Write a whole file or none, and the folders above it; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    return path
