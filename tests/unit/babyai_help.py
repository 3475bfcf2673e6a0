"""What the BabyAI tests share."""

import random

from depo.envs.babyai.env import BabyAIEnv
from depo.records import Task

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
    """Random actions, each with what came of it; some are not possible."""
    trace = []
    for _ in range(steps):
        action = rng.choice([*env.available_actions(), "toggle", "drop", "go to red ball 1", ""])
        trace.append((action, env.step(action)))
    return trace
