"""The teacher's script for WebShop."""

import re

import pytest
from webshop_play import VARIANTS, shop_env

from depo.config.schema import TeacherConfig
from depo.envs.webshop.session import ITEM, RESULTS, SUB_PAGES
from depo.envs.webshop.wording import essence
from depo.policies.base import Exchange, Request, Sampling, answer_all
from depo.policies.teacher import TeacherPolicy
from depo.policies.teacher_thoughts import CORE_WORDS
from depo.policies.teacher_webshop import WebShopScript

PERFECT = TeacherConfig(wordiness=0, waste=0, mistakes=0)
SLOPPY = TeacherConfig(wordiness=0.5, waste=0.3, mistakes=0.2)
each_variant = pytest.mark.parametrize("options", VARIANTS, ids=str)


def request(env, observation, history=(), n=1, seed=0):
    return Request(env.system, tuple(history), observation, n, Sampling(), seed, env)


def play(policy, env, task, turns=40, seed=0):
    """(turns taken, last result); a turn is the script's turn, the reply and its result."""
    observation, history, steps = env.reset(task), [], []
    for _ in range(turns):
        asked = request(env, observation, history, seed=seed)
        taken = tuple(past.reply.action for past in history)
        turn = WebShopScript().turn(env, asked, taken)
        reply = answer_all(policy, [asked])[0][0]
        result = env.step(reply.action)
        steps.append((turn, reply, result))
        history.append(Exchange(observation, reply))
        observation = result.observation
        if result.terminated or result.truncated:
            break
    return steps, result


@each_variant
def test_without_slips_it_buys_what_is_asked_for_in_few_steps(options):
    env, policy = shop_env(**options), TeacherPolicy(PERFECT)
    runs = [play(policy, env, task) for split in ("train", "test") for task in env.tasks(split, 25)]
    assert sum(result.reward == 1.0 for _, result in runs) >= 0.95 * len(runs)
    assert sum(len(steps) for steps, _ in runs) <= 6.5 * len(runs)
    assert all(result.info["valid"] for steps, _ in runs for _, _, result in steps)


def test_it_searches_with_the_instructions_words_before_it_uses_the_title():
    env, policy = shop_env(), TeacherPolicy(PERFECT)
    for task in env.tasks("train", 25):
        steps, _ = play(policy, env, task)
        searches = [reply.action for _, reply, _ in steps if reply.action.startswith("search")]
        assert searches[0] == f"search[{' '.join(essence(env.goal_of(task)))}]"
        assert len(searches) <= 2


@each_variant
def test_slips_are_valid_wrong_or_idle_and_it_recovers(options):
    env, policy = shop_env(**options), TeacherPolicy(SLOPPY)
    kinds, bought = set(), 0
    for task in env.tasks("train", 25):
        steps, result = play(policy, env, task)
        bought += result.reward == 1.0
        for turn, _, result in steps:
            assert result.info["valid"] and turn.available
            slips = turn.waste() + turn.mistakes()
            assert turn.good and turn.good not in [action for action, _ in slips]
            kinds |= {thought for _, thought in slips}
    assert bought >= 10
    assert {
        "Let me look around first.", "Let me see more products first.", "Let me read the description first.",
        "Let me compare it with the others.", "This product must be the one.",
        "The options do not matter; buy it.", "It is close enough; buy it.",
    } <= kinds  # fmt: skip


@pytest.mark.parametrize("kind", ["waste", "mistakes"])
def test_at_rate_one_each_step_is_a_slip_of_that_kind(kind):
    env = shop_env()
    policy = TeacherPolicy(TeacherConfig(**{"wordiness": 0, "waste": 0, "mistakes": 0, kind: 1}))
    for task in env.tasks("train", 10):
        for turn, reply, _ in play(policy, env, task, turns=6)[0]:
            slips = getattr(turn, kind if kind == "mistakes" else "waste")()
            assert not slips or (reply.action, reply.thought) in slips


def test_a_core_is_one_short_sentence_and_filler_is_longer():
    env, policy = shop_env(), TeacherPolicy(TeacherConfig(wordiness=1, waste=0.2, mistakes=0.1))
    for task in env.tasks("train", 25):
        for turn, reply, _ in play(policy, env, task)[0]:
            core = turn.core(turn.good)
            assert len(re.split(r"(?<=[.!?])\s+", core)) == 1 and len(core.split()) <= CORE_WORDS
            sentences = re.split(r"(?<=[.!?])\s+", reply.thought)
            assert len(sentences) in (2, 3, 4)
            assert sorted(len(sentence.split()) > CORE_WORDS for sentence in sentences)[1:].count(False) == 0


def test_it_leaves_the_environment_as_it_was_and_repeats_itself():
    env = shop_env()
    task = env.tasks("train", 1)[0]
    runs = [play(TeacherPolicy(SLOPPY), env, task, seed=3)[0] for _ in range(2)]
    assert [reply for _, reply, _ in runs[0]] == [reply for _, reply, _ in runs[1]]
    observation = env.reset(task)
    before = env.snapshot()
    answer_all(TeacherPolicy(SLOPPY), [request(env, observation, n=6)])
    assert env.snapshot() == before


def test_it_leaves_a_wrong_product_and_a_sub_page_and_corrects_a_wrong_option():
    env, policy = shop_env(levels=["hard"]), TeacherPolicy(PERFECT)

    def ask(*taken):
        return answer_all(policy, [request(env, "")])[0][0]

    env.reset(env.tasks("train", 1)[0])
    asin = env.goal.asin
    env.step(f"search[{' '.join(essence(env.goal))}]")
    assert env.state.page == RESULTS and asin in env.state.hits
    other = next(found for found in env.state.hits[:10] if found != asin)
    env.step(f"click[{other}]")
    assert env.state.page == ITEM and ask().action == "click[< prev]"
    env.restore(env.snapshot()._replace(state=env.state._replace(asin=asin)))
    env.step("click[features]")
    assert env.state.page in SUB_PAGES and ask().action == "click[< prev]"
    env.step("click[< prev]")
    name, value = env.goal.options[0]
    wrong = next(v for n, vs in env.product(asin).options if n == name for v in vs if v != value)
    env.step(f"click[{wrong}]")
    reply = ask()
    assert reply.action == f"click[{value}]" and reply.thought.endswith(", not as chosen.")
