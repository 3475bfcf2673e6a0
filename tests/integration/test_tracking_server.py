"""A whole run mirrored to a real MLflow server, which then goes away in the middle of another."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from functools import partial
from pathlib import Path

import pytest

from depo.config.schema import ExperimentConfig
from depo.graph import Experiment
from depo.pipeline import run as run_pipeline
from depo.records import content_hash
from depo.stages.base import Outcome, StageSpec, begin, finish
from depo.stages.mirror import Mirror
from depo.stages.mirrored import MIRRORED

pytestmark = pytest.mark.slow

PARENT = "mlflow.parentRunId"


class Server:
    """`mlflow server` with one worker, in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder = folder

    def start(self) -> None:
        store, artifacts = self._folder / "server.db", self._folder / "artifacts"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{store}"]
        command += ["--artifacts-destination", str(artifacts)]
        # The rest of what it starts serves evaluations of MLflow's own.
        env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
        until = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                    return
            except OSError:
                assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
                assert time.monotonic() < until
                time.sleep(0.2)

    def kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


def configured(name, uri, runs):
    return ExperimentConfig.model_validate(
        {
            "name": name,
            "rounds": [{"name": "teacher", "policy": {"kind": "teacher"}}],
            "methods": {"bc": {"objective": "sft", "init": "student", "samples": "teacher"}},
            "tracking": {"uri": uri, "adapters": True},
            "runtime": {"runs_dir": str(runs)},
        }
    )


def written(folder, name, config, inputs, metrics):
    """A finished stage on disk: its specification and manifest."""
    spec = StageSpec(name, folder, config, inputs)
    begin(spec)
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": s, "loss": 1 / s}) + "\n" for s in range(1, 41))
    )
    return spec, finish(spec, Outcome(7, metrics=metrics), time.time() - 2)


def trial(sweep_dir, data, alpha, stopped=False):
    metrics = {"success": alpha / 4, "tokens_all": 40.0, "train/loss": 0.1}
    folder = sweep_dir / "trials" / f"alpha={alpha}-{content_hash(alpha, 8)}"
    folder.mkdir(parents=True)
    rungs = [{"rung": r, "step": 20 * r, "success": r / 10, "train/loss": 1 / r} for r in (1, 2)]
    (folder / "rungs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rungs))
    (folder / "adapter").mkdir()
    (folder / "adapter" / "weights").write_text("w")
    extra = {"stopped_rung": 2} if stopped else {}
    config = {"method": {"alpha_steps": alpha, "beta": 1.0}, "rungs": 2}
    _, manifest = written(folder, f"trial alpha={alpha}", config, data, metrics | extra)
    return {"alpha_steps": alpha}, manifest, folder


def results_of(rows):
    trials = [
        {"settings": {"alpha_steps": alpha}, "state": state, "metrics": {"success": 0.5}, "dir": str(folder)}
        | {"error": error}
        for alpha, state, folder, error in rows
    ]
    return json.dumps({"version": 1, "trials": trials, "best": 0})


def below(client, experiment, parent):
    """Runs by name below `parent` ("" for the top)."""
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return {r.info.run_name: r for r in found if r.data.tags.get(PARENT, "") == parent}


@pytest.fixture(scope="module")
def mirrored(server, tmp_path_factory):
    """A run of a training, a report and a sweep of three trials, as the server then has it."""
    from mlflow import MlflowClient

    runs = tmp_path_factory.mktemp("runs")
    run_dir, sweep_dir = runs / "whole", runs / "whole" / "sweep" / "alphas"
    config = configured("whole", server.uri, runs)
    data = StageSpec("annotate teacher", run_dir / "samples" / "teacher", {})
    begin(data)
    finish(data, Outcome(123), time.time() - 5)
    reads = {data.name: data.fingerprint}
    train = StageSpec("train bc", run_dir / "bc", {"method": {"lr": 0.1}}, reads)
    with Mirror(config, run_dir) as mirror:
        begin(train)
        with mirror.live("train", train):
            spec, manifest = written(run_dir / "bc", "train bc", train.config, reads, {"accuracy": 0.75})
        assert spec == train
        mirror.stage("train", manifest, train.out_dir)
        with mirror.sweep("alphas", {"searcher": "grid"}, "shared") as sweep:
            first, second = trial(sweep_dir, reads, 1.0), trial(sweep_dir, reads, 2.0, stopped=True)
            sweep.trial(*first)
            sweep.trial(*second)
            sweep.failed("alpha=3.0-x", {"alpha_steps": 3.0}, "ValueError: beta must be positive")
            rows = [(1.0, "done", first[2], ""), (2.0, "stopped", second[2], "")]
            (sweep_dir / "results.json").write_text(
                results_of(
                    [*rows, (3.0, "failed", "trials/alpha=3.0-x", "ValueError: beta must be positive")]
                )
            )
            (sweep_dir / "index.html").write_text("<p>sweep</p>")
        report, manifest = written(run_dir / "report", "report", {}, reads, {})
        (report.out_dir / "index.html").write_text("<p>page</p>")
        (run_dir / "results.json").write_text(json.dumps({"methods": {"bc": {"success": {"mean": 0.5}}}}))
        mirror.stage("report", manifest, report.out_dir)
    return config, run_dir, reads, MlflowClient(server.uri)


def test_experiment_sweep_trials_and_stages_stand_below_each_other(mirrored):
    *_, client = mirrored
    (top,) = below(client, "whole", "").values()
    assert top.data.params["tracking.adapters"] == "True" and top.data.metrics["bc/success"] == 0.5
    stages = below(client, "whole", top.info.run_id)
    assert set(stages) == {"annotate teacher", "train bc", "sweep alphas", "report"}
    assert {r.info.status for r in stages.values()} == {"FINISHED"}
    sweep = stages["sweep alphas"]
    assert sweep.data.params == {"searcher": "grid"}
    assert sweep.data.metrics == {
        "trials/done": 1, "trials/stopped": 1, "trials/failed": 1, "trials/missing": 0, "best.success": 0.5,
    }  # fmt: skip
    trials = below(client, "whole", sweep.info.run_id)
    assert {name: r.info.status for name, r in trials.items()} == {
        "trial alpha=1.0": "FINISHED",
        "trial alpha=2.0": "FINISHED",
        "trial alpha=3.0-x": "FAILED",
    }
    assert trials["trial alpha=3.0-x"].data.tags["depo.cause"] == "ValueError: beta must be positive"
    assert trials["trial alpha=2.0"].data.tags["depo.stopped_rung"] == "2"
    for name in ("trial alpha=1.0", "trial alpha=2.0"):
        assert set(below(client, "whole", trials[name].info.run_id)) == {"train", "evaluate"}


def test_params_metrics_with_steps_and_times_are_each_where_they_belong(mirrored):
    *_, client = mirrored
    stages = below(client, "whole", next(iter(below(client, "whole", "").values())).info.run_id)
    trials = below(client, "whole", stages["sweep alphas"].info.run_id)
    one = trials["trial alpha=1.0"]
    assert one.data.params == {"alpha_steps": "1.0"}
    assert one.data.metrics["success"] == 0.25 and one.data.metrics["tokens_all"] == 40
    rungs = client.get_metric_history(one.info.run_id, "success")
    assert [(m.step, m.value) for m in rungs] == [(20, 0.1), (40, 0.25)]
    assert one.info.end_time - one.info.start_time == pytest.approx(2000, abs=1000)
    parts = below(client, "whole", one.info.run_id)
    assert parts["train"].data.params["beta"] == "1.0" and parts["evaluate"].data.params == {"rungs": "2"}
    assert set(parts["train"].data.metrics) == {"train/loss", "loss"}
    assert set(parts["evaluate"].data.metrics) == {"success", "tokens_all"}
    for run in (parts["train"], stages["train bc"]):
        curve = client.get_metric_history(run.info.run_id, "loss")
        assert [(m.step, m.value) for m in curve] == [(s, 1 / s) for s in range(1, 41)]
    assert stages["train bc"].data.metrics["accuracy"] == 0.75
    assert stages["train bc"].data.params == {"method.lr": "0.1"}


def test_each_run_names_the_data_it_read_and_keeps_its_files_on_the_server(mirrored, tmp_path):
    _, run_dir, reads, client = mirrored
    (top,) = below(client, "whole", "").values()
    stages = below(client, "whole", top.info.run_id)
    one = below(client, "whole", stages["sweep alphas"].info.run_id)["trial alpha=1.0"]
    for run, context in ((stages["train bc"], "train"), (one, "trial")):
        (read,) = run.inputs.dataset_inputs
        assert {read.dataset.name: read.dataset.digest} == reads
        assert json.loads(read.dataset.source) == {"uri": str(run_dir / "samples" / "teacher")}
        assert json.loads(read.dataset.profile) == {"rows": 123, "errors": 0}
        assert [tag.value for tag in read.tags] == [context]
    files = {
        name: sorted(f.path for f in client.list_artifacts(run.info.run_id))
        for name, run in {**stages, "trial": one}.items()
    }
    assert files["report"] == ["index.html", "results.json"] == files["sweep alphas"]
    assert files["trial"] == ["adapter"] and files["train bc"] == []
    page = client.download_artifacts(stages["report"].info.run_id, "index.html", str(tmp_path))
    assert Path(page).read_text() == "<p>page</p>"


def test_a_sweep_that_goes_on_updates_its_own_runs_and_what_is_there_is_not_told_again(mirrored, capfd):
    config, run_dir, reads, client = mirrored
    sweep_dir = run_dir / "sweep" / "alphas"

    def run_ids():
        return {
            r.info.run_id for r in client.search_runs([client.get_experiment_by_name("whole").experiment_id])
        }

    before = run_ids()
    with Mirror(config, run_dir) as mirror:
        assert mirror.missing() == []
        with mirror.sweep("alphas", {"searcher": "grid"}, "shared") as sweep:
            settings, manifest, folder = trial(sweep_dir, reads, 3.0)
            folder = folder.rename(folder.with_name("alpha=3.0-x"))
            sweep.trial(settings, manifest, folder)
    (top,) = below(client, "whole", "").values()
    stages = below(client, "whole", top.info.run_id)
    mended = below(client, "whole", stages["sweep alphas"].info.run_id)["trial alpha=3.0-x"]
    assert mended.info.status == "FINISHED" and "depo.cause" not in mended.data.tags
    after = run_ids()
    assert before < after and len(after - before) == 2  # the mended trial's own train and evaluate

    told = (run_dir / MIRRORED).read_text()
    with Mirror(config, run_dir) as mirror, mirror.sweep("alphas", {}, "shared") as sweep:
        sweep.trial(settings, manifest, folder)
    assert (run_dir / MIRRORED).read_text() == told

    # All of it again, from manifests and results alone: three stages, three trials, the sweep's page.
    (run_dir / MIRRORED).unlink()
    found = json.loads((sweep_dir / "results.json").read_text())
    found["trials"][2] |= {"state": "done", "error": "", "dir": "trials/alpha=3.0-x"}
    (sweep_dir / "results.json").write_text(json.dumps(found))
    with Mirror(config, run_dir) as mirror, mirror.sweep("alphas", {"searcher": "grid"}, "shared"):
        pass
    assert run_ids() == after and len((run_dir / MIRRORED).read_text().split("\n")) == 1 + 7
    assert below(client, "whole", top.info.run_id)["sweep alphas"].data.metrics["trials/done"] == 2
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_a_server_that_goes_away_costs_no_stage_and_the_next_start_makes_it_good(server, tmp_path, capfd):
    from mlflow import MlflowClient

    experiment = Experiment(configured("outage", server.uri, tmp_path), tmp_path / "outage")

    def body(name):
        if name == "train b":
            server.kill()
        return Outcome(1, metrics={"loss": 0.5})

    for name in ("train a", "train b", "train c"):
        experiment.add("train", name, name[-1], {"lr": 1.0}, [], body=partial(body, name))
    assert run_pipeline(experiment) == 3
    assert all((experiment.out(name) / "manifest.json").is_file() for name in experiment.nodes)
    (line,) = [text for text in capfd.readouterr().err.splitlines() if "tracking" in text]
    assert line.startswith(f"tracking: stopped, the run goes on (no answer from {server.uri}); give the same")

    server.start()
    assert run_pipeline(experiment) == 0
    client = MlflowClient(server.uri)
    (top,) = below(client, "outage", "").values()
    stages = below(client, "outage", top.info.run_id)
    assert set(stages) == set(experiment.nodes)
    assert {r.info.status for r in [top, *stages.values()]} == {"FINISHED"}
    assert {r.data.metrics["loss"] for r in stages.values()} == {0.5}
    assert "tracking" not in capfd.readouterr().err
