"""Simultaneous linear equations, as word problems or plain, generated from a seed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from depo.envs.maths.answers import Answer
from depo.records import content_hash

_SPLITS = ("train", "train", "train", "validation", "test")
_LETTERS = ("x", "y", "z")
_THINGS = {
    "price": ("lantern", "kite", "teapot", "violin string", "notebook", "cactus pot", "umbrella", "whistle"),
    "weight": ("pumpkin", "melon", "brick", "sack of rice", "tin of paint", "iron bolt", "coconut"),
    "time": ("lap of the lake", "flight of stairs", "crossword", "dictation", "piano scale", "sudoku"),
}
_UNIT = {"price": "coins", "weight": "kilograms", "time": "minutes"}
_OPENING = {
    "price": ("At the harbour market", "In a small corner shop", "At a school fair"),
    "weight": ("On an old pair of scales", "In a warehouse", "At the farm gate"),
    "time": ("During her holidays Ines keeps a diary", "In his training log", "On a rainy weekend"),
}

Row = tuple[tuple[int, ...], Fraction]
"""One equation: its coefficients and what they add up to."""


@dataclass(frozen=True)
class Problem:
    """A question, its answer, and `key`: equal for two problems with the same equations, however told."""

    question: str
    answer: Answer
    key: str = ""

    @property
    def split(self) -> str:
        """The split that a generated problem belongs to, by its equations: 3/5 train, 1/5 each other."""
        return _SPLITS[int(self.key, 16) % len(_SPLITS)]


def generate(seed: int, unknowns: int) -> Problem:
    """Problem number `seed` with 2 or 3 `unknowns`; all values differ, so their order cannot matter."""
    rng = random.Random(f"simuleq {unknowns} {seed}")
    kind = rng.choice(("plain", "price", "weight", "time"))
    values = _values(rng, unknowns, signed=kind == "plain")
    rows = _rows(rng, values, signed=kind == "plain")
    names, question = _plain(rng, rows) if kind == "plain" else _story(rng, rows, kind)
    return Problem(question, Answer(tuple(str(v) for v in values), names), _key(rows))


def stream(split: str, unknowns: int) -> Iterator[int]:
    """Seeds of `split` in increasing order, without two of the same equations."""
    seen = set()
    for seed in itertools.count():
        problem = generate(seed, unknowns)
        if problem.split == split and problem.key not in seen:
            seen.add(problem.key)
            yield seed


def _values(rng: random.Random, unknowns: int, signed: bool) -> list[Fraction]:
    under = rng.choice((1, 1, 1, 2, 3, 4))
    over = [n for n in range(-12 if signed else 1, 25) if n]
    return [Fraction(n, under) for n in rng.sample(over, unknowns)]


def _rows(rng: random.Random, values: list[Fraction], signed: bool) -> list[Row]:
    """As many equations as unknowns, with one solution, none of them about one unknown alone."""
    size = len(values)
    choices = [n for n in range(-7 if signed else 0, 10) if n or size > 2]
    while True:
        matrix = [[rng.choice(choices) for _ in range(size)] for _ in range(size)]
        if _determinant(matrix) and all(sum(map(bool, row)) > 1 for row in matrix):
            return [(tuple(row), _total(row, values)) for row in matrix]


def _total(row: list[int], values: list[Fraction]) -> Fraction:
    return sum((a * v for a, v in zip(row, values, strict=True)), Fraction(0))


def _determinant(m: list[list[int]]) -> int:
    if len(m) == 1:
        return m[0][0]
    minors = ([row[:i] + row[i + 1 :] for row in m[1:]] for i in range(len(m)))
    return sum((-1) ** i * m[0][i] * _determinant(minor) for i, minor in enumerate(minors))


def _key(rows: list[Row]) -> str:
    """Hash of the equations, the same under any order of equations and of unknowns."""
    orders = itertools.permutations(range(len(rows)))
    forms = (sorted((*(row[i] for i in order), str(total)) for row, total in rows) for order in orders)
    return content_hash(min(forms))


def _plain(rng: random.Random, rows: list[Row]) -> tuple[tuple[str, ...], str]:
    names = _LETTERS[: len(rows)]
    equations = [f"{_sum(row, names)} = {total}" for row, total in rows]
    opening = rng.choice(("Solve for {}: {}.", "Find {} such that {}.", "Which values of {} satisfy {}?"))
    return names, opening.format(_list(list(names)), _list(equations))


def _sum(row: tuple[int, ...], names: tuple[str, ...]) -> str:
    text = ""
    for a, name in zip(row, names, strict=True):
        if a:
            sign = ("- " if a < 0 else "+ ") if text else ("-" if a < 0 else "")
            text += f"{' ' if text else ''}{sign}{'' if abs(a) == 1 else abs(a)}{name}"
    return text


def _story(rng: random.Random, rows: list[Row], kind: str) -> tuple[tuple[str, ...], str]:
    names = tuple(rng.sample(_THINGS[kind], len(rows)))
    unit = _UNIT[kind]
    facts = []
    for row, total in rows:
        things = _list([f"{a} x {name}" for a, name in zip(row, names, strict=True) if a])
        facts.append(f"{things} together: {total} {unit}")
    asked = _list([f"of one {name}" for name in names])
    return names, f"{rng.choice(_OPENING[kind])}: {'; '.join(facts)}. What is the {kind} in {unit} {asked}?"


def _list(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
