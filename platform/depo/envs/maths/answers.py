"""What a reply answers, and whether that is the answer."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from fractions import Fraction

from depo.envs.maths.judge import same_value

LONGEST = 500
"""Characters of an answer; no answer in the public files has half of it."""
_TOLERANCE = Fraction(1, 10**6)
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)(/[-+]?\d+)?", re.ASCII)
_FRACTION = re.compile(r"([-+]?)\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(-?\d+)\s*\}", re.ASCII)
_UNIT = re.compile(r"(?<=\d)\s+[A-Za-z]{2,}(?: [A-Za-z]+){0,2}$")
_SCALE = re.compile(r"hundred|thousand|million|billion|dozen|half|quarter|third|score", re.IGNORECASE)
_ARITHMETIC = re.compile(r"[+*]|\\times|\\cdot|\\div|(?<=[\w)}])\s*-|/.*/")
_LIST = re.compile(r"(?:\\?\{|\(|\[)(.*)(?:\\?\}|\)|\])", re.DOTALL)
_SAYS = re.compile(r".*\banswers?\s+(?:is|are)\b\s*:?\s*(.+)", re.IGNORECASE | re.DOTALL)
_NAMED = re.compile(r"\s*([A-Za-z][A-Za-z_ ]{0,30}?)\s*=\s*(.+)", re.DOTALL)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|(?=[^\s{]))")


@dataclass(frozen=True)
class Answer:
    """The right answer: one value in LaTeX, or several in any order, of named unknowns or not."""

    values: tuple[str, ...]
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.names:
            return ", ".join(f"{name} = {value}" for name, value in zip(self.names, self.values, strict=True))
        return ", ".join(self.values)


def boxed(text: str) -> str:
    r"""The content of the last `\boxed{...}` (or `\fbox`, or `\boxed 5`) of `text`; "" where none closes."""
    found = list(_BOX.finditer(text))
    if not found:
        return ""
    start = found[-1].end()
    if not found[-1].group().endswith("{"):
        return re.split(r"[\s$]", text[start:], maxsplit=1)[0]
    depth = 1
    for at in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[start:at].strip()
    return ""


def final(text: str) -> str:
    r"""The answer in `text`: inside `\boxed{}`, after `####` or after "the answer is", else all of it.

    Surrounding dollar signs and a last full stop go.
    """
    if box := boxed(text):
        return box
    if "####" in text:
        text = text.rpartition("####")[2]
    elif says := _SAYS.match(text):
        text = says.group(1)
    return text.strip().rstrip(".").strip().strip("$").strip()


def readable(text: str) -> bool:
    """Whether `text` can be meant as an answer: printable, short, with a digit or LaTeX, or one word."""
    inside = final(text)
    if not inside or len(text) > LONGEST or not all(c.isprintable() or c in "\n\t" for c in text):
        return False
    return bool(re.search(r"[0-9\\]", inside) or re.fullmatch(r"[A-Za-z()]+", inside))


def equal(gold: Answer, text: str) -> bool:
    """Whether `text` gives all values of `gold` and nothing else.

    Several values may come in any order, under their names or without; equal values are compared as
    numbers (to 1e-6) where both are, otherwise by math-verify.
    """
    answer = final(text)
    if len(gold.values) == 1:
        named = _NAMED.fullmatch(answer)
        return _same(
            gold.values[0], named.group(2) if named and number(gold.values[0]) is not None else answer
        )
    parts = _parts(answer)
    if len(parts) != len(gold.values):
        return False
    given = {name.lower(): value for name, value in parts}
    if given.keys() == {name.lower() for name in gold.names}:
        wanted = zip(gold.names, gold.values, strict=True)
        return all(_same(value, given[name.lower()]) for name, value in wanted)
    values = [value for _, value in parts]
    if all(number(value) is not None for value in (*values, *gold.values)):
        # Numbers pair up in order of size, or not at all.
        pairs = zip(*(sorted(side, key=_size) for side in (gold.values, values)), strict=True)
        return all(_same(a, b) for a, b in pairs)
    if len(values) > 4:
        return same_value(", ".join(gold.values), ", ".join(values))
    return any(
        all(_same(a, b) for a, b in zip(gold.values, order, strict=True))
        for order in itertools.permutations(values)
    )


def number(text: str) -> Fraction | None:
    r"""`text` as a number, where it is nothing else: "1,234.50", "$42", "3/4", "\frac{3}{4}", "42 mugs".

    A percentage counts as the number before its sign, as in the public graders.
    """
    text = text.replace("\\$", "").replace("\\!", "").replace("{,}", ",").strip().strip("$").strip()
    text = re.sub(r"\s*\\?%$|\s*\\text\s*\{[^{}]*\}$", "", text)
    unit = _UNIT.search(text)
    if unit and not _SCALE.search(unit.group()):
        text = text[: unit.start()]
    text = re.sub(r"(?<=\d),\s?(?=\d{3}(?!\d))", "", text)
    if len(text) > 60:
        return None
    fraction = _FRACTION.fullmatch(text)
    if fraction:
        over, under = int(fraction[2]), int(fraction[3])
        return Fraction(-over if fraction[1] == "-" else over, under) if under else None
    if not _NUMBER.fullmatch(text):
        return None
    top, _, bottom = text.partition("/")
    if bottom and not int(bottom):
        return None
    return Fraction(top) / Fraction(bottom or "1")


def _size(value: str) -> Fraction:
    return number(value) or Fraction(0)


def _same(gold: str, answer: str) -> bool:
    if re.sub(r"\s+", "", gold) == re.sub(r"\s+", "", answer):
        return True
    wanted, given = number(gold), number(answer)
    if wanted is not None and given is not None:
        return abs(wanted - given) <= _TOLERANCE * max(Fraction(1), abs(wanted))
    if wanted is not None and _ARITHMETIC.search(answer):
        return False  # the sum written out is not the answer
    return same_value(gold, answer)


def _parts(answer: str) -> list[tuple[str, str]]:
    """(name or "", value) of each of several answers, split at commas, semicolons, "and" and line ends."""
    whole = _LIST.fullmatch(answer.strip())
    answer = whole.group(1) if whole else answer
    pieces = [p.strip().strip("$").strip() for p in re.split(r",(?!\d{3}(?!\d))|;|\band\b|\n", answer)]
    named = [(_NAMED.fullmatch(piece), piece) for piece in pieces if piece]
    return [(found.group(1).strip(), found.group(2).strip()) if found else ("", p) for found, p in named]
