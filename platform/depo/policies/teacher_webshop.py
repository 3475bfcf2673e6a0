"""The teacher's script for WebShop: a shopper who finds the product asked for, chooses its options, buys."""

from __future__ import annotations

import random
import re
from functools import lru_cache
from typing import Any

from depo.envs.webshop.product import Goal, Product
from depo.envs.webshop.session import (
    BACK,
    BUY,
    DONE,
    INDEX,
    ITEM,
    NEXT,
    PER_PAGE,
    PREV,
    RESULTS,
    SUB_PAGES,
    State,
    Target,
    option_name,
    shown,
)
from depo.envs.webshop.wishes import choices
from depo.envs.webshop.wording import essence, option_values
from depo.policies.base import Request
from depo.policies.teacher_thoughts import some

_WORD = re.compile(r"\w+(?:['.-]\w+)*")
_KEPT_SEARCHES = 1 << 12


class WebShopScript:
    """Plays WebShop through the live environment of a request.

    It searches with the instruction's own words first, and knows the product asked for when it sees it.
    Only where the search does not find that product does it go on with what the script knows beyond the
    instruction: the words of the product's title.
    """

    def __init__(self) -> None:
        self._hits = lru_cache(_KEPT_SEARCHES)(lambda shop, keywords: frozenset(shop.search(keywords)))

    def turn(self, env: Any, request: Request, taken: tuple[str, ...]) -> WebShopTurn:
        return WebShopTurn(env, taken, self._hits)


class WebShopTurn:
    """One page of a visit, as the teacher understands it."""

    def __init__(self, env: Any, taken: tuple[str, ...], hits: Any) -> None:
        self._goal: Goal = env.goal
        self._state: State = env.state
        self._wanted: Product = env.product(self._goal.asin)
        self._labels: dict[str, Target] = env.clicks()
        self._searches = _searches(self._goal, self._wanted)
        self._fits = lambda keywords: self._goal.asin in hits(env.shop, keywords)
        self._taken = taken
        self._missing = self._missing_options()
        self.available: list[str] = env.available_actions() or [f"search[{self._searches[0]}]"]
        self.good = self._next()

    def core(self, action: str) -> str:
        """One sentence of at most 11 words."""
        verb, _, rest = action.partition("[")
        argument = rest.removesuffix("]").lower()
        if verb == "search":
            start = "I search" if self._state.page == INDEX else "Nothing fits here; I search"
            return f"{start} for {_told(argument)}."
        return self._core_of_click(argument, self._labels.get(argument, ("", "")))

    def waste(self) -> list[tuple[str, str]]:
        """Steps that do no harm and lead nowhere."""
        page = self._state.page
        slips = [(f"search[{words}]", "Let me look around first.") for words in self._vague()]
        if page == RESULTS:
            slips += [(_click(label), "Let me see more products first.") for label in (NEXT, PREV)]
            slips.append((_click(BACK), "Let me start the search anew."))
        elif page == ITEM:
            slips = [(_click(name), f"Let me read the {name} first.") for name in SUB_PAGES]
            slips.append((_click(PREV), "Let me compare it with the others."))
        elif page in SUB_PAGES:
            slips = [(_click(BACK), "Let me start the search anew.")]
        return self._possible(slips)

    def mistakes(self) -> list[tuple[str, str]]:
        """Steps that are wrong, believed right."""
        page, slips = self._state.page, []
        if page == INDEX:
            values = " ".join(_words(" ".join(option_values(self._goal)))) or self._wanted.category
            slips = [(f"search[{values}]", "These words must be enough for the search.")]
        elif page == RESULTS:
            others = [asin for asin in shown(self._state) if asin != self._goal.asin]
            slips = [(_click(asin.lower()), "This product must be the one.") for asin in others]
        elif page == ITEM:
            slips = [(_click(label), f"The {name} is fine.") for label, name in self._wrong_options()]
            if self._state.asin != self._goal.asin:
                slips.append((_click(BUY), "It is close enough; buy it."))
            elif self._missing:
                slips.append((_click(BUY), "The options do not matter; buy it."))
        return self._possible(slips)

    def filler(self, rng: random.Random) -> tuple[list[str], list[str]]:
        """One to three sentences that justify nothing: those before the core, and those after it."""
        sentences = [
            f"I am asked to buy {_told(self._searches[0])}, so let me think about that with care first.",
            "This page of the shop has a number of things on it that I could try.",
            "I could also look at many more products here, but that would take some time.",
            "There may be other products in this shop that are just as good as this.",
            "I want to stay calm and do this with care, one step after another.",
            "After that I will see if this step was of any use for me here.",
        ]
        return some(rng, sentences)

    def _next(self) -> str:
        """The right action now."""
        state = self._state
        if state.page == DONE:
            return ""
        if state.page == ITEM and state.asin == self._goal.asin:
            return _click(next(iter(self._missing), BUY))
        if state.page == RESULTS or state.page == INDEX:
            return self._toward_product() or f"search[{self._search()}]"
        return _click(PREV)

    def _toward_product(self) -> str:
        """The click that leads to the product on this list of results; "" where it is not on it."""
        if self._goal.asin not in self._state.hits or self._state.page == INDEX:
            return ""
        number = self._state.hits.index(self._goal.asin) // PER_PAGE + 1
        here = self._state.number or 1
        return _click(self._goal.asin.lower() if number == here else NEXT if number > here else PREV)

    def _search(self) -> str:
        """What to search for: the instruction's words once, then the first words that find the product."""
        first = self._searches[0]
        if f"search[{first}]" not in self._taken:
            return first
        return next((words for words in self._searches if self._fits(words)), self._searches[-1])

    def _missing_options(self) -> dict[str, str]:
        """Labels still to be clicked on the wanted product's page, with the option's name."""
        if self._state.page != ITEM or self._state.asin != self._goal.asin:
            return {}
        return {
            label: name
            for label, name, value in choices(self._goal, self._labels)
            if (name, value) not in self._state.options
        }

    def _wrong_options(self) -> list[tuple[str, str]]:
        """(label, option name) of values not asked for, of an option that is asked for."""
        right = choices(self._goal, self._labels)
        names = [name for _, name, _ in right]
        return [
            (label, name)
            for label, (kind, value) in self._labels.items()
            if (name := option_name(kind)) in names and (label, name, value) not in right
        ]

    def _vague(self) -> list[str]:
        words = self._searches[0].split()
        looked = " ".join(self._state.keywords or ())
        vague = dict.fromkeys((words[-1], words[0]))
        return [word for word in vague if word not in (looked, *self._searches)]

    def _possible(self, slips: list[tuple[str, str]]) -> list[tuple[str, str]]:
        clicks = {_click(label) for label in self._labels}
        return [
            (action, thought)
            for action, thought in slips
            if action != self.good and (action in clicks or action.startswith("search["))
        ]

    def _core_of_click(self, label: str, target: Target) -> str:
        kind, value = target
        name = option_name(kind)
        if name:
            chosen = dict(self._state.options).get(name)
            return f"The {_told(name, 2)} must be {_told(value, 3)}{', not as chosen' if chosen else ''}."
        if kind == "product":
            return f"The {_told(self._wanted.title if value == self._goal.asin else value)} may fit; open it."
        if kind == BUY:
            return "This is all that is asked for; buy it."
        if kind == NEXT:
            return "It is not on this page; turn to the next."
        if kind == BACK:
            return "I go back to the search."
        if kind == PREV:
            return self._core_of_prev()
        return f"Let me read the {_told(label) or 'page'}."

    def _core_of_prev(self) -> str:
        if self._state.page == RESULTS:
            return "It must be on an earlier page; go back."
        if self._state.page == ITEM:
            return "This is not what is asked for; go back."
        return "I have read enough; back to the product."


def _click(label: str) -> str:
    return f"click[{label}]"


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _told(text: str, most: int = 4) -> str:
    """The first words of a text, without signs that could end a sentence."""
    return " ".join(_words(text)[:most])


def _searches(goal: Goal, product: Product) -> list[str]:
    """The instruction's words, the title's, and those with all that else could tell the product apart."""
    title = " ".join(_words(product.title))
    more = " ".join(_words(" ".join((product.title, *product.bullets[:1], *option_values(goal)))))
    return [words for words in dict.fromkeys((" ".join(essence(goal)), title, more)) if words]
