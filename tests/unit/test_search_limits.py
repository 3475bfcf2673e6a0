"""What ends a search, bounds its tree, or closes a part of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from toys import Bandit, Corridor, Fragile, Scripted, reply, toy_task, wander

from depo.config.schema import BudgetConfig, SearchConfig
from depo.envs.base import StepResult, TextEnv
from depo.policies.base import Reply, Request
from depo.records import Trajectory
from depo.search.driver import drive
from depo.search.run import search

TASK = toy_task()


class Counting(Scripted):
    """Counts what a search draws; every reply has 5 tokens and costs 0.25."""

    def __init__(self, answer: Callable[[Request], list[Reply]]) -> None:
        super().__init__(lambda request: [replace(r, num_tokens=5, money=0.25) for r in answer(request)])
        self.requests: list[Request] = []

    def reply(self, request: Request) -> list[Reply]:
        self.requests.append(request)
        return super().reply(request)


def searched(env: TextEnv, policy: Scripted, seed: int = 0, **config: Any) -> list[Trajectory]:
    (finished,) = drive(
        [("only", search(TASK, env, SearchConfig(**config), seed, "p", "tok"))], policy, in_flight=1
    )
    if finished.error is not None:
        raise finished.error
    return finished.trajectories


def onwards(request: Request) -> list[Reply]:
    """Right and left at an expansion, right in a rollout; every reply of a search has its own thought."""
    actions = ("right", "left")
    return [reply(f"{request.seed + i}", actions[i % 2]) for i in range(request.n)]


def stay(request: Request) -> list[Reply]:
    return [reply(f"{request.seed + i}", f"stay {i}") for i in range(request.n)]


# `stay` with max_steps 5 and width 2: simulation 0 expands the root (2 replies), plays one turn into the
# tree and four more (4 replies): 5 turns, 6 replies. Simulation 1 visits the other child, at no reply,
# and plays four more. 2 and 3 expand the children, play one turn into the tree and three more.
STAYING = {"width": 2, "max_steps": 5, "simulations": 20, "exploration": 1.0}


@pytest.mark.parametrize(
    ("budget", "rollouts"),
    [
        ({"steps": 5}, 1),
        ({"steps": 6}, 2),
        ({"steps": 10}, 2),
        ({"steps": 11}, 3),  # 5 + 5 + 4: turns that the tree had are not played again
        ({"tokens": 30}, 1),
        ({"tokens": 31}, 2),
        ({"tokens": 50}, 2),  # (2 + 4) + 4 replies of 5 tokens
        ({"tokens": 51}, 3),
        ({"money": 1.5}, 1),
        ({"money": 1.51}, 2),
        ({"money": 2.51}, 3),
        ({"steps": 11, "money": 1.51}, 2),
        ({}, 20),
    ],
)
def test_budget_ends_the_search_before_the_next_simulation(budget: dict[str, Any], rollouts: int) -> None:
    policy = Counting(stay)
    found = searched(Corridor(), policy, budget=BudgetConfig(**budget), **STAYING)
    assert len(found) == rollouts
    asked = [request.n for request in policy.requests]
    assert asked[:9] == [2, 1, 1, 1, 1, 1, 1, 1, 1][: len(asked)]


@pytest.mark.parametrize("parallel", [2, 5])
def test_a_budget_lets_simulations_in_flight_finish(parallel: int) -> None:
    found = searched(Corridor(), Counting(stay), parallel=parallel, budget=BudgetConfig(steps=1), **STAYING)
    assert len(found) == parallel
    assert all(t.num_steps == 5 for t in found)


def test_a_budget_in_seconds() -> None:
    class Slow(Corridor):
        def step(self, action: str) -> StepResult:
            time.sleep(0.02)
            return super().step(action)

    unbounded = dict(STAYING, simulations=1000)
    found = searched(Slow(), Counting(stay), budget=BudgetConfig(seconds=0.3), **unbounded)
    assert 1 <= len(found) < 20  # a simulation takes 0.08 s at least
    assert all(t.num_steps == 5 for t in found)


def test_solved_often_enough() -> None:
    few = searched(Corridor(goal=1), Scripted(onwards), simulations=9, width=6, stop_after=2)
    assert [t.success for t in few] == [True, False, True]
    assert [t.index for t in few] == [0, 1, 2]
    assert len(searched(Corridor(goal=1), Scripted(onwards), simulations=9, width=6)) == 6


@pytest.mark.parametrize("parallel", [1, 4])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_tree_grows_no_deeper_than_max_depth(parallel: int, depth: int) -> None:
    policy = Counting(onwards)
    found = searched(
        Corridor(goal=9),
        policy,
        simulations=40,
        width=2,
        max_steps=12,
        max_depth=depth,
        parallel=parallel,
        exploration=2.0,
    )
    assert max(len(t.nodes) for t in found) == depth
    assert max(len(r.history) for r in policy.requests if r.n == 2) == depth - 1
    assert len(found) > 2**depth  # what lies at the edge is rolled out again and again
    assert max(t.num_steps for t in found) > depth


def test_a_rollout_from_the_edge_goes_on_from_its_state() -> None:
    found = searched(Corridor(goal=3), Counting(onwards), simulations=12, width=2, max_depth=1)
    again = [t for t in found if t.steps[0].action == "right"]
    assert len(again) > 3
    assert all([s.observation for s in t.steps] == [f"cell {i} after {i}" for i in range(3)] for t in again)
    assert all(t.nodes == (1,) and t.visits == (len(again),) for t in again)


def test_cost_weight_prefers_the_cheaper_of_two_equal_ways() -> None:
    """Both arms pay 0.5; "dear" takes 30 tokens a rollout, "cheap" 10. With C = tokens / root's mean,
    scores at N = 2 are 0.5 - c * 30 / 20 + u and 0.5 - c * 10 / 20 + u: cheap is pulled from then on
    as long as its C keeps the difference above what exploration adds."""

    def answer(request: Request) -> list[Reply]:
        if not request.history:
            return [replace(reply("t", name), num_tokens=0) for name in ("dear", "cheap")]
        dear = request.history[0].reply.action == "dear"
        return [
            replace(reply(f"{request.seed + i}", f"end {request.seed + i}"), num_tokens=30 if dear else 10)
            for i in range(request.n)
        ]

    def pulls(cost_weight: float) -> int:
        env = Bandit({"dear": 0.5, "cheap": 0.5})
        found = searched(
            env, Scripted(answer), simulations=20, width=20, exploration=0.05, cost_weight=cost_weight
        )
        assert len(found) == 20
        return sum(t.steps[0].action == "dear" for t in found)

    assert pulls(0.0) == 10
    assert pulls(0.5) == 1
    assert 1 < pulls(0.005) < 10


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("method", ["step", "restore", "snapshot"])
def test_a_dead_end_is_recorded_and_not_entered_again(method: str, parallel: int) -> None:
    config = {"simulations": 60, "width": 3, "max_steps": 6, "exploration": 3.0}
    found = searched(Fragile(method), Counting(wander), parallel=parallel, **config)
    dead = [t for t in found if t.stop_reason == "error"]
    assert dead
    assert all(t.error == f"RuntimeError: {method} failed" for t in dead)
    assert any(t.stop_reason != "error" for t in found)
    ends: dict[int, int] = {}
    for t in dead:
        if method == "restore":
            ends[t.nodes[-1]] = ends.get(t.nodes[-1], 0) + 1
    assert all(count <= parallel for count in ends.values())


def test_a_tree_without_anything_new_ends_early() -> None:
    for parallel in (1, 4):
        policy = Counting(lambda request: [reply(f"t{i}", "left") for i in range(request.n)])
        found = searched(Corridor(), policy, simulations=50, width=3, parallel=parallel)
        assert [t.num_steps for t in found] == [1, 1, 1]
        assert len(policy.requests) == 1
