import random
import re

import pytest
from babyai_help import DEMO, brief_env, task, wander

from depo.config.schema import TeacherConfig
from depo.policies.base import Exchange, Reply, Request, Sampling, format_reply, parse_reply
from depo.policies.teacher import TeacherPolicy
from depo.policies.teacher_thoughts import CORE_WORDS, count_words

PERFECT = TeacherConfig(wordiness=0, waste=0, mistakes=0)


def ask(policy, env, observation, history=(), n=1, seed=0):
    return policy.sample([Request(env.system, tuple(history), observation, n, Sampling(), seed, env)])[0]


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


def test_a_level_its_bot_cannot_play_is_a_bad_episode_and_no_error():
    env, policy = brief_env("KeyInBox"), TeacherPolicy(PERFECT)
    for t in env.tasks("train", 3):
        assert play(policy, env, t, 5)[0]


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
    with pytest.raises(ValueError, match="BabyAI only"):
        TeacherPolicy(PERFECT).sample([request])
