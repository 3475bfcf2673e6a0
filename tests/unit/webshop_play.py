"""Environments over a small shop, and a shop with one product, for the tests of WebShop's play."""

from __future__ import annotations

import atexit
import dataclasses
import shutil
import tempfile
from functools import cache
from typing import Any

from depo.envs.webshop.env import WebShopEnv
from depo.envs.webshop.product import Goal, Product

VARIANTS: list[dict[str, Any]] = [
    {},
    {"mode": "text_rich", "human_goals": True, "show_actions": False},
    {"compat": "webshop", "mode": "text_rich"},
    {"compat": "agentgym"},
]
SIZE = 240

PRODUCT = Product(
    asin="B000000001",
    title="Acme Steel Kettle with Handle",
    query="kettles",
    category="garden",
    product_category="Home & Kitchen › Kettles › Steel Kettles",
    description="A kettle for two cups.",
    bullets=("Boils quickly.", "BPA free lid"),
    price_text="$20.0",
    price_low=20.0,
    price_high=20.0,
    attributes=("stainless steel", "easy clean"),
    options=(("color", ("black", "dark green")), ("size", ("1 l", "2 l"))),
)
GOAL = Goal(
    asin=PRODUCT.asin,
    name=PRODUCT.title,
    query=PRODUCT.query,
    product_category=PRODUCT.product_category,
    instruction="Find me a kettle with color: black, and size: 2 l, and price lower than 30.00 dollars",
    attributes=("stainless steel",),
    price_upper=30.0,
    options=(("color", "black"), ("size", "2 l")),
    weight=1.0,
    difficulty="medium",
)
change = dataclasses.replace


@cache
def cache_dir() -> str:
    """A folder for built shops, gone when the tests are."""
    folder = tempfile.mkdtemp(prefix="webshop-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def shop_env(**options: Any) -> WebShopEnv:
    """An environment over a small synthetic catalogue."""
    return WebShopEnv(**{"size": SIZE, "cache_dir": cache_dir(), "nouns": "simple", **options})


class OneProduct:
    """A shop that sells `PRODUCT`, or a changed one, at 20 dollars."""

    def __init__(self, product: Product = PRODUCT) -> None:
        self._product = product

    def product(self, asin: str) -> Product | None:
        return self._product if asin == self._product.asin else None

    def price(self, asin: str) -> float:
        return 20.0

    def search(self, keywords: str, limit: int = 50) -> tuple[str, ...]:
        return (self._product.asin,)
