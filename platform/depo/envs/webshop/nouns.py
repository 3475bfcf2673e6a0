"""Which words of a product's name are nouns: spaCy's model where there is one, else a rule of thumb."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

from depo.config.base import ConfigError

Kind = Literal["auto", "simple", "spacy"]
MODELS = ("en_core_web_lg", "en_core_web_sm")
"""spaCy's English models, the one WebShop uses first."""

_WORD = re.compile(r"[A-Za-z0-9]+(?:[.'-][A-Za-z0-9]+)*")
_NUMBER = re.compile(r"\d+(?:[.-]\d+)*")
_ENDINGS = ("able", "ible", "ful", "less", "ous", "ish", "proof", "ly")
_NOT_NOUNS = frozenset(
    {
        "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "from", "if", "in", "into",
        "is", "it", "its", "made", "more", "most", "my", "no", "non", "not", "of", "off", "on", "or", "our",
        "out", "over", "so", "than", "that", "the", "their", "these", "they", "this", "those", "to", "under",
        "up", "was", "we", "will", "with", "you", "your", "casual", "classic", "easy", "free", "high",
        "large", "lightweight", "long", "low", "medium", "mini", "modern", "natural", "pack",
        "premium", "set", "short", "small", "soft",
    }
)  # fmt: skip
_KEPT = 1 << 12


@dataclass(frozen=True)
class Tagger:
    """`nouns` gives the lower-cased nouns of a name, in order and with repeats."""

    kind: Literal["simple", "spacy"]
    name: str
    """What it is, for the record: "simple", or the model and its version."""
    nouns: Callable[[str], tuple[str, ...]]


def make_tagger(kind: Kind) -> Tagger:
    """The tagger asked for; "auto" is spaCy where it is installed with a model, else "simple".

    Raises `ConfigError` for an unknown kind, and for "spacy" where spaCy or its model is missing.
    """
    if kind not in ("auto", "simple", "spacy"):
        raise ConfigError(f"nouns: give 'auto', 'simple' or 'spacy', not {kind!r}")
    if kind == "simple":
        return _SIMPLE
    models = [model for model in MODELS if find_spec(model)] if find_spec("spacy") else []
    if models:
        return _spacy_tagger(models[0])
    if kind == "spacy":
        raise ConfigError(
            f"nouns: 'spacy' needs spaCy and one of its models {' or '.join(MODELS)}, and there is none; "
            "install them, or use 'simple'"
        )
    return _SIMPLE


@lru_cache(_KEPT)
def simple_nouns(name: str) -> tuple[str, ...]:
    """Every word but numbers, function words, common adjectives and what ends like an adjective.

    Words are runs of ASCII letters and digits, joined by single `.`, `'` or `-`.
    """
    words = (word.lower() for word in _WORD.findall(name))
    return tuple(word for word in words if _is_noun(word))


def _is_noun(word: str) -> bool:
    adjective = len(word) > 5 and word.endswith(_ENDINGS)
    return not (adjective or word in _NOT_NOUNS or _NUMBER.fullmatch(word))


_SIMPLE = Tagger("simple", "simple", simple_nouns)


@lru_cache(1)
def _spacy_tagger(model: str) -> Tagger:
    """spaCy's tags NOUN and PROPN; the model is loaded once a process."""
    nlp: Any = import_module("spacy").load(model)

    @lru_cache(_KEPT)
    def nouns(name: str) -> tuple[str, ...]:
        return tuple(token.text.lower() for token in nlp(name) if token.pos_ in ("NOUN", "PROPN"))

    return Tagger("spacy", f"{model} {nlp.meta['version']}", nouns)
