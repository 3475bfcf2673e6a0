"""A shop opened from files that all processes of a machine share: products, search, goals, prices."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from operator import attrgetter
from pathlib import Path
from typing import Any, get_args, overload

import numpy as np

from depo.config.base import ConfigError
from depo.envs.webshop import synthetic
from depo.envs.webshop.build import (
    VERSION,
    build_catalogue,
    build_goals,
    group_key,
    read_goal,
    read_product,
    source_entries,
)
from depo.envs.webshop.cache import built_folder, cache_root, remembered
from depo.envs.webshop.catalogue import Repeats
from depo.envs.webshop.draws import HashedDraw, SeededDraw
from depo.envs.webshop.heap import Heap, load_array
from depo.envs.webshop.index import Index
from depo.envs.webshop.product import Goal, Product, Variant
from depo.envs.webshop.sources import Source, find_source
from depo.envs.webshop.synthetic import SyntheticSpec

_KEPT_PRODUCTS = 256
"""Decoded products kept; one takes some 3 KB."""


class Goals(Sequence[Goal]):
    """A shop's goals, decoded from the map when one is asked for."""

    def __init__(self, shop: Shop, heap: Heap) -> None:
        self._shop, self._heap = shop, heap

    def __reduce__(self) -> tuple[Any, ...]:
        return attrgetter("goals"), (self._shop,)

    def __len__(self) -> int:
        return len(self._heap)

    @overload
    def __getitem__(self, at: int) -> Goal: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Goal]: ...
    def __getitem__(self, at: int | slice) -> Goal | Sequence[Goal]:
        if isinstance(at, slice):
            return [self[index] for index in range(*at.indices(len(self)))]
        if not -len(self) <= at < len(self):
            raise IndexError(f"goal {at} of {len(self)}")
        record = self._heap[at]
        product = self._shop.product(record[0])
        assert product is not None
        return read_goal(record, product)


class Shop:
    """Products, search and goals of one catalogue; a process holds little more than memory maps of them.

    Picklable: it is opened again from its source, and built again where the cache does not hold it.
    """

    def __init__(self, catalogue: Path, goals: Path, how: dict[str, Any]) -> None:
        self._how = how
        self._folder = goals
        self._asins = load_array(catalogue / "asins.npy")
        self._products = Heap(catalogue, "products")
        self._groups = [load_array(catalogue / f"groups_{part}.npy") for part in ("keys", "spans", "rows")]
        self._index = Index.from_arrays(
            {path.stem.removeprefix("index_"): load_array(path) for path in catalogue.glob("index_*.npy")}
        )
        self._prices = load_array(goals / "prices.npy")
        self._known = lru_cache(_KEPT_PRODUCTS)(self._look_up)
        self.goals: Sequence[Goal] = Goals(self, Heap(goals, "goals"))

    @classmethod
    def open(
        cls,
        source: SyntheticSpec | Path | str | None = None,
        *,
        human_goals: bool = False,
        variant: Variant = "default",
        seed: int = 0,
        prices: Mapping[str, float] | None = None,
        cache_dir: Path | str | None = None,
    ) -> Shop:
        """The shop of a source: a synthetic catalogue (None for the smallest one), or the public files.

        `source` may be a directory, a `.tar.gz` or one items file. In the variants "webshop" and "agentgym",
        prices of ranges and price limits are drawn as the originals do after `random.seed(seed)`; in
        "default" they come from a hash of `seed` and the product. `prices` (asin to dollars) overrides
        drawn ones. Raises `ConfigError` for malformed files (naming file, row, field) and bad values.
        """
        if variant not in get_args(Variant):
            raise ConfigError(f"variant: {variant!r} is none of {', '.join(get_args(Variant))}")
        root, given = cache_root(cache_dir), dict(prices or {})
        wanted = SyntheticSpec() if source is None else source
        found = wanted if isinstance(wanted, SyntheticSpec) else find_source(Path(wanted))
        key = _catalogue_key(root, found)
        catalogue = built_folder(root, key, partial(_build_catalogue, found))
        meta = json.loads((catalogue / "meta.json").read_text())
        if variant == "default" and meta["conflict"]:
            raise ConfigError(f"{meta['conflict']}; keep one of the two")
        if human_goals and isinstance(found, Source) and found.human is None:
            raise ConfigError(
                f"{wanted}: holds no items_human_ins*.json; add it, or set human_goals to false"
            )
        choices = json.dumps([human_goals, variant, seed, sorted(given.items())])
        made = f"{key}-{hashlib.sha256(choices.encode()).hexdigest()[:16]}"
        goals = built_folder(root, made, partial(_build_goals, catalogue, seed, given, human_goals, variant))
        how = {
            "source": source, "human_goals": human_goals, "variant": variant, "seed": seed,
            "prices": prices, "cache_dir": cache_dir,
        }  # fmt: skip
        return cls(catalogue, goals, how)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._how,)

    def __len__(self) -> int:
        return len(self._asins)

    def product(self, asin: str) -> Product | None:
        """The product with this (upper-case) id; None where there is none."""
        found = self._known(asin)
        return found[0] if found else None

    def price(self, asin: str) -> float:
        """What it costs, in dollars: for a range the price drawn. Raises `KeyError` for an unknown id."""
        found = self._known(asin)
        if found is None:
            raise KeyError(asin)
        return found[1]

    def search(self, keywords: str, limit: int = 50) -> tuple[str, ...]:
        """Ids of the best matches, best first, in Lucene's ranking."""
        rows, _ = self._index.search(keywords, limit)
        return self._ids(rows)

    def search_scores(self, keywords: str, limit: int = 50) -> list[tuple[str, float]]:
        """As `search`, with the scores."""
        rows, scores = self._index.search(keywords, limit)
        return list(zip(self._ids(rows), scores.tolist(), strict=True))

    def by_category(self, name: str) -> tuple[str, ...]:
        """Ids of all products of a category, in the catalogue's order."""
        return self._group("category", name)

    def by_query(self, text: str) -> tuple[str, ...]:
        """Ids of all products found under a query, in the catalogue's order."""
        return self._group("query", text)

    def ids(self) -> tuple[str, ...]:
        """All ids, ascending."""
        return self._ids(slice(None))

    def derived(self, name: str, build: Callable[[Path], None]) -> Path:
        """A folder worked out from the goals by `build`: once on the machine, like the shop itself."""
        return built_folder(self._folder.parent, f"{self._folder.name}-{name}", build)

    def _group(self, kind: str, value: str) -> tuple[str, ...]:
        keys, spans, rows = self._groups
        key = np.uint64(group_key(kind, value))
        at = int(np.searchsorted(keys, key))
        if at == len(keys) or keys[at] != key:
            return ()
        return self._ids(rows[spans[at] : spans[at + 1]])

    def _ids(self, rows: Any) -> tuple[str, ...]:
        return tuple(asin.decode() for asin in self._asins[rows].tolist())

    def _look_up(self, asin: str) -> tuple[Product, float] | None:
        if not asin.isascii():
            return None
        wanted = asin.encode()
        at = int(np.searchsorted(self._asins, np.bytes_(wanted)))
        if at == len(self._asins) or self._asins[at] != wanted:
            return None
        return read_product(self._products[at]), float(self._prices[at])


def _reopen(how: dict[str, Any]) -> Shop:
    return Shop.open(**how)


def _catalogue_key(root: Path, source: SyntheticSpec | Source) -> str:
    """What identifies a catalogue's content; for files that have not changed they are not read."""
    if isinstance(source, SyntheticSpec):
        content = f"synthetic {synthetic.VERSION} {source.size} {source.seed}"
    else:
        content = remembered(root, source.stamp(), source.digest)
    return hashlib.sha256(f"{VERSION} {content}".encode()).hexdigest()[:16]


def _build_catalogue(source: SyntheticSpec | Source, folder: Path) -> None:
    repeats = Repeats()
    if isinstance(source, SyntheticSpec):
        entries, name = synthetic.entries(source), f"a synthetic catalogue of {source.size:,}"
    else:
        entries, name = source_entries(source, repeats), source.items.label
    build_catalogue(folder, entries, repeats, name)


def _build_goals(
    catalogue: Path, seed: int, given: Mapping[str, float], human: bool, variant: Variant, folder: Path
) -> None:
    if variant == "default":
        build_goals(folder, catalogue, HashedDraw(seed, given), human, variant)
    else:
        build_goals(folder, catalogue, SeededDraw(seed, given, variant == "agentgym"), human, variant)
