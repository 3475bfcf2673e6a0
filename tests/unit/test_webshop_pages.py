"""What a page of the shop says, and what can be done on it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webshop_play import GOAL, PRODUCT, OneProduct, change

from depo.envs.webshop.nouns import make_tagger
from depo.envs.webshop.session import Catalogue, State, parse, parse_as_peer, search
from depo.envs.webshop.visit import Visit


def visit(product=PRODUCT, mode="text", peer=False):
    return Visit(Catalogue(OneProduct(product), peer), mode, make_tagger("simple"), peer)


def play(shop, *actions):
    state = State()
    for action in actions:
        turn = shop.act(state, GOAL, action)
        assert not turn.refused, turn.refused
        state = turn.state
    return state


OPEN = ("search[kettle]", "click[b000000001]")


@given(st.text("searchlick[] ab\n\r", max_size=30) | st.from_regex(r"(search|click)\[.*", fullmatch=True))
def test_the_peers_grammar_is_its_regular_expression(action):
    found = re.match(r"(.+)\[(.+)\]", action)
    name, argument = found.groups() if found else ("", "")
    expected = (name, argument.lower()) if name in ("search", "click") else None
    assert parse_as_peer(action) == expected


@pytest.mark.parametrize(
    ("action", "own", "peer"),
    [
        ("click[Buy Now]", ("click", "buy now"), ("click", "buy now")),
        (" Search[ red ] ", ("search", "red"), None),
        ("click[a] and so on", None, ("click", "a")),
        ("click[a [2 pack]]", ("click", "a [2 pack]"), None),
        ("I click[a]", None, None),
        ("search[]", ("search", ""), None),
        ("click", None, None),
    ],
)
def test_both_grammars(action, own, peer):
    assert (parse(action), parse_as_peer(action)) == (own, peer)


def test_a_search_starts_on_the_first_page():
    shop = visit()
    assert shop.observe(State(), GOAL) == f"WebShop [SEP] Instruction: [SEP] {GOAL.instruction} [SEP] Search"
    assert shop.observe(play(shop, "search[kettle]"), GOAL) == (
        f"Instruction: [SEP] {GOAL.instruction} [SEP] Back to Search [SEP] Page 1 (Total results: 1) [SEP] "
        "B000000001 [SEP] Acme Steel Kettle with Handle [SEP] $20.0"
    )


def test_an_item_page_tells_what_is_chosen():
    shop = visit()
    state = play(shop, *OPEN, "click[black]", "click[2 l]", "click[1 l]")
    assert state.options == (("color", "black"), ("size", "1 l"))
    assert shop.observe(state, GOAL).partition("< Prev [SEP] ")[2] == (
        "color [SEP] black [SEP] dark green [SEP] size [SEP] 1 l [SEP] 2 l [SEP] "
        "Chosen: color: black; size: 1 l [SEP] Acme Steel Kettle with Handle [SEP] Price: $20.0 [SEP] "
        "Description [SEP] Features [SEP] Buy Now"
    )


def test_rich_text_marks_buttons_and_tells_choices_the_last_on_the_page_first():
    shop = visit(mode="text_rich", peer=True)
    text = shop.observe(play(shop, *OPEN, "click[2 l]", "click[black]"), GOAL)
    assert text.startswith("You have clicked 2 l.\nYou have clicked black.\nInstruction:\n")
    assert "  [clicked button] black [clicked button_]\n  [button] dark green [button_]\nsize\n" in text
    back = shop.observe(play(shop, *OPEN, "click[< prev]"), GOAL)
    assert "\n\n[clicked button] B000000001 [clicked button_]\nAcme Steel Kettle with Handle\n" in back


def test_a_sub_page_keeps_the_choice_and_the_list_of_results_loses_it():
    shop = visit()
    state = play(shop, *OPEN, "click[black]", "click[features]")
    assert shop.observe(state, GOAL).endswith("< Prev [SEP] Boils quickly. [SEP] BPA free lid")
    state = shop.act(state, GOAL, "click[< prev]").state
    assert state.options == (("color", "black"),)
    state = shop.act(state, GOAL, "click[< prev]").state
    assert (state.page, state.options, state.asin) == ("results", (), None)


def test_equal_labels_are_told_apart_by_the_options_name():
    product = change(PRODUCT, options=(("lid", ("black", "none")), ("body", ("black", "description"))))
    shop = visit(product)
    clicks = list(shop.clicks(play(shop, *OPEN)))
    assert clicks[-4:] == ["lid: black", "none", "body: black", "body: description"]
    state = play(shop, *OPEN, "click[body: black]", "click[lid: black]")
    assert dict(state.options) == {"body": "black", "lid": "black"}


def test_under_the_peers_rules_the_last_of_equal_labels_wins_and_a_button_before_any_option():
    product = change(PRODUCT, options=(("lid", ("black",)), ("body", ("black", "description"))))
    shop = visit(product, peer=True)
    assert dict(play(shop, *OPEN, "click[black]").options) == {"body": "black"}
    assert play(shop, *OPEN, "click[description]").page == "description"


@pytest.mark.parametrize(("peer", "turns"), [(True, ["next >"] * 3), (False, ["next >", "next >", None])])
def test_next_leads_past_the_last_page_in_the_peer_only(peer, turns):
    shop = visit(peer=peer)
    hits = tuple(f"B{number:09}" for number in range(23))
    for number, turn in enumerate(turns, start=1):
        labels = Catalogue(OneProduct(), peer).labels(search(State(), ("x",), hits, number))
        assert ("next >" in labels) == (turn is not None)
        assert ("< prev" in labels) == (number > 1)
    assert not shop.act(search(State(), ("x",), hits, 1), GOAL, "click[next >]").refused


def test_a_receipt_ends_the_visit():
    shop = visit()
    state = play(shop, *OPEN, "click[black]", "click[buy now]")
    assert shop.observe(state, GOAL) == (
        "Thank you for shopping with us! [SEP] You bought B000000001: Acme Steel Kettle with Handle "
        "(color: black) [SEP] Your score (min 0.0, max 1.0): 0.75"
    )
    assert shop.clicks(state) == {}


def test_the_peers_receipt_holds_the_options_as_html_safe_json_in_the_order_of_names():
    product = change(PRODUCT, options=(("size", ("men's",)), ("a & b", ("\xe9",))))
    shop = visit(product, peer=True)
    text = shop.observe(play(shop, *OPEN, "click[men's]", "click[\xe9]", "click[buy now]"), GOAL)
    assert r'[SEP] {"a \u0026 b": "\u00e9", "size": "men\u0027s"} [SEP]' in text


@pytest.mark.parametrize("keywords", ["", "  ", "...", "a" * 1001, "a\x00b", "a[b]", "\x1b[2K"])
def test_a_search_without_words_is_refused(keywords):
    shop = visit()
    turn = shop.act(State(), GOAL, f"search[{keywords}]")
    assert turn.refused and turn.state == State()
