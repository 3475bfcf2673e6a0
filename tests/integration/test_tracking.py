"""Tracking against a real MLflow on SQLite."""

from __future__ import annotations

import subprocess
import sys

import pytest

from depo.config.schema import TrackingConfig
from depo.tracking.mlflow import CHANGED_TAG, KEY_TAG, PARENT_TAG, NullTracker, flatten, open_tracker

pytestmark = pytest.mark.slow

CURVE = [
    {"step": s, "loss": 1.0 / s, "log_ratio": {"D": 0.1 * s, "U": -0.1 * s}, "note": "x"}
    for s in range(1, 701)
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store laid out once; every test uses an experiment of its own."""
    return tmp_path_factory.mktemp("tracking") / "runs" / "mlflow.db"


def client_of(store):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{store}")


def runs_of(store, experiment):
    client = client_of(store)
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def test_a_parent_and_its_children_hold_params_metrics_curves_and_artifacts(store, tmp_path):
    report = tmp_path / "index.html"
    report.write_text("<p>report</p>")
    params = {"seed": 0, "env": {"options": {"levels": ["x" * 900]}}}
    with open_tracker(TrackingConfig(), store, "whole", params=params) as tracker:
        with tracker.child("train depo", {"beta": 1.0}, {"stage": "train"}, fingerprint="f1") as run:
            run.metrics({"success": 0.9, "tokens": {"mean": 39.5, "ci_low": None}})
            run.curve(CURVE)
        tracker.artifact(report)

    runs = {run.info.run_name: run for run in runs_of(store, "whole")}
    parent, child = runs["whole"], runs["train depo"]
    assert {r.info.status for r in runs.values()} == {"FINISHED"}
    assert child.data.tags[PARENT_TAG] == parent.info.run_id
    assert child.data.tags["stage"] == "train"
    assert child.data.params == {"beta": "1.0"}
    assert child.data.metrics["tokens.mean"] == 39.5
    assert parent.data.params["seed"] == "0"
    assert len(parent.data.params["env.options.levels"]) == 500
    history = client_of(store).get_metric_history(child.info.run_id, "log_ratio.U")
    assert [m.step for m in history] == list(range(1, 701))
    assert (store.parent / "mlflow-artifacts" / parent.info.run_id / "artifacts" / "index.html").is_file()


def test_running_again_updates_the_same_runs(store):
    for steps in (300, 700, 700):
        with (
            open_tracker(TrackingConfig(), store, "again", params={"seed": 1}) as tracker,
            tracker.child("train kto", {"beta": 1.0}, fingerprint="f2") as run,
        ):
            run.curve(CURVE[:steps])
            run.metrics({"seconds": 60.0 + steps})
    runs = {run.info.run_name: run for run in runs_of(store, "again")}
    assert set(runs) == {"again", "train kto"}
    assert len(runs_of(store, "again")) == 2
    history = client_of(store).get_metric_history(runs["train kto"].info.run_id, "loss")
    assert sorted(m.step for m in history) == list(range(1, 701))
    assert runs["train kto"].data.metrics["seconds"] == 760.0
    seconds = client_of(store).get_metric_history(runs["train kto"].info.run_id, "seconds")
    assert [m.value for m in seconds] == [360.0, 760.0]


def test_one_key_is_one_parent_and_a_parameter_that_changed_is_told_in_a_tag(store):
    for seed in (1, 2):
        params = {"seed": seed, "name": "x"}
        open_tracker(TrackingConfig(), store, "keyed", params=params, key="it's /runs/keyed").__exit__(
            *[None] * 3
        )
    [run] = runs_of(store, "keyed")
    assert run.data.params == {"seed": "1", "name": "x"}
    assert run.data.tags[CHANGED_TAG] == "seed=2"


def test_another_configuration_or_fingerprint_is_another_run(store):
    for seed in (0, 1):
        with open_tracker(TrackingConfig(), store, "other", params={"seed": seed}) as tracker:
            for fingerprint in ("a", "b"):
                with tracker.child("trial", {"alpha": 0}, fingerprint=fingerprint):
                    pass
    keys = [run.data.tags[KEY_TAG] for run in runs_of(store, "other")]
    assert len(keys) == 6
    assert keys.count("a") == keys.count("b") == 2


def test_a_stage_that_fails_ends_as_failed_its_error_goes_on_and_a_resume_mends_it(store):
    def attempt(fails):
        with open_tracker(TrackingConfig(), store, "failing") as tracker, tracker.child("generate"):
            if fails:
                raise RuntimeError("the stage's own error")

    with pytest.raises(RuntimeError, match="the stage's own error"):
        attempt(fails=True)
    assert [run.info.status for run in runs_of(store, "failing")] == ["FAILED", "FAILED"]
    attempt(fails=False)
    assert [run.info.status for run in runs_of(store, "failing")] == ["FINISHED", "FINISHED"]


def test_a_store_that_cannot_be_had_warns_once_and_the_run_goes_on(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with open_tracker(TrackingConfig(), tmp_path / "file" / "mlflow.db", "lost") as tracker:
        with tracker.child("train") as run:
            run.metrics({"loss": 1.0})
        tracker.params({"seed": 0})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("tracking: stopped, the run goes on (")


def test_a_failure_in_the_middle_warns_once_and_the_runs_still_end(store, capsys, tmp_path):
    with open_tracker(TrackingConfig(), store, "middle") as tracker, tracker.child("train") as run:
        run.artifact(tmp_path / "missing.html")
        run.metrics({"loss": 1.0})
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert [r.info.status for r in runs_of(store, "middle")] == ["FINISHED", "FINISHED"]
    assert all("loss" not in r.data.metrics for r in runs_of(store, "middle"))


def test_an_unreachable_server_costs_seconds_and_one_line(capsys, tmp_path):
    tracker = open_tracker(TrackingConfig(uri="http://127.0.0.1:9"), tmp_path / "mlflow.db", "server")
    assert isinstance(tracker, NullTracker)
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "mlflow.db").exists()


def test_switched_off_it_keeps_nothing(tmp_path):
    with open_tracker(TrackingConfig(enabled=False), tmp_path / "mlflow.db", "off") as tracker:
        with tracker.child("train", {"beta": 1}) as run:
            run.metrics({"loss": 1.0})
            run.curve(CURVE[:2])
            run.params({"a": 1})
        tracker.artifact(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_fresh_store_is_laid_out_in_silence_and_importing_the_module_does_not_import_mlflow(tmp_path):
    script = (
        "import sys; from pathlib import Path; from depo.config.schema import TrackingConfig\n"
        "from depo.tracking.mlflow import open_tracker; assert 'mlflow' not in sys.modules\n"
        f"t = open_tracker(TrackingConfig(), Path({str(tmp_path / 'm.db')!r}), 'quiet')\n"
        "t.__exit__(None, None, None)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.db"]


def test_nested_parameters_get_dotted_names():
    assert flatten({"a": {"b": 1, "c": {"d": None}}, "e": {}}) == {"a.b": "1", "a.c.d": "None", "e": "{}"}
