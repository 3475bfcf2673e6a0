"""What an instruction asks for, without price, options and the words around it."""

from __future__ import annotations

import re

from depo.envs.webshop.product import Goal

_PRICE = re.compile(r",?\s*(?:and )?price (?:lower|less) than [\d.,]+ dollars\b\.?")
_WORD = re.compile(r"\w+(?:['.-]\w+)*")
_EMPTY = frozenset(
    {
        "a", "am", "an", "and", "any", "are", "be", "buy", "by", "can", "could", "do", "find", "for",
        "from", "get", "give", "have", "i", "i'd", "i'm", "im", "in", "is", "it", "looking", "me",
        "my", "need", "of", "on", "one", "or", "please", "show", "some", "something", "that", "the",
        "there", "these", "this", "those", "to", "want", "which", "will", "with", "would", "you",
    }
)  # fmt: skip


def option_values(goal: Goal) -> tuple[str, ...]:
    """The values asked for, be the goal synthetic or written by people."""
    return tuple(option if isinstance(option, str) else option[1] for option in goal.options)


def essence(goal: Goal) -> tuple[str, ...]:
    """The words of the instruction that say what is wanted, lower-cased and in order.

    Left out are the price limit, the options (with their names, for a synthetic goal) and words
    without meaning of their own. Never empty: the product's query stands in.
    """
    text = _PRICE.sub(" ", goal.instruction.lower())
    for option in goal.options:
        text = _without(text, option if isinstance(option, str) else f"{option[0]}: {option[1]}")
    words = tuple(word for word in _WORD.findall(text) if word not in _EMPTY)
    return words or tuple(_WORD.findall(goal.query.lower())) or (goal.asin.lower(),)


def _without(text: str, phrase: str) -> str:
    start, _, end = text.rpartition(phrase.lower())
    return f"{start} {end}" if phrase else text
