"""Answers of the kinds of AgentGym servers, as their sources give them."""

from __future__ import annotations

import httpx
import pytest

from depo.config.base import ConfigError
from depo.envs.agentgym_client import Lost, Server
from depo.envs.agentgym_dialects import (
    DIALECTS,
    Reading,
    Unreadable,
    cleaned,
    dialect,
    read_id,
    read_reset,
    read_step,
    shop_action,
)


@pytest.mark.parametrize(
    ("name", "answer", "reading"),
    [
        ("babyai", {"observation": 'Goal.\nAvailable actions: ["turn left", "toggle"]', "score": 0},
         Reading('Goal.\nAvailable actions: ["turn left", "toggle"]', actions=("turn left", "toggle"))),
        ("babyai", {"observation": "Available actions: cut off"}, Reading("Available actions: cut off")),
        ("babyai", {"observation": f"Available actions: {'[' * 99999}"},
         Reading(f"Available actions: {'[' * 99999}")),
        ("alfworld", {"id": 0, "observation": "A room.", "available_actions": ["look", "go to desk 1"]},
         Reading("A room.\nAVAILABLE ACTIONS: look,go to desk 1", actions=("look", "go to desk 1"))),
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
        ({"observation": "", "reward": "1", "done": False}, "reward"),
        ({"observation": "", "reward": float("nan"), "done": True}, "reward"),
        ({"observation": "", "reward": float("-inf"), "done": True}, "reward"),
        ({"observation": "", "reward": 10**400, "done": True}, "reward"),
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


@pytest.mark.parametrize(
    ("name", "action", "sent"),
    [
        ("babyai", " Go to  red ball 1.\t", "Go to red ball 1"),
        ("babyai", "`toggle`\nand then I wait", "toggle"),
        ("babyai", "!!!", ""),
        ("textcraft", "craft 1 bed using 3 wool, 3 planks;", "craft 1 bed using 3 wool, 3 planks"),
        ("alfworld", " put mug 1 in/on desk 1.\n", "put mug 1 in/on desk 1."),
        ("sciworld", "open door to kitchen!", "open door to kitchen!"),
        ("webshop", " search[red shoes, size 9]", "search[red shoes, size 9]"),
        ("sqlgym", "```sql\nSELECT a\nFROM b;\n```", "SELECT a\nFROM b;"),
        ("sqlgym", "SELECT 1;", "SELECT 1;"),
        ("tool", "finish with Action Input: {'a': 3}", "Action: finish with Action Input: {'a': 3}"),
        ("tool", "Action: finish with Action Input: {}", "Action: finish with Action Input: {}"),
        ("generic", " up! ", "up!"),
    ],
)  # fmt: skip
def test_an_action_goes_out_as_agentgyms_own_client_sends_it(name, action, sent):
    assert cleaned(DIALECTS[name], action) == sent


def test_a_shop_knows_two_kinds_of_action():
    assert shop_action("search[Red Shoes]") == ("search", "red shoes")
    assert shop_action("click[Buy Now] please") == ("click", "buy now")
    assert [shop_action(a) for a in ("buy now", "search[]", "now click[x]", "", "scroll[down]")] == [None] * 5


@pytest.mark.parametrize(
    ("name", "answer", "invalid"),
    [
        ("textcraft", "Could not find oak", True),
        ("textcraft", "Wrong item format: oak", True),
        ("textcraft", "Inventory: You are not carrying anything.", False),
        ("tool", "ERROR | Invalid action: fly.", True),
        ("tool", 'Format error, please response in the format of "Action: ..."', True),
        ("alfworld", "Nothing happens.", True),
        ("sciworld", "No known action matches that input.", True),
    ],
)
def test_what_an_environment_says_of_an_invalid_action_is_known(name, answer, invalid):
    assert any(phrase.lower() in answer.lower() for phrase in DIALECTS[name].invalid) == invalid


def test_lone_surrogates_of_a_server_become_characters_that_can_be_written():
    answer = {"observation": "a \ud800", "reward": 0, "done": False, "available_actions": ["\udc00"]}
    assert read_step(DIALECTS["generic"], answer) == Reading("a \ufffd", actions=("\ufffd",))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"cleaning": "all"}, "protocol.cleaning: give one of strip, words, sql, call, not 'all'"),
        ({"actions": "list"}, "protocol.actions: give one of field, text, pages, not 'list'"),
        ({"reward_scale": float("nan")}, "protocol.reward_scale: expected float, got nan"),
        ({"success_at": True}, "protocol.success_at: expected float, got True"),
    ],
)
def test_a_convention_that_there_is_not_is_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        dialect("generic", override)


@pytest.mark.parametrize("answer", [b"<html>", b'"\xff"', b"[" * 99999, b"1" * 9999])
def test_an_answer_that_no_reader_takes_is_one_line(answer):
    server = Server("http://localhost:1", 1.0, 0)
    server._http = httpx.Client(
        base_url=server.url,
        transport=httpx.MockTransport(lambda request: httpx.Response(200, content=answer)),
    )
    with pytest.raises(Lost, match="not JSON: "):
        server.once("/step", {})
