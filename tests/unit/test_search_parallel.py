"""Several simulations in flight in one tree: virtual loss by hand; whose answer comes first never shows."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import Corridor, Fragile, Lever, Scripted, read, reply, shuffled, toy_task, wander

from depo.config.schema import SearchConfig
from depo.envs.base import TextEnv
from depo.policies.base import Reply, Request
from depo.records import Trajectory
from depo.search.driver import Driver, drive
from depo.search.run import search
from depo.search.selection import score
from depo.search.tree import Node

TASK = toy_task()


def found_by(env: TextEnv, policy: Scripted, seed: int, config: SearchConfig) -> list[Trajectory]:
    (finished,) = drive([("only", search(TASK, env, config, seed, "p", "tok"))], policy, in_flight=1)
    if finished.error is not None:
        raise finished.error
    return finished.trajectories


def visits_of(found: list[Trajectory]) -> dict[int, int]:
    return {node: n for t in found for node, n in zip(t.nodes, t.visits, strict=True)}


def test_a_simulation_in_flight_counts_as_a_visit_that_returns_nothing() -> None:
    root = Node(id=0, visits=3, pending=1, tokens=90)
    busy = Node(id=1, parent=root, visits=2, pending=1, total=1.5, tokens=40)
    idle = Node(id=2, parent=root, visits=1, total=0.4, tokens=50)
    # N(root) = 4; Q(busy) = 1.5 / 3; Q(idle) = 0.4 / 1
    assert score(busy, root, root, 1.0, 0.0) == pytest.approx(0.5 + (1.3862944 / 3) ** 0.5)
    assert score(idle, root, root, 1.0, 0.0) == pytest.approx(0.4 + 1.3862944**0.5)
    # C(busy) = (40 / 2) / (90 / 3), C(idle) = 50 / 30
    assert score(busy, root, root, 0.0, 0.3) == pytest.approx(0.5 - 0.3 * 2 / 3)
    assert score(idle, root, root, 0.0, 0.3) == pytest.approx(0.4 - 0.3 * 5 / 3)
    assert score(Node(id=3, parent=root), root, root, 0.0, 9.0) == float("inf")


def test_who_waits_at_a_node_is_no_visit_below_it() -> None:
    parent = Node(id=0, visits=1, pending=3, undecided=2)
    child = Node(id=1, parent=parent, pending=1)
    assert score(child, parent, parent, 1.0, 0.0) == pytest.approx(0.6931472**0.5)


def right_left() -> Callable[[Request], list[Reply]]:
    """Proposes right and left at an expansion, right in a rollout; thoughts tell the turns apart."""

    def answer(request: Request) -> list[Reply]:
        return [
            reply(f"s{request.seed} {len(request.history)} {i}", ("right", "left")[i % 2])
            for i in range(request.n)
        ]

    return answer


def test_two_in_flight_by_hand() -> None:
    """Corridor with the goal two cells to the right, exploration 1, two simulations at a time.

    0: root expanded; right (1), rolled out right: 0.8.    1, with 0 in flight: left (2), the pit: 0.
    2, with 0 backed up and 1 not: right has 0.8 + sqrt(ln 2 / 1), left 0 + sqrt(ln 2 / 1): expands
    right, takes right (3): 0.8.                            3, with 1 backed up, 2 in flight at right:
    right (0.8 + 0) / 2 + sqrt(ln 3 / 2) = 1.14 > sqrt(ln 3) = 1.05: right, left (4), right, right: 0.6.
    """
    config = SearchConfig(simulations=4, width=2, parallel=2)
    found = found_by(Corridor(), Scripted(right_left()), 0, config)
    assert [[s.action for s in t.steps] for t in found] == [
        ["right", "right"],
        ["left"],
        ["right", "right"],
        ["right", "left", "right", "right"],
    ]
    assert [t.nodes for t in found] == [(1,), (2,), (1, 3), (1, 4)]
    assert [t.visits for t in found] == [(3,), (1,), (3, 1), (3, 1)]
    assert [t.reward for t in found] == pytest.approx([0.8, 0.0, 0.8, 0.6])


@pytest.mark.parametrize(("exploration", "goes_right"), [(0.9, True), (1.0, False)])
def test_three_in_flight_by_hand(exploration: float, goes_right: bool) -> None:
    """Corridor with the goal four cells to the right, three simulations at a time.

    2 chooses with nothing backed up: right and left are equal, 0 + w sqrt(ln 2 / 1), and the first is
    taken. 3 sees 0's 0.6, and 2 in flight at right: 0.6 / 2 + w sqrt(ln 3 / 2) = 0.3 + 0.741 w there,
    0 + w sqrt(ln 3 / 1) = 1.048 w at left: equal at w = 0.977. Left has nothing new by then, which
    shows only when 1 is backed up: it brings no trajectory.
    """
    config = SearchConfig(simulations=4, width=2, parallel=3, exploration=exploration)
    found = {t.index: t for t in found_by(Corridor(goal=4), Scripted(right_left()), 0, config)}
    assert found[2].nodes == (1, 3)
    assert (3 in found) == goes_right
    if goes_right:
        assert found[3].nodes == (1, 4)


def test_as_many_are_in_flight_as_the_tree_lets() -> None:
    policy = Scripted(wander)
    config = SearchConfig(simulations=400, width=4, max_steps=30, parallel=16, exploration=4.0)
    found_by(Corridor(goal=29), policy, 3, config)
    assert max(policy.batches) > 8
    assert max(policy.batches) <= 16


def test_simulations_go_on_elsewhere_while_a_node_is_expanded() -> None:
    """The expansion of one child is held up; the others are searched meanwhile."""
    held: list[int] = []

    def later(there: list[Any]) -> tuple[list[Any], list[Any]]:
        slow = [a for a in there if len(a.replies) > 1 and a.replies[0].thought.endswith("1 0")]
        rest = [a for a in there if a not in slow]
        held.append(len(rest))
        return (rest, slow) if rest else (there, [])

    def propose(request: Request) -> list[Reply]:
        actions = ("right", "stay", "look", "up") if request.n > 1 else ("right",)
        said = f"{request.seed} {request.history[0].reply.action if request.history else ''}"
        return [reply(f"{said} {len(request.history)} {i}", actions[i]) for i in range(request.n)]

    config = SearchConfig(simulations=40, width=4, max_steps=6, parallel=8)
    found_by(Corridor(goal=5), Scripted(propose, later), 0, config)
    assert sum(1 for rest in held if rest >= 2) > 5


def envs(kind: str) -> TextEnv:
    return {
        "plain": lambda: Corridor(goal=3),
        "no snapshots": lambda: Corridor(goal=3, snapshots=False),
        "lever": Lever,
        "fails on restore": lambda: Fragile("restore"),
        "fails on step": lambda: Fragile("step"),
        "fails on snapshot": lambda: Fragile("snapshot"),
    }[kind]()


KINDS = ["plain", "no snapshots", "lever", "fails on restore", "fails on step", "fails on snapshot"]


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    parallel=st.integers(1, 12),
    simulations=st.integers(1, 24),
    width=st.integers(1, 4),
    exploration=st.sampled_from([0.0, 0.3, 1.0, 4.0]),
    cost_weight=st.sampled_from([0.0, 0.5]),
    max_depth=st.sampled_from([None, 1, 2]),
    stop_after=st.sampled_from([None, 2]),
    seed=st.integers(0, 10**6),
    arrivals=st.integers(0, 10**6),
)
def test_arrival_order_never_shows(
    kind: str, seed: int, arrivals: int, simulations: int, **settings_: Any
) -> None:
    config = SearchConfig(simulations=simulations, max_steps=6, **settings_)
    in_order = found_by(envs(kind), Scripted(wander), seed, config)
    mixed = found_by(envs(kind), Scripted(wander, shuffled(random.Random(arrivals))), seed, config)
    assert mixed == in_order
    assert 1 <= len(in_order) <= simulations


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(KINDS), parallel=st.integers(1, 8), seed=st.integers(0, 10**6))
def test_visits_and_values_agree_with_a_recount(kind: str, parallel: int, seed: int) -> None:
    """Distinct rollouts alone are kept, so the recount is exact where none was met twice."""
    config = SearchConfig(simulations=10, width=3, max_steps=6, parallel=parallel)
    found = found_by(envs(kind), Scripted(lambda r: distinct(r)), seed, config)
    complete = {t.index for t in found} == set(range(10))
    rollouts = Counter(node for t in found for node in t.nodes)
    returns: dict[int, float] = {}
    for t in found:
        assert len(t.nodes) == len(t.visits) == len(t.values) <= max(len(t.steps), 1)
        for node in t.nodes:
            returns[node] = returns.get(node, 0.0) + t.reward
    for t in found:
        for node, visits, value in zip(t.nodes, t.visits, t.values, strict=True):
            assert visits >= rollouts[node]
            if complete:
                assert visits == rollouts[node]
                assert value == pytest.approx(returns[node] / visits)


def distinct(request: Request) -> list[Reply]:
    """`wander`, with a new thought in every reply."""
    return [
        read(f"{one.text} {request.seed + i}") if one.malformed else reply(f"{request.seed + i}", one.action)
        for i, one in enumerate(wander(request))
    ]


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(KINDS[:3]), parallel=st.integers(2, 8), seed=st.integers(0, 10**6))
def test_what_was_found_in_parallel_happens_again_when_replayed(kind: str, parallel: int, seed: int) -> None:
    config = SearchConfig(simulations=12, width=3, max_steps=6, parallel=parallel)
    for t in found_by(envs(kind), Scripted(wander), seed, config):
        env = envs(kind)
        observation = env.reset(TASK)
        for number, step in enumerate(t.steps):
            if number == 0 or not t.steps[number - 1].malformed:
                assert step.observation == observation
            if not step.malformed:
                result = env.step(step.action)
                observation = result.observation
                assert (step.reward, step.valid) == (result.reward, result.info["valid"])


def test_a_policy_that_looks_at_the_environment_sees_the_state_it_is_asked_about() -> None:
    def looks(request: Request) -> list[Reply]:
        if request.state is not None:
            request.env.restore(request.state)
        expected = f"cell {request.env.cell} after {request.env.steps}"
        assert not request.observation.startswith("cell") or request.observation == expected
        return wander(request)

    for seed in range(8):
        for order in (None, shuffled(random.Random(seed))):
            config = SearchConfig(simulations=20, width=3, max_steps=6, parallel=6)
            assert found_by(Corridor(goal=3), Scripted(looks, order), seed, config)


def test_a_policy_may_look_only_once_the_answers_are_collected() -> None:
    """Others have moved the environment by then, and the look itself moves it."""

    class Lazy(Scripted):
        def submit(self, key: Any, request: Request) -> None:
            self.asked[key] = request

        def collect(self) -> list[Any]:
            for key, request in list(self.asked.items()):
                request.env.restore(request.state)
                super().submit(key, request)
            self.asked.clear()
            return super().collect()

        asked: dict[Any, Request] = {}

    config = SearchConfig(simulations=20, width=3, max_steps=6, parallel=5)
    for seed in range(10):
        lazy = Lazy(wander, shuffled(random.Random(seed)))
        assert found_by(Corridor(goal=3), lazy, seed, config) == found_by(
            Corridor(goal=3), Scripted(wander), seed, config
        )


def test_an_abandoned_search_leaves_nothing_in_flight() -> None:
    policy = Scripted(wander, shuffled(random.Random(0)))
    config = SearchConfig(simulations=50, width=3, max_steps=6, parallel=6)
    driver = Driver(policy, in_flight=2)
    for key in range(2):
        driver.add(key, search(TASK, Corridor(goal=5), config, key, "p", "tok"))
    for _ in range(10):
        driver.wait()
    driver.abandon()
    assert driver.keys == []
    assert policy.collect() == []


def test_who_stops_reading_leaves_nothing_in_flight() -> None:
    policy = Scripted(wander)
    config = SearchConfig(simulations=5, width=3, max_steps=6)
    jobs = ((key, search(TASK, Corridor(goal=5), config, key, "p", "tok")) for key in range(9))
    results = drive(jobs, policy, in_flight=4)
    next(results)
    results.close()
    assert policy.collect() == []


HERE = Path(__file__).parent
PROGRAM = """
import json
from test_search_parallel import Corridor, Scripted, SearchConfig, found_by, wander
config = SearchConfig(simulations=15, width=3, max_steps=6, parallel=4)
found = [t for seed in range(5) for t in found_by(Corridor(goal=3), Scripted(wander), seed, config)]
print(json.dumps([t.to_row() for t in found], sort_keys=True))
"""


def test_another_process_finds_the_same() -> None:
    rows = []
    for hash_seed in ("1", "2"):
        path = os.pathsep.join([str(HERE), *sys.path])
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True
        )
        rows.append(done.stdout)
    assert rows[0] == rows[1]
    assert len(json.loads(rows[0])) > 20
