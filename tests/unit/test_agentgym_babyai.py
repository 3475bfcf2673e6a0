"""The same policy meets the same BabyAI through AgentGym's server as in the built-in environment."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from depo.envs.agentgym import AgentGymEnv
from depo.envs.babyai.agentgym.rules import task_of
from depo.envs.babyai.env import BabyAIEnv
from depo.records import Task


class Peer:
    """What AgentGym's BabyAI server answers, played by its rules as they are built in."""

    url = "http://peer"

    def __init__(self) -> None:
        self.env = BabyAIEnv(compat="agentgym")

    def post(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/create":
            return {"id": 0}
        return {"observation": self.env.reset(task_of(body["data_idx"])), "reward": 0, "done": False}

    def once(self, path: str, body: dict[str, Any]) -> Any:
        assert re.fullmatch("([A-Za-z0-9,]+ ?)*", body["action"]), "what the client lets through"
        result = self.env.step(body["action"])
        return {"observation": result.observation, "reward": result.reward, "done": result.terminated}

    def release(self, path: str, body: dict[str, Any]) -> None:
        """Nothing is held."""


@pytest.mark.parametrize("number", [0, 3, 15, 21, 22, 38, 121])
def test_any_action_comes_to_the_same_through_the_server(number):
    remote, local = (
        AgentGymEnv("http://peer", {"test": [0, 400]}, server="babyai"),
        BabyAIEnv(compat="agentgym"),
    )
    remote._server = Peer()  # type: ignore[assignment]
    rng = random.Random(number)
    assert remote.reset(Task("agentgym", "babyai", number, "test")) == local.reset(task_of(number))
    said = []
    for _ in range(60):
        offered = rng.choice(local.available_actions())
        action = rng.choice(
            [offered, f" **{offered.upper()}**.", "?!", "", "fly", "check, please", "go to red ball 1"]
        )
        ours, theirs = remote.step(action), local.step(action)
        assert (ours.observation, ours.reward, ours.terminated) == (
            theirs.observation, theirs.reward, theirs.terminated,
        )  # fmt: skip
        said.append(ours.info["valid"])
        assert ours.info["valid"] == theirs.info["valid"], action
        assert ours.info.get("success") == theirs.info.get("success")
        if ours.terminated:
            break
    assert set(said) == {True, False} or ours.terminated
