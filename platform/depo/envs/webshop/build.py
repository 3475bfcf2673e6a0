"""Fills the folders of a store: a catalogue with its search index, and the goals made from it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depo.envs.webshop.catalogue import (
    Entry,
    HumanInstruction,
    Repeats,
    read_annotations,
    read_entries,
    read_human,
    search_text,
)
from depo.envs.webshop.draws import Draw
from depo.envs.webshop.goals import goal_order, make_goals
from depo.envs.webshop.heap import Heap, HeapWriter, load_array
from depo.envs.webshop.index import IndexBuilder, term_key
from depo.envs.webshop.product import Goal, Product, Variant
from depo.envs.webshop.sources import Source

VERSION = 1
"""Raised whenever a folder's content or format changes, so that older ones are left alone."""
_QUIET_S = 3.0


def build_catalogue(folder: Path, entries: Iterable[Entry], repeats: Repeats, name: str) -> None:
    """Products in order of their asin, with the search index and the lists by category and by query.

    Files: `products` and `instructions` (heaps), `asins` bytes [N], `order` int64 [N] (the product that
    came i-th in the catalogue), `groups_*`, `index_*`, and `meta.json`.
    """
    say = Progress(f"webshop: reading {name}", "products")
    products, instructions = HeapWriter(folder, "products"), HeapWriter(folder, "instructions")
    index = IndexBuilder()
    asins: list[str] = []
    groups: dict[int, list[int]] = {}
    for entry in say.count(entries):
        product = entry.product
        for kind, value in (("category", product.category), ("query", product.query)):
            groups.setdefault(group_key(kind, value), []).append(len(asins))
        asins.append(product.asin)
        products.append(product_record(product))
        instructions.append(_instruction_record(entry))
        index.add(search_text(product))
    ids = np.array(asins, dtype=np.bytes_)
    by_asin = np.argsort(ids)
    ranks = np.empty(len(ids), np.int64)
    ranks[by_asin] = np.arange(len(ids))
    products.close(by_asin)
    instructions.close(by_asin)
    np.save(folder / "asins.npy", ids[by_asin])
    np.save(folder / "order.npy", ranks)
    _save_groups(folder, groups, ranks)
    say.note("building the search index")
    for field, values in index.finish(ranks).arrays().items():
        np.save(folder / f"index_{field}.npy", values)
    (folder / "meta.json").write_text(json.dumps({"conflict": repeats.conflict}))
    if repeats.count:
        print(
            f"webshop: {repeats.first}; {repeats.count} such rows passed over, the first is kept",
            file=sys.stderr,
        )
    say.done()


def build_goals(folder: Path, catalogue: Path, draw: Draw, human: bool, variant: Variant) -> None:
    """Goals in their order (heap `goals`) and prices in dollars (`prices` float64 [N], by asin)."""
    say = Progress("webshop: making goals", "goals")
    stored = StoredEntries(catalogue)
    price_of = {entry.product.asin: draw.price(entry.product) for entry in stored}
    heap = HeapWriter(folder, "goals")
    for goal in say.count(make_goals(stored, price_of, draw, human, variant)):
        heap.append(_goal_record(goal))
    heap.close(goal_order(len(heap)))
    asins = load_array(catalogue / "asins.npy")
    np.save(folder / "prices.npy", np.array([price_of[asin.decode()] for asin in asins.tolist()]))
    say.done()


def source_entries(source: Source, repeats: Repeats) -> Iterator[Entry]:
    """All products of the public files. Raises `ConfigError` naming file, row and field."""
    annotations = read_annotations(source.attributes)
    human = read_human(source.human) if source.human else {}
    yield from read_entries(source.items.rows("array"), source.items.label, annotations, human, repeats)


class StoredEntries:
    """The products of a built catalogue in the catalogue's order; can be gone through again and again."""

    def __init__(self, folder: Path) -> None:
        self._products, self._instructions = Heap(folder, "products"), Heap(folder, "instructions")
        self._order = load_array(folder / "order.npy")

    def __iter__(self) -> Iterator[Entry]:
        for at in self._order.tolist():
            instruction, attributes, human = self._instructions[at]
            yield Entry(
                read_product(self._products[at]),
                instruction,
                tuple(attributes),
                tuple(HumanInstruction(text, tuple(asked), tuple(chosen)) for text, asked, chosen in human),
            )


def product_record(product: Product) -> list[Any]:
    return [
        product.asin, product.title, product.query, product.category, product.product_category,
        product.description, product.bullets, product.price_text, product.price_low, product.price_high,
        product.attributes, product.options,
    ]  # fmt: skip


def read_product(record: list[Any]) -> Product:
    """The product that `product_record` gave."""
    (
        asin, title, query, category, path, description, bullets, price_text, low, high, attributes, options,
    ) = record  # fmt: skip
    return Product(
        asin, title, query, category, path, description, tuple(bullets), price_text, low, high,
        tuple(attributes), tuple((name, tuple(values)) for name, values in options),
    )  # fmt: skip


def _instruction_record(entry: Entry) -> list[Any]:
    human = [[asked.instruction, asked.attributes, asked.options] for asked in entry.human]
    return [entry.instruction, entry.instruction_attributes, human]


def _goal_record(goal: Goal) -> list[Any]:
    return [
        goal.asin, goal.instruction, goal.attributes, goal.price_upper, goal.options, goal.weight,
        goal.difficulty,
    ]  # fmt: skip


def read_goal(record: list[Any], product: Product) -> Goal:
    """The goal of a stored record and its product."""
    asin, instruction, attributes, limit, options, weight, level = record
    chosen = tuple(tuple(option) if isinstance(option, list) else option for option in options)
    return Goal(
        asin, product.title, product.query, product.product_category, instruction, tuple(attributes),
        limit, chosen, weight, level,
    )  # fmt: skip


def group_key(kind: str, value: str) -> int:
    """The 64-bit key of all products of one category or one query."""
    return term_key(f"{kind}\0{value}")


def _save_groups(folder: Path, groups: Mapping[int, list[int]], ranks: NDArray[np.int64]) -> None:
    """`groups_keys` uint64 [G] ascending, `groups_spans` int64 [G + 1] into `groups_rows`."""
    keys = sorted(groups)
    spans = np.cumsum([0, *(len(groups[key]) for key in keys)])
    rows = np.concatenate([ranks[groups[key]] for key in keys])
    np.save(folder / "groups_keys.npy", np.array(keys, np.uint64))
    np.save(folder / "groups_spans.npy", spans)
    np.save(folder / "groups_rows.npy", rows)


class Progress:
    """A line on stderr every few seconds, and none for what is done within the first of them."""

    def __init__(self, what: str, unit: str) -> None:
        self._what, self._unit = what, unit
        self._began = self._spoke = time.monotonic()

    def count(self, items: Iterable[Any]) -> Iterator[Any]:
        for number, item in enumerate(items, start=1):
            yield item
            if number % 1000 == 0 and time.monotonic() - self._spoke > _QUIET_S:
                self._say(f"{number:,} {self._unit}")

    def note(self, text: str) -> None:
        if time.monotonic() - self._began > _QUIET_S:
            self._say(text)

    def done(self) -> None:
        self.note(f"done in {time.monotonic() - self._began:.0f} s")

    def _say(self, text: str) -> None:
        self._spoke = time.monotonic()
        print(f"{self._what}: {text}", file=sys.stderr, flush=True)
