"""Parameters and metrics as MLflow takes them: flat names, texts of a bounded length, finite numbers."""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")

Point = tuple[str, int]
"""A metric's name and its step."""

_MAX_VALUE = 500  # characters kept of a parameter
_REFUSED = re.compile(r"[^\w\-. :/]")
_METRICS_PER_CALL, _PARAMS_PER_CALL = 1000, 100  # most that one `log_batch` takes, together and of these


def clean(name: str) -> str:
    """A name as MLflow takes it: what it refuses becomes `_`, and it reads as a plain path."""
    return posixpath.normpath(_REFUSED.sub("_", name)).lstrip("./") or "_"


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted names with text values, each cut to 500 characters."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            text = str(value)
            flat[clean(f"{prefix}{name}")] = text if len(text) <= _MAX_VALUE else text[: _MAX_VALUE - 1] + "…"
    return flat


def numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The finite numbers in nested mappings, under dotted names; everything else is left out."""
    flat: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(numbers(value, f"{prefix}{name}."))
        elif isinstance(value, (bool, int, float)) and math.isfinite(value):
            flat[clean(f"{prefix}{name}")] = float(value)
    return flat


def points(rows: Iterable[Mapping[str, Any]], step: str = "step") -> dict[Point, float]:
    """The numbers of rows that hold their step under `step`; rows without one are left out."""
    return {
        (name, int(row[step])): value
        for row in rows
        if step in row
        for name, value in numbers(row).items()
        if name != step
    }


def batches(params: Sequence[A], metrics: Sequence[B]) -> Iterator[tuple[Sequence[A], Sequence[B]]]:
    """Both in portions that one `log_batch` takes; nothing where both are empty."""
    while params or metrics:
        first, params = params[:_PARAMS_PER_CALL], params[_PARAMS_PER_CALL:]
        room = _METRICS_PER_CALL - len(first)
        yield first, metrics[:room]
        metrics = metrics[room:]
