"""Stages: done is skipped, half done resumes, changed starts anew and loses nothing."""

import time
from dataclasses import replace

import pytest

from depo.stages.base import Outcome, StageSpec, begin, done, finish, state


@pytest.fixture
def spec(tmp_path):
    return StageSpec("train bc", tmp_path / "bc", {"method": {"lr": 1.0}}, {"student": "f1"})


def complete(spec):
    begin(spec)
    (spec.out_dir / "work").write_text(spec.fingerprint)
    return finish(spec, Outcome(3, metrics={"loss": 0.5}), time.time())


def test_a_new_stage_runs_then_is_done(spec):
    assert (done(spec), state(spec)) == (None, "to run")
    manifest = complete(spec)
    assert done(spec) == manifest
    assert state(spec) == "done"
    assert (manifest.rows, manifest.metrics, manifest.inputs) == (3, {"loss": 0.5}, {"student": "f1"})


def test_a_stage_without_manifest_resumes_with_its_work(spec):
    begin(spec)
    (spec.out_dir / "work").write_text("half")
    assert begin(spec) == "resumes"
    assert (spec.out_dir / "work").read_text() == "half"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"config": {"method": {"lr": 2.0}}}, "method.lr"),
        ({"inputs": {"student": "f2"}}, "input student"),
        ({"version": 2}, "version"),
    ],
)
def test_a_changed_stage_says_what_changed_and_keeps_the_old_work(spec, change, named):
    complete(spec)
    changed = replace(spec, **change)
    assert state(changed) == f"starts anew: {named} changed"
    assert begin(changed) == f"starts anew: {named} changed"
    assert not (spec.out_dir / "work").exists()
    old = spec.out_dir.parent / "superseded" / f"bc-{spec.fingerprint}"
    assert (old / "work").read_text() == spec.fingerprint


def test_work_comes_back_with_its_configuration(spec):
    manifest = complete(spec)
    begin(replace(spec, version=2))
    begin(spec)
    assert done(spec) == manifest


def test_a_stage_that_grows_goes_on_with_its_work(spec):
    spec = replace(spec, config={"lr": 1.0, "seeds": [0]}, grows=("seeds",))
    complete(spec)
    more = replace(spec, config={"lr": 1.0, "seeds": [0, 1]})
    assert (done(more), state(more)) == (None, "goes on: seeds changed")
    assert begin(more) == "goes on: seeds changed"
    assert (more.out_dir / "work").read_text() == spec.fingerprint
    # Killed now, it is neither what it was nor what it will be.
    assert (done(spec), done(more), state(more)) == (None, None, "resumes")
    finish(more, Outcome(6), time.time())
    other = replace(more, config={"lr": 2.0, "seeds": [0, 1]})
    assert begin(other) == "starts anew: lr changed"
    assert not (other.out_dir / "work").exists()
    # Back comes whatever was done of it, with however many seeds.
    assert begin(spec) == "taken back from superseded/"
    assert (spec.out_dir / "work").exists()
    assert (done(spec), state(spec)) == (None, "resumes")
    finish(spec, Outcome(3), time.time())
    begin(other)
    assert begin(spec) == "taken back from superseded/"
    assert done(spec) is not None


def test_the_fingerprint_follows_every_part_of_the_identity_but_not_the_directory(spec, tmp_path):
    assert replace(spec, out_dir=tmp_path / "elsewhere").fingerprint == spec.fingerprint
    others = [
        replace(spec, name="train kto"),
        replace(spec, version=2),
        replace(spec, config={}),
        replace(spec, inputs={}),
    ]
    assert len({s.fingerprint for s in [spec, *others]}) == 5
