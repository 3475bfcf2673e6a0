"""Answers of the kinds of AgentGym servers, as their sources give them."""

from __future__ import annotations

import pytest

from depo.envs.agentgym_dialects import DIALECTS, Reading, Unreadable, dialect, read_id, read_reset, read_step


@pytest.mark.parametrize(
    ("name", "answer", "reading"),
    [
        ("babyai", {"observation": 'Goal.\nAvailable actions: ["turn left", "toggle"]', "score": 0},
         Reading('Goal.\nAvailable actions: ["turn left", "toggle"]', actions=("turn left", "toggle"))),
        ("babyai", {"observation": "Available actions: cut off"}, Reading("Available actions: cut off")),
        ("alfworld", {"id": 0, "observation": "A room.", "available_actions": ["look", "go to desk 1"]},
         Reading("A room.", actions=("look", "go to desk 1"))),
        ("sciworld", {"task_description": "Boil.", "observation": "A hall."}, Reading("Boil.\nA hall.")),
        ("webshop", ["WebShop [SEP] Search", None], Reading("WebShop [SEP] Search")),
        ("tool", "New trial.", Reading("New trial.")),
        ("generic", {"observation": None}, Reading("")),
        ("generic", None, Reading("")),
    ],
)  # fmt: skip
def test_first_observations_are_found_where_the_kind_of_server_puts_them(name, answer, reading):
    assert read_reset(DIALECTS[name], answer) == reading


def test_steps_are_read_in_the_servers_own_fields_and_scale():
    step = {"observation": "Steam.", "reward": 25, "score": 75, "done": False}
    assert read_step(DIALECTS["sciworld"], step) == Reading("Steam.", 0.25, False)
    bought = {"state": "Bought.", "reward": 0.5, "done": True, "info": None}
    assert read_step(DIALECTS["webshop"], bought) == Reading("Bought.", 0.5, True)


@pytest.mark.parametrize(
    ("answer", "field"),
    [
        (None, "observation"),
        ([], "observation"),
        ({"observation": 3, "reward": 0, "done": False}, "observation"),
        ({"observation": "", "reward": None, "done": False}, "reward"),
        ({"observation": "", "reward": True, "done": False}, "reward"),
        ({"observation": "", "reward": 0, "done": "no"}, "done"),
    ],
)
def test_a_step_without_what_is_needed_names_the_field(answer, field):
    with pytest.raises(Unreadable, match=f"no usable '{field}' in .*; set server or protocol"):
        read_step(DIALECTS["generic"], answer)


def test_ids_come_alone_or_in_a_field():
    assert read_id(DIALECTS["generic"], {"id": 0}) == 0
    assert read_id(DIALECTS["webshop"], 31_415) == 31_415
    for answer in ({}, None, True, [1]):
        with pytest.raises(Unreadable, match="no 'id' in"):
            read_id(DIALECTS["generic"], answer)


def test_a_dialect_is_changed_field_by_field():
    changed = dialect("babyai", {"task_field": "game", "invalid": ["oops"], "success_at": 1})
    assert (changed.task_field, changed.invalid, changed.success_at) == ("game", ("oops",), 1)
    assert changed.actions == "text" and DIALECTS["babyai"].task_field == "data_idx"
