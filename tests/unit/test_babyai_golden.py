"""Every recorded episode of AgentGym's BabyAI, and what is said of a record that is not one."""

from __future__ import annotations

import copy
import gzip
import json
import os
from pathlib import Path

import pytest

from depo.config.base import ConfigError
from depo.envs.babyai.cases import check_cases

GOLDEN = os.environ.get("DEPO_GOLDEN_DIR")
golden = pytest.mark.skipif(not GOLDEN, reason="DEPO_GOLDEN_DIR is not set: the recorded cases are elsewhere")

STATE = {
    "pos": [6, 5],
    "dir": 2,
    "carry": None,
    "n": 0,
    "acts": [
        "check available actions",
        *(f"go to {name}" for name in ("grey ball 1", "grey ball 2", "grey box 1")),
        *(f"go to grey key {number}" for number in (1, 2, 3, 4)),
        "go to red ball 1",
        "move forward",
        *(f"pickup {name}" for name in ("grey ball 1", "grey ball 2", "grey box 1")),
        *(f"pickup grey key {number}" for number in (1, 2, 3, 4)),
        "pickup red ball 1",
        "turn left",
        "turn right",
    ],
    "plans": [
        *("", "21", "222221", "12202", "20", "220", "221", "222212", "12220222", "2"),
        *("213", "2222213", "122023", "203", "2203", "2213", "2222123", "122202223", "0", "1"),
    ],
    "obs": "50f5d1d6dd",
    "err": "effa86967f",
}
CASE = {
    "data_idx": 0, "level": 1, "seed": 0, "mission": "go to the red ball", "goal": "go to the red ball",
    "max_steps": 64, "init": STATE,
    "steps": [
        STATE | {"a": "fly away", "plan": None, "ran": 0, "r": 0.0, "done": False, "valid": False,
                 "text": "The action is not recognized. Please check valid actions.", "obs": "55e05533a1"},
    ],
}  # fmt: skip
"""A case as they are recorded."""


def check(folder: Path, *cases: object):
    path = folder / "cases.jsonl"
    path.write_text("".join(json.dumps(case) + "\n" for case in cases), encoding="utf-8")
    return check_cases(path, "agentgym", None)


@golden
def test_every_recorded_episode_agrees():
    report = check_cases(Path(GOLDEN or "") / "babyai.jsonl.gz", "agentgym", None)
    assert (report.checked, report.difference) == (475, "")


@golden
@pytest.mark.parametrize("field", ["pos", "carry", "n", "plan", "ran", "r", "done", "valid", "obs", "err"])
def test_a_changed_field_of_a_recorded_step_is_reported(tmp_path, field):
    with gzip.open(Path(GOLDEN or "") / "babyai.jsonl.gz", "rt") as lines:
        case = json.loads(next(lines))
    other = {"pos": [0, 0], "carry": "red key", "n": 99, "plan": "666", "ran": 9, "r": 0.25, "done": True}
    case["steps"][2][field] = other.get(field, not case["steps"][2][field])
    if field in ("obs", "err"):
        case["steps"][2][field] = "0123456789"
    assert f"step 3: {field}: recorded" in check(tmp_path, case).difference


def test_a_case_that_agrees_is_counted(tmp_path):
    report = check(tmp_path, CASE, CASE)
    assert (report.checked, report.difference) == (2, "")


@pytest.mark.parametrize(
    ("path", "value", "difference"),
    [
        (("mission",), "go", "start: mission: recorded 'go', got 'go to the red ball'"),
        (("level",), 2, "start: level: recorded 2, got 1"),
        (("max_steps",), 65, "start: max_steps: recorded 65, got 64"),
        (("init", "dir"), 1, "init: dir: recorded 1, got 2"),
        (("init", "acts"), ["turn left"], "init: acts: recorded ['turn left'], got "),
        (("steps", 0, "valid"), True, "step 1: valid: recorded True, got False"),
        (("steps", 0, "text"), "No.", "step 1: text: recorded 'No.', got 'The action is not recognized"),
        (("steps", 0, "a"), "turn left", "step 1: plan: recorded None, got '0'"),
    ],
)
def test_the_first_difference_names_case_step_and_field(tmp_path, path, value, difference):
    changed = copy.deepcopy(CASE)
    part = changed
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    report = check(tmp_path, CASE, changed)
    assert report.checked == 1
    assert report.difference.startswith("row 2 (level ") and difference in report.difference


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": None}, "row 1: seed: NoneType None does not belong there"),
        ({"steps": "turn left"}, "row 1: steps: str 'turn left' does not belong there"),
        ({"steps": [7]}, "row 1: step 1: expected an object, got int"),
        ({"steps": [STATE]}, "row 1: step 1: no field 'a'"),
        ({"init": {}}, "row 1: init: no field 'pos'"),
        ({"data_idx": -1}, "row 1: data_idx: -1 is negative"),
        ({"data_idx": True}, "row 1: data_idx: bool True does not belong there"),
    ],
)
def test_a_malformed_case_is_refused_by_row_and_field(tmp_path, change, message):
    with pytest.raises(ConfigError) as caught:
        check(tmp_path, CASE | change)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_case_without_a_field_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="row 1: no field 'goal'; record the case again"):
        check(tmp_path, {key: value for key, value in CASE.items() if key != "goal"})


def test_other_rules_and_a_catalogue_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="of 'agentgym' or 'agentgym-minigrid3', not of 'webshop'"):
        check_cases(tmp_path / "cases.jsonl", "webshop", None)
    with pytest.raises(ConfigError, match="leave it out"):
        check_cases(tmp_path / "cases.jsonl", "agentgym", tmp_path)
