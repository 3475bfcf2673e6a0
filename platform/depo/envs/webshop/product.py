"""What a shop sells and what a shopper is asked to buy: the two records of the WebShop room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Variant = Literal["default", "webshop", "agentgym"]
"""Whose goals and prices: the repaired ones, the original WebShop's, or AgentGym's."""

NO_LIMIT = 1_000_000.0
"""The price limit of a goal whose text names none."""


@dataclass(frozen=True, slots=True)
class Product:
    """One product, normalised as WebShop's loader does.

    `options` maps a lower-case option name to its values in page order, each value lower-case. Without a
    price, both bounds are 100.0; with one they are equal; a range keeps its two numbers in the file's order.
    """

    asin: str
    title: str
    query: str
    category: str
    product_category: str
    description: str
    bullets: tuple[str, ...]
    price_text: str
    price_low: float
    price_high: float
    attributes: tuple[str, ...]
    options: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Goal:
    """What a shopper is asked to buy.

    `options` holds pairs (name, value) for a synthetic goal and plain values for a goal written by people:
    the reward reads the two differently. `price_upper` is in dollars; the price must not exceed it.
    """

    asin: str
    name: str
    query: str
    product_category: str
    instruction: str
    attributes: tuple[str, ...]
    price_upper: float
    options: tuple[tuple[str, str], ...] | tuple[str, ...]
    weight: float
    difficulty: str
