"""Fields of recorded cases, checked as they are read: a case may come from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from depo.config.base import ConfigError

_KINDS: dict[Any, str] = {
    str: "text", bool: "true or false", int: "a whole number", float: "a number", list: "a list",
    dict: "an object",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One JSON object of a case file; `where` names file, row and the fields that led to it.

    Every method raises `ConfigError` where the field is missing or of another type.
    """

    where: str
    values: Mapping[str, Any]

    def has(self, field: str) -> bool:
        return field in self.values

    def text(self, field: str) -> str:
        return str(self._typed(field, str))

    def flag(self, field: str) -> bool:
        return bool(self._typed(field, bool))

    def count(self, field: str) -> int:
        return int(self._typed(field, int))

    def number(self, field: str) -> float:
        return float(self._typed(field, float))

    def row(self, field: str) -> Row:
        return Row(f"{self.where}: {field}", self._typed(field, dict))

    def rows(self, field: str) -> list[Row]:
        found = []
        for at, value in enumerate(self._typed(field, list), start=1):
            if not isinstance(value, dict):
                raise self._error(field, "a list of objects", value)
            found.append(Row(f"{self.where}: {field} {at}", value))
        return found

    def texts(self, field: str) -> tuple[str, ...]:
        values = self._typed(field, list)
        if not all(isinstance(value, str) for value in values):
            raise self._error(field, "a list of texts", values)
        return tuple(values)

    def pairs(self, field: str) -> tuple[tuple[str, str], ...]:
        values = self._typed(field, dict)
        if not all(isinstance(value, str) for value in values.values()):
            raise self._error(field, "an object of texts", values)
        return tuple(values.items())

    def numbers(self, field: str) -> dict[str, float]:
        values = self._typed(field, dict)
        if not all(_is(value, float) for value in values.values()):
            raise self._error(field, "an object of numbers", values)
        return {name: float(value) for name, value in values.items()}

    def any(self, field: str) -> Any:
        if field not in self.values:
            raise ConfigError(f"{self.where}: {field}: missing; is this a file of recorded WebShop cases?")
        return self.values[field]

    def _typed(self, field: str, kind: type) -> Any:
        value = self.any(field)
        if not _is(value, kind):
            raise self._error(field, _KINDS[kind], value)
        return value

    def _error(self, field: str, kind: str, value: Any) -> ConfigError:
        return ConfigError(f"{self.where}: {field}: expected {kind}, got {short(value)}")


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def short(value: Any, length: int = 80) -> str:
    """`value` as Python prints it, cut to one line's worth."""
    printed = repr(value)
    return printed if len(printed) <= length else f"{printed[:length]}..."


def differing(recorded: Any, got: Any) -> str:
    """The two where they part, for one line: recorded, then got."""
    start = 0
    if isinstance(recorded, str) and isinstance(got, str):
        pairs = zip(recorded, got, strict=False)
        start = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(recorded), len(got)))
        start = max(start - 20, 0)
        recorded, got = recorded[start:], got[start:]
    place = f" from character {start}" if start else ""
    return f"recorded{place} {short(recorded)}, got {short(got)}"
