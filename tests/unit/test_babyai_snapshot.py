import dataclasses
import pickle
import random

import pytest
from babyai_help import DEMO, HARD, brief_env, task, wander

LEVELS = [*DEMO, *HARD]


@pytest.mark.parametrize("level", LEVELS)
def test_a_restored_state_has_the_same_future_as_a_replay(level):
    env, other = brief_env(level), brief_env(level)
    for seed in range(3):
        rng = random.Random(f"{level}{seed}")
        env.reset(task(level, seed))
        past = [action for action, _ in wander(env, rng, 8)]
        middle = env.snapshot()
        first_future = wander(env, rng, 8)
        end = env.snapshot()
        wander(env, rng, 3)

        other.reset(task(level, seed))  # by replay
        for action in past:
            other.step(action)
        assert other.snapshot() == middle
        assert [other.step(action) for action, _ in first_future] == [r for _, r in first_future]

        env.restore(middle)  # by restore
        assert env.snapshot() == middle
        assert [env.step(action) for action, _ in first_future] == [r for _, r in first_future]
        assert env.snapshot() == end


@pytest.mark.parametrize("level", LEVELS)
def test_a_state_can_be_taken_up_by_another_instance_after_pickling(level):
    env = brief_env(level)
    rng = random.Random(level)
    env.reset(task(level, 5))
    wander(env, rng, 6)
    state = pickle.loads(pickle.dumps(env.snapshot()))
    copy = pickle.loads(pickle.dumps(env))
    elsewhere = brief_env(level)
    elsewhere.reset(task(level, 77))
    wander(elsewhere, rng, 2)
    elsewhere.restore(state)
    future = wander(env, rng, 8)
    assert [copy.step(action) for action, _ in future] == [r for _, r in future]
    assert [elsewhere.step(action) for action, _ in future] == [r for _, r in future]
    assert copy.snapshot() == elsewhere.snapshot() == env.snapshot()


def test_an_instance_that_has_not_begun_is_picklable():
    env = pickle.loads(pickle.dumps(brief_env()))
    assert env.reset(task("GoToRedBall", 0)) == brief_env().reset(task("GoToRedBall", 0))


def test_resets_from_kept_start_states_are_clean():
    env = brief_env()
    rng = random.Random(0)
    tasks = [task(level, seed) for level in DEMO for seed in range(5)]  # more than are kept
    first = [(env.reset(t), env.snapshot()) for t in tasks]
    for t, (text, state) in zip(tasks, first, strict=True):
        for _ in range(2):
            assert env.reset(t) == text
            assert env.snapshot() == state
            wander(env, rng, 4)
    assert len(env._starts) < len(tasks)


def test_a_snapshot_holds_numbers_only_and_is_frozen():
    env = brief_env("BlockedUnlockPickup")
    env.reset(task("BlockedUnlockPickup", 0))
    state = env.snapshot()
    assert len(pickle.dumps(state)) < 4000
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.steps = 3


def test_equal_action_sequences_read_alike():
    traces = []
    for _ in range(2):
        env = brief_env()
        traces.append([])
        for level in DEMO:
            traces[-1] += [env.reset(task(level, 9)), *wander(env, random.Random(level), 10)]
    assert traces[0] == traces[1]
