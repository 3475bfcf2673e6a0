"""Advances many searches at once, each as soon as an answer to it is there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import cast

from depo.policies.base import Answer, Policy, Reply
from depo.records import Trajectory
from depo.search.run import Search


@dataclass(frozen=True)
class Finished:
    """A search that ended: its trajectories, or the exception that broke it."""

    key: Hashable
    trajectories: list[Trajectory]
    error: Exception | None = None


@dataclass
class Progress:
    """What a driver has done so far."""

    requests: int = 0
    replies: int = 0
    tokens: int = 0
    """Generated tokens."""
    finished: int = 0
    active: int = 0
    """Searches under way."""
    open: int = 0
    """Requests in flight."""


@dataclass(eq=False)
class _Active:
    key: Hashable
    search: Search
    open: set[int] = field(default_factory=set)
    """Ids of its requests in flight."""


class Driver:
    """Keeps up to `in_flight` searches going against one policy.

    Every search is advanced on its own: an answer goes to the search that asked, whose next requests
    are submitted at once, so that no search waits for another and the engine's batch stays full. A
    search that raises, or whose request failed, is a `Finished` with its error.
    """

    def __init__(self, policy: Policy, in_flight: int) -> None:
        self.progress = Progress()
        self._policy = policy
        self._in_flight = in_flight
        self._numbers = itertools.count()
        self._active: dict[int, _Active] = {}
        self._ended: list[Finished] = []

    @property
    def room(self) -> int:
        """How many searches may be added before `in_flight` are under way."""
        return max(0, self._in_flight - len(self._active))

    @property
    def keys(self) -> list[Hashable]:
        """The searches under way."""
        return [search.key for search in self._active.values()]

    def add(self, key: Hashable, search: Search) -> None:
        """Start `search`. Raises what the policy raises on its first requests."""
        number = next(self._numbers)
        self._active[number] = _Active(key, search)
        self._advance(number, None)

    def wait(self) -> list[Finished]:
        """Searches that ended since the last call; waits for an answer where none has.

        Empty where answers came and no search ended with them. Raises what the policy raises.
        """
        if not self._ended and self._active:
            for answer in self._policy.collect():
                self._take(answer)
        ended, self._ended = self._ended, []
        self.progress.finished += len(ended)
        self.progress.active = len(self._active)
        self.progress.open = sum(len(search.open) for search in self._active.values())
        return ended

    def abandon(self) -> None:
        """Give up every search under way; their requests are withdrawn."""
        for number in list(self._active):
            self._end(number)

    def _take(self, answer: Answer) -> None:
        number, request = cast("tuple[int, int]", answer.key)
        search = self._active.get(number)
        if search is None or request not in search.open:
            return  # of a search that has ended meanwhile
        search.open.discard(request)
        self.progress.requests += 1
        self.progress.replies += len(answer.replies)
        self.progress.tokens += sum(reply.num_tokens for reply in answer.replies)
        if answer.error is not None:
            self._finish(number, [], answer.error)
        else:
            self._advance(number, (request, answer.replies))

    def _advance(self, number: int, answer: tuple[int, list[Reply]] | None) -> None:
        """Send `answer` (None starts the search) and submit what it asks next."""
        search = self._active[number]
        try:
            requests = next(search.search) if answer is None else search.search.send(answer)
        except StopIteration as stop:
            self._finish(number, stop.value, None)
            return
        except SystemExit as error:  # an environment's, which is not to end what plays it
            self._finish(number, [], RuntimeError(f"the environment exits ({error.code})"))
            return
        except Exception as error:
            self._finish(number, [], error)
            return
        for request in requests:
            search.open.add(request.id)
            self._policy.submit((number, request.id), request)

    def _finish(self, number: int, trajectories: list[Trajectory], error: Exception | None) -> None:
        self._ended.append(Finished(self._active[number].key, trajectories, error))
        self._end(number)

    def _end(self, number: int) -> None:
        search = self._active.pop(number)
        search.search.close()
        for request in search.open:
            self._policy.withdraw((number, request))


def drive(
    searches: Iterable[tuple[Hashable, Search]],
    policy: Policy,
    in_flight: int,
    on_progress: Callable[[Progress], None] | None = None,
) -> Iterator[Finished]:
    """Run `searches`, `in_flight` at a time, and yield each as it ends.

    `searches` is read only as far as there is room. What the policy raises propagates.
    `on_progress` is called whenever answers came. Who stops reading abandons what is under way.
    """
    waiting = iter(searches)
    driver = Driver(policy, in_flight)
    try:
        while True:
            while driver.room and (following := next(waiting, None)) is not None:
                driver.add(*following)
            ended = driver.wait()
            if on_progress is not None:
                on_progress(driver.progress)
            if not ended and not driver.keys:
                return
            yield from ended
    except GeneratorExit:
        driver.abandon()
        raise
