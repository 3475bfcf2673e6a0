import re

import pytest
from babyai_help import DEMO, HARD, brief_env, task
from hypothesis import given, settings
from hypothesis import strategies as st

from depo.config.base import ConfigError
from depo.envs.babyai.env import BabyAIEnv

FIRST = (
    "Your goal: go to the red ball.\nYou see: grey key 1, 1 ahead, 1 left; "
    "grey ball 1, 1 ahead, 1 right; "
    "grey key 2, 2 ahead, 1 left; "
    "grey key 3, 2 ahead, 1 right; "
    "grey box 1, 2 ahead, 2 right; "
    "grey ball 2, 5 ahead, 1 right; "
    "grey key 4, 4 ahead, 2 right; "
    "red ball 1, 4 ahead, 3 right; "
    "wall 6 ahead. You carry nothing."
)
LEFT = "You see: grey key 1, 1 ahead, 1 right; grey key 2, 1 ahead, 2 right; wall 2 ahead. You carry nothing."


def test_the_first_observation_reads_as_documented():
    env = brief_env()
    assert env.reset(task("GoToRedBallGrey", 0)) == FIRST
    assert env.step("turn left").observation == LEFT
    env = BabyAIEnv(["GoToObjS6-v1"], show_actions=True)
    assert env.reset(task("GoToObjS6-v1", 0)).endswith(f"\nYou can: {', '.join(env.available_actions())}.")
    assert "Thought: " in env.system and "pick up" in env.system
    assert len(brief_env().system.split()) < 10


def test_an_observation_without_things_says_so():
    env = brief_env("GoToObjS6-v1")
    texts = [env.reset(task("GoToObjS6-v1", seed)) for seed in range(20)]
    assert any("You see: no objects; wall " in text for text in texts)


def test_the_order_of_two_orders_stays_in_the_goal():
    env = brief_env("GoToSeqS5R2")
    goals = [env.reset(task("GoToSeqS5R2", seed)) for seed in range(20)]
    assert any(", then " in goal for goal in goals) and any(" after you " in goal for goal in goals)


def test_success_inside_a_macro_ends_it_and_pays_minigrids_reward():
    env = brief_env("OpenRedDoor")
    env.reset(task("OpenRedDoor", 0))
    while not any("red door" in action for action in env.available_actions()):
        env.step("turn right")
    start = env.snapshot()
    opened = env.step("open closed red door 1")
    env.restore(start)
    walked = env.step("go through closed red door 1")
    assert walked == opened  # opening was the mission: the two steps through the door are not taken
    assert walked.terminated and not walked.truncated and walked.info["success"] is True
    steps, most = env.world.step_count, env.world.max_steps
    assert walked.reward == pytest.approx(1 - 0.9 * steps / most)
    after = env.step("turn left")
    assert after.terminated and after.reward == 0 and not after.info["valid"]
    assert env.available_actions() == []


def test_passing_by_the_goal_on_the_way_elsewhere_is_success():
    found = 0
    env = brief_env("GoToRedBallGrey")
    for seed in range(120):
        env.reset(task("GoToRedBallGrey", seed))
        start = env.snapshot()
        for action in [a for a in env.available_actions() if a.startswith("go to grey")]:
            env.restore(start)
            result = env.step(action)
            if result.terminated:
                found += 1
                assert result.info["success"] and result.reward > 0
    assert found


def test_a_missed_strict_mission_ends_in_failure():
    env = brief_env("PickupDistDebug")
    for seed in range(10):
        env.reset(task("PickupDistDebug", seed))
        wanted = env.goal.split("the ")[-1]
        wrong = [a for a in env.available_actions() if a.startswith("pick up") and wanted not in a]
        if wrong and "object" not in env.goal:
            break
    result = env.step(wrong[0])
    assert result.terminated and result.info["success"] is False and result.reward == 0


def test_minigrids_step_limit_truncates():
    env = brief_env("GoToObjS6-v1")
    env.reset(task("GoToObjS6-v1", 0))
    for _ in range(env.world.max_steps - 1):
        assert not env.step("turn left").truncated
    last = env.step("turn left")
    assert last.truncated and not last.terminated and last.info["success"] is False


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("dance", "there is no such action"),
        ("", "there is no such action"),
        ("go to purple dragon 1", "no purple dragon in sight"),
        ("go to red ball", "say which red ball"),
        ("drop", "you carry nothing"),
        ("toggle", "no door or box is right ahead"),
        ("open {ball}", "is no door"),
        ("go to red ball 9", "only 1 red ball in sight"),
    ],
)
def test_an_invalid_action_says_why_and_moves_nothing(action, reason):
    env = brief_env("GoToRedBallGrey")
    seed = next(s for s in range(50) if "red ball 1" in env.reset(task("GoToRedBallGrey", s)))
    env.reset(task("GoToRedBallGrey", seed))
    before = env.snapshot()
    result = env.step(action.format(ball="red ball 1"))
    assert result.observation.startswith("Not possible: ") and reason in result.observation
    assert result.info == {"valid": False, "low_level_steps": 0} and result.reward == 0
    assert env.snapshot() == before


def test_a_locked_door_wants_its_key_and_hands_hold_one_thing():
    env = brief_env("UnlockLocalDist")
    for seed in range(40):
        env.reset(task("UnlockLocalDist", seed))
        for _ in range(4):
            env.step("turn left")
            labels = [s.label for s in env.sight().objects]
            door = next((label for label in labels if label.startswith("locked")), "locked no door 1")
            key = f"{door.split()[1]} key 1"
            others = [s.label for s in env.sight().objects if s.kind != "door" and s.label != key]
            if key in labels and others:
                assert f"{door} needs a {key[:-2]}" in env.step(f"open {door}").observation
                assert f"You carry a {key[:-2]}." in env.step(f"pickup {key}").observation
                seen = [s.label for s in env.sight().objects if s.kind != "door"]
                for label in seen[:1]:
                    assert "you carry a" in env.step(f"pick up {label}").observation
                env.step("turn left")
                dropped = env.step("drop")
                if dropped.info["valid"]:
                    assert f"{key}, 1 ahead" in dropped.observation
                    assert "You carry nothing." in dropped.observation
                    return
    raise AssertionError("no seed shows a locked door, its key and another thing at a time")


def test_a_box_can_be_opened():
    env = brief_env("KeyInBox")
    opened = 0
    for seed in range(30):
        env.reset(task("KeyInBox", seed))
        for _ in range(4):
            env.step("turn left")
            boxes = [s for s in env.sight().objects if s.kind == "box"]
            if boxes and env.step(f"go to {boxes[0].label}").info["valid"]:
                result = env.step("toggle")
                opened += " key 1, 1 ahead" in result.observation
                break
    assert opened > 3


def test_an_open_door_can_be_closed():
    env = brief_env("GoToDoor")
    for seed in range(20):
        env.reset(task("GoToDoor", seed))
        doors = [s for s in env.sight().objects if s.kind == "door" and s.color not in env.goal]
        if doors and "1 ahead" in env.step(f"open {doors[0].label}").observation and not env.outcome:
            break
    label = env.sight().at(1, 0).label
    assert label.startswith("open ")
    assert f"{label} is open already" in env.step(f"open {label}").observation
    assert f"{label.replace('open', 'closed')}, 1 ahead" in env.step("toggle").observation


@settings(max_examples=150, deadline=None)
@given(
    action=st.one_of(
        st.text(max_size=40),
        st.from_regex(
            r"(go to|pick up|open|go through) (open |closed )?(red|grey) (ball|door|key) -?[0-9]{1,3}",
            fullmatch=True,
        ),
    ),
    level=st.sampled_from([*DEMO, *HARD]),
)
def test_no_action_raises(action, level):
    env = _shared
    env.reset(task(level, len(action)))
    offered = {" ".join(a.split()) for a in env.available_actions()}
    before = env.snapshot()
    result = env.step(action)
    normal = " ".join(action.lower().split()).rstrip(". ").replace("pickup", "pick up")
    if normal not in offered and not re.search(r"\b0\d", normal):
        assert result.info["valid"] is False
        assert env.snapshot() == before


_shared = brief_env()


@pytest.mark.parametrize("level", [*DEMO, *HARD])
def test_offered_actions_are_possible(level):
    env = brief_env(level)
    for seed in range(3):
        env.reset(task(level, seed))
        start = env.snapshot()
        for action in env.available_actions():
            env.restore(start)
            assert env.step(action).info["valid"], action


def test_asking_for_actions_takes_no_low_level_step():
    env = brief_env()
    env.reset(task("GoToRedBall", 1))
    result = env.step("Check available actions.")
    assert result.info == {"valid": True, "low_level_steps": 0}
    assert "You can: turn left, turn right" in result.observation and "You see: " in result.observation


def test_a_task_of_an_unknown_level_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'GoToRedBall'"):
        brief_env().reset(task("GoToRedBalll", 0))
    with pytest.raises(RuntimeError, match="call reset"):
        brief_env().step("turn left")
