"""What answers cost, and a hard budget that is never exceeded."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from depo.config.endpoint import PriceConfig
from depo.policies.base import BudgetSpent, Usage

BYTES_PER_TOKEN = 4
"""By which tokens are estimated where an endpoint does not report them."""


@dataclass
class EndpointUsage(Usage):
    """What an endpoint has done; `requests` are those answered, however many tries they took."""

    cached_tokens: int = 0
    """Of the prompt tokens, those that the endpoint had in its cache."""
    estimated: int = 0
    """Completions that came without token counts; theirs are one token every four bytes."""
    retried: int = 0
    """Tries that failed and were done again."""
    lost: int = 0
    """Tries whose answer never came whole. The endpoint may have billed them: they are not part of
    `tokens` and `money`, but a budget counts each at the most it can have cost."""


@dataclass(frozen=True)
class Cost:
    """Tokens and money of one completion or of several."""

    prompt_tokens: int = 0
    tokens: int = 0
    money: float = 0.0
    cached_tokens: int = 0
    estimated: bool = False

    @property
    def all_tokens(self) -> int:
        return self.prompt_tokens + self.tokens


def money(price: PriceConfig | None, prompt_tokens: int, cached_tokens: int, tokens: int) -> float:
    """The price of a completion; 0 where there is no price. Cached tokens are part of the prompt's."""
    if price is None:
        return 0.0
    cached = price.input if price.cached_input is None else price.cached_input
    fresh = (prompt_tokens - cached_tokens) * price.input + cached_tokens * cached
    return (fresh + tokens * price.output) / 1e6


def dearest(price: PriceConfig | None, prompt_tokens: int, tokens: int) -> Cost:
    """The most that a request can come to, with so many tokens at the most."""
    uncached = money(price, prompt_tokens, 0, tokens)
    return Cost(prompt_tokens, tokens, max(uncached, money(price, prompt_tokens, prompt_tokens, tokens)))


def estimated_tokens(size: int) -> int:
    """Tokens of a text of `size` bytes, by rule of thumb."""
    return -(-size // BYTES_PER_TOKEN)


class Budget:
    """What is spent, and what the requests in flight may yet come to; for one event loop.

    A request goes out only where, everything in flight coming to its most, no limit is exceeded. It
    waits while less may come of what is in flight, and where nothing is, the budget is spent.
    """

    def __init__(self, max_money: float | None, max_tokens: float | None) -> None:
        """Limits in the currency of the prices, and in prompt and generated tokens."""
        self._max_money, self._max_tokens = max_money, max_tokens
        self._money, self._tokens = 0.0, 0
        self._held: dict[object, Cost] = {}
        self._changed = asyncio.Event()

    async def hold(self, most: Cost) -> object:
        """Set `most` aside for a request; a ticket for `settle`. Raises `BudgetSpent`."""
        while problem := self._exceeded(most):
            if not self._held:
                raise BudgetSpent(problem)
            self._changed.clear()
            await self._changed.wait()
        ticket = object()
        self._held[ticket] = most
        return ticket

    def settle(self, ticket: object, cost: Cost) -> None:
        """The request is over and came to `cost`."""
        del self._held[ticket]
        self.spend(cost)
        self._changed.set()

    def spend(self, cost: Cost) -> None:
        self._money += cost.money
        self._tokens += cost.all_tokens

    def _exceeded(self, most: Cost) -> str:
        """Which limit the request might exceed; empty where none."""
        held = self._held.values()
        money = self._money + sum(cost.money for cost in held) + most.money
        if self._max_money is not None and money > self._max_money:
            return (
                f"max_money: {self._money:.6g} of this worker's {self._max_money:.6g} is spent and the next "
                f"request may cost {most.money:.6g}; raise it to go on"
            )
        tokens = self._tokens + sum(cost.all_tokens for cost in held) + most.all_tokens
        if self._max_tokens is not None and tokens > self._max_tokens:
            return (
                f"max_tokens_total: {self._tokens} of this worker's {self._max_tokens:.0f} tokens are spent "
                f"and the next request may take {most.all_tokens}; raise it to go on"
            )
        return ""
