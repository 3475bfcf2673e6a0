"""The text of every page, without HTML: WebShop's two observation modes, and the repaired pages.

A page is a list of nodes; `text` and `text_rich` are two ways to write one down.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

from depo.envs.webshop.product import Product
from depo.envs.webshop.session import (
    DONE,
    INDEX,
    ITEM,
    RESULTS,
    SUB_PAGES,
    Catalogue,
    State,
    option_name,
    shown,
)

Node = tuple[str, str]
"""How a piece of a page is shown ("plain", "button", "option", "chosen", "link" or "seen"), and its text."""

_SEPARATOR = " [SEP] "
_BACK, _PREV, _NEXT = ("button", "Back to Search"), ("button", "< Prev"), ("button", "Next >")
_BUY = ("button", "Buy Now")
_RICH = {
    "plain": "{}\n",
    "button": "[button] {} [button_]\n",
    "option": "  [button] {} [button_]\n",
    "chosen": "  [clicked button] {} [clicked button_]\n",
    "link": "\n[button] {} [button_]\n",
    "seen": "\n[clicked button] {} [clicked button_]\n",
}
_HTML_SAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "'": "\\u0027"}


def text(nodes: Iterable[Node]) -> str:
    """Mode "text": all nodes, stripped, in one line."""
    return _SEPARATOR.join([node[1].strip() for node in nodes if node[1] not in ("", "\n")])


def text_rich(nodes: Iterable[Node]) -> str:
    """Mode "text_rich": a node a line, buttons marked, and what is chosen told first, the last one on top."""
    kept = [node for node in nodes if node[1] not in ("", "\n")]
    told = [f"You have clicked {value}.\n" for kind, value in kept if kind == "chosen"]
    return "".join([*reversed(told), *(_RICH[kind].format(value) for kind, value in kept)])


WRITERS: dict[str, Callable[[Iterable[Node]], str]] = {"text": text, "text_rich": text_rich}


def peer_nodes(state: State, instruction: str, catalogue: Catalogue) -> list[Node]:
    """A page as WebShop shows it."""
    if state.page == INDEX:
        return _index(instruction)
    if state.page == DONE:
        return _peer_receipt(state)
    head = [("plain", "Instruction:"), ("plain", instruction), _BACK]
    if state.page == RESULTS:
        prev = [_PREV] if (state.number or 1) > 1 else []
        return [*head, _count(state), *prev, _NEXT, *_results(state, catalogue)]
    product = catalogue.product(state.asin or "")
    if state.page != ITEM:
        return [*head, _PREV, *_peer_sub_page(state.page, product)]
    subs = [("button", name.title()) for name in SUB_PAGES]
    options = _peer_options(state, product)
    rating = ("plain", "Rating: N.A.")
    return [*head, _PREV, *options, *_title(product), rating, *subs, _BUY]


def own_nodes(state: State, instruction: str, catalogue: Catalogue) -> list[Node]:
    """A page under the repaired rules: only buttons that lead somewhere, and what is chosen."""
    if state.page == INDEX:
        return _index(instruction)
    if state.page == DONE:
        return _own_receipt(state, catalogue.product(state.asin or ""))
    head = [("plain", "Instruction:"), ("plain", instruction), _BACK]
    labels = catalogue.labels(state)
    if state.page == RESULTS:
        turns = [button for button in (_PREV, _NEXT) if button[1].lower() in labels]
        return [*head, _count(state), *turns, *_results(state, catalogue)]
    product = catalogue.product(state.asin or "")
    if state.page != ITEM:
        lines = (product.description,) if state.page == "description" else product.bullets
        return [*head, _PREV, *(("plain", line) for line in lines if line.strip())]
    subs = [("button", name.title()) for name in SUB_PAGES if name in labels]
    chosen = "; ".join(f"{name}: {value}" for name, value in state.options)
    told = [("plain", f"Chosen: {chosen}")] if chosen else []
    return [*head, _PREV, *_own_options(state, product, labels), *told, *_title(product), *subs, _BUY]


def _index(instruction: str) -> list[Node]:
    return [
        ("plain", "WebShop"),
        ("plain", "Instruction: "),
        ("plain", instruction),
        ("button", "Search"),
    ]


def _count(state: State) -> Node:
    return ("plain", f"Page {state.number} (Total results: {len(state.hits)})")


def _results(state: State, catalogue: Catalogue) -> list[Node]:
    nodes: list[Node] = []
    for asin in shown(state):
        title, price = catalogue.line(asin)
        link = "seen" if asin in state.visited else "link"
        nodes += ((link, asin), ("plain", title), ("plain", price))
    return nodes


def _title(product: Product) -> list[Node]:
    return [("plain", product.title), ("plain", f"Price: {product.price_text}")]


def _peer_sub_page(page: str, product: Product) -> list[Node]:
    # WebShop's template leaves a space before each feature; its loader leaves all reviews out.
    lines = [f" {line}" for line in product.bullets] if page == "features" else []
    if page == "description":
        lines = [product.description]
    return [("plain", line) for line in lines]


def _peer_options(state: State, product: Product) -> list[Node]:
    # WebShop takes a value as chosen where it stands in quotes in the page's address, which holds the
    # keywords and the options as JSON: so under whichever name, and never where JSON must escape it.
    address = f"{'+'.join(state.keywords or ())}/{state.number}/{json.dumps(dict(state.options))}"
    nodes: list[Node] = []
    for name, values in product.options:
        nodes.append(("plain", name))
        nodes += [("chosen" if f'"{value}"' in address else "option", value) for value in values]
    return nodes


def _own_options(state: State, product: Product, labels: dict[str, tuple[str, str]]) -> list[Node]:
    label_of = {(option_name(kind), value): label for label, (kind, value) in labels.items()}
    nodes: list[Node] = []
    for name, values in product.options:
        nodes.append(("plain", name))
        for value in values:
            kind = "chosen" if (name, value) in state.options else "option"
            nodes.append((kind, label_of[name, value]))
    return nodes


def _peer_receipt(state: State) -> list[Node]:
    options = json.dumps(dict(state.options), sort_keys=True)
    for sign, code in _HTML_SAFE.items():
        options = options.replace(sign, code)
    lines: Sequence[str] = (
        "Thank you for shopping with us!", "Your code: ", "None", " (Paste it in your MTurk interface.)",
        "Purchased", "asin", state.asin or "", "options", options, "attrs", "None", "category", "None",
        "query", "None", "product category", "None", "Target", "asin", "options", "attrs", "price upper",
        "instuction text", "category", "product category", "query", "Goal ", "None", "Reward",
        "Your score (min 0.0, max 1.0)", str(state.score), "Reward Details ", "None",
    )  # fmt: skip
    return [("plain", line) for line in lines]


def _own_receipt(state: State, product: Product) -> list[Node]:
    chosen = "; ".join(f"{name}: {value}" for name, value in state.options) or "no options"
    return [
        ("plain", "Thank you for shopping with us!"),
        ("plain", f"You bought {product.asin}: {product.title} ({chosen})"),
        ("plain", f"Your score (min 0.0, max 1.0): {state.score:.2f}"),
    ]
