"""How an answer may be written: marks, units and spellings taken off it, and numbers read exactly."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

_SIGNS = str.maketrans(
    {
        **dict.fromkeys("−–‒‐", "-"),
        **dict.fromkeys("·⋅×∗", r"\times "),
        **{"≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∞": r"\infty ", "π": r"\pi "},
        **{"∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ", "÷": r"\div ", "∅": r"\emptyset "},
        **{"√": r"\sqrt ", "°": r"^\circ ", "\u2044": "/", "“": '"', "”": '"', "‘": "'", "’": "'"},
    }
)
_ONE = r"(\{[^{}]*\}|\d)"
_SYMBOLS = (
    "[kmcd]?m|in|ft|yd|mi|[mk]?g|lbs?|oz|[mc]?[lL]|sec|m?s|min|hr?s?|k?(?:Hz|N|J|W|V)|"
    "A|K|Pa|mol|[mk]ph|[CF]|sq|cu|of"
)
_FONT = (
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt)|mbox|bf|bold(?:symbol)?|underline|emph)"
    r"\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_FUNCTIONS = "sqrt|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|pi|theta|infty|pm|cup"
_SPELLINGS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<=[\w)])(\*\*| \*\* )(?=[\w(-])", "^"),
        (r"\*\*|__|`|(?<!\\)\\[()\[\]]|\\(?:left|right|displaystyle|[Ll]arge)(?![A-Za-z])", ""),
        (r"^\s*([*_])([^*_]+)\1\s*$", r"\2"),
        (r"<(b|i|u|em|strong|code)>(.*?)</\1>", r"\2"),
        (r"^\s*([\"'])([^\"']+)\1[\s.]*$", r"\2"),
        (r"\\?\$|[€£¥₹]|\b(?:US|USD|EUR|GBP)\b", ""),
        (r"(?<!\\)\\!|(?<=\d)\\[,;: ](?=\d{3}(?!\d))|(?<=\d)\{,\}(?=\d{3})", ""),
        (r"(?<!\\)\\[,;: ]|\\q?quad(?![A-Za-z])|~|\u200b", " "),
        (_FONT, r" \1 "),
        (_FONT, r" \1 "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:leq|leqslant)(?![A-Za-z])|(?<!<)<=|=<", r"\\le "),
        (r"\\(?:geq|geqslant)(?![A-Za-z])|>=", r"\\ge "),
        (r"!=|\\neq(?![A-Za-z])", r"\\ne "),
        (r"(?<![A-Za-z\\])(?:oo|inf(?:inity)?)(?![A-Za-z])", r"\\infty "),
        (r"(?<=[\])])\s*[Uu]\s*(?=[(\[])", r"\\cup "),
        (r"\\varnothing(?![A-Za-z])", r"\\emptyset "),
        (r"\\(?:lor|vee)(?![A-Za-z])", " or "),
        (r"\\(?:land|wedge)(?![A-Za-z])", " and "),
        (r"\bper ?cent\b", "%"),
        (r"\\degree(?![A-Za-z])|\bdegrees?\b", r"^\\circ "),
        (r"(?<=:\d\d)\s*([AaPp])\.?[Mm]\b\.?", lambda m: f" {m[1].lower()}m"),
        (
            r"(?<=[\d.])\\(?:bar|overline|dot)\s*\{?(\d+)\}?|(?<=\d\.)\((\d+)\)$",
            lambda m: rf"\overline{{{m[1] or m[2]}}}",
        ),
        (rf"\\frac\s*{_ONE}\s*{_ONE}", lambda m: rf"\frac{{{m[1].strip('{}')}}}{{{m[2].strip('{}')}}}"),
        (rf"(?<![\\A-Za-z])({_FUNCTIONS})(?![A-Za-z])", r"\\\1"),
        (r"(?<![\\A-Za-z])exp\(([^()]*)\)", r"e^{\1}"),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\^\s*(?:\(([^()]*)\)|(-?\d+))", lambda m: f"^{{{m[1] or m[2]}}}"),
        # A whole number and a fraction beside it are their sum.
        (
            r"(?<![\w.^_{/])(\d+)(?:\s*\\frac\{(\d+)\}\{(\d+)\}|\s+(\d+)\s*/\s*(\d+))(?![\w.!^])",
            lambda m: rf"({m[1]}+\frac{{{m[2] or m[4]}}}{{{m[3] or m[5]}}})",
        ),
        (r"(?<![\w.^_{/])(\d+)\s*/\s*(\d+)(?=\s+[A-Za-z]|\s*\\pi)", r"\\frac{\1}{\2}"),
        (
            rf"(?<=[\d}}])\s*\\frac\{{\s*({_SYMBOLS})\s*\}}\{{\s*((?:{_SYMBOLS})(?:\^\{{\d\}})?)\s*\}}\s*$",
            r" \1/\2",
        ),
        (r"(?<=\d)\s+hundred\b", r" \\times 10^{2}"),
        (r"(?<=\d)\s+thousand\b", r" \\times 10^{3}"),
        (r"(?<=\d)\s+million\b", r" \\times 10^{6}"),
        (r"(?<=\d)\s+billion\b", r" \\times 10^{9}"),
        (r"^\s*\\?\{\s*[A-Za-z]\s*(?:\\in\s*\\mathbb\{R\}\s*)?(?:\\mid|[:|])(.*?)\\?\}\s*$", r"\1"),
        (r"^\s*[A-Za-z]\s*\\in(?![A-Za-z])", ""),
        (r"^\s*(?:=|\\approx(?![A-Za-z])|(?:approximately|about|roughly)\b)", ""),
    )
]
_GROUPS = re.compile(r"(?<![\d.,])\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?![\d,]*\d)")

_SYMBOL = re.compile(_SYMBOLS)
_SHORT = {
    word: names.split()[0]
    for names in (
        "m meter metre", "km kilometer kilometre", "cm centimeter centimetre", "mm millimeter millimetre",
        "in inch inches inche", "ft foot feet", "yd yard", "mi mile", "g gram", "kg kilogram", "lb pound",
        "oz ounce", "L l liter litre", "mL ml milliliter millilitre", "s sec second", "min minute",
        "h hr hour", "d day", "week week", "month month", "yr year", "dollar dollar", "cent cent",
        "mi/h mph", "km/h kph kmh", "/ per", "2 sq square", "3 cu cubic",
    )
    for word in names.split()
}  # fmt: skip
"""Words for a unit, in the singular, to its symbol."""
_NO_UNIT = re.compile(
    "and|not|are|plus|minus|times|more|less|over|under|than|squared|cubed|factorial|mod|modulo|half|halves|"
    "quarters?|thirds?|score|dozens?|hundred|[tmb]r?illion|thousand|choose|when|where|but|with|through|until",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r"(?:(?<=[\d)}])|(?<=\\pi))(?:\s+(?=[A-Za-z])|(?=[A-Za-z]{2}|[A-Za-z]/))(?:[A-Za-z\s/*.]|\^\{-?\d\}|(?<=[a-z])[23]\b)+\Z"
)
_DEGREES = re.compile(r"\s*\^\s*\{?\s*\\circ\s*\}?\s*[CF]?\s*\Z")

_DECIMAL = r"(?:\d+(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:(?P<top>{_DECIMAL})(?:\s*/\s*(?P<under>[-+]?{_DECIMAL})|[eE](?P<e>[-+]?\d{{1,3}})"
    rf"|\s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*\{{?(?P<ten>[-+]?\d{{1,3}})\}}?)?"
    rf"|(?:\((?P<whole>\d+)\+)?\\frac\s*\{{\s*(?P<over>-?{_DECIMAL})\s*\}}\s*\{{\s*(?P<below>-?{_DECIMAL})\s*\}}(?(whole)\))"
    r"|(?P<before>\d*)\.(?P<once>\d*)\\overline\{(?P<again>\d+)\})",
    re.ASCII,
)
_TOLERANCE = Fraction(1, 10**6)
_LONGEST = 500


@dataclass(frozen=True)
class Number:
    """A number as it was written: `step` is the place value of its last decimal, None where it is exact."""

    value: Fraction
    step: Fraction | None = None
    percent: bool = False

    def equals(self, other: Number) -> bool:
        """Exactly where both are exact; else to 1e-6 of the larger, and to the last decimal written.

        A percentage is the number before its sign, as in the public graders, or its hundredth.
        """
        if self.percent != other.percent:
            mine, theirs = (self, other) if self.percent else (other, self)
            hundredth = Number(mine.value / 100, mine.step and mine.step / 100)
            return any(
                way.equals(Number(theirs.value, theirs.step))
                for way in (hundredth, Number(mine.value, mine.step))
            )
        off, steps = abs(self.value - other.value), [n.step for n in (self, other) if n.step is not None]
        if not steps:
            return off == 0
        return off < max(steps) and off <= _TOLERANCE * max(abs(self.value), abs(other.value))


def normalise(text: str) -> str:
    """`text` in one spelling of LaTeX, without Markdown, spacing, fonts, currency; "1 1/4" is "(1+1/4)"."""
    text = re.sub(r"(?<=\d)(?=[¼½¾⅐-⅞])", " ", text)
    text = re.sub(r"[⁰¹²³⁴-⁹⁻]+", lambda m: f"^{{{m[0]}}}", text)
    text = unicodedata.normalize("NFKC", text).translate(_SIGNS)
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    return text.strip().rstrip(".,;: \n").strip()


def ungroup(text: str) -> str:
    """`text` with the separators of thousands gone: "1,234,567" is 1234567."""
    return _GROUPS.sub(lambda m: re.sub("[, ]", "", m[0]), text)


def without_unit(text: str) -> tuple[str, str]:
    """`text` (normalised) without the unit after its value, and the unit in symbols ("m/s2"), "" where it
    has none."""
    degrees = _DEGREES.search(text)
    if degrees and degrees.start():
        return text[: degrees.start()], ""
    tail = _TAIL.search(text)
    words = re.findall("[A-Za-z]+", tail[0]) if tail else []
    if not tail or len(words) > 6 or not all(_unit(word) for word in words):
        return text, ""
    return text[: tail.start()], _in_symbols(tail[0])


def _in_symbols(unit: str) -> str:
    symbols, power = "", ""
    for part in re.findall(r"[A-Za-z]+|[^A-Za-z\s^{}.]", unit):
        word = part.lower() if len(part) > 2 else part
        known = _SHORT.get(word, _SHORT.get(word.removesuffix("s"), ""))
        if known in ("2", "3") and part != known:
            power = known
        elif known or part in "/23" or _SYMBOL.fullmatch(part):
            symbols, power = symbols + (known or part) + power, ""
        else:
            return ""
    return symbols


def _unit(word: str) -> bool:
    return bool(_SYMBOL.fullmatch(word) or (len(word) > 2 and not _NO_UNIT.fullmatch(word)))


def read_number(text: str) -> Number | None:
    """The number that `text` (normalised) is, where it is nothing else but for a unit."""
    if len(text) > _LONGEST:
        return None
    percent = re.search(r"\s*\\?%\s*\Z", text)
    text = ungroup(without_unit(text[: percent.start()] if percent else text)[0].strip())
    found = _NUMBER.fullmatch(text)
    if not found:
        return None
    if found["again"]:
        tail, size = int(found["again"]), len(found["once"])
        value = Fraction(int(found["before"] + found["once"] or "0")) + Fraction(
            tail, 10 ** len(found["again"]) - 1
        )
        value, written = value / 10**size, ""
    elif found["over"]:
        if not Fraction(found["below"]):
            return None
        value = Fraction(found["whole"] or 0) + Fraction(found["over"]) / Fraction(found["below"])
        written = found["over"] + found["below"]
    else:
        under = Fraction(found["under"] or 1)
        if not under:
            return None
        power = Fraction(10) ** int(found["e"] or found["ten"] or 0)
        value = Fraction(found["top"]) / under * power
        written = found["top"] + (found["under"] or "")
    step = None
    if "." in written:
        plain = found["top"] and not found["under"]
        step = power / 10 ** len(written.partition(".")[2]) if plain else abs(value)
    return Number(-value if found["sign"] == "-" else value, step, bool(percent))


def number(text: str) -> Fraction | None:
    r"""`text` as a number, where it is nothing else: "1,234.50", "$42", "3/4", "\frac{3}{4}", "42 mugs"."""
    found = read_number(normalise(text))
    return found.value if found else None
