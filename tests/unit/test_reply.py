"""How a policy's text becomes a thought and an action."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depo.policies.base import format_reply, parse_reply


@pytest.mark.parametrize(
    ("text", "thought", "action"),
    [
        ("Thought: it is near.\nAction: go to red ball 1", "it is near.", "go to red ball 1"),
        ("Thought:\nit is near.\n\nAction:\ngo to red ball 1", "it is near.", "go to red ball 1"),
        ("thought: a\n  ACTION :  b  \nand more", "a", "b"),
        ("no word for it\nAction: b", "no word for it", "b"),
    ],
)
def test_action_stands_behind_its_word_or_below_it(text, thought, action):
    assert parse_reply(text) == (thought, action, False)


@pytest.mark.parametrize(
    "text",
    ["", "Thought: a", "Action:", "Action:\n\nb", "Action: a\nAction: b", "Action:\nAction: b"],
)
def test_no_action_or_more_than_one_is_malformed(text):
    assert parse_reply(text)[1:] == ("", True)


@given(thought=st.text("abc .,:"), action=st.text("abc123", min_size=1))
def test_what_is_formatted_is_read_back(thought, action):
    assert parse_reply(format_reply(thought.strip(), action)) == (thought.strip(), action, False)
