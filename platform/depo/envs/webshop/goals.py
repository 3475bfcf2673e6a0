"""Goals made from a catalogue: from instructions and options, or from what people wrote."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from depo.envs.webshop.catalogue import Entry
from depo.envs.webshop.draws import ORDER_SEED, Draw, limits_above
from depo.envs.webshop.product import NO_LIMIT, Goal, Product, Variant

_EASY, _MEDIUM = 1, 3
_HUMAN_GOALS = 4
"""Goals that AgentGym makes of one human instruction."""


def goal_order(count: int) -> list[int]:
    """In which order goals are numbered: the original shuffles them after `random.seed(233)`."""
    order = list(range(count))
    random.Random(ORDER_SEED).shuffle(order)
    return order


def difficulty(attributes: int, options: int) -> str:
    """The level of a goal by how many attributes and options it asks for: 1, 2 to 3, or more."""
    asked = attributes + options
    return "easy" if asked <= _EASY else "medium" if asked <= _MEDIUM else "hard"


def make_goals(
    entries: Iterable[Entry], prices: Mapping[str, float], draw: Draw, human: bool, variant: Variant
) -> Iterator[Goal]:
    """All goals of a catalogue, before they are put in order. `entries` is gone through twice at most."""
    if human:
        for entry in entries:
            yield from _human_goals(entry, prices[entry.product.asin], draw, variant)
    else:
        weights = _attribute_counts(entries)
        for entry in entries:
            yield from _synthetic_goals(entry, prices[entry.product.asin], draw, weights)


def _attribute_counts(entries: Iterable[Entry]) -> Counter[str]:
    """How many goals ask for each attribute."""
    counts: Counter[str] = Counter()
    for entry in entries:
        if entry.instruction is not None:
            goals = math.prod(len(values) for _, values in entry.product.options)
            for attribute in entry.instruction_attributes:
                counts[attribute] += goals
    return counts


def _synthetic_goals(entry: Entry, price: float, draw: Draw, counts: Counter[str]) -> Iterator[Goal]:
    """One goal for each combination of a product's options, all with one price limit."""
    attributes = entry.instruction_attributes
    if entry.instruction is None or not attributes:
        return
    weight = sum(1 / counts[attribute] for attribute in attributes) / len(attributes)
    limit = draw.limit(price, f"{entry.product.asin}\0{entry.instruction}")
    options = sorted(entry.product.options)
    names = [name for name, _ in options]
    for values in itertools.product(*(values for _, values in options)):
        chosen = tuple(zip(names, values, strict=True))
        wish = ", and ".join(f"{name}: {value}" for name, value in chosen)
        text = f"{entry.instruction} with {wish}" if wish else entry.instruction
        yield _goal(entry.product, text, attributes, limit, chosen, weight)


def _human_goals(entry: Entry, price: float, draw: Draw, variant: Variant) -> Iterator[Goal]:
    """One goal for each instruction, four in AgentGym's variant; none where it asks for no attribute."""
    for asked in entry.human:
        if not asked.attributes:
            continue
        text = asked.instruction.strip(".")
        if variant == "agentgym":
            known: list[float | None] = [*limits_above(price)]
            limits = known if len(known) >= 2 else [None] * _HUMAN_GOALS
        else:
            limits = [draw.limit(price, f"{entry.product.asin}\0{text}")]
        for limit in limits:
            yield _goal(entry.product, text, asked.attributes, limit, asked.options, 1.0)


def _goal(
    product: Product,
    text: str,
    attributes: tuple[str, ...],
    limit: float | None,
    options: tuple[tuple[str, str], ...] | tuple[str, ...],
    weight: float,
) -> Goal:
    return Goal(
        asin=product.asin,
        name=product.title,
        query=product.query,
        product_category=product.product_category,
        instruction=text if limit is None else f"{text}, and price lower than {limit:.2f} dollars",
        attributes=attributes,
        price_upper=NO_LIMIT if limit is None else limit,
        options=options,
        weight=weight,
        difficulty=difficulty(len(attributes), len(options)),
    )
