"""Advances many searches at once and answers their requests in common batches."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace

from depo.policies.base import Policy, Reply, Request
from depo.records import Trajectory
from depo.search.run import Search


@dataclass(frozen=True)
class Finished:
    """A search that ended: its trajectories, or the exception that broke it."""

    key: Hashable
    trajectories: list[Trajectory]
    error: Exception | None = None


@dataclass(frozen=True)
class Progress:
    """What a driver has done so far."""

    requests: int = 0
    replies: int = 0
    tokens: int = 0
    """Generated tokens."""
    finished: int = 0
    active: int = 0


@dataclass
class _Active:
    key: Hashable
    search: Search
    requests: list[Request]


def drive(
    searches: Iterable[tuple[Hashable, Search]],
    policy: Policy,
    in_flight: int,
    on_progress: Callable[[Progress], None] | None = None,
) -> Iterator[Finished]:
    """Run `searches` in lockstep, `in_flight` at a time, and yield each as it ends.

    Every round merges the open requests of all active searches into one `policy.sample`; an ended
    search is replaced by the next, so the batch stays full. `searches` is read only as far as
    needed. A search that raises is a `Finished` with its error; what the policy raises propagates.
    `on_progress` is called after every batch.
    """
    waiting = iter(searches)
    active: list[_Active] = []
    progress = Progress()
    while True:
        while len(active) < in_flight and (following := next(waiting, None)) is not None:
            moved = _advance(*following, None)
            if isinstance(moved, _Active):
                active.append(moved)
            else:
                progress = replace(progress, finished=progress.finished + 1)
                yield moved
        if not active:
            return
        answers = policy.sample([request for search in active for request in search.requests])
        results = _answer(active, answers)
        active = [result for result in results if isinstance(result, _Active)]
        ended = [result for result in results if isinstance(result, Finished)]
        progress = Progress(
            requests=progress.requests + len(answers),
            replies=progress.replies + sum(len(replies) for replies in answers),
            tokens=progress.tokens + sum(r.num_tokens for replies in answers for r in replies),
            finished=progress.finished + len(ended),
            active=len(active),
        )
        if on_progress is not None:
            on_progress(progress)
        yield from ended


def _answer(active: list[_Active], answers: list[list[Reply]]) -> list[_Active | Finished]:
    """Hand each search the answers to its own requests."""
    position = 0
    results = []
    for search in active:
        mine = answers[position : position + len(search.requests)]
        position += len(search.requests)
        results.append(_advance(search.key, search.search, mine))
    return results


def _advance(key: Hashable, search: Search, answers: list[list[Reply]] | None) -> _Active | Finished:
    """Send `answers` (None starts the search) and take up what comes next."""
    try:
        requests = next(search) if answers is None else search.send(answers)
    except StopIteration as stop:
        return Finished(key, stop.value)
    except Exception as error:
        return Finished(key, [], error)
    return _Active(key, search, requests)
