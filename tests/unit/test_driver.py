"""The driver: many searches in common batches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from toys import Corridor, Scripted, reply, toy_task, wander

from depo.config.schema import SearchConfig
from depo.policies.base import Reply, Request, Sampling
from depo.search.driver import Progress, drive
from depo.search.run import Search, search

CONFIG = SearchConfig(simulations=6, width=3, max_steps=6)


def searches(count: int) -> Iterator[tuple[int, Search]]:
    for key in range(count):
        yield key, search(toy_task(key), Corridor(goal=1 + key % 3), CONFIG, 7, "p", "tok")


@pytest.mark.parametrize("in_flight", [2, 5, 50])
def test_lockstep_finds_what_one_search_at_a_time_finds(in_flight: int) -> None:
    alone = {f.key: f.trajectories for f in drive(searches(20), Scripted(wander), 1)}
    together = {f.key: f.trajectories for f in drive(searches(20), Scripted(wander), in_flight)}
    assert len(alone) == 20
    assert together == alone


def test_batch_stays_full_until_searches_run_out() -> None:
    policy = Scripted(wander)
    started: list[int] = []

    def counted() -> Iterator[tuple[int, Search]]:
        for key, one in searches(20):
            started.append(key)
            yield key, one

    finished = drive(counted(), policy, in_flight=4)
    next(finished)
    assert len(started) <= 5  # no search is made before there is room for it
    assert len(list(finished)) == 19
    sizes = [len(batch) for batch in policy.batches]
    tail = sizes.index(next(size for size in sizes if size < 4))
    assert sizes[:tail] == [4] * tail
    assert tail > len(sizes) / 2


def test_broken_search_is_reported_and_the_others_finish() -> None:
    def broken() -> Search:
        yield [Request("", (), "look", 1, Sampling(), seed=0)]
        raise KeyError("bug")

    mixed = [*searches(3), ("broken", broken())]
    results = {f.key: f for f in drive(mixed, Scripted(wander), in_flight=2)}
    assert repr(results["broken"].error) == "KeyError('bug')"
    assert all(results[key].error is None and results[key].trajectories for key in range(3))


def test_search_with_several_open_requests_gets_the_answers_to_its_own() -> None:
    def asking(key: int) -> Search:
        asked = [Request("", (), f"{key} {i}", 1, Sampling(), seed=i) for i in range(1 + key)]
        answers = yield asked
        assert [replies[0].action for replies in answers] == [request.observation for request in asked]
        return []

    echo = Scripted(lambda request: [reply("t", request.observation)])
    finished = list(drive(((key, asking(key)) for key in range(4)), echo, in_flight=3))
    assert [f.error for f in finished] == [None] * 4


def test_failing_policy_ends_the_drive() -> None:
    def down(request: Request) -> list[Reply]:
        raise ConnectionError("endpoint is down")

    with pytest.raises(ConnectionError, match="down"):
        list(drive(searches(3), Scripted(down), in_flight=2))


def test_progress_counts_everything_once() -> None:
    policy = Scripted(wander)
    seen: list[Progress] = []
    list(drive(searches(5), policy, 2, seen.append))
    asked = [request for batch in policy.batches for request in batch]
    replies = [wander(request) for request in asked]
    last = seen[-1]
    assert (last.finished, last.active) == (5, 0)
    assert last.requests == len(asked)
    assert last.replies == sum(len(r) for r in replies)
    assert last.tokens == sum(one.num_tokens for r in replies for one in r)
    assert len(seen) == len(policy.batches)
