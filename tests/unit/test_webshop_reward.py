"""WebShop's reward, part by part, against values worked out by hand."""

from importlib.util import find_spec

import pytest
from webshop_play import GOAL, PRODUCT, change

from depo.config.base import ConfigError
from depo.envs.webshop.nouns import make_tagger, simple_nouns
from depo.envs.webshop.reward import matches, option_matches, score

BOTH = {"color": "black", "size": "2 l"}
NOUNS = simple_nouns(PRODUCT.title)


def buy(product=PRODUCT, goal=GOAL, price=20.0, chosen=BOTH, nouns=NOUNS, wanted=NOUNS, **rules):
    return score(product, goal, price, chosen, nouns, wanted, **rules)


def test_all_that_is_asked_for_is_worth_one():
    worth = buy()
    assert worth.reward == 1.0
    assert worth.info() == {
        "r_type": 1.0, "r_att": 1.0, "w_att": 0.25, "query_match": True, "category_match": True,
        "title_score": 1.0, "r_option": 1.0, "w_option": 0.5, "r_price": True, "w_price": 0.25,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reward"),
    [
        ({"chosen": {"color": "black"}}, 3 / 4),
        ({"chosen": {}}, 2 / 4),
        ({"price": 30.0}, 1.0),
        ({"price": 30.01}, 3 / 4),
        ({"goal": change(GOAL, attributes=("stainless steel", "cordless"))}, 4 / 5),
        ({"goal": change(GOAL, options=())}, 1.0),
        ({"nouns": ()}, 0.0),
        ({"wanted": ()}, 1.0),
        ({"nouns": ("kettle",), "wanted": ("kettle", *"abcdefghij")}, 0.1),
    ],
)
def test_each_part_missed_costs_its_share(changes, reward):
    assert buy(**changes).reward == pytest.approx(reward, abs=1e-12)


def test_another_kind_of_thing_is_worth_half_unless_its_name_is_close():
    other = change(PRODUCT, query="pots", product_category="Home & Kitchen › Pots")
    assert buy(other, nouns=("kettle",), wanted=("kettle", *"abcd")).r_type == 0.5
    assert buy(other, nouns=("kettle",), wanted=("kettle", *"abc")).r_type == 1.0
    twice = ("kettle", "kettle", "handle", *"ab")
    assert buy(other, nouns=("kettle",), wanted=twice).title_score == pytest.approx(0.2)


def test_an_attribute_may_stand_in_title_features_or_description():
    for attribute in ("with handle", "bpa free", "two cups"):
        assert buy(goal=change(GOAL, attributes=(attribute,))).attributes == 1
    assert buy(goal=change(GOAL, attributes=("steel, stainless",))).attributes == 1
    assert buy(goal=change(GOAL, attributes=("three cups",))).attributes == 0


def test_a_ratio_is_rounded_before_it_is_compared():
    # 2 * 9 of 21 letters are 85.71 of 100, rounded 86; 2 * 17 of 40 are 85, which is not over 85.
    assert matches("abcdefghijkl", "abcdefghi")
    assert not matches("a" * 20 + "bbb", "a" * 17)


def test_text_is_compared_as_words_without_signs_case_and_latin_1():
    assert matches("2 L / blue", "BLUE 2-l")
    assert matches("caf\xe9", "caf")
    assert not matches("", "")


@pytest.mark.parametrize(
    ("value", "wanted", "fits"),
    [
        ("standard", "titanium", True),  # both hold "tan"
        ("dark green", "dark red", True),  # both are "dark", which comes before green and red
        ("green", "brown", False),
        ("red", ("color", "red"), True),
        ("dark red", ("color", "red"), False),  # is "dark", and the pair "red"
        ("2 l", ("size", "2 l"), True),
        ("size", ("size", "2 l"), True),  # the option's name is compared too
        ("with stand", ("style", "with stand"), False),  # is "tan", but the pair stays as it is
    ],
)
def test_options_are_compared_by_their_first_colour(value, wanted, fits):
    assert option_matches(value, wanted) is fits


def test_repaired_rules_let_an_option_count_that_is_the_very_one():
    goal = change(GOAL, options=(("style", "with stand"),))
    chosen = {"style": "with stand"}
    assert buy(goal=goal, chosen=chosen).options == 0
    assert buy(goal=goal, chosen=chosen, repaired=True).options == 1
    assert buy(goal=goal, chosen={"size": "with stand"}, repaired=True).options == 0


def test_simple_nouns_leave_out_numbers_function_words_and_adjectives():
    name = "Portable 12.5-15 oz Kettle for the Kids' 3-in-1 Table, Durable & Fully table"
    assert simple_nouns(name) == ("oz", "kettle", "kids", "3-in-1", "table", "fully", "table")
    assert simple_nouns("") == ()


def test_a_tagger_is_chosen_by_name():
    assert make_tagger("simple").nouns("a red kettle") == ("red", "kettle")
    with pytest.raises(ConfigError, match="nouns: give 'auto', 'simple' or 'spacy', not 'best'"):
        make_tagger("best")


@pytest.mark.skipif(find_spec("spacy") is not None, reason="spaCy is installed")
def test_without_spacy_auto_is_simple_and_spacy_says_what_is_missing():
    assert make_tagger("auto").name == "simple"
    with pytest.raises(ConfigError, match="nouns: 'spacy' needs spaCy and one of its models en_core_web_lg"):
        make_tagger("spacy")
