import random

import gymnasium
import pytest
from babyai_help import DEMO, HARD, brief_env, task

from depo.envs.babyai.levels import make_world


@pytest.mark.parametrize("level", [*DEMO, *HARD, "BossLevel"])
def test_sight_is_minigrids_own_view(level):
    rng = random.Random(level)
    env = brief_env(level)
    for seed in range(3):
        env.reset(task(level, seed))
        for _ in range(25):
            env.low_level(rng.choice([0, 1, 2, 2, 2, 3, 4, 5]))
            if env.outcome:
                break
            world, sight = env.world, env.sight()
            grid, lit = world.gen_obs_grid()
            seen = {(s.ahead, s.right): (s.kind, s.color) for s in sight.objects}
            wanted = {}
            for column in range(7):
                for row in range(7):
                    thing, place = grid.get(column, row), (6 - row, column - 3)
                    if lit[column, row] and thing is not None and place != (0, 0) and thing.type != "wall":
                        wanted[place] = (thing.type, thing.color)
            assert seen == wanted
            for s in sight.objects:
                assert world.grid.get(s.x, s.y).color == s.color
            walls = [
                6 - row
                for row in range(6)
                if lit[3, row] and grid.get(3, row) and grid.get(3, row).type == "wall"
            ]
            assert sight.wall_ahead == (min(walls) if walls else None)
            cells = {(6 - row, column - 3) for column in range(7) for row in range(7) if lit[column, row]}
            assert len(sight.cells) == len(cells)
            assert {s for s in wanted if s in cells} == set(seen)


@pytest.mark.parametrize("level", ["GoToRedBallGrey", "GoToDoor", "MiniBossLevel"])
def test_walking_up_to_a_thing_in_sight_ends_facing_it_or_stopped_by_something_unseen(level):
    env = brief_env(level)
    arrived = tried = 0
    for seed in range(40):
        env.reset(task(level, seed))
        start = env.snapshot()
        for seen in env.sight().objects:
            env.restore(start)
            result = env.step(f"go to {seen.label}")
            if not result.info["valid"] or result.terminated:
                continue
            tried += 1
            arrived += tuple(int(v) for v in env.world.front_pos) == (seen.x, seen.y)
    assert tried > 10
    assert 0.9 * tried <= arrived


def test_things_are_numbered_by_name_nearest_first():
    env = brief_env("GoToRedBallGrey")
    for seed in range(20):
        env.reset(task("GoToRedBallGrey", seed))
        objects = env.sight().objects
        distances = [s.ahead + abs(s.right) for s in objects]
        assert distances == sorted(distances)
        for name in {s.name for s in objects}:
            numbers = [s.number for s in objects if s.name == name]
            assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("level", ["GoToObjS6-v1", "Pickup", "SynthLoc"])
def test_start_states_are_minigrids_own(level):
    env, id = brief_env(level), f"BabyAI-{level if level[-3:-1] == '-v' else level + '-v0'}"
    official = gymnasium.make(id).unwrapped
    for seed in (3, 1, 2):
        env.reset(task(level, seed))
        official.reset(seed=seed)
        assert env.goal == official.mission
        assert (env.world.grid.encode() == official.grid.encode()).all()
        assert (*env.world.agent_pos, env.world.agent_dir) == (*official.agent_pos, official.agent_dir)
        assert env.world.max_steps == official.max_steps


def test_rejected_draws_are_not_printed(capsys):
    world = make_world("GoToImpUnlock")
    for seed in range(6):
        world.reset(seed=seed)
    assert capsys.readouterr().out == ""
