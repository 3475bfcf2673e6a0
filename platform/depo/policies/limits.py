"""Limits on requests and tokens a minute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

_BURST = 0.1
"""Share of a minute's limit that may go out at once."""


@dataclass
class TokenBucket:
    """At most `limit` units, rounded up, in any 60 seconds; `now` is in seconds and never runs back.

    A tenth of the limit may go at once, and the bucket fills with the rest over a minute. An amount
    above the bucket's size waits for a full bucket and leaves it in debt.
    """

    limit: float
    _level: float = field(init=False)
    _at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._level = self.capacity

    @property
    def capacity(self) -> float:
        return max(1.0, _BURST * self.limit)

    @property
    def rate(self) -> float:
        """Units a second."""
        return (self.limit - self.capacity + 1) / 60

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken, as things stand; 0 where it may be now."""
        self._fill(now)
        # A rounding error in the level must not ask for one more, endlessly short sleep.
        short = min(amount, self.capacity) - self._level
        return short / self.rate if short > 1e-9 * self.limit else 0.0

    def take(self, amount: float, now: float) -> None:
        """Take `amount`; a negative one gives back."""
        self._fill(now)
        self._level = min(self.capacity, self._level - amount)

    def _fill(self, now: float) -> None:
        self._level = min(self.capacity, self._level + (now - self._at) * self.rate)
        self._at = now


class Limiter:
    """Lets requests through in order of arrival, no faster than the limits; for one event loop.

    `tokens` of a request are what it may come to; `correct` gives back what it did not need.
    """

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requests = TokenBucket(requests_per_minute) if requests_per_minute else None
        self._tokens = TokenBucket(tokens_per_minute) if tokens_per_minute else None
        self._clock = clock
        self._not_before = 0.0
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    async def admit(self, tokens: float) -> None:
        """Wait until one request of `tokens` may go out, and count it."""
        async with self._turn:
            while (seconds := self._wait(tokens)) > 0:
                self._changed.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), seconds)
            if self._requests is not None:
                self._requests.take(1, self._clock())
            self._take_tokens(tokens)

    def correct(self, admitted: float, used: float) -> None:
        """An admitted request came to `used` tokens instead."""
        self._take_tokens(used - admitted)
        self._changed.set()

    def pause(self, seconds: float) -> None:
        """Let nothing through for so long: the endpoint asked for it."""
        self._not_before = max(self._not_before, self._clock() + seconds)

    def _take_tokens(self, tokens: float) -> None:
        if self._tokens is not None:
            self._tokens.take(tokens, self._clock())

    def _wait(self, tokens: float) -> float:
        now = self._clock()
        waits = [self._not_before - now]
        if self._requests is not None:
            waits.append(self._requests.wait(1, now))
        if self._tokens is not None:
            waits.append(self._tokens.wait(tokens, now))
        return max(waits)
