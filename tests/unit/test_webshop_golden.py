"""Recorded cases of WebShop and AgentGym, and case files that are not what they should be."""

import copy
import gzip
import json
import os
from pathlib import Path

import pytest
from webshop_play import cache_dir

from depo.config.base import ConfigError
from depo.envs.webshop.cases import check_cases

GOLDEN = os.environ.get("DEPO_GOLDEN_DIR")
needs_golden = pytest.mark.skipif(
    not GOLDEN, reason="DEPO_GOLDEN_DIR is not set: the recorded cases are elsewhere"
)
FILES = [
    ("webshop_reward", "agentgym", 1480),
    ("webshop_search", "webshop", 192),
    ("webshop_transcripts_h0", "agentgym", 74),
    ("webshop_transcripts_h1", "agentgym", 74),
    ("webshop_transcripts_orig_h1", "webshop", 29),
]

REWARD = {
    "product": {
        "asin": "B1", "Title": "Oak Chair", "query": "chairs", "product_category": "a › b",
        "Attributes": ["solid wood"], "BulletPoints": [], "Description": "",
    },
    "goal": {
        "asin": "B1", "name": "Oak Chair", "query": "chairs", "product_category": "a › b",
        "attributes": ["solid wood"], "price_upper": 50.0, "goal_options": {"color": "red"},
    },
    "price": 40, "options": {"color": "red"}, "purchased_nouns": ["oak", "chair"],
    "goal_nouns": ["oak", "chair"], "reward": 1.0,
    "info": {
        "r_type": 1.0, "r_att": 1.0, "w_att": 1 / 3, "query_match": True, "category_match": True,
        "title_score": 1.0, "r_option": 1.0, "w_option": 1 / 3, "r_price": True, "w_price": 1 / 3,
    },
    "type_reward": {"r_type": 1.0, "query_match": True, "category_match": True, "title_score": 1.0},
    "attribute_reward": [1.0, 1], "option_reward": [1.0, 1],
}  # fmt: skip


@pytest.fixture(autouse=True)
def built_shops_go_to_a_folder_of_their_own(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", cache_dir())


def golden(name: str) -> tuple[Path, Path]:
    return Path(GOLDEN, f"{name}.jsonl.gz"), Path(GOLDEN, "webshop_catalogue_1k.tar.gz")


def write(folder, *records) -> Path:
    path = folder / "cases.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def changed(record, path, value):
    """A copy of `record` with the field at `path` set, or left out where `value` is None."""
    new = copy.deepcopy(record)
    *parents, last = path
    place = new
    for name in parents:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return new


@needs_golden
@pytest.mark.parametrize(("name", "compat", "count"), FILES)
def test_every_recorded_case_comes_out_as_recorded(name, compat, count):
    cases, catalogue = golden(name)
    report = check_cases(cases, compat, catalogue)
    assert (report.difference, report.checked) == ("", count)


@needs_golden
@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("steps", 1, "obs"), "Instruction: nothing", "step 2 ('click[b01gevn2hg]'): obs: recorded"),
        (("steps", 0, "avail", "has_search_bar"), True, "step 1 ('search[quorra"),
        (("steps", 0, "r"), 0.5, "step 1 ('search[quorra soft"),
        (("obs",), "WebShop", "session 1: start: obs: recorded 'WebShop', got \"WebShop [SEP] Instr"),
    ],
)
def test_the_first_difference_of_a_session_is_told(tmp_path, path, value, message):
    cases, catalogue = golden("webshop_transcripts_h0")
    with gzip.open(cases, "rt") as lines:
        header, episode = json.loads(next(lines)), json.loads(next(lines))
    report = check_cases(write(tmp_path, header, changed(episode, path, value)), "agentgym", catalogue)
    assert report.checked == 0 and "\n" not in report.difference
    assert "cases.jsonl: row 2: session 1: " in report.difference and message in report.difference


@needs_golden
def test_a_header_that_does_not_fit_is_told(tmp_path):
    cases, catalogue = golden("webshop_transcripts_h0")
    with gzip.open(cases, "rt") as lines:
        header = json.loads(next(lines))
    report = check_cases(write(tmp_path, {**header, "n_goals": 3}), "agentgym", catalogue)
    assert report.difference.endswith("row 1: n_goals: recorded 3, got 2128")
    with pytest.raises(ConfigError, match="row 1: variant: recorded of 'agentgym'; replay it with that"):
        check_cases(cases, "webshop", catalogue)
    with pytest.raises(ConfigError, match="row 1: product_prices: expected an object of numbers"):
        check_cases(write(tmp_path, {**header, "product_prices": {"B1": "2"}}), "agentgym", catalogue)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("reward",), 0.5, "reward: recorded 0.5, got 1.0"),
        (("info", "w_att"), 0.5, "info: recorded {'r_type': 1.0, "),
        (("option_reward",), [0.0, 0], "option_reward: recorded [0.0, 0], got [1.0, 1]"),
    ],
)
def test_the_first_difference_of_a_reward_is_told(tmp_path, path, value, message):
    report = check_cases(write(tmp_path, REWARD, changed(REWARD, path, value)), "agentgym", None)
    assert report.checked == 1 and "cases.jsonl: row 2: " + message in report.difference


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("price",), None, "row 2: price: missing"),
        (("price",), "40", "row 2: price: expected a number, got '40'"),
        (("price",), True, "row 2: price: expected a number, got True"),
        (("reward",), None, "row 2: reward: missing"),
        (("product", "Title"), None, "row 2: product: Title: missing"),
        (("goal", "goal_options"), None, "row 2: goal: goal_options: missing"),
        (("goal", "goal_options"), 7, "row 2: goal: goal_options: expected an object, got 7"),
        (("goal", "attributes"), ["a", 1], "row 2: goal: attributes: expected a list of texts"),
        (("options",), {"color": 1}, "row 2: options: expected an object of texts"),
    ],
)
def test_a_field_that_is_missing_or_of_another_type_is_named(tmp_path, path, value, message):
    cases = write(tmp_path, REWARD, changed(REWARD, path, value))
    with pytest.raises(ConfigError, match=message):
        check_cases(cases, "agentgym", None)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"q": "red", "top50": []}, "holds searches; give the catalogue they were recorded on"),
        ({"kind": "header"}, "holds sessions; give the catalogue they were recorded on"),
        ({"level": "GoToRedBall"}, "row 1: kind: missing; this is no reward, search or session of WebShop"),
    ],
)
def test_a_file_of_another_kind_or_without_its_catalogue_is_refused(tmp_path, record, message):
    with pytest.raises(ConfigError, match=message):
        check_cases(write(tmp_path, record), "agentgym", None)


def test_sessions_begin_with_a_header(tmp_path):
    with pytest.raises(ConfigError, match="row 1: kind: expected 'header'"):
        check_cases(write(tmp_path, {"kind": "episode"}), "agentgym", tmp_path)
