"""`depo report` of several runs: what it reads, what it shows, what it refuses; and of a moved run."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import pytest
from report_help import make_config, make_episodes, make_sweep, make_thoughts, make_trajectory

from depo.cli import main
from depo.config.load import dump_config
from depo.data.store import write_table
from depo.evaluation.results import build_results
from depo.records import Episode, Manifest, Trajectory
from depo.report.page import write_text
from depo.stages.report import report

EVALUATION = {"bootstrap": 50}


def lay_out(runs, name, tasks=20, saved=0, **values):
    """A finished run directory, as far as a report of several reads it."""
    config = make_config(name=name, evaluation=EVALUATION, **values)
    episodes = [
        replace(e, num_tokens=e.num_tokens - saved * (e.method == "depo"))
        for e in make_episodes(tasks)
        if not e.suite and e.seed == 0
    ]
    folder = runs / name
    for method in config.evaluated:
        of_method = [e for e in episodes if e.method == method]
        write_table(folder / "evaluation" / method / "episodes.parquet", of_method, Episode)
    (folder / "config.yaml").write_text(dump_config(config))
    stages = {"manifests": {f"evaluate {m}": f"{name}{m}" for m in config.evaluated}}
    (folder / "results.json").write_text(json.dumps(build_results(episodes, config, stages)))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two replicas, and one of another configuration."""
    root = tmp_path_factory.mktemp("runs")
    lay_out(root, "one", seed=0)
    lay_out(root, "two", seed=1, saved=2)
    lay_out(root, "other", student={"max_length": 512}, saved=1)
    return root


def test_replicas_become_one_row_a_method_with_intervals_over_runs(runs, tmp_path, capsys):
    names = [str(runs / name) for name in ("one", "two")]
    assert main(["report", *names, "--out", str(tmp_path), "--json"]) == 0
    paths = json.loads(capsys.readouterr().out)
    compared = json.loads((tmp_path / "results.json").read_text())
    assert paths == {
        "html": str(tmp_path / "index.html"),
        "markdown": str(tmp_path / "report.md"),
        "results": str(tmp_path / "results.json"),
    }
    assert compared["methods"]["depo"]["runs"] == 2
    page = (tmp_path / "index.html").read_text()
    for key, group in (("sampled/depo/tokens_all", "methods"), ("iqm/depo/tokens_all", "iqm")):
        method = compared["methods"]["depo"]
        row = method["tokens_all"] if group == "methods" else method["iqm"]["tokens_all"]
        assert f'data-key="{key}"><b>{row["mean"]:.1f}</b>' in page
    assert "Means of each run" in page and "sampled/depo-bc/tokens_all" in page
    assert "evaluate depo onedepo" in page and "evaluate depo twodepo" in page
    assert "one, two" in page


def test_other_configurations_are_named_by_their_run_and_compared(runs, tmp_path):
    names = [str(runs / name) for name in ("one", "other")]
    assert main(["report", *names, "--out", str(tmp_path)]) == 0
    page, markdown = ((tmp_path / name).read_text() for name in ("index.html", "report.md"))
    assert "sampled/other/depo-one/depo/tokens_all" in page
    assert "other/depo − one/depo" in markdown
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)""", page) and "<script" not in page


def test_the_same_runs_give_the_same_bytes(runs, tmp_path):
    names = [str(runs / name) for name in ("one", "two")]
    for out in ("a", "b"):
        assert main(["report", *names, "--out", str(tmp_path / out)]) == 0
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / out).iterdir()} for out in ("a", "b"))
    assert first == second


def test_by_default_the_page_lies_beside_the_runs(runs):
    assert main(["report", str(runs / "one"), str(runs / "other")]) == 0
    assert (runs / "report-one-other" / "index.html").is_file()
    shutil.rmtree(runs / "report-one-other")


def test_configurations_stand_for_their_run_directories(runs, tmp_path):
    files = [str(runs / name / "config.yaml") for name in ("one", "two")]
    where = f"runtime.runs_dir={runs}"
    assert main(["report", *files, "--set", where, "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "index.html").is_file()


def test_a_run_without_results_is_named_with_the_command_that_makes_them(runs, tmp_path, capsys):
    copy = shutil.copytree(runs / "two", tmp_path / "copy")
    (copy / "results.json").unlink()
    assert main(["report", str(runs / "one"), str(copy)]) == 1
    assert capsys.readouterr().err == f"depo: {copy}: no results yet; `depo report {copy}` makes them\n"
    (copy / "results.json").write_text('{"version": 1}')
    assert main(["report", str(runs / "one"), str(copy)]) == 1
    assert "results.json: of version 1, this depo reads 2" in capsys.readouterr().err
    (copy / "results.json").write_text("{")
    assert main(["report", str(runs / "one"), str(copy)]) == 1
    assert f"cannot be read; `depo report {copy}` makes it anew" in capsys.readouterr().err


def test_what_is_no_run_or_given_twice_or_not_comparable_is_refused_in_a_line(runs, tmp_path, capsys):
    one = str(runs / "one")
    assert main(["report", one, str(tmp_path)]) == 1
    assert "no run directory (no config.yaml there)" in capsys.readouterr().err
    assert main(["report", one, one]) == 1
    assert "is given twice" in capsys.readouterr().err
    lay_out(tmp_path, "fewer", tasks=10)
    assert main(["report", one, str(tmp_path / "fewer")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and one in error and str(tmp_path / "fewer") in error
    (tmp_path / "file").write_text("")
    assert main(["report", one, str(runs / "two"), "--out", str(tmp_path / "file" / "out")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_the_stage_writes_results_page_and_table_with_suites_thoughts_and_sweeps(tmp_path):
    run_dir = lay_out(tmp_path, "run")
    config = make_config(name="run")
    for method in config.evaluated:
        episodes = [e for e in make_episodes(20) if e.method == method]
        for folder, suite in ((run_dir / "evaluation", ""), (run_dir / "suites" / "gsm", "gsm")):
            own = [e for e in episodes if e.suite == suite]
            write_table(folder / method / "episodes.parquet", own, Episode)
        played = [make_trajectory(method, seed, ["Ball ahead."]) for seed in range(3)]
        write_table(run_dir / "evaluation" / method / "sampled" / "part-0.parquet", played, Trajectory)
    write_text(run_dir / "sweep" / "alpha" / "results.json", json.dumps(make_sweep({"beta": [0.1, 0.2]})))
    write_text(run_dir / "sweep" / "older" / "results.json", "[]")
    thoughts = Manifest("thoughts depo", 1, "e" * 16, {}, {}, 70, 0, 1.0, "", make_thoughts(0.7))
    assert report(config, run_dir, [thoughts]).rows == 5 * 20 * 4
    results = json.loads((run_dir / "results.json").read_text())
    assert list(results["suites"]) == ["gsm"]
    assert results["methods"]["depo"]["thought_utility"]["turns"] == 70
    page = (run_dir / "report" / "index.html").read_text()
    assert "<h2>Sweep alpha</h2>" in page and "sweep/older/results.json" in page
    assert "Before and after" in page and "thoughts depo eeeeeeee" in page
    assert "## Suite gsm" in (run_dir / "report" / "report.md").read_text()


def test_out_goes_with_several_runs(runs, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["report", str(runs / "one"), "--out", "x"])
    assert "--out goes with several runs" in capsys.readouterr().err
