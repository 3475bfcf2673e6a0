import random
import re

import pytest
from babyai_help import DEMO, brief_env, task, wander

from depo.config.base import ConfigError
from depo.config.schema import TeacherConfig
from depo.envs.babyai.env import BabyAIEnv
from depo.envs.babyai.levels import AGENTGYM_LEVELS
from depo.policies.base import Exchange, Reply, Request, Sampling, answer_all, format_reply, parse_reply
from depo.policies.teacher import TeacherPolicy
from depo.policies.teacher_bot import demonstrate
from depo.policies.teacher_thoughts import CORE_WORDS, Reading, count_words, read, split_action, traits

PERFECT = TeacherConfig(wordiness=0, waste=0, mistakes=0)


def ask(policy, env, observation, history=(), n=1, seed=0):
    asked = Request(env.system, tuple(history), observation, n, Sampling(), seed, env)
    return answer_all(policy, [asked])[0]


def play(policy, env, task, turns, seed=0):
    """(steps taken, success, reward); each step is (observation, reply, result)."""
    observation, history, steps = env.reset(task), [], []
    for _ in range(turns):
        reply = ask(policy, env, observation, history, seed=seed)[0]
        result = env.step(reply.action)
        steps.append((observation, reply, result))
        history.append(Exchange(observation, reply))
        observation = result.observation
        if result.terminated or result.truncated:
            break
    return steps, result.info.get("success", False), result.reward


@pytest.mark.parametrize("level", DEMO)
def test_without_slips_it_solves_the_small_levels(level):
    env, policy = brief_env(level), TeacherPolicy(PERFECT)
    outcomes = [play(policy, env, t, 12) for t in env.tasks("validation", 25)]
    assert sum(success for _, success, _ in outcomes) >= 24
    assert sum(len(steps) for steps, _, _ in outcomes) <= 3 * 25
    assert all(result.info["valid"] for steps, _, _ in outcomes for _, _, result in steps)


@pytest.mark.parametrize(
    "level", ["Open", "Pickup", "PutNextLocalS6N4", "PutNextS7N4Carrying", "UnlockLocalDist", "GoToSeqS5R2"]
)
def test_without_slips_it_solves_larger_levels(level):
    env, policy = brief_env(level), TeacherPolicy(PERFECT)
    assert sum(play(policy, env, t, 40)[1] for t in env.tasks("validation", 5)) >= 4


def test_it_solves_nearly_all_tasks_of_agentgyms_levels():
    policy, unsolved = TeacherPolicy(PERFECT), []
    for level in AGENTGYM_LEVELS:
        env = brief_env(level)
        unsolved += [t.id for t in env.tasks("test", 3) if not play(policy, env, t, 120)[1]]
    assert len(unsolved) <= 0.05 * 3 * len(AGENTGYM_LEVELS), unsolved


def test_it_opens_a_box_for_the_key_in_it():
    env, policy = brief_env("KeyInBox"), TeacherPolicy(PERFECT)
    for t in env.tasks("validation", 10):
        steps, success, _ = play(policy, env, t, 16)
        assert success and "toggle" in [reply.action for _, reply, _ in steps]


def test_it_opens_a_box_in_its_way_where_it_must_not_pick_it_up():
    env, policy = brief_env("PickupDistDebug"), TeacherPolicy(PERFECT)
    steps, success, _ = play(policy, env, task("PickupDistDebug", 20000232), 12)
    assert success and [reply.action for _, reply, _ in steps].count("toggle") == 1


@pytest.mark.parametrize(
    ("level", "seed"), [("GoToImpUnlock", 20000525), ("Unlock", 20000749), ("PickupDistDebug", 20000252)]
)
def test_planning_ends_where_there_is_no_way(level, seed):
    env, policy = brief_env(level), TeacherPolicy(PERFECT)
    observation, t = env.reset(task(level, seed)), task(level, seed)
    states = len(demonstrate(env, 0)), env.world.step_count
    assert states[0] == 0 and states[1] <= env.world.max_steps
    steps, success, _ = play(policy, env, t, 3)
    assert steps[0][0] == observation and not success
    assert all(result.info["valid"] for _, _, result in steps)


@pytest.mark.parametrize("kind", ["waste", "mistakes"])
def test_at_rate_one_each_step_is_a_slip_of_that_kind(kind):
    env = brief_env("GoToLocalS8N7", "PutNextLocalS6N4")
    slip = TeacherPolicy(TeacherConfig(**{"wordiness": 0, "waste": 0, "mistakes": 0, kind: 1}))
    replies = []
    for t in env.tasks("train", 20):
        observation = env.reset(t)
        best = ask(TeacherPolicy(PERFECT), env, observation)[0].action
        replies += [(reply, best) for reply in ask(slip, env, observation, n=4, seed=t.seed)]
    assert all(reply.action != best for reply, best in replies)
    assert len({reply.action for reply, _ in replies}) > 10


def test_at_rate_zero_there_is_no_filler_and_at_rate_one_always():
    env = brief_env()
    for wordiness, count in ((0, {1}), (1, {2, 3, 4})):
        policy = TeacherPolicy(TeacherConfig(wordiness=wordiness, waste=0, mistakes=0))
        for t in env.tasks("train", 20):
            for _, reply, _ in play(policy, env, t, 10)[0]:
                assert len(re.split(r"(?<=[.?]) ", reply.thought)) in count


def test_slips_cost_reward_and_it_recovers_from_them():
    env = brief_env()
    policy = TeacherPolicy(TeacherConfig(wordiness=0, waste=0.3, mistakes=0.3))
    outcomes = [play(policy, env, t, 15) for t in env.tasks("train", 60)]
    assert sum(success for _, success, _ in outcomes) >= 54
    rewards = [reward for _, success, reward in outcomes if success]
    assert 0.1 < sum(r >= 0.9 for r in rewards) / len(rewards) < 0.9
    invalid = [steps for steps, _, _ in outcomes if any(not r.info["valid"] for _, _, r in steps)]
    assert invalid


def test_after_an_invalid_action_it_says_so_and_acts_well():
    env, policy = brief_env("GoToObjS6-v1"), TeacherPolicy(PERFECT)
    t = next(t for t in (task("GoToObjS6-v1", s) for s in range(99)) if "no objects" in env.reset(t))
    first = env.reset(t)
    wrong = Reply(
        format_reply("It is near.", "go to red dragon 1"), "It is near.", "go to red dragon 1", False, 9
    )
    observation = env.step(wrong.action).observation
    reply = ask(policy, env, observation, [Exchange(first, wrong)])[0]
    assert reply.thought.startswith("That failed; look ")
    assert env.step(reply.action).info["valid"]


def test_with_the_wrong_thing_in_hand_it_says_so_and_lets_go():
    env, policy = brief_env("PickupDist"), TeacherPolicy(PERFECT)
    for t in env.tasks("train", 30):
        first = env.reset(t)
        wanted = re.split(r" the | a ", env.goal)[-1].split()
        wrong = [a for a in env.available_actions() if a.startswith("pick up") and wanted[-1] not in a]
        if wrong and wanted[-1] != "object":
            break
    slip = Reply(format_reply("This one.", wrong[0]), "This one.", wrong[0], False, 9)
    observation, history, thoughts = env.step(slip.action).observation, [Exchange(first, slip)], []
    for _ in range(8):
        reply = ask(policy, env, observation, history)[0]
        thoughts.append(reply.thought)
        history.append(Exchange(observation, reply))
        result = env.step(reply.action)
        observation = result.observation
        if result.terminated:
            break
    assert thoughts[0].startswith(f"Not the {wrong[0][8:-2]}; ")
    assert any(turn.reply.action == "drop" for turn in history)
    assert result.info["success"]


def test_the_environment_is_left_as_it_was():
    env, policy = brief_env(), TeacherPolicy(TeacherConfig(waste=0.4, mistakes=0.4))
    rng = random.Random(0)
    for level in DEMO:
        observation, history = env.reset(task(level, 3)), []
        for _ in range(5):
            before, actions = env.snapshot(), env.available_actions()
            reply = ask(policy, env, observation, history, n=4, seed=rng.randrange(99))[1]
            assert env.snapshot() == before and env.available_actions() == actions
            history.append(Exchange(observation, reply))
            observation = env.step(reply.action).observation


def test_replies_depend_on_task_history_and_seed_alone():
    config = TeacherConfig(waste=0.3, mistakes=0.2)
    env = brief_env()
    used, steps = TeacherPolicy(config), []
    for t in env.tasks("train", 10):
        steps += [(t, play(used, env, t, 8, seed=5)[0])]
    for t, path in steps:
        history = []
        env.reset(t)
        for observation, reply, _ in path:
            fresh = TeacherPolicy(config)  # knows no plan: makes the past ones again
            assert ask(fresh, env, observation, history, seed=5) == [reply]
            history.append(Exchange(observation, reply))
            env.step(reply.action)


def test_candidates_differ_and_keep_the_rates():
    env, policy = (
        brief_env("GoToRedBall"),
        TeacherPolicy(TeacherConfig(wordiness=0.5, waste=0.25, mistakes=0.1)),
    )
    replies, good = [], 0
    for seed in range(100):
        t = task("GoToRedBall", seed)
        observation = env.reset(t)
        best = ask(TeacherPolicy(PERFECT), env, observation)[0].action
        four = ask(policy, env, observation, n=4, seed=seed)
        assert len({r.text for r in four}) == 4
        replies += four
        good += sum(r.action == best for r in four)
    assert 0.58 < good / 400 < 0.72
    wordy = sum(len(re.findall(r"[.?](?: |$)", r.thought)) > 1 for r in replies) / 400
    assert 0.45 < wordy < 0.75  # above its rate: equal replies are worded anew


def test_the_shortest_sentence_of_a_thought_is_its_core():
    env = brief_env(*DEMO, "PutNextLocalS6N4", "UnlockLocalDist")
    bare, wordy = (TeacherPolicy(TeacherConfig(wordiness=w, waste=0.3, mistakes=0.2)) for w in (0, 1))
    cores, thoughts = set(), []
    for i, t in enumerate(env.tasks("train", 84)):
        cores |= {reply.thought for _, reply, _ in play(bare, env, t, 10, seed=i)[0]}
        thoughts += [reply.thought for _, reply, _ in play(wordy, env, t, 10, seed=i)[0]]
    assert max(len(re.findall(r"\w+", core)) for core in cores) <= CORE_WORDS
    assert all(len(re.findall(r"[.?]", core)) == 1 for core in cores)
    shapes = {
        re.sub(r"\d", "#", min(re.split(r"(?<=[.?]) ", text), key=lambda s: len(s.split())))
        for text in thoughts
    }
    closed = {re.sub(r"\d", "#", core) for core in cores}
    assert len(shapes - closed) < 0.2 * len(shapes)  # the sets agree but for rare draws
    assert all(len(re.findall(r"\w+", shape)) <= CORE_WORDS for shape in shapes)
    assert all(2 <= len(re.split(r"(?<=[.?]) ", text)) <= 4 for text in thoughts)


def test_what_a_good_thought_claims_is_in_sight():
    env, policy = brief_env(), TeacherPolicy(PERFECT)
    claims = 0
    for t in env.tasks("train", 50):
        for observation, reply, _ in play(policy, env, t, 12)[0]:
            claim = re.match(r"The ([a-z ]+) is (\d .*?)[.;]", reply.thought)
            if claim:
                claims += 1
                assert re.search(rf"{claim[1]} \d, {claim[2]}[;.]", observation)
            else:
                missing = re.match(r"No ([a-z ]+) in sight", reply.thought)
                assert missing and missing[1] not in observation.partition("You see")[2]
    assert claims > 40


def test_replies_are_well_formed_and_counted_in_words():
    env, policy = brief_env(), TeacherPolicy(TeacherConfig())
    for t in env.tasks("train", 10):
        for reply in ask(policy, env, env.reset(t), n=3):
            assert parse_reply(reply.text) == (reply.thought, reply.action, False)
            assert reply.num_tokens == count_words(reply.text) and not reply.token_ids
    assert count_words("Thought: Look left.\nAction: turn left") == 9


def test_past_turns_of_another_policy_are_taken_as_they_are():
    env, policy = brief_env(), TeacherPolicy(PERFECT)
    t = task("GoToRedBallGrey", 4)
    observation, history = env.reset(t), []
    for action, result in wander(env, random.Random(1), 4):
        malformed = not action
        history.append(Exchange(observation, Reply(action, "", action, malformed, 1)))
        observation = result.observation
    assert env.step(ask(policy, env, observation, history)[0].action).info["valid"]


def test_it_needs_the_live_environment():
    request = Request("", (), "You see: nothing.", 1, Sampling(), 0)
    with pytest.raises(ValueError, match="needs the live environment"):
        answer_all(TeacherPolicy(PERFECT), [request])


class Unscripted:
    """An environment that nobody wrote a script for."""

    id = "chess"


def test_an_environment_without_a_script_is_refused():
    request = Request("", (), "", 1, Sampling(), 0, Unscripted())
    with pytest.raises(
        ConfigError, match=r"no script for environment 'chess' \(it plays babyai, webshop\); give"
    ):
        answer_all(TeacherPolicy(PERFECT), [request])


def test_agentgyms_words_are_read_too():
    observation = (
        "In front of you in this room, you can see several objects: "
        "There is a red box 1 0 steps in front of you and 1 steps to your left.  "
        "There is a grey closed door 2 right in front of you 6 steps away.  "
        "The room has walls around you. You are carrying a blue key."
    )
    assert read(observation) == Reading(
        {"red box 1": "1 left", "grey closed door 2": "6 ahead"}, "blue key", ""
    )
    assert read("There is no red box here.").refused == "There is no red box here"
    assert split_action("pickup red box 1") == ("pick up", "red box", "1")
    assert split_action("toggle and go through grey closed door 2") == ("go through", "grey closed door", "2")
    assert traits("grey closed door") == traits("closed grey door") == ("closed", "grey", "door")
    assert traits("red box") == ("", "red", "box")


@pytest.mark.parametrize(
    "level", ["GoToLocalS8N7", "Open", "PutNextLocalS6N4", "UnlockLocalDist", "SynthLoc"]
)
def test_it_plays_by_agentgyms_rules_too(level):
    env = BabyAIEnv([level], compat="agentgym")
    perfect, lapsing = TeacherPolicy(PERFECT), TeacherPolicy(TeacherConfig(waste=0.3, mistakes=0.2))
    for t in env.tasks("test", 3):
        steps, success, _ = play(perfect, env, t, 60)
        assert success and all(result.info["valid"] for _, _, result in steps)
        assert any(re.match(r"The [a-z ]+ is \d", reply.thought) for _, reply, _ in steps)
        assert len(play(lapsing, env, t, 20)[0]) >= 1
