"""What search and evaluation take from an environment: finite numbers, flags, text that can be written."""

from __future__ import annotations

import numpy as np
import pytest
from toys import Task

from depo.envs.base import BrokenContract, StepResult, received, received_text
from depo.policies.base import Immediate, Reply, Sampling, format_reply
from depo.search.driver import drive
from depo.search.run import episode

NAN, INF = float("nan"), float("inf")
BAD_REWARDS = [NAN, INF, -INF, np.float32("nan"), None, "1.0", True, 10**400, [0.5], 1j, np.bool_(True)]


def step(**changed):
    fields = {"observation": "x", "reward": 0.0, "terminated": False, "truncated": False, "info": {}}
    return StepResult(**{**fields, **changed})


@pytest.mark.parametrize("reward", BAD_REWARDS)
def test_a_reward_that_is_no_finite_number_is_refused(reward):
    with pytest.raises(BrokenContract, match="as a reward; it must be a finite number"):
        received(step(reward=reward))


@pytest.mark.parametrize("reward", [1, 0.5, -3, np.float32(0.5), np.int64(2)])
def test_a_number_of_any_kind_becomes_a_float(reward):
    assert (
        type(received(step(reward=reward)).reward) is float and received(step(reward=reward)).reward == reward
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"observation": None}, "None as an observation; it must be text"),
        ({"observation": b"x"}, "b'x' as an observation"),
        ({"terminated": NAN}, "nan as 'terminated'; it must be true or false"),
        ({"terminated": np.array([True, False])}, "as 'terminated'; it must be true or false"),
        ({"truncated": "no"}, "'no' as 'truncated'"),
        ({"info": {"success": NAN}}, "nan as 'success'"),
        ({"info": {"valid": "yes"}}, "'yes' as 'valid'"),
        ({"info": None}, "None as an info; it must be a dictionary"),
    ],
)
def test_what_else_cannot_be_used_is_named(changed, message):
    with pytest.raises(BrokenContract, match=message):
        received(step(**changed))


def test_no_step_result_is_no_result():
    with pytest.raises(BrokenContract, match="as a result; it must be a StepResult"):
        received(("x", 1.0, True, False, {}))


def test_halves_of_a_character_are_joined_or_replaced():
    assert received_text("a \ud83d\ude00 b") == "a \U0001f600 b"
    assert received_text("a \ude00\ud83d b") == "a \ufffd\ufffd b"
    for text in ("", "plain", "caf\u00e9 \u2028 \x00", "\ufeffx", "\U0001f600"):
        assert received_text(text) == text
    assert received(step(observation="\ud800")).observation == "\ufffd"


class Pays:
    """Pays what it is told, one reward a step."""

    id = system = "pays \ud800"

    def __init__(self, *rewards):
        self.rewards = rewards

    def reset(self, task):
        self.paid = 0
        return "start \udfff"

    def step(self, action):
        self.paid += 1
        return step(reward=self.rewards[self.paid - 1], terminated=self.paid == len(self.rewards))


class Goes(Immediate):
    name, tokenizer_fingerprint = "goes", ""

    def reply(self, request):
        return [Reply(format_reply("so", "go"), "so", "go", False, 5)] * request.n


def played(env):
    going = episode(Task("pays", "one", 0, "test"), env, Sampling(), 9, 0, "goes", "")
    (finished,) = drive([("t", going)], Goes(), in_flight=1)
    return finished.trajectories[0]


@pytest.mark.parametrize("reward", [NAN, INF, "1", None])
def test_a_bad_reward_ends_its_episode_and_leaves_the_return_a_number(reward):
    trajectory = played(Pays(0.25, reward))
    assert (trajectory.stop_reason, trajectory.reward, trajectory.success) == ("error", 0.25, False)
    assert trajectory.error.startswith("BrokenContract: the environment gave")


def test_a_sum_that_runs_over_ends_its_episode():
    trajectory = played(Pays(1e308, 1e308))
    assert (trajectory.stop_reason, trajectory.reward) == ("error", 1e308)
    assert "sum of the environment's rewards is no finite number" in trajectory.error


def test_all_text_of_an_episode_can_be_written():
    trajectory = played(Pays(0.5, 0.5))
    assert (trajectory.reward, trajectory.stop_reason) == (1.0, "terminated")
    assert trajectory.system == "pays \ufffd" and trajectory.steps[0].observation == "start \ufffd"
