"""The driver: many searches, each advanced as its answers come."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace

import pytest
from toys import Corridor, Scripted, reply, toy_task, wander

from depo.config.schema import SearchConfig
from depo.policies.base import Answer, EngineDead, Reply, Request, Sampling
from depo.records import Trajectory
from depo.search.driver import Progress, drive
from depo.search.run import Search, search

CONFIG = SearchConfig(simulations=6, width=3, max_steps=6)


def searches(count: int, parallel: int = 1) -> Iterator[tuple[int, Search]]:
    config = CONFIG.model_copy(update={"parallel": parallel})
    for key in range(count):
        yield key, search(toy_task(key), Corridor(goal=1 + key % 3), config, 7, "p", "tok")


@pytest.mark.parametrize("in_flight", [2, 5, 50])
def test_many_searches_find_what_one_search_at_a_time_finds(in_flight: int) -> None:
    alone = {f.key: f.trajectories for f in drive(searches(20), Scripted(wander), 1)}
    together = {f.key: f.trajectories for f in drive(searches(20), Scripted(wander), in_flight)}
    assert len(alone) == 20
    assert together == alone


def test_as_many_searches_are_under_way_as_asked_for_until_they_run_out() -> None:
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
    tail = policy.batches.index(next(size for size in policy.batches if size < 4))
    assert policy.batches[:tail] == [4] * tail
    assert tail > len(policy.batches) / 2


def one_at_a_time(rng: random.Random) -> Callable[[list[Answer]], tuple[list[Answer], list[Answer]]]:
    def order(there: list[Answer]) -> tuple[list[Answer], list[Answer]]:
        chosen = rng.randrange(len(there))
        return [there[chosen]], there[:chosen] + there[chosen + 1 :]

    return order


@pytest.mark.parametrize("parallel", [1, 3, 8])
def test_the_order_of_answers_changes_nothing(parallel: int) -> None:
    def found(policy: Scripted) -> dict[Hashable, list[Trajectory]]:
        return {f.key: f.trajectories for f in drive(searches(12, parallel), policy, in_flight=5)}

    first = found(Scripted(wander))
    assert all(found(Scripted(wander, one_at_a_time(random.Random(i)))) == first for i in range(4))


def test_a_slow_search_holds_nobody_back() -> None:
    def slow(there: list[Answer]) -> tuple[list[Answer], list[Answer]]:
        others = [answer for answer in there if answer.key[0] != 0]  # type: ignore[index]
        return (others, [a for a in there if a not in others]) if others else (there, [])

    ended = [f.key for f in drive(searches(8), Scripted(wander, slow), in_flight=2)]
    assert ended == [1, 2, 3, 4, 5, 6, 7, 0]


def test_a_failed_request_ends_its_search_alone() -> None:
    def fails(request: Request) -> list[Reply]:
        if request.observation.startswith("cell 1"):
            raise ConnectionError("no answer")
        return wander(request)

    results = {f.key: f for f in drive(searches(6), Scripted(fails), in_flight=3)}
    assert len(results) == 6
    assert any(isinstance(f.error, ConnectionError) for f in results.values())


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
        asked = {i: Request("", (), f"{key} {i}", 1, Sampling(), seed=i, id=i) for i in range(1 + key)}
        now = list(asked.values())
        while asked:
            number, replies = yield now
            assert replies[0].action == asked.pop(number).observation
            now = []
        return []

    echo = Scripted(lambda request: [reply("t", request.observation)])
    finished = list(drive(((key, asking(key)) for key in range(4)), echo, in_flight=3))
    assert [f.error for f in finished] == [None] * 4


def test_dead_engine_ends_the_drive() -> None:
    def down(request: Request) -> list[Reply]:
        raise EngineDead("core is gone")

    with pytest.raises(EngineDead, match="gone"):
        list(drive(searches(3), Scripted(down), in_flight=2))


def test_progress_counts_everything_once() -> None:
    asked: list[Request] = []

    def counted(request: Request) -> list[Reply]:
        asked.append(request)
        return wander(request)

    seen: list[Progress] = []
    list(drive(searches(5), Scripted(counted), 2, lambda progress: seen.append(replace(progress))))
    replies = [wander(request) for request in asked]
    last = seen[-1]
    assert (last.finished, last.active, last.open) == (5, 0, 0)
    assert last.requests == len(asked)
    assert last.replies == sum(len(r) for r in replies)
    assert last.tokens == sum(one.num_tokens for r in replies for one in r)
