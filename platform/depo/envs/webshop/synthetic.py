"""A catalogue made up from a seed, in the schema of the public files.

A product depends on the seed and its number alone, so that a smaller catalogue is the beginning of a
larger one. Only `Random.random` is drawn from: its sequence is the same in every version of Python.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from depo.config.base import ConfigError
from depo.envs.webshop.catalogue import Entry, read_annotation, read_human_instructions, read_product
from depo.envs.webshop.vocabulary import (
    ENDINGS,
    EXTRAS,
    LINES,
    OPTIONS,
    PROMISES,
    PURPOSES,
    SHELVES,
    SHOWN_AS,
    SYLLABLES,
    Shelf,
)

VERSION = 2
"""Raised whenever a seed gives other products than before."""
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_IDS = len(_LETTERS) ** 8
_STRIDE = 1_327_217_885_069  # odd and no multiple of 3, so that no id comes twice
_WISHES = (
    "i am looking for {kind}, {qualities}{options}.",
    "i need {kind}{options}, {qualities} please.",
    "show me something {qualities}: {kind}{options}",
    "i want to buy {kind}{options}. it has to be {qualities}.",
    "my old {kind} broke, help me find a new one{options}, {qualities}.",
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SyntheticSpec:
    """How many products, and from which seed. Raises `ConfigError` for a size below 1 or above 10 million."""

    size: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("size", self.size), ("seed", self.seed)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigError(f"{name}: give a whole number, not {value!r}")
        if not 1 <= self.size <= 10_000_000:
            raise ConfigError(f"size: give a number of products from 1 to 10,000,000, not {self.size}")


@dataclass(frozen=True, slots=True)
class RawProduct:
    """One product's row in each of the three files; no instruction by people gives an empty list."""

    item: dict[str, Any]
    annotation: dict[str, Any]
    human: list[dict[str, Any]]


def entries(spec: SyntheticSpec) -> Iterator[Entry]:
    """The catalogue's products, through the same checks as those of the public files."""
    for row, raw in enumerate(raw_products(spec), start=1):
        asin = raw.item["asin"]
        where = f"synthetic catalogue: row {row} ({asin})"
        note = read_annotation(raw.annotation, where)
        product = read_product(raw.item, asin, note.attributes, where)
        human = read_human_instructions(raw.human, where)
        yield Entry(product, note.instruction, note.instruction_attributes, human)


def write_catalogue(spec: SyntheticSpec, folder: Path) -> None:
    """Write the three files into a folder, to be read, changed or given to another program."""
    raws = list(raw_products(spec))
    files = {
        "items_shuffle.json": [raw.item for raw in raws],
        "items_ins_v2.json": {raw.item["asin"]: raw.annotation for raw in raws},
        "items_human_ins.json": {raw.item["asin"]: raw.human for raw in raws if raw.human},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def raw_products(spec: SyntheticSpec) -> Iterator[RawProduct]:
    """The products as the files hold them."""
    start = int(random.Random(f"webshop {spec.seed}").random() * _IDS)
    for number in range(spec.size):
        yield _Maker(random.Random(f"webshop {spec.seed} {number}")).product(
            _asin((start + number * _STRIDE) % _IDS)
        )


def _asin(code: int) -> str:
    letters = []
    for _ in range(8):
        code, letter = divmod(code, len(_LETTERS))
        letters.append(_LETTERS[letter])
    return "B0" + "".join(letters)


class _Maker:
    """Makes one product by chance."""

    def __init__(self, rng: random.Random) -> None:
        self._random = rng.random

    def product(self, asin: str) -> RawProduct:
        shelf = self._pick(SHELVES)
        kind = self._pick(shelf.kinds)
        qualities = self._some(shelf.qualities, 2 + int(self._random() * 4))
        options = self._options(shelf)
        item = self._item(asin, shelf, kind, qualities, options)
        # Goals of products without options, which ask for one quality mostly, are the easy ones.
        wanted = qualities[: 1 + int(self._random() * (3 if options else 1.25))]
        annotation: dict[str, Any] = {"attributes": qualities}
        if self._random() < 0.9:
            annotation["instruction"] = f"Find me {kind}, {_joined(wanted)}"
            annotation["instruction_attributes"] = wanted
        elif self._random() < 0.3:
            annotation["attributes"] = []
        human = [self._wish(asin, kind, qualities, options) for _ in range(int(self._random() * 3))]
        return RawProduct(item, annotation, human)

    def _item(
        self, asin: str, shelf: Shelf, kind: str, qualities: list[str], options: dict[str, list[str]]
    ) -> dict[str, Any]:
        brand = (self._pick(SYLLABLES) + self._pick(ENDINGS)).capitalize()
        other = self._pick(self._pick(SHELVES).kinds)
        return {
            "asin": asin,
            "name": self._title(brand, kind, qualities, options),
            "brand": brand,
            "query": f"{kind} {qualities[0]}" if self._random() < 0.2 else kind,
            "category": shelf.category,
            "product_category": " › ".join([*shelf.path, kind.title()]),
            "full_description": (
                f"This {kind} is {_joined(qualities)}, made for {self._pick(PURPOSES)}. "
                f"{self._pick(PROMISES)}. Goes well with our {other}."
            ),
            "small_description": [
                f"{kind.capitalize()} for {self._pick(PURPOSES)}",
                *(f"It is {quality}" for quality in qualities),
                self._pick(PROMISES),
            ],
            "pricing": self._pricing(*shelf.prices),
            "customization_options": {
                "Style" if name == "style" else name: [{"value": value, "image": None} for value in values]
                for name, values in options.items()
            }
            or None,
            "images": [f"https://shop.invalid/{asin}.jpg"],
        }

    def _title(self, brand: str, kind: str, qualities: list[str], options: dict[str, list[str]]) -> str:
        model = f"{self._pick(LINES)} {self._pick(_LETTERS[10:])}{int(self._random() * 900) + 100}"
        parts = [f"{brand} {model} {qualities[0].title()} {kind.title()}"]
        if len(qualities) > 2 and self._random() < 0.6:
            parts.append(qualities[1].title())
        if self._random() < 0.6:
            parts.append(self._pick(EXTRAS))
        if self._random() < 0.15:  # a search for the other kind finds this one too
            parts.append(f"Fits {self._pick(self._pick(SHELVES).kinds).title()}")
        shown = [values[0].title() for name, values in options.items() if name == "color"]
        return ", ".join(parts) + (f" ({shown[0]})" if shown and self._random() < 0.5 else "")

    def _options(self, shelf: Shelf) -> dict[str, list[str]]:
        count = 0 if self._random() < 0.4 else 1 + int(self._random() * len(shelf.options))
        return {
            SHOWN_AS.get(name, name): self._some(OPTIONS[name], 2 + int(self._random() * 4))
            for name in shelf.options[:count]
        }

    def _pricing(self, low: float, high: float) -> str | None:
        chance = self._random()
        if chance < 0.08:
            return None
        price = low * (high / low) ** self._random()
        if chance < 0.2:
            return f"${price:,.2f}${price * (1.1 + self._random()):,.2f}"
        return f"${price:,.2f}"

    def _wish(
        self, asin: str, kind: str, qualities: list[str], options: dict[str, list[str]]
    ) -> dict[str, Any]:
        wanted = self._some(qualities, 1 + int(self._random() * 2))
        chosen = [self._pick(values) for values in options.values() if self._random() < 0.7]
        text = self._pick(_WISHES).format(
            kind=kind, qualities=_joined(wanted), options=f" in {_joined(chosen)}" if chosen else ""
        )
        shown = [value.replace("/", " | ") for value in chosen]
        return {
            "asin": asin, "instruction": text, "instruction_attributes": wanted, "instruction_options": shown,
        }  # fmt: skip

    def _pick(self, choices: Sequence[T]) -> T:
        return choices[int(self._random() * len(choices))]

    def _some(self, choices: Sequence[T], count: int) -> list[T]:
        """`count` different choices, in the order drawn."""
        left = list(choices)
        return [left.pop(int(self._random() * len(left))) for _ in range(min(count, len(left)))]


def _joined(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
