"""Tracking against a real MLflow on SQLite: the embedded store, its writers and its troubles."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from depo.config.schema import TrackingConfig
from depo.tracking import store as places
from depo.tracking.run import CHANGED_TAG, KEY_TAG, PARENT_TAG
from depo.tracking.store import open_run

pytestmark = pytest.mark.slow

CURVE = [
    {"step": s, "loss": 1.0 / s, "log_ratio": {"D": 0.1 * s, "U": -0.1 * s}, "note": "x"}
    for s in range(1, 701)
]
WRITER = """
import sys
from pathlib import Path
from depo.config.schema import TrackingConfig
from depo.tracking.store import open_run
with open_run(TrackingConfig(), Path(sys.argv[1]), "parallel", "one parent") as root:
    for trial in range(4):
        with root.child(f"trial {trial}", f"{sys.argv[2]}-{trial}") as run:
            run.log({"alpha": trial}, {"success": 0.5}, [{"step": s, "loss": 1.0 / s} for s in range(1, 51)])
sys.exit(root.broken)
"""


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


def opened(store, experiment, key="key"):
    return open_run(TrackingConfig(), store, experiment, key)


def test_six_processes_lay_out_one_store_and_write_below_one_parent(tmp_path):
    store = tmp_path / "mlflow.db"
    command = [sys.executable, "-c", WRITER, str(store)]
    writers = [
        subprocess.Popen([*command, str(n)], stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        for n in range(6)
    ]
    said = [writer.communicate(timeout=120)[1] for writer in writers]
    assert [(writer.returncode, text) for writer, text in zip(writers, said, strict=True)] == [(0, "")] * 6
    runs = runs_of(store, "parallel")
    (parent,) = [run for run in runs if PARENT_TAG not in run.data.tags]
    trials = [run for run in runs if run.data.tags.get(PARENT_TAG) == parent.info.run_id]
    assert len(trials) == 24 and len({run.data.tags[KEY_TAG] for run in trials}) == 24
    assert all(run.info.status == "FINISHED" and run.data.metrics["loss"] == 0.02 for run in trials)
    history = client_of(store).get_metric_history(trials[0].info.run_id, "loss")
    assert sorted(m.step for m in history) == list(range(1, 51))


def test_runs_stand_below_runs_with_params_metrics_curves_and_artifacts(store, tmp_path):
    report = tmp_path / "index.html"
    report.write_text("<p>report</p>")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "weights.bin").write_bytes(b"1")
    with opened(store, "whole") as root:
        root.log({f"p{n}": n for n in range(150)})
        with root.child("train depo", "f1", {"stage": "train"}, started=100.0) as run:
            run.log({"beta": 1.0}, {"tokens": {"mean": 39.5, "ci_low": None}}, CURVE)
            run.ends(at=160.0)
            with run.child("below", "f2") as below:
                below.log(metrics={"success": 1})
        root.artifact(report)
        root.artifact(tmp_path / "adapter")
    runs = {run.info.run_name: run for run in runs_of(store, "whole")}
    parent, child = runs["whole"], runs["train depo"]
    assert {r.info.status for r in runs.values()} == {"FINISHED"}
    assert child.data.tags[PARENT_TAG] == parent.info.run_id
    assert runs["below"].data.tags[PARENT_TAG] == child.info.run_id
    assert (child.info.start_time, child.info.end_time) == (100_000, 160_000)
    assert child.data.tags["stage"] == "train"
    assert child.data.params == {"beta": "1.0"} and len(parent.data.params) == 150
    assert child.data.metrics["tokens.mean"] == 39.5
    history = client_of(store).get_metric_history(child.info.run_id, "log_ratio.U")
    assert [m.step for m in history] == list(range(1, 701))
    kept = store.parent / "mlflow-artifacts" / parent.info.run_id / "artifacts"
    assert (kept / "index.html").is_file() and (kept / "adapter" / "weights.bin").is_file()


def test_running_again_updates_the_same_runs(store):
    for steps in (300, 700, 700):
        with opened(store, "again") as root, root.child("train kto", "f2", {"depo.try": str(steps)}) as run:
            run.log({"beta": 1.0}, {"seconds": 60.0 + steps}, CURVE[:steps])
    runs = {run.info.run_name: run for run in runs_of(store, "again")}
    assert set(runs) == {"again", "train kto"}
    assert len(runs_of(store, "again")) == 2
    history = client_of(store).get_metric_history(runs["train kto"].info.run_id, "loss")
    assert sorted(m.step for m in history) == list(range(1, 701))
    assert runs["train kto"].data.tags["depo.try"] == "700"
    assert runs["train kto"].data.metrics["seconds"] == 760.0
    seconds = client_of(store).get_metric_history(runs["train kto"].info.run_id, "seconds")
    assert [m.value for m in seconds] == [360.0, 760.0]


def test_one_key_is_one_parent_and_a_parameter_that_changed_is_told_in_a_tag(store):
    for seed in (1, 2):
        with opened(store, "keyed", key="it's /runs/keyed") as root:
            root.log({"seed": seed, "name": "x"})
    [run] = runs_of(store, "keyed")
    assert run.data.params == {"seed": "1", "name": "x"}
    assert run.data.tags[CHANGED_TAG] == "seed=2"


def test_another_key_is_another_run_and_one_key_may_stand_below_two_parents(store):
    for directory in ("/runs/a", "/runs/b"):
        with opened(store, "other", key=directory) as root:
            for fingerprint in ("a", "b"):
                with root.child("trial", fingerprint):
                    pass
    keys = [run.data.tags[KEY_TAG] for run in runs_of(store, "other")]
    assert len(keys) == 6
    assert keys.count("a") == keys.count("b") == 2


def test_a_stage_that_fails_ends_as_failed_its_error_goes_on_and_a_resume_mends_it(store):
    def attempt(fails):
        tags = {"depo.cause": "boom"} if fails else {}
        with opened(store, "failing") as root, root.child("generate", "f", tags):
            if fails:
                raise RuntimeError("the stage's own error")

    with pytest.raises(RuntimeError, match="the stage's own error"):
        attempt(fails=True)
    assert [run.info.status for run in runs_of(store, "failing")] == ["FAILED", "FAILED"]
    assert "boom" in [run.data.tags.get("depo.cause") for run in runs_of(store, "failing")]
    attempt(fails=False)
    assert [run.info.status for run in runs_of(store, "failing")] == ["FINISHED", "FINISHED"]
    assert not any("depo.cause" in run.data.tags for run in runs_of(store, "failing"))


def test_a_missing_file_is_told_once_and_the_runs_still_end(store, capfd, tmp_path):
    with opened(store, "middle") as root, root.child("train", "f") as run:
        run.artifact(tmp_path / "missing.html")
        run.log(metrics={"loss": 1.0})
    assert root.broken and len(capfd.readouterr().err.splitlines()) == 1
    assert [r.info.status for r in runs_of(store, "middle")] == ["FINISHED", "FINISHED"]
    assert all("loss" not in r.data.metrics for r in runs_of(store, "middle"))


def writes_nothing(config, store, capfd):
    """The one line that opening and writing leave."""
    with open_run(config, store, "lost", "key") as root, root.child("train", "f") as run:
        root.log({"seed": 0})
        run.log(metrics={"loss": 1.0})
    assert root.broken
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("tracking: stopped, the run goes on (")
    return line


def test_a_store_that_cannot_be_had_is_told_in_one_line_and_the_run_goes_on(
    store, tmp_path, capfd, monkeypatch
):
    (tmp_path / "file").write_text("this is no database")
    here = TrackingConfig()
    assert "File exists" in writes_nothing(here, tmp_path / "file" / "mlflow.db", capfd)
    assert "file is no SQLite database" in writes_nothing(here, tmp_path / "file", capfd)
    nowhere = writes_nothing(TrackingConfig(uri="http://me:secret@127.0.0.1:9"), tmp_path / "no.db", capfd)
    assert "(no answer from http://me:***@127.0.0.1:9)" in nowhere
    assert not (tmp_path / "no.db").exists()

    monkeypatch.setattr(places, "_WAIT_S", 1)
    opened(store, "lost")
    holder = sqlite3.connect(store, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    assert f"{store} has been locked by another program for over 1 s" in writes_nothing(here, store, capfd)
    holder.execute("ROLLBACK")
    holder.close()


def test_a_store_of_another_version_and_a_deleted_experiment_are_told_with_their_mends(tmp_path, capfd):
    store = tmp_path / "a store" / "mlflow.db"
    with opened(store, "lost"):
        pass
    client = client_of(store)
    known = client.get_experiment_by_name("lost").experiment_id
    client.delete_experiment(known)
    told = writes_nothing(TrackingConfig(), store, capfd)
    assert f"mlflow experiments restore --experiment-id {known}`" in told
    bin_ = Path(sys.executable).parent
    subprocess.run(
        told.split("`")[1], shell=True, check=True, env={**os.environ, "PATH": f"{bin_}:/usr/bin:/bin"}
    )
    assert client.get_experiment_by_name("lost").lifecycle_stage == "active"
    moved = tmp_path / "other.db"
    with sqlite3.connect(store) as source, sqlite3.connect(moved) as target:
        source.backup(target)
        target.execute("UPDATE alembic_version SET version_num = '0123456789ab'")
    line = writes_nothing(TrackingConfig(uri=f"sqlite:///{moved}"), store, capfd)
    assert f"{moved} was made by another MLflow; run `mlflow db upgrade sqlite:///{moved}`" in line


def test_switched_off_it_keeps_nothing(tmp_path):
    with open_run(TrackingConfig(enabled=False), tmp_path / "mlflow.db", "off", "key") as root:
        with root.child("train", "f") as run:
            run.log({"a": 1}, {"loss": 1.0}, CURVE[:2])
        root.artifact(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_fresh_store_is_laid_out_in_silence_and_the_mirror_imports_nothing_heavy_before(tmp_path):
    script = (
        "import sys; from pathlib import Path; from depo.config.schema import TrackingConfig\n"
        "from depo.stages.mirror import Mirror; assert not {'mlflow', 'ray', 'torch'} & set(sys.modules)\n"
        "from depo.tracking.store import open_run\n"
        f"with open_run(TrackingConfig(), Path({str(tmp_path / 'm.db')!r}), 'quiet', 'key'): pass\n"
    )
    (tmp_path / ".m.db.fresh").write_text("a kill left it half done")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".m.db.lock", "m.db"]
