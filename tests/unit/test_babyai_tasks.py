import json
import random
from collections import Counter

import pytest
from babyai_help import DEMO, brief_env

from depo.config.base import ConfigError
from depo.envs.babyai.levels import AGENTGYM_LEVELS, Worlds, make_world
from depo.envs.babyai.publish import TASKS, draft, publish
from depo.envs.babyai.solvable import OUT_OF_REACH, SHUT_IN, STRICT_ORDER, unsolvable
from depo.envs.babyai.tasks import FIRST_SEED, SPLITS, TaskList, digest, fingerprint, published, split_of

LEFT_OUT = json.loads((SPLITS / "unsolvable.json").read_text())["levels"]


def fingerprints(tasks):
    worlds, found = Worlds(), []
    for task in tasks:
        worlds[task.level].reset(seed=task.seed)
        found.append(fingerprint(worlds[task.level]))
    return found


def test_no_start_state_is_in_two_splits_or_twice_in_one():
    env = brief_env("GoToObjS4", "GoToObjS6", "GoToRedBallNoDists", "OpenRedDoor")
    lists = [env.tasks(split, count) for split, count in (("train", 500), ("validation", 200), ("test", 200))]
    found = [digest for tasks in lists for digest in fingerprints(tasks)]
    assert len(set(found)) == len(found) == 900
    assert [{t.split for t in tasks} for tasks in lists] == [{"train"}, {"validation"}, {"test"}]
    assert [min(t.seed for t in tasks) // 10_000_000 for tasks in lists] == [0, 1, 2]


def test_levels_that_are_the_same_game_share_no_task():
    env = brief_env("SynthSeq", "BossLevel", "BossLevelNoUnlock")
    tasks = [t for split in FIRST_SEED for t in env.tasks(split, 120)]
    assert len(set(fingerprints(tasks))) == 360


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


@pytest.mark.parametrize("split", FIRST_SEED)
def test_each_of_the_forty_levels_has_its_published_tasks(split):
    lists, rng = published(split).levels, random.Random(0)
    worlds = {level: make_world(level, pinned=level not in AGENTGYM_LEVELS) for level in lists}
    assert tuple(lists) == (*AGENTGYM_LEVELS, "GoToObjS6")
    few = {name for name, listed in lists.items() if len(listed.seeds) < TASKS[split]}
    assert few <= {"OpenRedDoor", "OpenRedBlueDoorsDebug", "GoToObjS6"} and all(
        lists[name].complete for name in few
    )
    for name, listed in lists.items():
        assert list(listed.seeds) == sorted(set(listed.seeds))
        seeds = [listed.seeds[0], *rng.sample(listed.seeds, 2)]
        for seed in seeds:
            worlds[name].reset(seed=seed)
            found = fingerprint(worlds[name])
            assert split_of(found) == split and not unsolvable(worlds[name])
            assert seed != seeds[0] or digest([found]) == listed.first


def test_published_lists_are_what_publishing_again_gives():
    for name, count in (("GoToRedBallGrey", 40), ("OpenRedDoor", 99)):
        again = draft(name, "test", count, set())
        assert tuple(again.seeds) == published("test").levels[name].seeds[:count]
        assert again.complete == (name == "OpenRedDoor")
    assert again.listed() == published("test").levels["OpenRedDoor"]


def test_unsolvable_tasks_are_left_out_and_listed():
    reasons = {level: set(by_reason) for level, by_reason in LEFT_OUT.items()}
    assert reasons == {
        "GoToImpUnlock": {OUT_OF_REACH}, "Unlock": {OUT_OF_REACH}, "PickupDistDebug": {SHUT_IN},
        "OpenDoorsOrderN4Debug": {STRICT_ORDER},
    }  # fmt: skip
    for level, by_reason in LEFT_OUT.items():
        world, rng = make_world(level), random.Random(0)
        for reason, by_split in by_reason.items():
            for split, seeds in by_split.items():
                assert not set(seeds) & set(published(split).levels[level].seeds)
                for seed in rng.sample(seeds, min(3, len(seeds))):
                    world.reset(seed=seed)
                    assert unsolvable(world) == reason
                    if reason == OUT_OF_REACH:  # its key is in the room that it locks
                        world.grid.grid = [_unlocked(thing) for thing in world.grid.grid]
                        assert not unsolvable(world)


def _unlocked(thing):
    if thing is not None and thing.type == "door":
        thing.is_locked = False
    return thing


def test_where_the_published_list_ends_the_seeds_go_on(tmp_path):
    publish(["GoToRedBallNoDists"], {"train": 3, "validation": 0, "test": 2}, tmp_path / "few")
    publish([], dict.fromkeys(FIRST_SEED, 0), tmp_path / "none")
    for levels in (["GoToRedBallNoDists"], ["GoToRedBallNoDists", "GoToObjS4"]):
        few, none, ours = (
            TaskList("babyai", levels, "train", folder=folder).first(60)
            for folder in (tmp_path / "few", tmp_path / "none", SPLITS)
        )
        assert few == none == ours


def test_another_minigrid_that_makes_other_tasks_is_refused(tmp_path):
    publish(["GoToRedBallNoDists"], {"train": 3, "validation": 3, "test": 3}, tmp_path)
    for split, change in (
        ("train", {"first": "0"}),  # noticed with any release
        ("validation", {"minigrid": "2.3.1"}),
        ("test", {"minigrid": "2.3.1", "all": "0"}),
    ):
        read = json.loads((tmp_path / f"{split}.json").read_text())
        read.update(change)
        read["levels"]["GoToRedBallNoDists"].update(change)
        (tmp_path / f"{split}.json").write_text(json.dumps(read))
    assert len(TaskList("babyai", ["GoToRedBallNoDists"], "validation", folder=tmp_path).first(3)) == 3
    for split in ("train", "test"):
        with pytest.raises(ConfigError, match="makes other tasks of level 'GoToRedBallNoDists' than"):
            TaskList("babyai", ["GoToRedBallNoDists"], split, folder=tmp_path).first(1)


def test_a_room_too_full_for_the_agent_is_drawn_anew():
    world = make_world("SynthS5R2")
    world.reset(seed=1741)  # minigrid alone draws places for the agent without end
    assert world.grid.get(*world.agent_pos) is None


def test_a_start_state_does_not_depend_on_how_many_came_before():
    world, found = make_world("GoToDoor"), set()  # a level without a thing that is placed but the agent
    for _ in range(1_010):
        world.reset(seed=7)
        found.add(fingerprint(world))
    assert len(found) == 1


def test_an_unknown_split_is_refused():
    with pytest.raises(ConfigError, match="use one of train, validation, test"):
        brief_env().tasks("dev", 1)
