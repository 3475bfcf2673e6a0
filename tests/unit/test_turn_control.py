"""Turns under control at run time: what the agent is told, and when it is stopped."""

from __future__ import annotations

import itertools

import pytest
from toys import Corridor, Scripted, read, reply, toy_task

from depo.config.evaluation import ControlledConfig
from depo.config.schema import EvaluationConfig
from depo.policies.base import Reply, Request, Sampling
from depo.records import Trajectory
from depo.search.driver import drive
from depo.search.episode import UNCONTROLLED, TurnControl, repeats
from depo.search.run import episode
from depo.stages.evaluate import plain_observations, to_episode, turn_control, turns_of

MOST = 6


class Hall(Corridor):
    """A corridor that does not say how often one has walked in it."""

    def _see(self) -> str:
        return f"cell {self.cell}"


def play(control: TurnControl, *texts: str, env: Corridor | None = None) -> tuple[Trajectory, list[Request]]:
    """An episode of at most `MOST` turns that goes through `texts` again and again, and what was asked."""
    replies = itertools.cycle([read(text) if ":" in text else reply("so", text) for text in texts])
    asked: list[Request] = []

    def answer(request: Request) -> list[Reply]:
        asked.append(request)
        return [next(replies)]

    search = episode(toy_task(), env or Hall(goal=5), Sampling(), MOST, 0, "p", "tok", control)
    (finished,) = drive([("only", search)], Scripted(answer), in_flight=1)
    assert finished.error is None
    return finished.trajectories[0], asked


def endings(trajectory: Trajectory) -> list[str]:
    return [step.observation.partition("\n")[2] for step in trajectory.steps]


def test_every_observation_ends_with_the_turns_that_are_left():
    played, _ = play(TurnControl(show_turns=True), "right", "hm: no action", "fly")
    assert endings(played) == [f"Turns left: {left}." for left in (6, 5, 4, 3, 2, 1)]
    assert played.steps[0].observation == "cell 0\nTurns left: 6."
    assert played.final_observation == "no such action"


def test_the_reminder_comes_once_with_and_without_the_count():
    played, _ = play(TurnControl(remind_at=2), "right", "left")
    assert endings(played) == ["", "", "", "", "Finish the task now: 2 turns are left.", ""]
    played, _ = play(TurnControl(show_turns=True, remind_at=1), "right", "left")
    assert endings(played)[-2:] == ["Turns left: 2.", "Turns left: 1. Finish the task now: one turn is left."]


def test_what_the_agent_saw_is_what_is_stored():
    played, asked = play(TurnControl(show_turns=True, remind_at=3), "right", "left")
    seen = [step.observation for step in played.steps]
    assert [request.observation for request in asked] == seen
    assert [e.observation for e in asked[-1].history] == seen[:-1]
    assert played == play(TurnControl(show_turns=True, remind_at=3), "right", "left")[0]


@pytest.mark.parametrize("told", [{}, {"show_turns": True, "remind_at": 2}])
@pytest.mark.parametrize(
    ("texts", "turns"),
    [
        (("fly",), 2),  # the environment knows no such action
        (("hm: no action",), 2),  # malformed
        (("right", "left"), 4),  # turns 2 and 3 do again what 0 and 1 did
        (("fly", "hm: no action", "right"), 2),
        (("right", "right", "fly"), 6),  # never two in a row before the cap
    ],
)  # fmt: skip
def test_turns_that_lead_nowhere_end_the_episode(texts, turns, told):
    played, _ = play(TurnControl(stop_after_repeats=2, **told), *texts)
    assert played.num_steps == turns
    assert played.stop_reason == ("early_stop" if turns < MOST else "max_steps")
    assert not played.success
    assert to_episode(played, "m", "greedy", 0).stop_reason == played.stop_reason


def test_an_episode_that_ends_by_itself_is_not_stopped_early():
    played, _ = play(TurnControl(stop_after_repeats=1), "right", env=Hall(goal=1))
    assert (played.stop_reason, played.success) == ("terminated", True)
    broken, _ = play(TurnControl(stop_after_repeats=1), "explode")
    assert (broken.stop_reason, broken.num_steps) == ("error", 1)


def test_repeated_turns_are_counted_alike_whatever_the_agent_was_told():
    told = TurnControl(show_turns=True, remind_at=2)
    counts: list[tuple[int, int, int]] = []
    for control in (UNCONTROLLED, told):
        played, _ = play(control, "right", "left", "fly")
        found = to_episode(played, "m", "greedy", 0, "", plain_observations(played, control, MOST))
        counts.append((found.repeated, found.invalid, found.malformed))
    # cell 0 right, cell 1 left, cell 0 fly; then right from what "fly" led to, and the two again
    assert counts == [(2, 2, 0)] * 2
    assert repeats([("a", "x"), ("b", "x"), ("a", "x"), ("a", "x")]) == [False, False, True, True]


@pytest.mark.parametrize(
    ("controlled", "note", "turns", "shown"),
    [
        (None, "", 12, False),
        (ControlledConfig(method="bc", max_steps=4), "", 4, False),
        (ControlledConfig(method="bc", tokens=20), "Use at most 20 tokens in each reply", 12, False),
        (ControlledConfig(method="bc", max_steps=30, show_turns=True), "", 12, True),
    ],
)
def test_a_controlled_row_is_held_to_what_its_configuration_says(controlled, note, turns, shown):
    control = turn_control(controlled)
    assert control.note.startswith(note) and bool(control.note) == bool(note)
    assert turns_of(controlled, EvaluationConfig(max_steps=12)) == turns
    assert control.show_turns == shown
