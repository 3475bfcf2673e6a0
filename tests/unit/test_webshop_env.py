"""WebShop as a text environment: episodes, odd actions, snapshots, splits."""

import pickle
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webshop_play import VARIANTS, cache_dir, shop_env

from depo.config.base import ConfigError
from depo.envs.base import TextEnv
from depo.envs.check import ROGUE
from depo.envs.webshop.env import WebShopEnv
from depo.envs.webshop.wording import essence
from depo.records import Task

SPLITS = ("train", "validation", "test")
each_variant = pytest.mark.parametrize("options", VARIANTS, ids=str)


def goal_task(number=0):
    return Task("webshop", "easy", number, "train")


def buy_something(env):
    env.reset(goal_task())
    env.step(env.available_actions()[0])
    env.step(next(f"click[{label}]" for label, (kind, _) in env.clicks().items() if kind == "product"))
    return env.step("click[buy now]")


@each_variant
def test_it_is_a_text_environment(options):
    env = shop_env(**options)
    assert isinstance(env, TextEnv)
    assert env.goal_of(env.tasks("train", 1)[0]).instruction in env.reset(env.tasks("train", 1)[0])


def test_buying_ends_the_episode_and_pays_the_reward_once():
    env = shop_env()
    bought = buy_something(env)
    assert bought.terminated and bought.info["success"] is (bought.reward == 1.0)
    assert bought.info["nouns"] == "simple" and bought.info["r_price"] in (True, False)
    assert env.available_actions() == []
    for action in ("search[lamp]", "click[buy now]"):
        after = env.step(action)
        assert (after.reward, after.terminated, after.info["valid"]) == (0.0, True, False)


def test_the_peers_shop_stays_open_after_a_purchase():
    env = shop_env(compat="webshop")
    assert buy_something(env).terminated
    again = env.step("search[lamp]")
    assert again.info == {"valid": True} and not again.terminated


@pytest.mark.parametrize("prefix", ["<q>", "<c>", "<r>", "<a>"])
def test_listings_are_plain_words_except_in_the_peers_shop(prefix):
    env, peer = shop_env(), shop_env(compat="agentgym")
    product = peer.product(peer.shop.goals[0].asin)
    value = {"<q>": product.query, "<c>": product.category}.get(prefix, "lamp")
    listed = {
        "<q>": peer.shop.by_query(value), "<c>": peer.shop.by_category(value),
    }.get(prefix)  # fmt: skip
    for shop in (env, peer):
        shop.reset(goal_task())
        assert shop.step(f"search[{prefix} {value}]").info["valid"] is (shop is env or prefix != "<a>")
    assert env.state.hits == env.shop.search(f"{prefix} {value}")
    if listed is not None:
        assert peer.state.hits == listed
    if prefix == "<r>":
        assert len(set(peer.state.hits)) == 50


def test_a_search_is_possible_on_every_page_and_forgets_what_was_chosen():
    env = shop_env(levels=["hard"])
    env.reset(env.tasks("train", 1)[0])
    env.step(f"search[{' '.join(essence(env.goal))}]")
    env.step(f"click[{env.goal.asin}]")
    label = next(label for label, (kind, _) in env.clicks().items() if kind.startswith("option:"))
    env.step(f"click[{label}]")
    assert env.state.options
    assert env.step("search[lamp]").info["valid"]
    assert env.state.options == () and env.state.page == "results"


def test_a_step_limit_counts_what_could_be_done():
    env = shop_env(max_steps=3)
    env.reset(goal_task())
    results = [env.step(action) for action in ("search[a]", "nonsense", "search[lamp]", "search[chair]")]
    assert [result.truncated for result in results] == [False, False, False, True]
    assert results[-1].info["success"] is False and "no steps are left" in results[-1].observation
    assert env.step("search[lamp]").info["valid"] is False
    assert shop_env().max_steps == 30 and shop_env(compat="agentgym").max_steps is None


def test_an_action_that_is_not_possible_says_why_except_in_the_peers_shop():
    env, peer = shop_env(), shop_env(compat="agentgym")
    for action, reason in (
        ("buy it", "write one action: search[<keywords>] or click[<button>]"),
        ("click[buy now]", "there is no 'buy now' to click here"),
        ("search[?]", "a search needs a word"),
    ):
        page = env.reset(goal_task())
        assert env.step(action).observation == f"Not possible: {reason}.\n{page}"
    page = peer.reset(goal_task())
    assert peer.step("click[buy now]").observation == page


@each_variant
def test_rogue_actions_are_invalid_and_change_nothing(options):
    env = shop_env(**options)
    env.reset(goal_task())
    env.step(env.available_actions()[0])
    before = env.snapshot()
    rogue = [*ROGUE.values(), "click[" * 3_000, "click[]", "click[\x00]", "[" * 10_000, "купить[сейчас]"]
    for action in rogue:
        result = env.step(action)
        assert result.info["valid"] is False and result.reward == 0.0
        assert env.snapshot() == before


FORMS = ("{}", "click[{}]", "search[{}]", "search[[{}]]", " click[{}] x")
odd_actions = st.lists(
    st.builds(str.format, st.sampled_from(FORMS), st.text(max_size=12) | st.sampled_from(["<c>", "buy now"])),
    max_size=8,
)


@each_variant
@settings(max_examples=40, deadline=None)
@given(actions=odd_actions, seed=st.integers(0, 50))
def test_any_text_is_an_action(options, actions, seed):
    env, rng = shop_env(**options), random.Random(seed)
    env.reset(goal_task(seed))
    for action in actions:
        before = env.snapshot()
        result = env.step(action)
        assert result.observation and 0.0 <= result.reward <= 1.0
        if not result.info["valid"]:
            assert env.snapshot() == before
        offered = env.available_actions()
        if offered:
            assert env.step(rng.choice(offered)).info["valid"]


@each_variant
def test_a_restored_state_has_the_same_future_as_a_replayed_one(options):
    env, other = shop_env(**options), shop_env(**options)
    for task in env.tasks("train", 12):
        rng, actions, seen, states = random.Random(task.seed), [], [], []
        first = env.reset(task)
        while len(actions) < 25 and env.available_actions():
            states.append(pickle.loads(pickle.dumps(env.snapshot())))
            actions.append(rng.choice(env.available_actions()))
            seen.append(env.step(actions[-1]))
        assert other.reset(task) == first and [other.step(action) for action in actions] == seen
        for at in rng.sample(range(len(states)), 3):
            other.restore(states[at])
            assert other.snapshot() == states[at]
            assert [other.step(action) for action in actions[at:]] == seen[at:]


@each_variant
def test_splits_share_neither_product_nor_request(options):
    env = shop_env(**options)
    owners = {}
    for split in SPLITS:
        tasks = env.tasks(split, 40)
        assert len({task.id for task in tasks}) == 40 and {task.split for task in tasks} == {split}
        assert env.tasks(split, 15) == tasks[:15]
        for task in tasks:
            goal = env.goal_of(task)
            assert goal.difficulty == task.level
            for mark in (goal.asin, frozenset(essence(goal))):
                assert owners.setdefault(mark, split) == split


def test_tasks_are_spread_over_levels_and_products():
    env = shop_env(size=400)
    tasks = env.tasks("test", 30)
    assert {level: sum(task.level == level for task in tasks) for level in ("easy", "medium", "hard")} == {
        "easy": 10, "medium": 10, "hard": 10,
    }  # fmt: skip
    assert len({env.goal_of(task).asin for task in tasks}) >= 25
    assert {task.level for task in shop_env(levels=["hard"]).tasks("train", 20)} == {"hard"}


@pytest.mark.parametrize(
    ("split", "count", "levels", "message"),
    [
        ("dev", 1, [], "unknown split 'dev'; use one of train, validation, test"),
        ("train", 1, ["huge"], "levels: unknown level 'huge'; the goals have easy, hard, medium"),
        ("test", 10**6, [], "the shop has only .* test goals, 1000000 were asked for"),
    ],
)
def test_tasks_that_are_not_there_are_said_to_be(split, count, levels, message):
    with pytest.raises(ConfigError, match=message):
        shop_env(levels=levels).tasks(split, count)


def test_a_goal_that_is_not_there_is_said_to_be():
    with pytest.raises(ConfigError, match="webshop/easy/999999: the shop has goals 0 to"):
        shop_env().reset(goal_task(999_999))


@each_variant
def test_a_copy_goes_on_where_the_original_stands(options):
    env = shop_env(**options)
    env.reset(goal_task())
    env.step(env.available_actions()[0])
    copy = pickle.loads(pickle.dumps(env))
    action = env.available_actions()[-1]
    assert copy.step(action) == env.step(action)
    assert len(pickle.dumps(env)) < 4_000


def test_a_copy_keeps_the_tagger_that_auto_came_to():
    env = WebShopEnv(nouns="auto", cache_dir=cache_dir())
    assert env.__getstate__()["options"]["nouns"] in ("simple", "spacy")


def test_actions_are_listed_unless_told_otherwise():
    env, plain = shop_env(), shop_env(show_actions=False)
    assert env.reset(goal_task()) == f"{plain.reset(goal_task())}\nYou can: search[<keywords>]."
    listed = env.step("search[lamp]").observation.splitlines()[-1]
    assert listed.startswith("You can: search[<keywords>], click[back to search], click[")
    assert "You can" not in shop_env(compat="agentgym").reset(goal_task())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compat": "amazon"}, "compat: give 'webshop' or 'agentgym', not 'amazon'"),
        ({"mode": "html"}, "mode: give 'text' or 'text_rich', not 'html'"),
        ({"max_steps": 0}, "max_steps: give a whole number of 1 or more, not 0"),
        ({"size": True}, "size: give a whole number of 1 or more, not True"),
        ({"seed": -1}, "seed: give a whole number of 0 or more, not -1"),
        ({"show_actions": 1}, "show_actions: give true or false, not 1"),
        ({"human_goals": "yes"}, "human_goals: give true or false, not 'yes'"),
        ({"levels": "easy"}, "levels: give a list of levels, not 'easy'"),
        ({"catalogue": 7}, "catalogue: give a path, not 7"),
        ({"instructions": "long"}, "instructions: give 'full' or 'brief', not 'long'"),
        ({"nouns": "best"}, "nouns: give 'auto', 'simple' or 'spacy', not 'best'"),
    ],
)
def test_a_bad_option_is_named(options, message):
    with pytest.raises(ConfigError, match=message):
        WebShopEnv(**options)


def test_splits_take_the_numbers_of_goals_and_levels_pick_among_them():
    splits = {"train": [0, 40], "test": ["webshop_41", "webshop_7041", "40"]}
    with pytest.raises(ConfigError, match=r"splits\.test: no task 7041; the shop has goals 0 to"):
        WebShopEnv(size=60, cache_dir=cache_dir(), splits=splits).tasks("test", 1)
    env = WebShopEnv(size=60, cache_dir=cache_dir(), splits=splits | {"test": ["41", "40"]})
    tasks = env.tasks("test", 2)
    assert [task.seed for task in tasks] == [41, 40] and env.task_count("train") == 40
    assert env.reset(tasks[0]) and all(task.level == env.goal_of(task).difficulty for task in tasks)
    level = tasks[0].level
    picked = WebShopEnv(
        size=60, cache_dir=cache_dir(), splits=splits | {"test": ["41", "40"]}, levels=[level]
    )
    assert picked.tasks("test", 1) == tasks[:1]
    with pytest.raises(ConfigError, match=r"splits\.test: [12] tasks, 3 were asked for"):
        pickle.loads(pickle.dumps(picked)).tasks("test", 3)
    own = WebShopEnv(size=60, cache_dir=cache_dir())
    count = own.task_count("train")
    assert len(own.tasks("train", count)) == count
    with pytest.raises(ConfigError, match=f"the shop has only {count} train goals"):
        own.tasks("train", count + 1)
