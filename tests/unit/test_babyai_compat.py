"""AgentGym's rules for BabyAI, oddities kept; recorded episodes are in test_babyai_golden."""

import random

import pytest
from babyai_help import task
from hypothesis import given, settings
from hypothesis import strategies as st

from depo.config.base import ConfigError
from depo.envs.babyai.agentgym.paths import way, windows
from depo.envs.babyai.agentgym.rules import task_of
from depo.envs.babyai.board import VIEW, board
from depo.envs.babyai.env import BabyAIEnv
from depo.envs.babyai.levels import AGENTGYM_LEVELS
from depo.envs.babyai.paths import beside, facing, reachable, shortest

FIRST = (
    "Your goal: go to the red ball\nIn front of you in this room, you can see several objects: "
    "There is a grey key 1 1 steps in front of you and 1 steps to your left.  "
    "There is a grey ball 1 1 steps in front of you and 1 steps to your right.  "
    "There is a grey key 2 2 steps in front of you and 1 steps to your left.  "
    "There is a grey key 3 2 steps in front of you and 1 steps to your right.  "
    "There is a grey box 1 2 steps in front of you and 2 steps to your right.  "
    "There is a grey ball 2 5 steps in front of you and 1 steps to your right.  "
    "There is a grey key 4 4 steps in front of you and 2 steps to your right.  "
    "There is a red ball 1 4 steps in front of you and 3 steps to your right.  "
    "The room has walls around you. You are facing a wall 6 steps away. You are not carrying anything."
    '\nAvailable actions: ["turn left", "turn right", "move forward", "pickup grey key 1", '
    '"pickup grey ball 1", "pickup grey key 2", "pickup grey key 3", "pickup grey box 1", '
    '"pickup grey ball 2", "pickup grey key 4", "pickup red ball 1", "go to grey key 1", '
    '"go to grey ball 1", "go to grey key 2", "go to grey key 3", "go to grey box 1", '
    '"go to grey ball 2", "go to grey key 4", "go to red ball 1", "check available actions"]'
)


def started(level: str, seed: int, **options) -> BabyAIEnv:
    env = BabyAIEnv([level], compat="agentgym", **options)
    env.reset(task(level, seed))
    return env


def looking_for(env: BabyAIEnv, what: str) -> str:
    """The first action on offer that begins so, after as many turns to the right as it takes."""
    for _ in range(4):
        found = [action for action in env.available_actions() if action.startswith(what)]
        if found:
            return found[0]
        env.step("turn right")
    raise AssertionError(f"nothing to {what}")


def test_an_observation_is_what_agentgyms_client_shows():
    env = BabyAIEnv(["GoToRedBallGrey"], compat="agentgym")
    assert env.reset(task("GoToRedBallGrey", 0)) == FIRST
    assert env.available_actions() == FIRST.split('["')[1].removesuffix('"]').split('", "')
    moved = env.step("  Go to GREY key 1. ")  # the client drops what is no letter, digit, comma or space
    assert moved.observation.startswith("In front of you") and moved.info == {
        "valid": True, "action_is_valid": True, "low_level_steps": 2, "moves": (2, 0),
    }  # fmt: skip
    bare = started("GoToRedBallGrey", 0, show_actions=False)
    assert bare.step("please check").observation.startswith("You can take the following actions: turn left, ")
    assert "Available actions" not in bare.step("turn left").observation


def test_the_prompt_teaches_the_actions_that_are_there():
    env = BabyAIEnv(compat="agentgym")
    for form in ("pickup <object>", "toggle and go through <door>", "- drop", "- check available actions"):
        assert form in env.system
    assert "pick up" not in env.system
    assert len(BabyAIEnv(compat="agentgym", instructions="brief").system.split()) < 10


def test_other_rules_are_refused():
    with pytest.raises(
        ConfigError, match="compat: give 'agentgym' or 'agentgym-minigrid3', or leave it out, not"
    ):
        BabyAIEnv(compat="babyai")


def test_a_data_idx_names_level_and_seed():
    assert (task_of(0).level, task_of(0).seed) == ("GoToRedBallGrey", 0)
    assert (task_of(83).level, task_of(83).seed) == ("GoToObjS6", 2)
    assert [task_of(i, pinned=False).level for i in range(40, 80)] == list(AGENTGYM_LEVELS)


def test_the_goal_loses_its_order_words():
    env = BabyAIEnv(["GoToSeqS5R2"], compat="agentgym")
    goals = [env.reset(task("GoToSeqS5R2", seed)).split("\n")[0] for seed in range(20)]
    assert not any("then" in goal or "after you" in goal for goal in goals)
    assert any(", and " in goal for goal in goals)


def test_a_door_opened_on_the_way_through_is_lost():
    """Only the last low-level step's reward counts: the task is fulfilled in passing, and for nothing."""
    env = started("OpenRedDoor", 0)
    through = looking_for(env, "toggle and go through red closed door")
    here = env.snapshot()
    result = env.step(through)
    assert result.reward == 0 and not result.terminated and result.info["valid"]
    assert "toggle" not in env.available_actions()
    env.restore(here)
    env.step(looking_for(env, "go to red closed door"))
    result = env.step("toggle")
    assert result.terminated and result.info["success"] and result.reward > 0.5
    assert "\n The task is completed." in result.observation


def test_a_late_success_does_not_end_the_episode_and_its_reward_is_reported_again():
    env = started("GoToRedBallNoDists", 0)
    looking_for(env, "go to red ball")
    while env.episode.steps < 0.6 * env.episode.scenario.max_steps:
        env.step("turn left")
    late = env.step(looking_for(env, "go to red ball"))
    assert 0 < late.reward <= 0.5 and not late.terminated and env.outcome == ""
    assert "\n The task is completed." in late.observation
    for action in ("", "dance", "check", "go to red ball 1"):  # "go to" comes to nothing: it is faced
        assert env.step(action).reward == late.reward
    assert env.step("turn left").reward == 0


def test_rewards_turn_negative_after_the_last_step():
    env = started("GoToRedBallNoDists", 0)
    for _ in range(2 * env.episode.scenario.max_steps):
        assert not env.step("turn left").truncated
    assert env.step(looking_for(env, "go to red ball")).reward < 0


def test_failure_goes_on():
    env = BabyAIEnv(["PickupDistDebug"], compat="agentgym")
    for seed in range(10):
        env.reset(task("PickupDistDebug", seed))
        wanted = env.goal.split("the ")[-1]
        wrong = [a for a in env.available_actions() if a.startswith("pickup") and wanted not in a]
        if wrong and "object" not in env.goal:
            break
    result = env.step(wrong[0])
    assert "\n The task is completed." in result.observation
    assert result.reward == 0 and not result.terminated and env.available_actions()


def test_after_the_end_nothing_is_possible_and_nothing_is_paid():
    env = started("GoToRedBallNoDists", 0)
    assert env.step(looking_for(env, "go to red ball")).terminated
    before = env.snapshot()
    after = env.step("turn left")
    assert (after.terminated, after.reward, after.info["valid"]) == (True, 0, False)
    assert env.available_actions() == [] and env.attempt("turn left") == 0 and env.snapshot() == before


def test_the_first_view_of_a_carrying_level_is_from_before_the_object_was_lifted():
    shown = 0
    for seed in range(20):
        env = started("PutNextS7N4Carrying", seed, show_actions=False)
        first = env.reset(task("PutNextS7N4Carrying", seed))
        name = first.rpartition("You are carrying a ")[2].removesuffix(".")
        x, y = (int(v) for v in env.world.carrying.init_pos)
        env.step("turn left")
        back = env.step("turn right").observation
        shown += first.count(f"a {name} ") - back.count(f"a {name} ") == 1
        assert env.world.grid.get(x, y) is None
        fresh = BabyAIEnv(["PutNextS7N4Carrying"], show_actions=False)
        assert fresh.reset(task("PutNextS7N4Carrying", seed)).endswith(f"You carry a {name}.")
        assert not any((thing.x, thing.y) == (x, y) for thing in fresh.sight().objects)
    assert shown > 3


def test_a_flag_stays_as_it_was_when_an_action_comes_to_nothing():
    env = started("GoToRedBallNoDists", 0)
    env.reset(task("GoToLocalS8N7", 0))
    env.step(looking_for(env, "go to"))
    faced = next(
        a for a in env.available_actions() if a.startswith("go to") and not env.rules.plan(env.episode, a)
    )
    for first, flag in (("turn arround", False), ("check", True)):
        env.step(first)
        result = env.step(faced)
        assert result.observation.startswith("No change in state.")
        assert result.info["valid"] and result.info["action_is_valid"] is flag


@pytest.mark.parametrize(
    ("action", "text"),
    [
        ("", "No change in state."),
        ("   ", "No change in state."),
        ("dance", "The action is not recognized. Please check valid actions."),
        ("pick up red ball 1", "The action is not recognized. Please check valid actions."),
        ("drop", "You cannot drop the object, as you are not carrying anything."),
    ],
)
def test_a_refused_action_is_answered_in_agentgyms_words(action, text):
    env = started("GoToRedBallGrey", 0, show_actions=False)
    result = env.step(action)
    assert (result.observation, result.info["valid"]) == (text, False)


def test_doors_are_refused_for_the_reason_that_holds():
    env, found = BabyAIEnv(compat="agentgym", show_actions=False), set()
    for level in ("Unlock", "UnlockLocalDist", "SynthLoc", "BossLevel"):
        for seed in range(12):
            rng = random.Random(seed)
            env.reset(task(level, seed))
            for _ in range(25):
                env.step(rng.choice(env.available_actions()))
                if env.outcome:
                    break
                here = env.snapshot()
                for seen in env.sight().objects:
                    if seen.kind != "door":
                        continue
                    state, color, _ = seen.name.split()
                    for verb in ("go through", "toggle and go through", "go to"):
                        said = env.step(f"{verb} {color} {state} door {seen.number}").observation
                        env.restore(here)
                        if said.startswith("You cannot"):
                            found.add(f"{verb}: {said.partition(', as ')[2]}")
    assert found >= {
        "go through: it is closed. You should toggle it first.",
        "toggle and go through: you are not carrying a key.",
        "toggle and go through: the color of the key you are carrying does not match the color of door.",
    }


rogue = st.one_of(
    st.text(max_size=60),
    st.text(st.sampled_from("[]()<>{}\x00\x1b\n\t ,.Action:"), max_size=60),
    st.text(min_size=1, max_size=3).map(lambda piece: piece * (10_000 // len(piece))),
    st.from_regex(
        r"(go to|pick ?up|go through|toggle and go through|open) (open |closed )?(red|grey) (open )?"
        r"(ball|door|key) -?[0-9]{1,5}",
        fullmatch=True,
    ),
)


@settings(max_examples=200, deadline=None)
@given(action=rogue, level=st.sampled_from(AGENTGYM_LEVELS), compat=st.sampled_from(["agentgym", None]))
def test_any_text_is_an_action_and_changes_nothing_where_it_is_invalid(action, level, compat):
    env = _shared[compat]
    env.reset(task(level, len(action) % 5))
    before = env.snapshot()
    result = env.step(action)
    assert 0 < len(result.observation) < 5_000
    if not result.info["valid"]:
        assert env.snapshot()._replace(accepted=before.accepted) == before
        assert result.reward == 0 and not result.terminated and not result.truncated


_shared = {compat: BabyAIEnv(compat=compat) for compat in ("agentgym", None)}


def agentgyms_search(goals: set, free: set) -> list[int] | None:
    """AgentGym's search as it is recorded: the predecessor is overwritten until a state is first expanded,
    and what is queued twice is expanded twice."""
    start = ((0, 0), 0)
    queue, came, expanded = [start], {}, set()
    while queue:
        state = queue.pop(0)
        expanded.add(state)
        if state in goals:
            moves = []
            while state != start:
                state, move = came[state]
                moves.append(move)
            return moves[::-1]
        (ahead, right), heading = state
        on, aside = ((1, 0), (0, 1), (-1, 0), (0, -1))[heading]
        for move, following in (
            (2, ((ahead + on, right + aside), heading)),
            (0, ((ahead, right), (heading - 1) % 4)),
            (1, ((ahead, right), (heading + 1) % 4)),
        ):
            if following[0] in free and following not in expanded:
                queue.append(following)
                came[following] = (state, move)
    return None


@settings(max_examples=200, deadline=None)
@given(
    st.randoms(use_true_random=False), st.integers(0, 3), st.sampled_from([0.1, 0.3, 0.5, 0.7]), st.booleans()
)
def test_ways_are_those_of_agentgyms_search(rng, heading, walls, arrive):
    table = board(8, 8)
    cells = {
        (ahead, right): table.bit(ahead, right)
        for ahead in range(-1, 7)
        for right in range(-3, 5)
        if table.bit(ahead, right) & windows(table)[heading]
    }
    free = {cell for cell in cells if cell == (0, 0) or rng.random() > walls}
    mask = sum(cells[cell] for cell in free)
    reached = reachable(mask, table)
    for cell in rng.sample(VIEW[1:], 6):
        bit = cells[cell]
        if arrive:
            goals, found = {(cell, heading) for heading in range(4)} if cell in free else set(), reached & bit
            layer = (bit, bit, bit, bit)
        else:
            ways = ((1, 0), (0, 1), (-1, 0), (0, -1))
            goals = {((cell[0] - on, cell[1] - aside), at) for at, (on, aside) in enumerate(ways)}
            found, layer = beside(reached, table) & bit, facing(bit, mask, table)
        expected = agentgyms_search(goals, free)
        assert (expected is not None) == bool(found)
        if expected is not None:
            assert way(layer, mask, table) == expected
            assert len(shortest(layer, mask, table)) == len(expected)
