"""Recorded cases: reading any file a user may give, and the command that replays them."""

from __future__ import annotations

import gzip
import json

import pytest

from depo.cli import main
from depo.config.base import ConfigError
from depo.envs import cases as recorded
from depo.envs.cases import CaseReport, read_cases


@pytest.mark.parametrize("name", ["cases.jsonl", "cases.jsonl.gz"])
def test_cases_come_with_their_line_numbers(tmp_path, name):
    path = tmp_path / name
    text = '{"a": 1}\n\n{"b": "é"}\n'.encode()
    path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    assert list(read_cases(path)) == [(1, {"a": 1}), (3, {"b": "é"})]


WHOLE = b'{"a": 1}\n{"a": 2}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.jsonl", b"", "holds no case"),
        ("c.jsonl", b"\n\n", "holds no case"),
        ("c.jsonl", WHOLE[:-5], "row 2: not JSON"),
        ("c.jsonl", b'{"a": 1}\n[1]\n', "row 2: expected an object, got list"),
        ("c.jsonl", b'{"a": 1}\n\xff\n', "row 1: cannot be read"),
        ("c.jsonl.gz", WHOLE, "row 1: cannot be read"),
        ("c.jsonl.gz", gzip.compress(WHOLE)[:-9], "cannot be read"),
        ("c.jsonl.gz", gzip.compress(WHOLE * 99, mtime=0)[:20] + b"\0\0", "cannot be read"),
    ],
)
def test_a_malformed_file_is_one_line_naming_file_and_row(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        list(read_cases(path))
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(ConfigError, match=str(path)):
            list(read_cases(path))


def check_cases(cases, compat, catalogue):
    """Replays cases that say themselves what comes out: a stand-in environment for the command."""
    checked = 0
    for row, case in read_cases(cases):
        if case["got"] != case["expected"]:
            return CaseReport(checked, f"row {row}, {compat}: expected {case['expected']}, got {case['got']}")
        checked += 1
    return CaseReport(checked)


@pytest.fixture
def replayed(monkeypatch):
    monkeypatch.setitem(recorded.REPLAYED, "babyai", __name__)


@pytest.mark.parametrize(
    ("got", "code", "said"), [(2, 0, "2 cases agree"), (3, 1, "row 2, agentgym: expected 2, got 3")]
)
def test_the_command_tells_agreement_or_the_first_difference(tmp_path, capsys, replayed, got, code, said):
    path = tmp_path / "cases.jsonl"
    path.write_text('{"expected": 1, "got": 1}\n' + json.dumps({"expected": 2, "got": got}) + "\n")
    command = ["check-env", "babyai", "--compat", "agentgym", "--cases", str(path)]
    assert main(command) == code
    assert capsys.readouterr().out == said + "\n"
    assert main([*command, "--json"]) == code
    answer = json.loads(capsys.readouterr().out)
    assert (
        answer == {"checked": 2, "difference": "", "note": ""} if code == 0 else answer["difference"] == said
    )


def test_a_malformed_case_file_is_a_clear_error(tmp_path, capsys, replayed):
    path = tmp_path / "cases.jsonl"
    path.write_text("{")
    assert main(["check-env", "babyai", "--compat", "agentgym", "--cases", str(path)]) == 1
    assert capsys.readouterr().err.startswith(f"depo: {path}: row 1: not JSON")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["maths", "--compat", "x", "--cases", "f"], "maths has no recorded cases; babyai and webshop have"),
        (["babyai", "--cases", "f"], "--cases needs --compat"),
        (["babyai", "--compat", "agentgym", "--cases", "f", "--catalogue", "g"], "webshop's cases"),
        (["babyai", "--compat", "x", "--cases", "f", "--options", "[]"], "--options does not go with"),
        (["webshop", "--catalogue", "g"], "--catalogue goes with --cases"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together_are_wrong_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["check-env", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("options", ["[1]", "{"])
def test_options_must_be_an_object(options, capsys):
    assert main(["check-env", "maths", "--options", options]) == 1
    assert "--options: " in capsys.readouterr().err


def test_compat_without_cases_is_an_option_of_the_environment(capsys):
    assert main(["check-env", "maths", "--compat", "x"]) == 1
    assert "env.options.compat: unknown option of 'maths'" in capsys.readouterr().err
