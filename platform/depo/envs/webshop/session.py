"""What happens in a shop visit: pages, buttons and the state that they lead to.

The pages and their links are WebShop's. `peer` rules follow it to the letter; without it, what let a
policy cheat or lose its way is mended (docs/environments.md lists the differences).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from depo.envs.webshop.product import Product
from depo.envs.webshop.store import Shop

INDEX, RESULTS, ITEM, DONE = "index", "results", "item", "done"
SUB_PAGES = ("description", "features", "reviews")
PER_PAGE, MOST_HITS = 10, 50
MOST_KEYWORDS = 1_000
"""Characters a search may have under the repaired rules."""

BACK, NEXT, PREV, BUY = "back to search", "next >", "< prev", "buy now"
_KEPT = 256
_OPTION = "option:"

Target = tuple[str, str]
"""What a click does: a button with "", "product" with an asin, or "option:" and an option's name with a
value. Two empty texts do nothing."""


class State(NamedTuple):
    """One moment of a visit; immutable, so that it is its own snapshot."""

    page: str = INDEX
    """`INDEX`, `RESULTS`, `ITEM`, `DONE`, or one of `SUB_PAGES`."""
    keywords: tuple[str, ...] | None = None
    number: int | None = None
    """Page of results, from 1."""
    asin: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    """Option name and chosen value, in the order in which the names were first chosen."""
    visited: frozenset[str] = frozenset()
    """Asins opened since the last search page."""
    counts: tuple[tuple[str, int], ...] = ()
    """What was done how often since the last search page, under WebShop's names."""
    hits: tuple[str, ...] = ()
    """Asins the search found, best first."""
    score: float = 0.0
    """Reward of the purchase, on page `DONE`."""


class Catalogue:
    """A shop's products with the buttons of their pages; a bounded number of them is kept."""

    def __init__(self, shop: Shop, peer: bool) -> None:
        self.shop, self._peer = shop, peer
        self._products: dict[str, tuple[Product, dict[str, Target]]] = {}
        self._lines: dict[str, tuple[str, str]] = {}

    def product(self, asin: str) -> Product:
        return self._entry(asin)[0]

    def line(self, asin: str) -> tuple[str, str]:
        """Title and price as a page of results shows them."""
        line = self._lines.get(asin)
        if line is None:
            found = self._found(asin)
            line = self._lines[asin] = (found.title, found.price_text)
            if len(self._lines) > 16 * _KEPT:
                del self._lines[next(iter(self._lines))]
        return line

    def labels(self, state: State) -> dict[str, Target]:
        """What can be clicked, in page order, and what it does; change nothing in it."""
        if state.page == ITEM:
            return self._entry(state.asin or "")[1]
        if state.page == RESULTS:
            return _result_labels(state, self._peer)
        if state.page == INDEX:
            return {"search": ("", "")} if self._peer else {}
        return {} if state.page == DONE else {BACK: (BACK, ""), PREV: (PREV, "")}

    def _entry(self, asin: str) -> tuple[Product, dict[str, Target]]:
        entry = self._products.get(asin)
        if entry is None:
            found = self._found(asin)
            entry = self._products[asin] = (found, _item_labels(found, self._peer))
            if len(self._products) > _KEPT:
                del self._products[next(iter(self._products))]
        return entry

    def _found(self, asin: str) -> Product:
        found = self.shop.product(asin)
        if found is None:
            raise KeyError(f"the shop has no product {asin!r}")
        return found


def parse(action: str) -> tuple[str, str] | None:
    """("search" or "click", lower-cased argument) of the one action an action string holds, else None.

    Space around the action and upper case are let pass; any other text is not.
    """
    form = _FORM.fullmatch(action)
    return (form[1].lower(), form[2].strip().lower()) if form else None


_FORM = re.compile(r"\s*(search|click)\s*\[(.*)\]\s*", re.IGNORECASE | re.DOTALL)


def parse_as_peer(action: str) -> tuple[str, str] | None:
    r"""The same as WebShop reads it: the regular expression `(.+)\[(.+)\]`, from the start.

    Written out, since on a rogue string the expression takes quadratic time.
    """
    line = action.partition("\n")[0]
    end = line.rfind("]")
    start = line.rfind("[", 1, max(end - 1, 0))
    name = line[:start] if start > 0 else ""
    return (name, line[start + 1 : end].lower()) if name in ("search", "click") else None


def refusal(keywords: str) -> str:
    """Why the repaired rules do not search for `keywords`; "" where they do."""
    if not any(letter.isalnum() for letter in keywords):
        return "a search needs a word"
    if len(keywords) > MOST_KEYWORDS:
        return f"a search has {MOST_KEYWORDS} characters at most"
    if any(letter < " " or letter in "\x7f[]" for letter in keywords):
        return "a search is plain words"
    return ""


def search(state: State, keywords: tuple[str, ...], hits: tuple[str, ...], number: int = 1) -> State:
    """Page `number` of what the search found; what was opened and chosen is forgotten."""
    return state._replace(
        page=RESULTS,
        keywords=keywords,
        number=number,
        asin=None,
        options=(),
        counts=_counted(state.counts, "search"),
        hits=hits,
        score=0.0,
    )


def listing(shop: Shop, keywords: tuple[str, ...], seed: str) -> tuple[str, ...] | None:
    """What WebShop shows for keywords: a whole category or query for `<c>` and `<q>`, else 50 products.

    `<r>` is a draw, here from `seed`. None where WebShop itself fails: `<a>`, and `<c>` without a category.
    """
    if keywords[0] == "<r>":
        known = shop.ids()
        return tuple(random.Random(seed).sample(known, min(len(known), MOST_HITS)))
    if keywords[0] == "<c>":
        return shop.by_category(keywords[1].strip()) if len(keywords) > 1 else None
    if keywords[0] == "<q>":
        return shop.by_query(" ".join(keywords[1:]).strip())
    if keywords[0] == "<a>":
        return None
    return shop.search(" ".join(keywords), MOST_HITS)


def click(state: State, target: Target) -> State:
    """Where a click leads; buying is not a click but `buy`."""
    kind, value = target
    if kind == BACK:
        return State()
    if kind in SUB_PAGES:
        return state._replace(page=kind, counts=_counted(state.counts, kind.title()))
    if kind == "product":
        opened = state.visited | {value}
        counts = _counted(state.counts, "asin")
        return state._replace(page=ITEM, asin=value, visited=opened, counts=counts)
    if kind in (NEXT, PREV) and state.page in (RESULTS, ITEM):
        step = 0 if state.page == ITEM else 1 if kind == NEXT else -1
        return search(state, state.keywords or (), state.hits, (state.number or 1) + step)
    if kind == PREV:
        return state._replace(page=ITEM)
    chosen = dict(state.options) | {option_name(kind): value}
    return state._replace(options=tuple(chosen.items()), counts=_counted(state.counts, "options"))


def option_name(kind: str) -> str:
    """The name of the option that a target of this kind chooses; "" for any other target."""
    return kind.removeprefix(_OPTION) if kind.startswith(_OPTION) else ""


def buy(state: State, score: float) -> State:
    return state._replace(page=DONE, counts=_counted(state.counts, "purchase"), score=score)


def record(state: State) -> dict[str, Any]:
    """The state in WebShop's own terms: page name, and the session as it keeps it."""
    names = {INDEX: "", RESULTS: "search_results", ITEM: "item_page", DONE: "done"}
    return {
        "page": names.get(state.page, "item_sub_page"),
        "sess": {
            "asin": state.asin,
            "options": dict(state.options),
            "page": state.number,
            "keywords": None if state.keywords is None else list(state.keywords),
            "actions": dict(state.counts),
            "asins": sorted(state.visited),
        },
    }


def _counted(counts: Iterable[tuple[str, int]], name: str) -> tuple[tuple[str, int], ...]:
    new = dict(counts)
    new[name] = new.get(name, 0) + 1
    return tuple(new.items())


def _result_labels(state: State, peer: bool) -> dict[str, Target]:
    number = state.number or 1
    labels: dict[str, Target] = {BACK: (BACK, "")}
    if number > 1:
        labels[PREV] = (PREV, "")
    if peer or number * PER_PAGE < len(state.hits):
        labels[NEXT] = (NEXT, "")
    for asin in shown(state):
        labels[asin.lower()] = ("product", asin)
    return labels


def shown(state: State) -> tuple[str, ...]:
    """Asins on the page of results that `state` is on."""
    number = state.number or 1
    return state.hits[(number - 1) * PER_PAGE : number * PER_PAGE]


def _item_labels(product: Product, peer: bool) -> dict[str, Target]:
    pages = SUB_PAGES if peer else SUB_PAGES[:2]
    buttons: dict[str, Target] = {label: (label, "") for label in (BACK, PREV, *pages, BUY)}
    if peer:
        # Equal labels are one button there: the last option wins, and the shop's own before any.
        options = {value: (f"{_OPTION}{name}", value) for name, values in product.options for value in values}
        return {**buttons, **options, **buttons}
    return buttons | option_labels(product.options, buttons)


def option_labels(
    options: Iterable[tuple[str, tuple[str, ...]]], taken: Mapping[str, Target]
) -> dict[str, Target]:
    """A label for every option value: the value, or "name: value" where the value alone is not unique."""
    pairs = [(name, value) for name, values in options for value in values]
    times: dict[str, int] = {}
    for _, value in dict.fromkeys(pairs):
        times[value] = times.get(value, 0) + 1
    return {
        value if times[value] == 1 and value not in taken else f"{name}: {value}": (f"{_OPTION}{name}", value)
        for name, value in pairs
    }
