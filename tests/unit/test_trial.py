"""What a trial is known by, and what it leaves on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from depo.config.base import ConfigError
from depo.config.runtime import RuntimeConfig, TrainingRuntime
from depo.config.schema import EnvConfig, EvaluationConfig, MethodConfig, StudentConfig
from depo.records import Task
from depo.stages.sweep.plan import (
    RUNGS,
    TrialPlan,
    checkpoint_of,
    method_of,
    metrics_of,
    note_origin,
    read_rungs,
    trial_spec,
)
from depo.training.spec import TrainSpec

METHOD = MethodConfig(objective="depo", alpha_tokens=3.0)


def plan(folder: Path, **changes) -> TrialPlan:
    base = TrainSpec(METHOD, "model", "samples", "reference", "unused", "float32", 256)
    whole = TrialPlan(
        base=base,
        tasks=(Task("babyai", "GoToObj", 0, "validation"), Task("babyai", "GoToObj", 1, "validation")),
        evaluation=EvaluationConfig(split="validation"),
        env=EnvConfig(id="babyai"),
        student=StudentConfig(),
        runtime=RuntimeConfig(),
        inputs={"train bc": "f0"},
        out_dir=str(folder),
    )
    return replace(whole, **changes)


def row(step: int, rung: int) -> dict:
    return {"rung": rung, "rungs": 3, "step": step, "seconds": 1.5, "episodes": 2, "success": 0.5}


def test_a_trial_is_named_by_its_settings_and_known_by_all_it_depends_on(tmp_path):
    spec = trial_spec(plan(tmp_path), {"alpha_steps": 0.5, "lora.r": 8, "placement": "weight"})
    assert spec.name == "trial alpha_steps=0.5-lora.r=8-placement=weight"
    folder = spec.out_dir.relative_to(tmp_path / "trials")
    assert folder.name.startswith("alpha_steps=0.5-lora.r=8-placement=weight-")
    assert len(folder.name.rpartition("-")[2]) == 8
    method = spec.config["method"]
    assert (method["lora"]["r"], method["placement"], method["alpha_tokens"]) == (8, "weight", 3.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"rungs": 2},
        {"inputs": {"train bc": "f1"}},
        {"tasks": (Task("babyai", "GoToObj", 7, "validation"),)},
        {"evaluation": EvaluationConfig(split="validation", success_reward=0.9)},
        {"env": EnvConfig(id="babyai", options={"show_actions": False})},
        {"base": replace(plan(Path()).base, dtype="bfloat16")},
        {"base": replace(plan(Path()).base, method=METHOD.model_copy(update={"data_fraction": 0.5}))},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_it_depends_on_makes_another_trial_in_another_folder(tmp_path, changes):
    one, other = (trial_spec(p, {"beta": 0.5}) for p in (plan(tmp_path), plan(tmp_path, **changes)))
    assert one.fingerprint != other.fingerprint and one.out_dir != other.out_dir


@pytest.mark.parametrize(
    "changes",
    [
        {"runtime": RuntimeConfig(training=TrainingRuntime(num_workers=8))},
        {"evaluation": EvaluationConfig(split="validation", bootstrap=7, difficulty={"easy": ["*"]})},
        {"population": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_changes_no_result_changes_no_trial(tmp_path, changes):
    one, other = (trial_spec(p, {"beta": 0.5}) for p in (plan(tmp_path), plan(tmp_path, **changes)))
    assert one.fingerprint == other.fingerprint and one.out_dir == other.out_dir


def test_long_names_and_odd_characters_still_make_a_folder(tmp_path):
    settings = {"objective": "my.own.module:LOSS", **{f"options.temperature/{n}": 1.0 for n in range(50)}}
    base = replace(plan(tmp_path).base, method=MethodConfig(objective="my.own.module:LOSS"))
    name = trial_spec(plan(tmp_path, base=base), settings).out_dir.name
    assert "/" not in name and ":" not in name and len(name) < 100


def test_a_setting_the_method_refuses_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"beta") as caught:
        trial_spec(plan(tmp_path), {"beta": -1})
    assert "\n" not in str(caught.value)


def test_a_checkpoint_carries_on_its_own_trial_and_founds_others(tmp_path):
    whole = plan(tmp_path, population=True)
    first = trial_spec(whole, {"beta": 0.5}, member="a")
    checkpoint = checkpoint_of(first.out_dir, row(4, 1))
    checkpoint.mkdir(parents=True)
    note_origin(checkpoint, first, row(4, 1))
    assert method_of(checkpoint).beta == 0.5
    # Its own: the trial that it was.
    assert trial_spec(whole, {"beta": 0.5}, checkpoint, "a") == first
    # Another member, even with the same settings; other settings; a later rung: each is one of its own.
    second = trial_spec(whole, {"beta": 0.5}, checkpoint, "b")
    third = trial_spec(whole, {"beta": 0.7}, checkpoint, "b")
    later = checkpoint_of(first.out_dir, row(8, 2))
    later.mkdir()
    note_origin(later, first, row(8, 2))
    fourth = trial_spec(whole, {"beta": 0.7}, later, "b")
    assert len({spec.out_dir for spec in (first, second, third, fourth)}) == 4
    # One that was founded on a checkpoint stays what it is when it goes on from its own.
    own = checkpoint_of(third.out_dir, row(8, 2))
    own.mkdir(parents=True)
    note_origin(own, third, row(8, 2))
    assert trial_spec(whole, {"beta": 0.7}, own, "b") == third


def test_a_folder_that_is_no_checkpoint_of_a_trial_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no checkpoint of a trial"):
        trial_spec(plan(tmp_path), {}, tmp_path / "checkpoint-3")


def test_a_line_still_being_written_is_no_rung_yet(tmp_path):
    assert read_rungs(tmp_path) == []
    (tmp_path / RUNGS).write_text(json.dumps(row(4, 1)) + "\n" + json.dumps(row(8, 2))[:20])
    assert read_rungs(tmp_path) == [row(4, 1)]
    assert metrics_of(row(4, 1)) == {"success": 0.5}
