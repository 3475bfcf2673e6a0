"""How a goal's options are met on its product's page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from depo.envs.webshop.product import Goal
from depo.envs.webshop.reward import option_matches
from depo.envs.webshop.session import Target, option_name


class Choice(NamedTuple):
    """A label to click, and the option name and value that it chooses."""

    label: str
    name: str
    value: str


def choices(goal: Goal, labels: Mapping[str, Target]) -> list[Choice]:
    """What to click on a product's page, one choice for each option asked for, where there is one.

    The very value is taken before one that the reward lets pass, and no two of one option name.
    """
    offered = [Choice(label, option_name(kind), value) for label, (kind, value) in labels.items()]
    chosen: dict[str, Choice] = {}
    for wanted in goal.options:
        name, value = ("", wanted) if isinstance(wanted, str) else wanted
        free = [choice for choice in offered if choice.name and choice.name not in chosen]
        fits = [choice for choice in free if choice.value == value or option_matches(choice.value, wanted)]
        fits.sort(key=lambda choice: (choice[1:] != (name, value), choice.value != value))
        if fits:
            chosen[fits[0].name] = fits[0]
    return list(chosen.values())
