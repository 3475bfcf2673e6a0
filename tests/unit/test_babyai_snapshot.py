import pickle
import random

import pytest
from babyai_help import BOTH, DEMO, RULES, brief_env, task, wander

from depo.envs.babyai.env import BabyAIEnv


@pytest.mark.parametrize(("level", "compat"), BOTH)
def test_a_restored_state_has_the_same_future_as_a_replay(level, compat):
    env, other = BabyAIEnv([level], compat=compat), BabyAIEnv([level], compat=compat)
    for seed in range(2):
        rng = random.Random(f"{level}{seed}")
        env.reset(task(level, seed))
        at_start = env.snapshot()
        past = [action for action, _ in wander(env, rng, 8)]
        middle = env.snapshot()
        first_future = wander(env, rng, 12)
        end = env.snapshot()
        wander(env, rng, 3)

        other.reset(task(level, seed))  # by replay
        assert other.snapshot() == at_start
        for action in past:
            other.step(action)
        assert other.snapshot() == middle and hash(other.snapshot().core) == hash(middle.core)
        assert [other.step(action) for action, _ in first_future] == [r for _, r in first_future]

        env.restore(middle)  # by restore
        assert env.snapshot() == middle
        assert [env.step(action) for action, _ in first_future] == [r for _, r in first_future]
        assert env.snapshot() == end

        env.restore(at_start)  # the states of the past are as they were
        for action in past:
            env.step(action)
        assert env.snapshot() == middle


@pytest.mark.parametrize(("level", "compat"), BOTH)
def test_a_state_can_be_taken_up_by_another_instance_after_pickling(level, compat):
    env = BabyAIEnv([level], compat=compat)
    rng = random.Random(level)
    env.reset(task(level, 5))
    wander(env, rng, 6)
    dumped = pickle.dumps(env.snapshot())
    assert len(dumped) < 1200
    state, copy = pickle.loads(dumped), pickle.loads(pickle.dumps(env))
    elsewhere = BabyAIEnv([level], compat=compat)
    elsewhere.reset(task(level, 77))
    wander(elsewhere, rng, 2)
    elsewhere.restore(state)
    future = wander(env, rng, 10)
    assert [copy.step(action) for action, _ in future] == [r for _, r in future]
    assert [elsewhere.step(action) for action, _ in future] == [r for _, r in future]
    assert copy.snapshot() == elsewhere.snapshot() == env.snapshot()
    assert copy.sight() == env.sight()


@pytest.mark.parametrize("compat", RULES)
def test_an_instance_that_has_not_begun_is_picklable(compat):
    env = pickle.loads(pickle.dumps(BabyAIEnv(DEMO, compat=compat)))
    first = BabyAIEnv(DEMO, compat=compat).reset(task("GoToRedBall", 0))
    assert env.reset(task("GoToRedBall", 0)) == first


def test_an_instance_pickled_twice_over_keeps_its_state():
    env = brief_env()
    env.reset(task("GoToRedBall", 3))
    env.step("turn left")
    copy = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(env))))
    assert copy.snapshot() == env.snapshot()


@pytest.mark.parametrize("compat", RULES)
def test_resets_from_kept_start_states_are_clean(compat, monkeypatch):
    monkeypatch.setattr("depo.envs.babyai.env._KEPT_STARTS", 7)
    env = BabyAIEnv(DEMO, compat=compat)
    rng = random.Random(0)
    tasks = [task(level, seed) for level in DEMO for seed in range(5)]  # more than are kept
    first = [(env.reset(t), env.snapshot()) for t in tasks]
    for t, (text, state) in zip(tasks, first, strict=True):
        for _ in range(2):
            assert env.reset(t) == text
            assert env.snapshot() == state
            wander(env, rng, 4)
    assert len(env._scenarios) == 7


def test_a_kept_start_state_serves_the_task_of_another_split():
    env = brief_env()
    one = task("GoToRedBall", 0)
    env.reset(one)
    other = type(one)("babyai", "GoToRedBall", 0, "test")
    env.reset(other)
    assert env.task == other == env.snapshot().task


def test_a_snapshot_is_frozen():
    env = brief_env("BlockedUnlockPickup")
    env.reset(task("BlockedUnlockPickup", 0))
    with pytest.raises(AttributeError):
        env.snapshot().steps = 3


def test_equal_action_sequences_read_alike():
    traces = []
    for _ in range(2):
        env = brief_env()
        traces.append([])
        for level in DEMO:
            traces[-1] += [env.reset(task(level, 9)), *wander(env, random.Random(level), 10)]
    assert traces[0] == traces[1]
