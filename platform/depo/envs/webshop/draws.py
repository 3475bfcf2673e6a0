"""Prices of products sold in a range, and the price limits of goals."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Mapping
from typing import Protocol

from depo.envs.webshop.product import Product

_LIMITS = tuple(10.0 * step for step in range(1, 100))
_NEAREST = 4
ORDER_SEED = 233
"""The seed under which the originals put goals in order."""


class Draw(Protocol):
    """Where chance comes from. Both are asked for all prices first, then for limits, in catalogue order."""

    def price(self, product: Product) -> float: ...

    def limit(self, price: float, about: str) -> float | None:
        """The limit of a goal whose product costs `price`; `about` tells the goal. None for no limit."""
        ...


def limits_above(price: float) -> list[float]:
    """The first four of 10, 20, ..., 990 dollars above a price; fewer, or none, near the end."""
    return [limit for limit in _LIMITS if limit > price][:_NEAREST]


class SeededDraw:
    """Draws in the order and from the generator of the originals, after `random.seed(seed)`.

    `given` prices replace the drawn ones; the generator moves on as if they had been drawn. AgentGym
    seeds anew before it makes goals (`reseeded`), so that its limits depend on the prices alone.
    """

    def __init__(self, seed: int, given: Mapping[str, float], reseeded: bool) -> None:
        self._given = given
        self._random = random.Random(seed)
        self._limits = random.Random(ORDER_SEED) if reseeded else self._random

    def price(self, product: Product) -> float:
        drawn = product.price_low
        if " to " in product.price_text:
            drawn = self._random.uniform(product.price_low, product.price_high)
        return self._given.get(product.asin, drawn)

    def limit(self, price: float, about: str) -> float | None:
        limits = limits_above(price)
        return max(self._limits.sample(limits, 2)) if len(limits) >= 2 else None


class HashedDraw:
    """Draws from a hash of the seed and what is asked about: the same in any order and any catalogue."""

    def __init__(self, seed: int, given: Mapping[str, float]) -> None:
        self._seed, self._given = seed, given

    def price(self, product: Product) -> float:
        """Uniform between the bounds, in whole cents."""
        if product.asin in self._given:
            return self._given[product.asin]
        low, high = product.price_low, product.price_high
        return round(low + (high - low) * self._fraction("price", product.asin), 2)

    def limit(self, price: float, about: str) -> float | None:
        pairs = list(itertools.combinations(limits_above(price), 2))
        return pairs[int(self._fraction("limit", about) * len(pairs))][1] if pairs else None

    def _fraction(self, purpose: str, about: str) -> float:
        """Uniform in [0, 1)."""
        text = f"{self._seed}\0{purpose}\0{about}".encode("utf-8", "surrogatepass")
        return (int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 11) / 2**53
