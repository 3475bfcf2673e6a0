"""The scripts of `experiments/`: cheap to import, and what they ask for is what `depo` takes."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from depo.cli import _parser
from depo.commands import scripts
from depo.config.base import ConfigError
from depo.config.load import load_config, parse_config
from depo.config.schema import ExperimentConfig
from depo.config.sweep import with_settings
from depo.envs.registry import make_env

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
DEMO = EXPERIMENTS / "configs" / "babyai-tiny.yaml"
CONFIGS = sorted((EXPERIMENTS / "configs").glob("*.yaml"))
SCRIPTS = sorted(EXPERIMENTS.glob("*.py"))
TRIALS = {"alpha": 16, "beta": 5, "lambda": 9, "bonus": 4, "placement": 4, "penalty": 6, "data": 4}
"""Sweep to its trials, as the docstring of its script says."""


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"script_{name}", EXPERIMENTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sweeps_of(module: ModuleType) -> dict[str, list[str]]:
    return vars(module).get("SWEEPS", {})


SWEPT = {name: path.stem for path in SCRIPTS for name in sweeps_of(script(path.stem))}
"""Sweep to the script that runs it."""


def asked_for(name: str, config: Path, added: list[str]) -> tuple[ExperimentConfig, dict[str, list[Any]]]:
    """The configuration that a sweep of a script runs with, and the values that it tries."""
    module = script(SWEPT[name])
    calls = scripts.sweep_arguments(module.CONFIG, sweeps_of(module), [str(config), *added])
    call = calls[list(sweeps_of(module)).index(name)]
    options = _parser().parse_args(call)
    axes = [axis.partition("=") for axis in options.grid]
    space = {field: [yaml.safe_load(v) for v in values.split(",")] for field, _, values in axes}
    return load_config(options.config, options.overrides), space


def test_every_sweep_is_known_here():
    assert SWEPT.keys() == TRIALS.keys()
    assert {path.stem for path in SCRIPTS} - set(SWEPT.values()) == {"main_table", "generalization"}


@pytest.mark.parametrize("name", TRIALS)
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_what_a_sweep_tries_fits_every_configuration(name, path):
    config, space = asked_for(name, path, [])
    assert config.sweep is not None and config.sweep.name == name
    swept = config.model_dump(mode="json", exclude_unset=True)
    swept["sweep"] |= {"space": space}
    parsed = parse_config(swept)  # refuses a space that the method cannot take
    assert parsed.sweep is not None and parsed.sweep.space == space
    method = config.methods[config.sweep.method]
    tried = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    assert len(tried) == TRIALS[name]
    assert len({with_settings(method, one).model_dump_json() for one in tried}) == len(tried)
    said = script(SWEPT[name]).__doc__ or ""
    assert f"{TRIALS[name]} trials" in said


def test_what_follows_a_script_replaces_what_it_says():
    added = ["--grid", "beta=0.3", "--set", "sweep.name=mine", "--set", "sweep.tasks=7"]
    config, space = asked_for("beta", DEMO, added)
    assert config.sweep is not None
    assert (config.sweep.name, config.sweep.tasks, space) == ("mine", 7, {"beta": [0.3]})
    (call,) = scripts.sweep_arguments(DEMO, {"beta": ["beta=1"]}, ["--json"])
    assert _parser().parse_args(call).config == str(DEMO)


def test_scripts_import_nothing_heavy():
    code = (
        "import runpy, sys\n"
        "for path in sys.argv[1:]:\n"
        "    runpy.run_path(path, run_name='script')\n"
        "print(sorted({'ray', 'torch', 'transformers', 'matplotlib', 'mlflow'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code, *map(str, SCRIPTS)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_seeds_are_runs_of_their_own_with_the_seed_wherever_chance_decides():
    given = scripts.given(DEMO, ["--set", "name=mine", "--set", "evaluation.seeds=[4, 5]"])
    runs = [_parser().parse_args(run) for run in scripts.seed_arguments(given, [0, 3])]
    first, second = (load_config(run.config, run.overrides) for run in runs)
    assert (first.name, second.name) == ("mine-s0", "mine-s3")
    assert first.seed == 0 and second.seed == 3
    assert {method.seed for method in second.methods.values()} == {3}
    assert {annotation.seed for annotation in second.annotation.values()} == {3}
    assert first.evaluation == second.evaluation
    assert scripts.seed_directories(given, [0, 3]) == ["runs/mine-s0", "runs/mine-s3"]


def test_suites_without_files_are_those_that_need_none():
    changed = ["--set", "evaluation.suites.simuleq.tasks=9"]
    tried = scripts.with_suites(scripts.given(DEMO, changed), {"gsm8k": None})
    _parser().parse_args(["run", tried.path, *tried.rest])
    suites = tried.config.evaluation.suites
    assert suites.keys() == {"simuleq", "unseen"}
    assert suites["simuleq"].tasks == 9
    config = load_config(DEMO)
    unseen = suites["unseen"].env.options
    assert unseen == {**config.env.options, "levels": list(scripts.UNSEEN_LEVELS)}
    for suite in suites.values():
        env = make_env(suite.env.id, suite.env.options)
        tasks = env.tasks("test", 8)
        assert len({task.id for task in tasks}) == 8 and env.reset(tasks[0])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_unseen_levels_are_trained_on_by_no_configuration(path):
    env = load_config(path).env
    trained = make_env(env.id, env.options).tasks("train", 400)
    assert {task.level for task in trained}.isdisjoint(scripts.UNSEEN_LEVELS)


def test_a_file_makes_a_suite_and_a_missing_one_is_one_line(tmp_path, capsys):
    file = tmp_path / "test.jsonl"
    file.write_text('{"question": "1 + 1?", "answer": "#### 2"}\n')
    given = scripts.given(DEMO, [])
    suites = scripts.with_suites(given, {"gsm8k": str(file), "math": None}).config.evaluation.suites
    assert suites.keys() == {"gsm8k"}
    assert suites["gsm8k"].env.options == {"dataset": "gsm8k", "path": str(file)}
    with pytest.raises(ConfigError, match=r"--math: nothing at nowhere\.json; check the path"):
        scripts.with_suites(given, {"math": "nowhere.json"})
    module = script("generalization")
    assert scripts.answered(module.table, ["--math", "nowhere.json"]) == 1
    assert capsys.readouterr().err == "depo: --math: nothing at nowhere.json; check the path\n"
