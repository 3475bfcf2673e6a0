"""A visit to the shop under one set of rules: what an action does, and what a state looks like."""

from __future__ import annotations

from typing import NamedTuple

from depo.envs.webshop import pages, session
from depo.envs.webshop.nouns import Tagger
from depo.envs.webshop.product import Goal
from depo.envs.webshop.reward import SOLVED, Score, score
from depo.envs.webshop.session import BUY, DONE, ITEM, MOST_HITS, Catalogue, State, Target
from depo.envs.webshop.wishes import choices


class Turn(NamedTuple):
    """What came of one action."""

    state: State
    refused: str = ""
    """Why nothing was done; the state is then the one before."""
    score: Score | None = None
    """Of a purchase."""


class Visit:
    """The rules of a visit, over a catalogue; the state is the caller's.

    `peer` keeps WebShop's own rules to the letter, else the repaired ones hold. `mode` is "text" or
    "text_rich".
    """

    def __init__(self, catalogue: Catalogue, mode: str, tagger: Tagger, peer: bool) -> None:
        self.catalogue, self._tagger, self._peer = catalogue, tagger, peer
        self._write = pages.WRITERS[mode]
        self._nodes = pages.peer_nodes if peer else pages.own_nodes
        self._parse = session.parse_as_peer if peer else session.parse

    def observe(self, state: State, goal: Goal) -> str:
        return self._write(self._nodes(state, goal.instruction, self.catalogue))

    def act(self, state: State, goal: Goal, action: str) -> Turn:
        read = self._parse(action)
        if read is None:
            return Turn(state, "write one action: search[<keywords>] or click[<button>]")
        verb, argument = read
        if verb == "search":
            return self._search(state, goal, argument)
        target = self.catalogue.labels(state).get(argument)
        if target is None or not target[0]:
            return Turn(state, f"there is no {_short(argument)!r} to click here")
        if target[0] != BUY:
            return Turn(session.click(state, target))
        worth = self.worth(state, goal)
        return Turn(session.buy(state, worth.reward), score=worth)

    def worth(self, state: State, goal: Goal) -> Score:
        """What buying the product of the page, with the options chosen, would earn."""
        asin = state.asin or ""
        product, price = self.catalogue.product(asin), self.catalogue.shop.price(asin)
        nouns = self._tagger.nouns
        return score(
            product,
            goal,
            price,
            dict(state.options),
            nouns(product.title),
            nouns(goal.name),
            repaired=not self._peer,
        )

    def can_be_met(self, goal: Goal) -> bool:
        """Whether the goal's own product, with the options asked for, earns all of the reward.

        Where an instruction asks for what its product does not have, or the reward does not see an
        option for what it is, it cannot.
        """
        page = State(page=ITEM, asin=goal.asin)
        chosen = choices(goal, self.catalogue.labels(page))
        options = tuple((choice.name, choice.value) for choice in chosen)
        return self.worth(page._replace(options=options), goal).reward >= SOLVED

    def clicks(self, state: State) -> dict[str, Target]:
        """Labels that can be clicked to some effect, and what they do."""
        labels = self.catalogue.labels(state)
        return {label: target for label, target in labels.items() if target[0]}

    def _search(self, state: State, goal: Goal, argument: str) -> Turn:
        if not self._peer:
            refused = session.refusal(argument)
            if refused:
                return Turn(state, refused)
            words = tuple(argument.split())
            return Turn(session.search(state, words, self.catalogue.shop.search(argument, MOST_HITS)))
        words = tuple(argument.split(" "))
        hits = session.listing(self.catalogue.shop, words, f"{goal.instruction} {state.counts}")
        if hits is None:
            return Turn(state, "this search fails in WebShop")
        return Turn(session.search(state, words, hits))


def is_over(state: State) -> bool:
    return state.page == DONE


def _short(argument: str) -> str:
    return argument if len(argument) <= 40 else f"{argument[:40]}..."
