"""How a policy's text becomes a thought and an action."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depo.policies.base import action_start, format_reply, parse_reply, with_thought, without_reasoning


@pytest.mark.parametrize(
    ("text", "thought", "action"),
    [
        ("Thought: it is near.\nAction: go to red ball 1", "it is near.", "go to red ball 1"),
        ("Thought:\nit is near.\n\nAction:\ngo to red ball 1", "it is near.", "go to red ball 1"),
        ("thought: a\n  ACTION :  b  \nand more", "a", "b"),
        ("no word for it\nAction: b", "no word for it", "b"),
        ("Action:\n\nb", "", "b"),
        ("Thought 1: a\nAction 1: b", "a", "b"),
        ("Thought: a\nAction: Action: b", "a", "b"),
    ],
)
def test_action_stands_behind_its_word_or_below_it(text, thought, action):
    assert parse_reply(text) == (thought, action, False)


@pytest.mark.parametrize(
    "text",
    [
        "Thought: a\nAction:\n```\nb\n```",
        "Thought: a\nAction: ```b```",
        "Thought: a\nAction: ```text\nb\n```\nDone.",
        "Thought: a\nAction:\n~~~\nb\n~~~",
        "Thought: a\nAction: `b`",
        "```\nThought: a\nAction: b\n```",
        "Thought: a\n```\nAction: b\n```",
        "**Thought:** a\n\n**Action:** b",
        "**Thought**: a\n**Action**: `b`",
        "Thought: a\n**Action: b**",
        "- Thought: a\n- Action: **b**",
        "Thought: a\nAction: b<|im_end|>",
        "Thought: a\nAction: b</s><|endoftext|>\n",
        "Thought: a\nAction: `b`<end_of_turn>",
    ],
)
def test_marks_around_labels_and_actions_are_no_part_of_them(text):
    assert parse_reply(text) == ("a", "b", False)
    assert parse_reply(with_thought(text, "Short. Two")) == ("Short. Two", "b", False)


def test_an_action_goes_on_until_its_brackets_close():
    lines = "Thought: a\nAction: search[red\n  mug (big)]\nand more"
    assert parse_reply(lines)[1:] == ("search[red mug (big)]", False)
    assert parse_reply("Action:\n```\nsearch[\nred mug\n]\n```")[1] == "search[red mug]"
    assert parse_reply("Action: search[red\n\nmug]")[1] == "search[red"  # a blank line ends it
    assert parse_reply("Action: (1, 2]\nand more")[1] == "(1, 2]"


@pytest.mark.parametrize(
    ("text", "thought"),
    [
        ("<think>\nAction: x\nIt is.\n</think>\n\nAction: b", "Action: x\nIt is."),
        ("<think>\nIt is.\n</think>\n\nThought: near.\nAction: b", "It is.\n\nnear."),
        ("It is.\n</think>\n\nAction: b", "It is."),  # the prompt ends with the opening mark
        ("<think>\n\n</think>\n\nThought: near.\nAction: b", "near."),
        ("<think>a</think>\n<thinking>c</thinking>Action: b", "a\n\nc"),
        ("Thought: <think>near</think>\nAction: b", "near"),
        ("[THINK]near[/THINK]Action: b", "near"),
    ],
)
def test_a_think_block_is_thought_whatever_it_holds(text, thought):
    assert parse_reply(text) == (thought, "b", False)
    start = action_start(text)
    assert text[start:] == "Action: b"
    changed = with_thought(text, "New")
    assert parse_reply(changed) == ("New", "b", False)
    assert changed.count("think>") == text.count("think>")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Thought: a",
        "Action:",
        "Action: a\nAction: b",
        "Action:\nAction: b",
        "<think>cut\nAction: b",
        "<think>a</think>b</think>Action: c",
        "Action:\n```\nb",
        "Action:\n```\n```",
        "Action:\n```\nb\nc\n```",
    ],
)
def test_no_action_more_than_one_or_an_unclear_one_is_malformed(text):
    assert parse_reply(text)[1:] == ("", True)
    assert with_thought(text, "x") == text


def test_what_is_said_behind_the_reasoning_is_told_from_it():
    assert without_reasoning("<think>a</think>\n\nThought: b\nAction: c") == "Thought: b\nAction: c"
    assert without_reasoning("a\n</think>\nAction: c") == "Action: c"
    for text in ("Thought: b\nAction: c", "<think>cut", " x"):
        assert without_reasoning(text) == text


def test_only_the_thoughts_own_characters_are_exchanged():
    text = "Thought:\n  near,  so \n\n  ACTION:  b  \nand more"
    assert with_thought(text, "n") == "Thought:\n  n \n\n  ACTION:  b  \nand more"
    assert with_thought("Action: b", "n") == "Action: b"


_PIECES = [
    "\n",
    " ",
    "`",
    "*",
    "```\n",
    "Action:",
    "Action: (\n",
    "<think>",
    "</think>",
    "> ",
    "action1",
    "\u2003",
]


@pytest.mark.parametrize("piece", _PIECES)
@pytest.mark.parametrize("before", ["", "Action: ", "Thought: a\nAction:\n"])
def test_reading_takes_time_in_proportion_to_the_length(piece, before):
    started = time.process_time()
    with_thought(before + piece * 30_000, "x")
    assert time.process_time() - started < 1


@given(thought=st.text("abc .,:"), action=st.text("abc123", min_size=1))
def test_what_is_formatted_is_read_back(thought, action):
    assert parse_reply(format_reply(thought.strip(), action)) == (thought.strip(), action, False)


@given(
    st.lists(st.sampled_from([*_PIECES, "Thought: ", "go", "]", "```", "**", "-", "\r"]), max_size=12).map(
        "".join
    )
)
def test_a_well_formed_reply_has_its_action_behind_its_line(text):
    thought, action, malformed = parse_reply(text)
    start = action_start(text)
    assert (start is None) == malformed == (action == "")
    if start is not None:
        assert "action" in text[start:].lower() and "\n" not in action
        if thought:
            assert parse_reply(with_thought(text, "new")) == ("new", action, False)


def test_an_action_whose_input_stands_on_a_line_of_its_own_is_malformed():
    assert parse_reply("Thought: a\nAction: search\nAction Input: red mug")[2]
    assert parse_reply("Action: search[action input: b]")[1:] == ("search[action input: b]", False)


def test_a_mark_around_label_and_thought_is_no_part_of_the_thought():
    text = "**Thought: it is `near`.**\n- **Action: b**"
    assert parse_reply(text) == ("it is `near`.", "b", False)
    assert with_thought(text, "c") == "**Thought: c**\n- **Action: b**"
    assert parse_reply("**Thought:** a **b**\nAction: c")[0] == "a **b**"


def test_labels_may_have_the_colon_of_another_script():
    assert parse_reply("Thought：a\nAction：b") == ("a", "b", False)
    assert with_thought("Thought：a\nAction：b", "c") == "Thought：c\nAction：b"
