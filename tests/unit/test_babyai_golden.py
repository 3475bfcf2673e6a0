"""Start states and low-level rules against recorded episodes of another BabyAI environment."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from depo.envs.babyai.env import BabyAIEnv
from depo.records import Task

GOLDEN = os.environ.get("DEPO_GOLDEN_DIR")
pytestmark = pytest.mark.skipif(
    not GOLDEN, reason="DEPO_GOLDEN_DIR is not set: the recorded cases are elsewhere"
)


def cases() -> list[dict]:
    """The first recorded episode of every level."""
    if not GOLDEN:
        return []
    first: dict[int, dict] = {}
    with gzip.open(Path(GOLDEN) / "babyai.jsonl.gz", "rt") as lines:
        for line in lines:
            case = json.loads(line)
            first.setdefault(case["level"], case)
    return [first[level] for level in sorted(first)]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["name"])
def test_start_and_low_level_moves_agree(case):
    env = BabyAIEnv([case["level"]])
    env.reset(Task("babyai", env.levels[0], case["seed"], "train"))
    assert env.goal == case["mission"]
    assert env.world.max_steps == case["max_steps"]
    assert (list(env.world.agent_pos), env.world.agent_dir) == (case["init"]["pos"], case["init"]["dir"])
    for step in case["steps"]:
        for move in (step["plan"] or "")[: step["ran"]]:  # an invalid action has no plan
            env.low_level(int(move))
        if env.outcome or step["done"]:
            break
        seen = (list(map(int, env.world.agent_pos)), int(env.world.agent_dir), env.world.step_count)
        assert seen == (step["pos"], step["dir"], step["n"])
        carried = env.world.carrying
        assert (f"{carried.color} {carried.type}" if carried else None) == step["carry"]
