"""What a purchase is worth: WebShop's reward, with every part of it.

reward = r_type * (matched attributes + matched options + [price within limit]) / (attributes + options + 1)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rapidfuzz.fuzz import token_set_ratio
from rapidfuzz.utils import default_process

from depo.envs.webshop.product import Goal, Product

SOLVED = 1.0 - 1e-9
"""An episode is a success from this reward on: everything that the goal asks for was bought."""

COLORS = (
    "alabaster", "apricot", "aqua", "ash", "asphalt", "azure", "banana", "beige", "black", "blue",
    "blush", "bordeaux", "bronze", "brown", "burgundy", "camel", "camo", "caramel", "champagne",
    "charcoal", "cheetah", "chestnut", "chocolate", "christmas", "coffee", "cognac", "copper", "coral",
    "cranberry", "cream", "crystal", "dark", "denim", "eggplant", "elephant", "espresso", "fuchsia",
    "gold", "granite", "grape", "graphite", "grass", "gray", "green", "grey", "heather", "indigo",
    "ivory", "ivy", "khaki", "lavender", "lemon", "leopard", "light", "lilac", "lime", "magenta",
    "maroon", "mauve", "merlot", "midnight", "mint", "mocha", "multicolor", "mushroom", "mustard",
    "natural", "navy", "nude", "olive", "orange", "peach", "pewter", "pink", "plum", "purple", "rainbow",
    "red", "rose", "royal", "rust", "sand", "sapphire", "seashell", "silver", "skull", "slate", "steel",
    "stone", "stonewash", "sunflower", "tan", "taupe", "teal", "tiger", "turquoise", "violet", "walnut",
    "wheat", "white", "wine", "yellow",
)  # fmt: skip
"""The colour words of WebShop's reward, in the order in which they are tried."""

_LATIN = dict.fromkeys(range(128, 256))
_KEPT = 1 << 12


@dataclass(frozen=True, slots=True)
class Score:
    """A reward and its parts, named as WebShop reports them; shares are in [0, 1]."""

    reward: float
    r_type: float
    query_match: bool
    category_match: bool
    title_score: float
    attributes: int
    """Goal attributes the product has, of `num_attributes`."""
    num_attributes: int
    options: int
    """Goal options chosen, of `num_options`."""
    num_options: int
    r_price: bool

    @property
    def r_att(self) -> float:
        return self.attributes / self.num_attributes if self.num_attributes else 1.0

    @property
    def r_option(self) -> float | None:
        """None where the goal asks for no option."""
        return self.options / self.num_options if self.num_options else None

    def info(self) -> dict[str, Any]:
        """The parts and their weights in WebShop's own keys; `r_option` only where there are options."""
        parts = self.num_attributes + self.num_options + 1
        info: dict[str, Any] = {
            "r_type": self.r_type,
            "r_att": self.r_att,
            "w_att": self.num_attributes / parts,
            "query_match": self.query_match,
            "category_match": self.category_match,
            "title_score": self.title_score,
        }
        if self.num_options:
            info |= {"r_option": self.r_option, "w_option": self.num_options / parts}
        return info | {"r_price": self.r_price, "w_price": 1 / parts}


def score(
    product: Product,
    goal: Goal,
    price: float,
    chosen: Mapping[str, str],
    product_nouns: Sequence[str],
    goal_nouns: Sequence[str],
    repaired: bool = False,
) -> Score:
    """What buying `product` at `price` with the options `chosen` (name to value) is worth for `goal`.

    The nouns are those of the two products' names, lower-cased, with repeats. `repaired` lets an
    option count that is exactly the one asked for: WebShop's colours may hide it ("with stand" is "tan").
    """
    query_match = product.query == goal.query
    category_match = len(_categories(product.product_category) & _categories(goal.product_category)) >= 2
    title_score = _title_score(product_nouns, goal_nouns)
    r_type = _type_factor(query_match or category_match, title_score)
    attributes = sum(_has_attribute(product, wanted) for wanted in goal.attributes)
    options = sum(
        any(option_matches(value, wanted) for value in chosen.values())
        or (repaired and _is_chosen(wanted, chosen))
        for wanted in goal.options
    )
    within = price <= goal.price_upper
    parts = len(goal.attributes) + len(goal.options) + 1
    return Score(
        reward=(attributes + options + within) / parts * r_type,
        r_type=r_type,
        query_match=query_match,
        category_match=category_match,
        title_score=title_score,
        attributes=attributes,
        num_attributes=len(goal.attributes),
        options=options,
        num_options=len(goal.options),
        r_price=within,
    )


def matches(text: str, wanted: str) -> bool:
    """Whether thefuzz's `token_set_ratio` of the two, rounded to a whole number, is over 85."""
    return round(token_set_ratio(_plain(text), _plain(wanted))) > 85


def option_matches(value: str, wanted: str | tuple[str, str]) -> bool:
    """Whether a chosen value counts as what a goal asks for: a value, or a (name, value) pair."""
    return matches(_color_or(value), _target(wanted))


@lru_cache(_KEPT)
def _plain(text: str) -> str:
    """thefuzz's pre-processing: Latin-1 beyond ASCII dropped, lower-cased, other signs to spaces."""
    return default_process(text if text.isascii() else text.translate(_LATIN))


@lru_cache(_KEPT)
def _categories(path: str) -> frozenset[str]:
    return frozenset(name.strip() for name in path.split("›"))


def _title_score(product_nouns: Sequence[str], goal_nouns: Sequence[str]) -> float:
    """Shared nouns as a set, over the goal's nouns with repeats."""
    if not goal_nouns:
        return 0.2
    return len(set(product_nouns) & set(goal_nouns)) / len(goal_nouns)


def _type_factor(same_kind: bool, title_score: float) -> float:
    # A poor title outweighs a matching query or category.
    if title_score == 0.0:
        return 0.0
    if title_score < 0.1:
        return 0.1
    return 1.0 if same_kind or title_score > 0.2 else 0.5


def _has_attribute(product: Product, wanted: str) -> bool:
    if any(matches(attribute, wanted) for attribute in product.attributes):
        return True
    texts = (product.title, " ".join(product.bullets), product.description)
    return any(wanted in text.lower() for text in texts)


def _is_chosen(wanted: str | tuple[str, str], chosen: Mapping[str, str]) -> bool:
    return wanted in chosen.values() if isinstance(wanted, str) else wanted in chosen.items()


@lru_cache(_KEPT)
def _color_or(text: str) -> str:
    """The first colour contained in `text`, be it inside a word ("standard" holds "tan"), else `text`."""
    return next((color for color in COLORS if color in text), text)


@lru_cache(_KEPT)
def _target(option: str | tuple[str, str]) -> str:
    """What a goal's option is compared as.

    A (name, value) pair becomes a colour only where one of the two is that colour, and is else
    compared as Python prints it, name and all.
    """
    if isinstance(option, str):
        return _color_or(option)
    return next((color for color in COLORS if color in option), None) or str(tuple(option))
