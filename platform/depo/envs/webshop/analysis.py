"""Text to search terms, as Lucene's English analysis does it (StandardTokenizer to PorterStemFilter).

Tokens follow Unicode's word boundaries (UAX #29, with the colon inside letters as up to Unicode 15), lose a
final 's, go to lower case, pass the 33 English stop words, and are stemmed. Emoji give no token, and a double
quote inside a Hebrew word ends it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

import regex
import Stemmer

LONGEST_TOKEN = 255
"""Characters after which Lucene cuts a token and starts the next."""

STOP_WORDS = frozenset(
    re.findall(
        "[a-z]+",
        """a an and are as at be but by for if in into is it no not of on or such that the their then there
        these they this to was will with""",
    )
)
_POSSESSIVE = ("'s", "'S", "’s", "’S", "＇s", "＇S")
_stem: Callable[[str], str] = Stemmer.Stemmer("porter").stemWord


def _units(letter: str, number: str, inner_letter: str, inner_number: str, joiner: str, more: str) -> str:
    """A token: runs of letters and numbers, each with its inner punctuation, joined by underscores."""
    letters = f"{letter}(?:{joiner}*{letter}|{inner_letter}{letter})*"
    numbers = f"{number}(?:(?:{joiner}*|{inner_number}){number})*"
    runs = f"(?:{letters}|{numbers}{more})+"
    return f"{joiner}*{runs}(?:{joiner}+{runs})*{joiner}*"


# Stepping over text without a letter or digit of ASCII first would be slower than this one pattern.
_ASCII = re.compile(_units("[A-Za-z]", "[0-9]", "[:.']", "[,;.']", "_", ""))

_MARKS = r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]*"
_UNICODE = regex.compile(
    "|".join(
        (
            _units(
                rf"[\p{{WB=ALetter}}\p{{WB=Hebrew_Letter}}]{_MARKS}",
                rf"[\p{{WB=Numeric}}\uFF10-\uFF19]{_MARKS}",
                rf"[:\p{{WB=MidLetter}}\p{{WB=MidNumLet}}']{_MARKS}",
                rf"[\p{{WB=MidNum}}\p{{WB=MidNumLet}}']{_MARKS}",
                rf"(?:\p{{WB=ExtendNumLet}}{_MARKS})",
                rf"|\p{{WB=Katakana}}{_MARKS}",
            ),
            rf"[\p{{Script=Han}}\p{{Script=Hiragana}}]{_MARKS}",
            r"\p{Line_Break=SA}+",
        )
    )
)


def split_words(text: str) -> list[str]:
    """The tokens of a text, unchanged but for a cut after 255 characters."""
    words: list[str] = (_ASCII if text.isascii() else _UNICODE).findall(text)
    if len(text) <= LONGEST_TOKEN or all(len(word) <= LONGEST_TOKEN for word in words):
        return words
    return [word[at : at + LONGEST_TOKEN] for word in words for at in range(0, len(word), LONGEST_TOKEN)]


def search_term(word: str) -> str:
    """The term that a token is indexed and searched by; "" for a stop word."""
    if word.endswith(_POSSESSIVE):
        word = word[:-2]
    # Java lowers each character alone; Python would add a dot to İ and look around a Σ.
    word = word.lower() if word.isascii() else "".join(character.lower()[:1] for character in word)
    return "" if word in STOP_WORDS else stem(word)


def search_terms(text: str) -> list[str]:
    """All terms of a text in their order, repeated ones too."""
    return [term for word in split_words(text) if (term := search_term(word))]


def stem(word: str) -> str:
    """Lucene's Porter stem of a lower-case word.

    It differs from the published algorithm (Porter 1980) in three points: words of up to two letters stay,
    and step 2 turns -bli (not only -abli) into -ble and -logi into -log.
    """
    if len(word) <= 2:
        return word
    stemmed = _stem(word)
    if stemmed.endswith("logi") and _measure(stemmed[:-4]) > 0:
        return stemmed[:-1]
    if stemmed.endswith("bli") and _measure(stemmed[:-3]) > 0:
        if stemmed.endswith("ibli") and _measure(stemmed[:-4]) > 1:
            return _last_step(stemmed[:-4])
        return stemmed[:-1]
    return stemmed


def _last_step(word: str) -> str:
    """Step 5 of the algorithm for a word that step 4 left with a measure above 1."""
    if word.endswith("e") and _measure(word[:-1]) > 1:
        word = word[:-1]
    return word[:-1] if word.endswith("ll") else word


def _measure(word: str) -> int:
    """Porter's m: how often a vowel is followed by a consonant."""
    vowels = [False]
    for letter in word:
        vowels.append(letter in "aeiou" or (letter == "y" and len(vowels) > 1 and not vowels[-1]))
    return sum(before and not after for before, after in itertools.pairwise(vowels))
