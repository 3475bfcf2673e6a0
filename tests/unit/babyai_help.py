"""What the BabyAI tests share."""

import random

from depo.envs.babyai.env import BabyAIEnv
from depo.envs.babyai.levels import AGENTGYM_LEVELS
from depo.records import Task

RULES = (None, "agentgym")
BOTH = [(level, compat) for level in AGENTGYM_LEVELS for compat in RULES]
"""Each of AgentGym's levels under each rule set."""

DEMO = ("GoToObjS6-v1", "OpenRedDoor", "GoToRedBallGrey", "GoToRedBall", "GoToLocalS6N3")
HARD = (
    "PutNextLocalS6N4", "PutNextS7N4Carrying", "UnlockLocalDist", "KeyInBox", "BlockedUnlockPickup",
    "GoToSeqS5R2", "PickupDistDebug", "OpenDoorsOrderN4Debug", "MiniBossLevel", "SynthLoc",
    "MoveTwoAcrossS5N2",
)  # fmt: skip


def task(level: str, seed: int) -> Task:
    return Task("babyai", level, seed, "train")


def brief_env(*levels: str) -> BabyAIEnv:
    return BabyAIEnv(levels or DEMO, show_actions=False, instructions="brief")


def wander(env: BabyAIEnv, rng: random.Random, steps: int) -> list[tuple]:
    """Random actions, each with what came of it; some are not possible, or end the episode early on."""
    trace = []
    for _ in range(steps):
        others = ["toggle", "drop", "go to red ball 1", "", "please check", "pickup red ball 1"]
        action = rng.choice([*env.available_actions(), *others])
        trace.append((action, env.step(action)))
    return trace
