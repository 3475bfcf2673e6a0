"""Every stage of the demo, on real libraries, small enough for a test: killed once, then finished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from depo.cli import main
from depo.config.load import load_config
from depo.data.reference_cache import CACHE
from depo.data.store import read_table, read_trajectories
from depo.records import Episode, ReferenceLogProbs, Sample
from depo.stages.base import read_manifest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

DEMO = Path(__file__).parents[2] / "experiments" / "configs" / "babyai-tiny.yaml"
EPISODES = 1500
METHODS = ("bc_raw", "bc", "sft", "kto", "depo")
SMALL = {
    "env.options.levels": ["GoToObjS6-v1"],
    # The smallest student that solves this level often enough for its own rollouts to be labelled.
    "student.tiny": {
        "hidden_size": 64, "layers": 2, "heads": 2, "intermediate_size": 128, "episodes": EPISODES,
        "skip": 60, "batch_size": 8, "learning_rate": 5e-3,
        "teacher": {"wordiness": 0.1, "waste": 0.1, "mistakes": 0.02},
    },
    "rounds.0.tasks": 30,
    "rounds.0.search.simulations": 4,
    "rounds.1.skip": 30,
    "rounds.1.tasks": 24,
    "rounds.1.search.simulations": 6,
    "rounds.1.search.max_tokens": 40,
    "evaluation.max_tokens": 40,
    "annotation.student.kappa0": 0.5,
    "annotation.student.kappa1": 0.5,
    "annotation.student.kappa2": 0.3,
    **{f"methods.{name}.max_steps": 6 for name in METHODS},
    **{f"methods.{name}.batch_size": 8 for name in METHODS},
    "evaluation.tasks": 16,
    "evaluation.difficulty": {"easy": ["GoToObj*"]},
    "evaluation.suites": {"simuleq": {"env": {"id": "maths"}, "tasks": 2, "max_steps": 1, "max_tokens": 8}},
    "evaluation.bootstrap": 200,
    "sweep.space": {"alpha_steps": [0.0, 3.0]},
    "sweep.tasks": 8,
    "runtime.generation.batch_tasks": 4,
}  # fmt: skip


def set_options(runs: Path) -> list[str]:
    values = {**SMALL, "runtime.runs_dir": str(runs)}
    # JSON is YAML, and has no line breaks.
    return [part for key, value in values.items() for part in ("--set", f"{key}={json.dumps(value)}")]


def command(verb: str, runs: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "depo.cli", verb, str(DEMO), *set_options(runs), *more]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """The runs directory of a demo that was killed in its first stage and then run to its end."""
    runs = tmp_path_factory.mktemp("runs")
    scripted = runs / "babyai-tiny" / "trajectories" / "scripted"
    output = runs.parent / "first.txt"
    with output.open("w") as log:
        first = subprocess.Popen(command("run", runs), start_new_session=True, stdout=log, stderr=log)
    deadline = time.monotonic() + 120
    while not list(scripted.glob("*.parquet")) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    with suppress(ProcessLookupError):
        os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert list(scripted.glob("*.parquet")), f"nothing was written before the kill: {output.read_text()}"
    assert read_manifest(scripted) is None, "the stage was done before the kill"
    before = {t.id for t in read_trajectories(scripted)}
    second = subprocess.run(command("run", runs), capture_output=True, text=True, timeout=1200, check=False)
    assert second.returncode == 0, second.stdout[-3000:] + second.stderr[-3000:]
    assert "script episodes (resumes)" in second.stdout
    assert before <= {t.id for t in read_trajectories(scripted)}
    return runs


@pytest.fixture
def run_dir(runs) -> Path:
    return runs / "babyai-tiny"


def test_nothing_was_lost_or_doubled_by_the_kill(run_dir):
    tasks = [t.task.id for t in read_trajectories(run_dir / "trajectories" / "scripted")]
    assert len(tasks) == len(set(tasks)) == EPISODES


def test_results_hold_every_method_metric_and_comparison(run_dir):
    results = json.loads((run_dir / "results.json").read_text())
    assert tuple(results["methods"]) == METHODS
    for method in results["methods"].values():
        for metric in ("success", "reward", "tokens_all", "steps_all", "tokens_success", "steps_success"):
            assert set(method[metric]) - {"reason"} == {"mean", "ci_low", "ci_high", "n"}
        assert method["tokens_all"]["n"] == 16
        assert method["errors"] == 0
        assert "greedy" in method["decodings"]
    pairs = {(c["a"], c["b"]) for c in results["comparisons"]}
    assert {("depo", "bc"), ("kto", "bc"), ("sft", "bc"), ("bc_raw", "bc"), ("depo", "kto")} <= pairs


def test_every_number_walks_back_to_its_episodes_and_manifests(run_dir):
    results = json.loads((run_dir / "results.json").read_text())
    for method in METHODS:
        episodes = read_table(run_dir / "evaluation" / method / "episodes.parquet", Episode)
        sampled = [e for e in episodes if e.decoding == "sampled"]
        mean = sum(e.num_tokens for e in sampled) / len(sampled)
        assert results["methods"][method]["tokens_all"]["mean"] == pytest.approx(mean)
        manifest = read_manifest(run_dir / "evaluation" / method)
        assert results["provenance"]["manifests"][f"evaluate {method}"] == manifest.fingerprint
        assert manifest.inputs == {f"train {method}": read_manifest(run_dir / method).fingerprint}


def test_a_suite_in_another_environment_has_episodes_and_a_table_of_its_own(run_dir):
    suite = json.loads((run_dir / "results.json").read_text())["suites"]["simuleq"]
    assert tuple(suite["methods"]) == METHODS
    for method in METHODS:
        episodes = read_table(run_dir / "suites" / "simuleq" / method / "episodes.parquet", Episode)
        assert [(e.suite, e.decoding, e.num_steps) for e in episodes] == [("simuleq", "sampled", 1)] * 2
        tokens = sum(e.num_tokens for e in episodes) / 2
        assert suite["methods"][method]["tokens_all"]["mean"] == pytest.approx(tokens)


def test_all_methods_met_the_same_tasks_and_none_of_training(run_dir):
    tried = {
        frozenset(e.task_id for e in read_table(run_dir / "evaluation" / m / "episodes.parquet", Episode))
        for m in METHODS
    }
    assert len(tried) == 1
    trained = {
        t.task.id
        for name in ("scripted", "teacher", "student")
        for t in read_trajectories(run_dir / "trajectories" / name)
    }
    assert not trained & next(iter(tried))


def test_the_students_own_ids_are_what_it_is_trained_on(run_dir):
    trajectories = {t.id: t for t in read_trajectories(run_dir / "trajectories" / "student")}
    samples = [
        s for s in read_table(run_dir / "samples" / "student" / "samples.parquet", Sample) if s.view == "raw"
    ]
    assert samples
    for sample in samples:
        own = [t for t, mark in zip(sample.token_ids, sample.agent_mask, strict=True) if mark]
        generated = [t for step in trajectories[sample.trajectory_id].steps for t in step.token_ids]
        assert own == generated


def test_reference_log_probs_cover_the_samples_and_training_started_from_them(run_dir):
    samples = read_table(run_dir / "samples" / "student" / "samples.parquet", Sample)
    fitting = {s.id for s in samples if s.view == "rephrased" and len(s.token_ids) <= 1024}
    scored = read_table(
        run_dir / "reference" / "bc-student-rephrased" / "reference.parquet", ReferenceLogProbs
    )
    assert fitting == {row.sample_id for row in scored}
    first = json.loads((run_dir / "depo" / "metrics.jsonl").read_text().splitlines()[0])
    assert abs(first["logratio_desirable"]) < 1e-3


def test_reference_log_probs_are_cached_beside_the_runs_and_scored_once(runs, run_dir):
    metrics = read_manifest(run_dir / "reference" / "bc-student-rephrased").metrics
    assert metrics["scored"] > 0 and metrics["cached"] == 0
    (cache,) = (runs / CACHE).iterdir()
    keys = [key for shard in cache.glob("*.parquet") for key in pq.read_table(shard)["key"].to_pylist()]
    assert len(keys) == len(set(keys)) == metrics["scored"]


def test_the_report_is_one_file_with_the_table(run_dir):
    page = (run_dir / "report" / "index.html").read_text()
    assert all(method in page for method in METHODS)
    assert "Departs" in page or "departs" in page


def test_running_again_does_nothing_and_says_why(runs, capsys):
    assert main(["run", str(DEMO), *set_options(runs)]) == 0
    out = capsys.readouterr().out
    assert "are done with this configuration; nothing to run" in out
    assert "depo" in out and "report:" in out


def test_a_changed_key_is_named_by_the_plan(runs, capsys):
    main(["plan", str(DEMO), *set_options(runs), "--set", "methods.depo.beta=0.5"])
    lines = {line.split("  ")[0].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert "starts anew: method.beta changed" in lines["train depo"]
    assert "done" in lines["train kto"]
    assert "input train depo changed" in lines["evaluate depo"]
    main(["plan", str(DEMO), *set_options(runs), "--set", "evaluation.seeds=[0, 1]"])
    assert "goes on: seeds changed" in capsys.readouterr().out


def test_runtime_is_no_part_of_a_results_identity(runs, capsys):
    main(["plan", str(DEMO), *set_options(runs), "--set", "runtime.training.num_workers=8", "--json"])
    assert {row["state"] for row in json.loads(capsys.readouterr().out)} == {"done"}


def test_mlflow_mirrors_every_stage_below_one_parent(runs):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "babyai-tiny"]
    found = client.search_runs([experiment.experiment_id], max_results=200)
    parents = [r for r in found if "mlflow.parentRunId" not in r.data.tags]
    assert len(parents) == 1
    names = {
        r.info.run_name for r in found if r.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id
    }
    assert {"generate teacher", "train bc", "train depo", "evaluate depo", "report"} <= names
    assert {r.info.status for r in found} <= {"FINISHED", "KILLED"}


def test_viewers_and_export_read_the_run(runs, capsys, tmp_path):
    assert main(["view", str(DEMO), "depo", "-n", "1", *set_options(runs)]) == 0
    assert "Your goal" in capsys.readouterr().out
    assert main(["data", "show", str(DEMO), "student", *set_options(runs)]) == 0
    shown = capsys.readouterr().out
    assert "⟨Thought: " in shown and "⟪Action: " in shown and "\x1b" not in shown
    sample = shown.split()[1]
    assert main(["data", "show", str(runs / "babyai-tiny"), sample]) == 0
    assert capsys.readouterr().out == shown
    out = tmp_path / "samples.jsonl"
    assert (
        main(["export", str(DEMO), "teacher", "--format", "trl-kto", "--out", str(out), *set_options(runs)])
        == 0
    )
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["label"] for row in rows} == {True, False}


def test_a_sweep_adds_its_trials_and_skips_them_the_second_time(runs, run_dir):
    first = subprocess.run(
        command("sweep", runs, "--json"), capture_output=True, text=True, timeout=300, check=False
    )
    assert first.returncode == 0, first.stderr[-3000:]
    found = json.loads(first.stdout)
    rows = found["trials"]
    assert [row["settings"] for row in rows] == [{"alpha_steps": 0.0}, {"alpha_steps": 3.0}]
    assert all({"success", "tokens_all", "steps_all"} <= row["metrics"].keys() for row in rows)
    assert rows[found["best"]]["metrics"]["tokens_all"] == min(row["metrics"]["tokens_all"] for row in rows)
    folder = run_dir / "sweep" / "depo"
    assert json.loads((folder / "results.json").read_text()) == found
    assert {"index.html", "sweep.md", "sweep.svg"} <= {path.name for path in folder.iterdir()}
    left = {path.name for path in (folder / rows[0]["dir"]).iterdir() if path.is_dir()}
    assert "adapter" in left and not left & {"model", "checkpoints", "ray"}
    again = subprocess.run(
        command("sweep", runs, "--json"), capture_output=True, text=True, timeout=60, check=False
    )
    assert json.loads(again.stdout) == found
    assert load_config(run_dir / "config.yaml").sweep.tasks == 8
