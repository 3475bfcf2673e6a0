"""The compiled world against minigrid's own, low-level step by low-level step."""

import pickle
import random

import gymnasium
import pytest
from babyai_help import task

from depo.envs.babyai.env import BabyAIEnv
from depo.envs.babyai.levels import AGENTGYM_LEVELS
from depo.envs.babyai.mission import CONTINUE, FAILURE, SUCCESS

MOVES = [0, 1, 2, 2, 2, 2, 3, 3, 4, 5, 5, 6]
MORE_LEVELS = ("PutNextS5N2Carrying", "PickupDist", "BossLevelNoUnlock", "OpenDoorsOrderN2Debug", "GoToLocal")


def official(level):
    suffix = "" if level[-3:-1] == "-v" else "-v0"
    return gymnasium.make(f"BabyAI-{level}{suffix}").unwrapped


def reached(world):
    """What can be told of a state of minigrid's."""
    carried = world.carrying and world.carrying.encode()
    place = (*map(int, world.agent_pos), int(world.agent_dir))
    return place, carried, world.step_count, world.grid.encode().tobytes()


def remembered(instr):
    """What minigrid's instructions know: where things are, what was carried, what is done."""
    if hasattr(instr, "instr_a"):
        done = [getattr(instr, name) == "success" for name in ("a_done", "b_done")]
        return [*done, remembered(instr.instr_a), remembered(instr.instr_b)]
    descriptions = [getattr(instr, name, None) for name in ("desc", "desc_move", "desc_fixed")]
    places = [[tuple(map(int, place)) for place in desc.obj_poss] for desc in descriptions if desc]
    held = getattr(instr, "preCarrying", None)
    return [*places, held and held.encode()]


@pytest.mark.parametrize("level", [*AGENTGYM_LEVELS, *MORE_LEVELS])
def test_low_level_steps_are_minigrids_own(level):
    rng = random.Random(level)
    env, shown, theirs = BabyAIEnv([level]), BabyAIEnv([level]), official(level)
    for seed in range(3):
        env.reset(task(level, seed))
        theirs.reset(seed=seed)
        episode = env.episode
        for i in range(250):  # on beyond the end, as AgentGym does
            status = episode.step(move := rng.choice(MOVES))
            _, reward, terminated, _, _ = theirs.step(move)
            assert status == (CONTINUE if not terminated else SUCCESS if reward else FAILURE)
            assert not reward or episode.payoff() == pytest.approx(reward)
            if i % 10 == 0:
                shown.restore(pickle.loads(pickle.dumps(env.snapshot())))
                assert reached(shown.world) == reached(theirs)
                assert remembered(shown.world.instrs) == remembered(theirs.instrs)


def test_walks_like_these_succeed_and_fail():
    """So that the comparison above is of something."""
    found = {SUCCESS: 0, FAILURE: 0}
    for level in ("PickupDistDebug", "PutNextLocalS6N4", "GoToSeqS5R2", "MiniBossLevel"):
        env, rng = BabyAIEnv([level]), random.Random(level)
        for seed in range(10):
            env.reset(task(level, seed))
            for _ in range(250):
                status = env.episode.step(rng.choice(MOVES))
                if status != CONTINUE:
                    found[status] += 1
    assert all(found.values())


def test_the_live_level_follows_low_level_steps():
    env, rng = BabyAIEnv(["BlockedUnlockPickup"]), random.Random(0)
    env.reset(task("BlockedUnlockPickup", 0))
    theirs = official("BlockedUnlockPickup")
    theirs.reset(seed=0)
    world = env.world
    for _ in range(200):
        move = rng.choice(MOVES)
        env.low_level(move)
        theirs.step(move)
        assert reached(world) == reached(theirs)
