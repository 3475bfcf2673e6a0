"""The command line: bad input is one line and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from depo.cli import main

DEMO = Path(__file__).parents[2] / "experiments" / "configs" / "babyai-tiny.yaml"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evaluation.taks=3"], "evaluation.taks: unknown key; did you mean 'tasks'?"),
        (["methods.kto.beta=0"], "methods.kto.beta: input should be greater than 0, not 0"),
        (["env.options.levels=[GoToRedBal]"], "GoToRedBal"),
        (["env.id=babyia"], "env.id: unknown environment 'babyia'; did you mean 'babyai'?"),
        (["env.options.level=[1]"], "env.options.level: unknown option of 'babyai'; did you mean 'levels'?"),
        (["student.model=./nowhere"], "/nowhere (no such folder); give a folder"),
        (
            ["rounds.0.policy={kind: openai, base_url: 'https://a.example', model: m, api_key_env: NO_KEY}"],
            "api_key_env: the environment variable NO_KEY is not set; export it",
        ),
        (
            ["runtime.runs_dir=/dev/null/runs"],
            "runtime.runs_dir: /dev/null/runs/babyai-tiny cannot be written",
        ),
    ],
)
def test_bad_input_is_one_line_exit_1_and_nothing_written(overrides, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = main(["run", str(DEMO), *(part for o in overrides for part in ("--set", o))])
    error = capsys.readouterr().err
    assert code == 1
    assert message in error
    assert error.count("\n") == 1 and error.startswith("depo: ")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_configuration_is_named(capsys):
    assert main(["run", "nowhere.yaml"]) == 1
    assert (
        capsys.readouterr().err
        == "depo: nowhere.yaml: cannot be read (No such file or directory); check the path\n"
    )


@pytest.mark.parametrize("arguments", [[], ["run"], ["fly", "x.yaml"]])
def test_wrong_usage_exits_2(arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


@pytest.mark.parametrize("command", ["train", "generate", "annotate", "evaluate"])
def test_an_unknown_stage_names_the_known_ones(command, tmp_path, capsys):
    assert main([command, str(DEMO), "nonsense", "--set", f"runtime.runs_dir={tmp_path}"]) == 1
    assert "known: " in capsys.readouterr().err


@pytest.mark.parametrize("command", [["export"], ["data", "show"]])
def test_an_unknown_round_names_the_known_ones(command, capsys):
    more = ["--out", "x.jsonl"] if command == ["export"] else []
    assert main([*command, str(DEMO), "nonsense", *more]) == 1
    error = capsys.readouterr().err
    assert error.startswith("depo: no round ") and "'nonsense'; known" in error
    assert error.endswith(": teacher, student\n") and error.count("\n") == 1


def test_the_plan_lists_every_stage_and_writes_nothing(tmp_path, capsys):
    assert main(["plan", str(DEMO), "--json", "--set", f"runtime.runs_dir={tmp_path / 'runs'}"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["stage"] for r in rows][-1] == "report"
    assert {"generate teacher", "train bc", "generate student", "train depo"} <= {r["stage"] for r in rows}
    assert {r["state"] for r in rows} == {"to run"}
    assert not (tmp_path / "runs").exists()


def test_an_environment_is_checked_against_the_contract(capsys):
    assert main(["check-env", "babyai", "--options", '{"levels": ["GoToObjS6-v1"]}', "--json"]) == 0
    assert all(check["ok"] for check in json.loads(capsys.readouterr().out))


def test_an_environment_that_breaks_the_contract_fails_the_check(capsys):
    assert main(["check-env", "broken_env:Leaky"]) == 1
    out = capsys.readouterr().out
    assert "FAIL splits share no task" in out
    assert "FAIL the same actions lead to the same episode" in out
    assert "FAIL an invalid action is an observation" in out


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("beta", "--grid beta: write it as FIELD=A,B,C with numbers, words, true or false"),
        ("beta=0.1,,2", "--grid beta=0.1,,2: write it as FIELD=A,B,C"),
        ("beta=[1", "--grid beta, line 1: "),
        ("beta=a,b", "sweep.space.beta: 'a' is refused: input should be a valid number"),
        ("placement=margin,centre", "sweep.space.placement: 'centre' is refused"),
    ],
)
def test_a_grid_that_cannot_be_tried_is_one_line(grid, message, capsys):
    assert main(["sweep", str(DEMO), "--grid", grid]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_the_doctor_finds_what_a_run_needs(capsys):
    assert main(["doctor", "--json"]) == 0
    found = {f["what"]: f["ok"] for f in json.loads(capsys.readouterr().out)}
    assert found["ray"] and found["torch"] and found["minigrid"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rounds.0.policy={kind: custom, cls: 'nowhere:Policy'}", "policy.cls: 'nowhere:Policy' cannot be"),
        ("rounds.0.policy={kind: custom, cls: 'json:Policy'}", "policy.cls: 'json:Policy' cannot be"),
        ("env={id: maths}", "the teacher has no script for environment 'maths'"),
    ],
)
def test_a_plan_says_that_nobody_can_act(override, message, capsys, tmp_path):
    given = ["--set", override, "--set", f"runtime.runs_dir={tmp_path}"]
    assert main(["plan", str(DEMO), *given]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
