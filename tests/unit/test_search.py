"""The search: selection, merging, backup, and what every rollout leaves behind."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import Bandit, Corridor, Scripted, read, reply, toy_task, wander

from depo.config.schema import SearchConfig
from depo.envs.base import TextEnv
from depo.policies.base import Reply, Request, Sampling
from depo.records import Trajectory
from depo.search.driver import drive
from depo.search.episode import MALFORMED_OBSERVATION, TurnControl
from depo.search.run import Search, episode, search
from depo.search.selection import best_child, uct
from depo.search.tree import Node, merge

TASK = toy_task()


def run(search_: Search, answer: Callable[[Request], list[Reply]]) -> list[Trajectory]:
    (finished,) = drive([("only", search_)], Scripted(answer), in_flight=1)
    if finished.error is not None:
        raise finished.error
    return finished.trajectories


def searched(
    env: TextEnv, answer: Callable[[Request], list[Reply]], seed: int = 0, **config: float
) -> list[Trajectory]:
    return run(search(TASK, env, SearchConfig(**config), seed, "p", "tok"), answer)  # type: ignore[arg-type]


def in_turn(*actions: str) -> Callable[[Request], list[Reply]]:
    """Proposes `actions` at an expansion and the first of them in a rollout; every thought is new."""
    count = itertools.count()
    return lambda request: [reply(f"t{next(count)}", actions[i % len(actions)]) for i in range(request.n)]


def texts(trajectory: Trajectory) -> list[str]:
    return [step.text for step in trajectory.steps]


def test_uct_is_mean_value_plus_exploration_by_hand() -> None:
    assert uct(0.5, visits=4, parent_visits=10, exploration=2.0) == pytest.approx(
        0.5 + 2.0 * math.sqrt(2.302585 / 4)
    )
    assert uct(0.0, visits=0, parent_visits=10, exploration=0.0) == math.inf


def child_of(parent: Node, visits: int, total: float) -> Node:
    return Node(id=1, parent=parent, replies=(reply("t", "a"),), visits=visits, total=total)


@pytest.mark.parametrize(("exploration", "chosen"), [(0.1, 0), (2.0, 1)])
def test_selection_trades_value_for_rarity_by_exploration(exploration: float, chosen: int) -> None:
    root = Node(id=0, visits=10)
    root.children = [child_of(root, 8, 6.4), child_of(root, 2, 1.0)]
    assert best_child(root, root, exploration) is root.children[chosen]


def test_unvisited_children_come_first_and_in_order() -> None:
    root = Node(id=0, visits=1)
    root.children = [child_of(root, 1, 1.0), child_of(root, 0, 0.0), child_of(root, 0, 0.0)]
    assert best_child(root, root, 0.0) is root.children[1]


def test_equal_actions_are_one_child_whatever_case_and_spacing() -> None:
    drawn = [reply("a", "go left"), reply("b", "right"), reply("c", " Go  LEFT"), read("no action")]
    assert [[r.thought for r in group] for group in merge(drawn)] == [["a", "c"], ["b"], ["no action"]]


def test_tree_after_four_simulations_by_hand() -> None:
    """Corridor with the goal two cells to the right; every expansion proposes right, left.

    0: right (new 1), rolled out right: 0.8.    1: left (new 2), the pit: 0.
    2: right, expanded, right (new 3): 0.8.     3: right, left (new 4), rolled out right, right: 0.6.
    """
    found = searched(Corridor(), in_turn("right", "left"), simulations=4, width=2)
    assert [[s.action for s in t.steps] for t in found] == [
        ["right", "right"],
        ["left"],
        ["right", "right"],
        ["right", "left", "right", "right"],
    ]
    assert [t.nodes for t in found] == [(1,), (2,), (1, 3), (1, 4)]
    assert [t.visits for t in found] == [(3,), (1,), (3, 1), (3, 1)]
    mean = (0.8 + 0.8 + 0.6) / 3
    for t, values in zip(found, [(mean,), (0.0,), (mean, 0.8), (mean, 0.6)], strict=True):
        assert t.values == pytest.approx(values)
    assert [t.reward for t in found] == pytest.approx([0.8, 0.0, 0.8, 0.6])
    assert [t.success for t in found] == [True, False, True, True]
    assert {t.stop_reason for t in found} == {"terminated"}
    assert [t.index for t in found] == [0, 1, 2, 3]


def test_bandit_is_pulled_exactly_as_ucb1_would() -> None:
    arms = {"a": 0.2, "b": 0.8, "c": 0.5}
    simulations, exploration = 30, 0.3

    def answer(request: Request) -> list[Reply]:
        if not request.history:
            return [reply("t", name) for name in arms]
        return [reply(f"{request.seed} {i}", f"end {request.seed} {i}") for i in range(request.n)]

    found = searched(Bandit(arms), answer, simulations=simulations, width=40, exploration=exploration)
    pulls = dict.fromkeys(arms, 0)
    for _ in range(simulations):
        total = sum(pulls.values())
        scores = {name: uct(arms[name], pulls[name], total, exploration) for name in arms}
        pulls[max(scores, key=lambda name: scores[name])] += 1
    searched_pulls = {name: sum(t.steps[0].action == name for t in found) for name in arms}
    assert searched_pulls == pulls
    assert pulls["b"] > simulations / 2


def test_thoughts_of_a_merged_child_are_used_one_after_the_other() -> None:
    env = Corridor(goal=1)
    found = searched(env, in_turn("right"), simulations=8, width=3)
    assert [texts(t) for t in found] == [
        [f"Thought: t{i}\nAction: right"] for i in range(3)
    ]  # then nothing new is left


def test_requests_show_the_very_replies_that_the_trajectory_keeps() -> None:
    asked: list[Request] = []
    propose = in_turn("right", "right", "stay")

    def answer(request: Request) -> list[Reply]:
        asked.append(request)
        return propose(request)

    found = searched(Corridor(goal=3), answer, simulations=6, width=3)
    kept = {tuple(texts(t)[:k]) for t in found for k in range(len(t.steps) + 1)}
    assert all(tuple(e.reply.text for e in request.history) in kept for request in asked)


def test_reply_put_after_another_thought_loses_its_log_prob() -> None:
    found = searched(Corridor(goal=2), in_turn("right", "right", "right"), simulations=4, width=3)
    logprobs = {tuple(texts(t)): [s.logprob for s in t.steps] for t in found}
    drawn_so = ("Thought: t1\nAction: right", "Thought: t4\nAction: right")
    put_so = ("Thought: t2\nAction: right", "Thought: t5\nAction: right")
    assert logprobs[drawn_so] == [-1.0, -1.0]
    assert logprobs[put_so] == [-1.0, None]


def test_repeated_rollout_is_kept_once() -> None:
    def answer(request: Request) -> list[Reply]:
        return [reply("same", "right")] * request.n

    found = searched(Corridor(goal=2), answer, simulations=6, width=2)
    assert [t.index for t in found] == [0]


def test_malformed_reply_costs_a_turn_and_leaves_the_environment() -> None:
    answers = iter([read("no action"), reply("t", "right")])
    (played,) = run(episode(TASK, Corridor(goal=1), Sampling(), 5, 0, "p", "tok"), lambda _: [next(answers)])
    lost, walked = played.steps
    assert (lost.malformed, lost.valid, lost.reward) == (True, False, 0.0)
    assert walked.observation == MALFORMED_OBSERVATION
    assert played.reward == pytest.approx(0.9)


def test_turn_limit_cuts_an_episode() -> None:
    (played,) = run(episode(TASK, Corridor(), Sampling(), 3, 0, "p", "t"), in_turn("stay"))
    assert (played.stop_reason, played.num_steps, played.success) == ("max_steps", 3, False)
    (cut,) = run(episode(TASK, Corridor(limit=2), Sampling(), 9, 0, "p", "t"), in_turn("stay"))
    assert (cut.stop_reason, cut.num_steps) == ("max_steps", 2)


def test_failing_environment_leaves_a_row_and_the_search_goes_on() -> None:
    found = searched(Corridor(), in_turn("right", "explode", "left"), simulations=5, width=3)
    failed = [t for t in found if t.stop_reason == "error"]
    assert len(found) == 5
    assert [t.error for t in failed] == ["RuntimeError: boom"] * len(failed)
    assert [s.action for s in failed[0].steps] == ["explode"]
    assert any(t.success for t in found)


def test_failing_reset_is_a_row_without_steps() -> None:
    class Broken(Corridor):
        def reset(self, task: object) -> str:
            raise OSError("no server")

    (row,) = searched(Broken(), in_turn("right"))
    assert (row.stop_reason, row.error, row.steps) == ("error", "OSError: no server", ())
    (row,) = run(episode(TASK, Broken(), Sampling(), 3, 0, "p", "t"), in_turn("right"))
    assert row.error == "OSError: no server"


def test_failing_restore_closes_that_part_of_the_tree() -> None:
    class Forgetful(Corridor):
        failures = 0

        def restore(self, state: tuple[int, int]) -> None:
            if state[0] == 1:
                self.failures += 1
                raise RuntimeError("lost")
            super().restore(state)

    env = Forgetful()
    found = searched(env, in_turn("right", "left", "stay"), simulations=12, width=3, exploration=5.0)
    assert [t.error for t in found if t.stop_reason == "error"] == ["RuntimeError: lost"] * env.failures
    failed = [t.nodes for t in found if t.stop_reason == "error"]
    assert len(set(failed)) == len(failed) >= 1
    assert len(found) == 12


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), simulations=st.integers(1, 20), width=st.integers(1, 5))
def test_every_rollout_is_distinct_and_happens_again_when_replayed(
    seed: int, simulations: int, width: int
) -> None:
    def answer(request: Request) -> list[Reply]:
        seen = request.observation
        assert seen == f"cell {request.env.cell} after {request.env.steps}" or not seen.startswith("cell")
        return wander(request)

    config = {"simulations": simulations, "width": width, "max_steps": 6}
    found = searched(Corridor(), answer, seed, **config)
    assert 1 <= len(found) <= simulations
    assert len({tuple(texts(t)) for t in found}) == len({t.id for t in found}) == len(found)
    assert [t.index for t in found] == sorted(t.index for t in found)
    for t in found:
        actions = iter([read(text) for text in texts(t)])
        (again,) = run(
            episode(TASK, Corridor(), Sampling(), 6, seed, "p", "tok"), lambda _, a=actions: [next(a)]
        )
        assert [(s.observation, s.reward, s.valid) for s in again.steps] == [
            (s.observation, s.reward, s.valid) for s in t.steps
        ]
        assert (again.reward, again.success, again.stop_reason) == (t.reward, t.success, t.stop_reason)
        assert len(t.nodes) == len(t.visits) == len(t.values) <= len(t.steps)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), simulations=st.integers(1, 20), width=st.integers(1, 5))
def test_replaying_actions_finds_what_snapshots_find(seed: int, simulations: int, width: int) -> None:
    config = {"simulations": simulations, "width": width, "max_steps": 6}
    replaying = Corridor(snapshots=False)
    assert searched(replaying, wander, seed, **config) == searched(Corridor(), wander, seed, **config)


def test_an_environment_is_replayed_only_where_it_is_elsewhere() -> None:
    env = Corridor(goal=3, snapshots=False)
    searched(env, in_turn("right", "left"), simulations=1, width=2)
    assert env.resets == 1
    searched(env, in_turn("right", "left"), simulations=6, width=2)
    assert env.resets > 3


@pytest.mark.parametrize("parallel", [2, 5, 30])
def test_simulations_in_flight_are_found_in_the_tree_as_virtual_losses(parallel: int) -> None:
    """With as many in flight as simulations, selection knows no return and spreads over the children."""
    arms = {"a": 0.9, "b": 0.1, "c": 0.1}

    def answer(request: Request) -> list[Reply]:
        if not request.history:
            return [reply("t", name) for name in arms]
        return [reply(f"{request.seed} {i}", f"end {request.seed} {i}") for i in range(request.n)]

    found = searched(Bandit(arms), answer, simulations=30, width=30, parallel=parallel, exploration=0.1)
    pulls = {name: sum(t.steps[0].action == name for t in found) for name in arms}
    assert sum(pulls.values()) == 30
    assert pulls["a"] == 10 if parallel == 30 else pulls["a"] > 15


def test_search_is_a_function_of_its_seed() -> None:
    config = {"simulations": 12, "width": 3}
    first, second = (searched(Corridor(), wander, seed=5, **config) for _ in range(2))
    assert first == second
    assert first != searched(Corridor(), wander, seed=6, **config)


def test_no_two_replies_of_a_search_share_a_seed() -> None:
    seeds: list[int] = []

    def answer(request: Request) -> list[Reply]:
        seeds.extend(range(request.seed, request.seed + request.n))
        return wander(request)

    searched(Corridor(), answer, simulations=20, width=4, max_steps=8)
    assert len(seeds) > 40
    assert len(set(seeds)) == len(seeds)
    assert max(seeds) < 2**31 + 4


def test_a_note_stands_at_the_end_of_the_system_prompt_and_in_the_record():
    playing = episode(
        toy_task(), Corridor(), Sampling(), 3, 0, "p", "tok", control=TurnControl(note="Be brief.")
    )
    (asked,) = next(playing)
    assert asked.system == "walk\n\nBe brief."
    with pytest.raises(StopIteration) as over:
        while True:
            (asked,) = playing.send((asked.id, [reply("on", "right")]))
    (played,) = over.value.value
    assert (played.system, played.success) == (asked.system, True)
