"""What a reply answers, and whether that is the answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from depo.envs.maths.judge import Undecided, same_value
from depo.envs.maths.notation import normalise, number, read_number, ungroup, without_unit

__all__ = ["LONGEST", "Answer", "boxed", "equal", "final", "number", "readable"]

LONGEST = 500
"""Characters of an answer; no answer in the public files has half of it."""
_MOST_PARTS = 12
_ARITHMETIC = re.compile(r"[+*]|\d\s+\d|^\s*-\s*-|\\times|\\cdot|\\div|(?<=[\w)}])\s*-|/.*/")
_SAYS = re.compile(r".*\banswers?(?:\s+(?:is|are)\b\s*:?|\s*[:=])\s*(.+)", re.IGNORECASE | re.DOTALL)
_SO = re.compile(r"^\W*(?:so|thus|therefore|hence|it is|it's|we get)\b[,:]?\s*", re.IGNORECASE)
_RELATION = re.compile(r"[<>]|\\(?:l[et]|g[et]|ne|in|cup|cap|infty|setminus|emptyset|mathbb)(?![A-Za-z])")
_FUNCTION = r"(?!\\?(?:sqrt|log|ln|sin|cos|tan|exp|frac)(?![A-Za-z]))"
_NAME = re.compile(
    rf"{_FUNCTION}(?:\\(?:m?angle|triangle)\s*)?"
    r"(?:\\?[A-Za-z][A-Za-z_ ]{0,30}?'?(?:_\{?\w+\}?)?(?:\([^()=]*\))?|\([A-Za-z, _]+\)|\|[A-Z]+\|)"
)
_BASED = re.compile(r"(\w+)_\{?(\d+)\}?")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|(?=[^\s{]))")
_BRACKETS = {"(": ")", "[": "]", "{": "}"}


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
    r"""The answer in `text`: in `\boxed{}`, after `####`, "the answer is" or "Answer:", else all of it."""
    if box := boxed(text):
        return box
    if "####" in text:
        text = text.rpartition("####")[2]
    elif says := _SAYS.match(text):
        text = says.group(1)
    return _SO.sub("", text).strip().rstrip(".").strip().strip("$").strip()


def readable(text: str) -> bool:
    """Whether `text` can be meant as an answer: short, with a digit, LaTeX, an expression or one word."""
    inside = normalise(final(text)) if len(text) <= LONGEST else ""
    if not inside or not all(c.isprintable() or c in "\n\t" for c in text):
        return False
    if re.search(r"[0-9\\]", inside) or re.fullmatch(r"[A-Za-z()]+", inside):
        return True
    words = re.findall(r"[A-Za-z]+", inside)
    written = re.fullmatch(r"[A-Za-z\s()\[\]{}<>=+*/^_|,;'!-]+", inside)
    return bool(words and written and max(map(len, words)) <= 2 and re.search(r"[<>=+*/^|,-]", inside))


def equal(gold: Answer, text: str) -> bool:
    """Whether `text` gives all values of `gold` and nothing else, whichever of the two is the recorded one.

    Several values may come in any order, under their names or without; of a tuple the order counts.
    Whole numbers and fractions are compared exactly, decimals to 1e-6 of the number and to their last
    digit, other values by math-verify; False where that takes too long.
    """
    if len(text) > LONGEST:
        return False
    given = normalise(final(text))
    try:
        if len(gold.values) == 1:
            return _same(normalise(final(gold.values[0])), given)
        values = [ungroup(normalise(value)) for value in gold.values]
        names = [re.sub(r"\s", "", name).lower() for name in gold.names] or [""] * len(values)
        return _pairs(list(zip(names, values, strict=True)), _parts(given)[1], ordered=False)
    except Undecided:
        return False


def _same(one: str, other: str) -> bool:
    """Whether two normalised answers are the same: values, lists, tuples, sets, intervals or relations."""
    if _compact(one) == _compact(other):
        return True
    (name, value), (another, its) = _named(one), _named(other)
    if name and another and name != another:
        return same_value(one, other)
    if (name or "=" not in one) and (another or "=" not in other):
        one, other = value, its  # "x = 5" is 5, but "y = x" is another equation than "x - y = 1"
    elif name or another:
        return "=" in one and "=" in other and same_value(one, other)
    if read_number(one) and read_number(other):
        return _same_one(one, other)
    if _RELATION.search(one + other) or _half_open(one) or _half_open(other):
        return same_value(one, other)
    (left, mine), (right, theirs) = _parts(one), _parts(other)
    if len(mine) == len(theirs) == 1:
        return _same_one(mine[0][1], theirs[0][1])
    if left and right and left != right:
        return False
    return _pairs(mine, theirs, ordered=bool({left, right} & {"(", "["}))


def _same_one(one: str, other: str) -> bool:
    """Whether two single values are the same; a sum left to do is no number, an equation no value."""
    if ("=" in one) != ("=" in other):
        one, other = (one, other) if "=" in one else (other, one)
        *sides, last = (side.strip() for side in one.split("="))
        done = not re.search(r"(?<!\\)\b[A-Za-z]", one) and all(same_value(side, last) for side in sides)
        return done and _same_one(last, other)
    (bare, unit), (another, its) = without_unit(one), without_unit(other)
    if unit and its and unit != its:
        return False
    numbers = read_number(one), read_number(other)
    if numbers[0] and numbers[1]:
        return numbers[0].equals(numbers[1])
    for mine, theirs in (numbers, (bare, another)), (numbers[::-1], (another, bare)):
        if mine[0] and _ARITHMETIC.search(theirs[1]):
            return False
    based = [_BASED.fullmatch(side) for side in (one, other)]
    if based[0] and based[1] and based[0][2] != based[1][2]:
        return False
    if all(re.fullmatch(r"[A-Za-z ]{4,}|[A-Za-z]*[oO][A-Za-z]*", side) for side in (one, other)):
        return _compact(one).lower() == _compact(other).lower()  # words are no products of letters
    steps = [found.step for found in numbers if found and found.step]
    return same_value(bare, another, float(steps[0]) if steps else None)


def _pairs(mine: list[tuple[str, str]], theirs: list[tuple[str, str]], ordered: bool) -> bool:
    """Whether two lists of (name or "", value) hold the same values, under the same names where both have."""
    if len(mine) != len(theirs) or len(mine) > _MOST_PARTS:
        return False
    names = [sorted(name for name, _ in side) for side in (mine, theirs)]
    if all(map(all, names)):
        if names[0] != names[1]:
            return False
        if len(set(names[0])) == len(mine):
            mine, theirs, ordered = sorted(mine), sorted(theirs), True
    values, others = ([value for _, value in side] for side in (mine, theirs))
    numbers = [[read_number(value) for value in side] for side in (values, others)]
    if not ordered and all(map(all, numbers)):
        values, others = (
            sorted(side, key=lambda value: number(value) or 0) for side in (values, others)
        )  # numbers pair up in order of size, or not at all
        ordered = True
    if ordered:
        return all(_same(a, b) for a, b in zip(values, others, strict=True))
    for value in values:
        match = next((place for place, b in enumerate(others) if _same(value, b)), None)
        if match is None:
            return False
        del others[match]
    return True


def _parts(answer: str) -> tuple[str, list[tuple[str, str]]]:
    r"""The bracket around several values ("" for none), and (name or "", value) of each of them.

    They stand between commas, semicolons, "and", "or" and line ends; `a \pm b` is two. Between brackets a
    comma before three digits separates values too, unless others have a space behind them.
    """
    name, value = _named(answer)
    bracket, inside = _bracket(value)
    if not bracket or re.search(r",\s", inside):
        inside = ungroup(inside)
    pieces = [piece for piece in _split(inside) if piece]
    if name.startswith("("):
        names = [each.strip() for each in name.strip("()").split(",")]
        if len(names) == len(pieces):
            return bracket, list(zip(names, pieces, strict=True))
    elif name:
        bracket, pieces = "", _split(ungroup(answer))
    found = [_named(piece) for piece in pieces]
    spread = [
        (name, value.replace(r"\pm", sign, 1))
        for name, value in found
        for sign in "+-"[: 1 + (r"\pm" in value)]
    ]
    return ("" if len(spread) == 1 else bracket), spread or [("", answer)]


def _named(answer: str) -> tuple[str, str]:
    """The name in lower case and the value of "x = 5"; ("", answer) where there is none."""
    name, equals, value = answer.partition("=")
    if (
        equals
        and _NAME.fullmatch(name.strip())
        and not re.search(r"[,;]|\b(?:and|or)\b", _outside(name + value))
    ):
        return re.sub(r"\s", "", name).lower(), value.strip()
    return "", answer


def _bracket(text: str) -> tuple[str, str]:
    """The bracket that encloses all of `text` and what is inside; ("", text) where there is none."""
    inner = text.replace(r"\{", "{").replace(r"\}", "}")
    if inner[:1] not in _BRACKETS or inner[-1:] != _BRACKETS[inner[0]] or read_number(text):
        return "", text
    depth = 0
    for place, character in enumerate(inner):
        depth += (character in _BRACKETS) - (character in _BRACKETS.values())
        if depth == 0 and place < len(inner) - 1:
            return "", text
    return inner[0], inner[1:-1].strip()


def _half_open(text: str) -> bool:
    return (text[:1], text[-1:]) in {("(", "]"), ("[", ")")}


def _split(text: str) -> list[str]:
    pieces, depth, start = [], 0, 0
    for found in re.finditer(r"[(\[{]|[)\]}]|[,;\n]|\b(?:and|or)\b", text):
        depth += (found[0] in "([{") - (found[0] in ")]}")
        if depth == 0 and found[0] not in ")]}":
            pieces.append(text[start : found.start()].strip())
            start = found.end()
    return [*pieces, text[start:].strip()]


def _outside(text: str) -> str:
    """`text` without what stands in brackets."""
    while (less := re.sub(r"\\?\{[^(){}\[\]]*\}|[(\[][^(){}\[\]]*[)\]]", "", text)) != text:
        text = less
    return text


def _compact(text: str) -> str:
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text)
