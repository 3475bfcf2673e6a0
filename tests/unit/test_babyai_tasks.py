from collections import Counter

import pytest
from babyai_help import DEMO, brief_env

from depo.config.base import ConfigError
from depo.envs.babyai.levels import Worlds
from depo.envs.babyai.state import Start


def fingerprints(tasks):
    worlds = Worlds()
    return [Start(worlds[task.level], task).fingerprint() for task in tasks]


def test_no_start_state_is_in_two_splits_or_twice_in_one():
    env = brief_env("GoToObjS4", "GoToObjS6", "GoToRedBallNoDists", "OpenRedDoor")
    lists = [env.tasks(split, count) for split, count in (("train", 500), ("validation", 200), ("test", 200))]
    found = [digest for tasks in lists for digest in fingerprints(tasks)]
    assert len(set(found)) == len(found) == 900
    assert [{t.split for t in tasks} for tasks in lists] == [{"train"}, {"validation"}, {"test"}]
    assert [min(t.seed for t in tasks) // 10_000_000 for tasks in lists] == [0, 1, 2]


def test_two_levels_that_are_the_same_game_share_no_task():
    env = brief_env("SynthSeq", "BossLevel")
    tasks = [t for split in ("train", "test") for t in env.tasks(split, 20)]
    assert len(set(fingerprints(tasks))) == 40


def test_tasks_are_spread_over_levels_and_a_shorter_list_is_a_prefix():
    env = brief_env()
    many = env.tasks("validation", 60)
    assert set(Counter(t.level for t in many).values()) == {12}
    assert brief_env().tasks("validation", 25) == many[:25]
    assert env.tasks("validation", 25) == many[:25]
    assert {t.level for t in many} == set(DEMO)


def test_a_level_with_few_start_states_leaves_its_turn_to_the_others():
    tasks = brief_env("OpenRedDoor", "GoToRedBall").tasks("test", 200)
    counts = Counter(t.level for t in tasks)
    assert 15 < counts["OpenRedDoor"] < 45 and sum(counts.values()) == 200
    with pytest.raises(ConfigError, match="ask for fewer, or add levels"):
        brief_env("OpenRedDoor").tasks("train", 200)


def test_listing_tasks_leaves_the_episode_alone():
    env = brief_env()
    env.reset(env.tasks("train", 1)[0])
    env.step("turn left")
    before = env.snapshot()
    env.tasks("test", 20)
    assert env.snapshot() == before


def test_tasks_that_minigrid_can_only_fail_are_left_out():
    env = brief_env("OpenDoorsOrderN4Debug")
    for task in env.tasks("train", 20):
        env.reset(task)
        assert "then" not in env.goal and "after" not in env.goal


def test_an_unknown_split_is_refused():
    with pytest.raises(ConfigError, match="use one of train, validation, test"):
        brief_env().tasks("dev", 1)
