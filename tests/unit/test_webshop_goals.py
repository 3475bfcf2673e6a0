"""Goals, prices and their limits: as recorded in the compat variants, the same everywhere in the default."""

from __future__ import annotations

import gzip
import json

import pytest
from webshop_help import HUMAN, ITEMS, NOTES, content, golden, needs_golden, write

from depo.envs.webshop.draws import HashedDraw, SeededDraw, limits_above
from depo.envs.webshop.goals import difficulty
from depo.envs.webshop.product import NO_LIMIT
from depo.envs.webshop.store import Shop
from depo.envs.webshop.synthetic import SyntheticSpec

CHAIR, LAMP = "B00000CHAI", "B00000LAMP"


def opened(tmp_path, files=None, **options) -> Shop:
    return Shop.open(write(tmp_path / "data", files or content()), cache_dir=tmp_path / "cache", **options)


@needs_golden
@pytest.mark.parametrize("name", ["h0", "h1", "orig_h1"])
def test_recorded_prices_and_goals_come_from_the_recorded_seed(tmp_path, name):
    with gzip.open(golden(f"webshop_transcripts_{name}.jsonl.gz"), "rt", encoding="utf-8") as lines:
        header, *episodes = map(json.loads, lines)
    human = header["human_goals"]
    shop = Shop.open(
        golden("webshop_catalogue_1k.tar.gz"),
        human_goals=human,
        variant=header["variant"],
        seed=header["seed_before_load"],
        cache_dir=tmp_path,
    )
    assert {asin: shop.price(asin) for asin in shop.ids()} == header["product_prices"]
    assert len(shop.goals) == header["n_goals"]
    for goal, wanted in zip(shop.goals, header["goals"], strict=False):
        found = {
            "asin": goal.asin, "category": shop.product(goal.asin).category, "query": goal.query,
            "name": goal.name, "product_category": goal.product_category,
            "instruction_text": goal.instruction, "attributes": list(goal.attributes),
            "price_upper": goal.price_upper, "weight": goal.weight,
            "goal_options": list(goal.options) if human else dict(goal.options),
        }  # fmt: skip
        assert found == wanted
    for episode in episodes:
        assert shop.goals[episode["goal_index"]].instruction in episode["obs"]


@needs_golden
def test_given_prices_replace_the_drawn_ones_and_leave_other_draws_alone(tmp_path):
    catalogue = golden("webshop_catalogue_1k.tar.gz")
    drawn = Shop.open(catalogue, variant="webshop", seed=7, cache_dir=tmp_path)
    ranged = [asin for asin in drawn.ids() if " to " in drawn.product(asin).price_text]
    prices = {asin: drawn.price(asin) for asin in drawn.ids()} | {ranged[0]: 1.0}
    given = Shop.open(catalogue, variant="webshop", seed=7, prices=prices, cache_dir=tmp_path)
    assert given.price(ranged[0]) == 1.0
    assert given.price(ranged[1]) == drawn.price(ranged[1])


def test_a_synthetic_goal_is_made_of_each_combination_of_options(tmp_path):
    files = content()
    options = {"Size": [{"value": "L"}, {"value": "S"}], "Color": [{"value": "Red"}]}
    files[ITEMS][0] |= {"customization_options": options, "pricing": "$2,000"}
    goals = sorted(opened(tmp_path, files).goals, key=lambda goal: goal.instruction)
    wish = "Find me chairs, solid wood with color: red, and size: "
    assert [goal.instruction for goal in goals] == [wish + "l", wish + "s"]
    assert goals[1].options == (("color", "red"), ("size", "s"))
    assert {goal.price_upper for goal in goals} == {NO_LIMIT}
    assert {goal.weight for goal in goals} == {1 / 2}
    assert {goal.difficulty for goal in goals} == {"medium"}


def test_an_original_human_goal_has_one_limit_and_agentgyms_one_for_each(tmp_path):
    files = content()
    files[HUMAN][LAMP][0]["instruction_options"] = ["small"]
    [goal] = opened(tmp_path, files, human_goals=True, variant="webshop").goals
    assert goal.instruction == f"i need a bright lamp, and price lower than {goal.price_upper:.2f} dollars"
    assert (goal.options, goal.weight) == (("small",), 1.0)
    shop = opened(tmp_path, files, human_goals=True, variant="agentgym")
    assert sorted(goal.price_upper for goal in shop.goals) == limits_above(shop.price(LAMP))
    files[ITEMS][1]["pricing"] = "$985.00"
    dear = opened(tmp_path, files, human_goals=True, variant="agentgym").goals
    assert [(goal.instruction, goal.price_upper) for goal in dear] == [("i need a bright lamp", NO_LIMIT)] * 4


def test_human_goals_that_ask_for_no_attribute_are_left_out(tmp_path):
    files = content()
    files[HUMAN][LAMP][0]["instruction_attributes"] = []
    assert len(opened(tmp_path, files, human_goals=True).goals) == 0


def test_default_draws_do_not_depend_on_the_rest_of_the_catalogue(tmp_path):
    shops = [Shop.open(SyntheticSpec(size, 1), seed=4, cache_dir=tmp_path) for size in (60, 200)]
    asins = shops[0].ids()
    assert [shops[0].price(asin) for asin in asins] == [shops[1].price(asin) for asin in asins]
    small, large = ({goal.instruction for goal in shop.goals} for shop in shops)
    assert small < large
    other = Shop.open(SyntheticSpec(60, 1), seed=5, cache_dir=tmp_path)
    assert [other.price(asin) for asin in asins] != [shops[0].price(asin) for asin in asins]


@pytest.mark.parametrize("variant", ["default", "webshop", "agentgym"])
def test_prices_and_limits_stay_within_their_bounds(tmp_path, variant):
    shop = Shop.open(SyntheticSpec(300, 2), variant=variant, seed=1, cache_dir=tmp_path)
    for asin in shop.ids():
        product = shop.product(asin)
        assert product.price_low <= shop.price(asin) <= product.price_high
    for goal in shop.goals:
        limits = limits_above(shop.price(goal.asin))
        assert goal.price_upper in limits[1:] if len(limits) >= 2 else goal.price_upper == NO_LIMIT


@pytest.mark.parametrize("draw", [HashedDraw(0, {}), SeededDraw(0, {}, reseeded=True)])
def test_a_limit_is_the_larger_of_two_of_four(draw):
    drawn = [draw.limit(95.0, str(about)) for about in range(3000)]
    shares = [drawn.count(limit) / len(drawn) for limit in (100.0, 110.0, 120.0, 130.0)]
    assert shares == pytest.approx([0, 1 / 6, 1 / 3, 1 / 2], abs=0.04)
    assert limits_above(965.0) == [970.0, 980.0, 990.0]
    assert draw.limit(985.0, "") is None


def test_goals_are_graded_by_what_they_ask_for():
    levels = [difficulty(*asked) for asked in [(1, 0), (1, 1), (3, 0), (2, 2)]]
    assert levels == ["easy", "medium", "medium", "hard"]


def test_the_default_catalogue_has_goals_of_every_level_for_many_products(tmp_path):
    products: dict[str, set[str]] = {}
    for goal in Shop.open(cache_dir=tmp_path).goals:
        products.setdefault(goal.difficulty, set()).add(goal.asin)
    assert {level: len(asins) >= 200 for level, asins in products.items()} == {
        "easy": True, "medium": True, "hard": True,
    }  # fmt: skip


def test_goals_are_a_sequence(tmp_path):
    goals = opened(tmp_path).goals
    assert goals[-1] == goals[len(goals) - 1]
    assert list(goals[:2]) == [goals[0], goals[1]]
    with pytest.raises(IndexError, match="goal 99 of 2"):
        goals[99]


def test_an_instruction_without_attributes_makes_no_goal(tmp_path):
    files = content()
    files[NOTES][CHAIR]["instruction_attributes"] = []
    assert len(opened(tmp_path, files).goals) == 0
