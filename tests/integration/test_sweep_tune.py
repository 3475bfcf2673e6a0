"""What Ray Tune does with a sweep's trials: searchers, schedulers, failures, kills. Trials cost nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
import sweep_trials
from sweep_trials import STARTS, run_cheap, start_ray

from depo.config.base import ConfigError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    start_ray()
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def starts(out: Path) -> list[str]:
    """Names of the trials' directories, once for every time that one was begun."""
    path = out / STARTS
    return path.read_text().split() if path.is_file() else []


def by_settings(found: dict, name: str) -> dict:
    return {trial["settings"][name]: trial for trial in found["trials"]}


def test_a_failed_trial_stops_nobody_and_a_lost_process_is_started_again(tmp_path):
    said: list[str] = []
    grid = {"space": {"max_steps": [12, 13, 14]}, "keep": 1, "objectives": {"train/loss": "min"}}
    found = by_settings(run_cheap(tmp_path, said=said, **grid), "max_steps")
    assert {steps: trial["state"] for steps, trial in found.items()} == {12: "done", 13: "failed", 14: "done"}
    assert found[13]["error"].startswith("FileNotFoundError: [Errno 2] No such file or directory: '/nowhere")
    assert any("trials that lost their process are started again: 1" in line for line in said)
    assert sorted(trial["kept"] for trial in found.values()) == [False, False, True]
    begun = starts(tmp_path)
    again = by_settings(run_cheap(tmp_path, **grid), "max_steps")
    assert [name.split("-")[0] for name in starts(tmp_path)[len(begun) :]] == ["max_steps=13"]
    assert again[13]["state"] == "failed"
    assert json.loads((tmp_path / "results.json").read_text())["trials"][0] == again[12]


def test_what_training_never_logs_ends_the_sweep_at_its_first_trial(tmp_path):
    with pytest.raises(
        ConfigError, match=r"objectives\.train/los: trial beta=.* without it; it has train/loss"
    ):
        run_cheap(tmp_path, space={"beta": [0.1, 0.2, 0.3, 0.4]}, objectives={"train/los": "min"})
    assert 1 <= len(starts(tmp_path)) < 4
    assert "done" in {t["state"] for t in json.loads((tmp_path / "results.json").read_text())["trials"]}


def test_asha_stops_who_lags_behind_also_behind_trials_of_an_earlier_start(tmp_path):
    asha = {"scheduler": "asha", "rungs": 3, "reduction": 2, "objectives": {"success": "max"}}
    found = run_cheap(tmp_path, space={"beta": [0.5, 0.4]}, **asha)
    assert found["trials"][0]["state"] == "done" and found["best"] == 0
    later = by_settings(run_cheap(tmp_path, space={"beta": [0.5, 0.4, 0.1]}, **asha), "beta")
    assert (later[0.1]["state"], later[0.1]["rung"]) == ("stopped", 1)
    assert later[0.1]["metrics"]["success"] == pytest.approx(0.1)
    assert not later[0.1]["kept"] and later[0.5]["kept"]
    assert [name.split("-")[0] for name in starts(tmp_path)].count("beta=0.1") == 1


def test_optuna_goes_on_from_what_it_learnt_towards_two_objectives(tmp_path):
    learnt = {
        "space": {"beta": {"low": 0.1, "high": 1.0}},
        "searcher": "optuna",
        "objectives": {"success": "max", "tokens_all": "min"},
    }
    first = run_cheap(tmp_path, trials=3, **learnt)
    assert all(trial["pareto"] for trial in first["trials"])  # more success always costs more tokens here
    more = run_cheap(tmp_path, trials=5, **learnt)
    assert more["trials"][:3] == first["trials"]
    assert len(starts(tmp_path)) == len({trial["settings"]["beta"] for trial in more["trials"]}) == 5


def test_a_member_that_fails_keeps_nobody_waiting(tmp_path):
    population = {
        "space": {"max_steps": [12, 13]}, "searcher": "random", "trials": 2,
        "scheduler": "pbt", "rungs": 3, "objectives": {"success": "max"},
    }  # fmt: skip
    found = run_cheap(tmp_path, **population)
    assert sorted(trial["state"] for trial in found["trials"]) == ["done", "failed"]
    # It may still be made good, so what members would learn from stays.
    assert list(tmp_path.glob("trials/*/checkpoints/*"))


def test_a_population_whose_driver_was_killed_goes_on_and_learns_from_its_leader(tmp_path, cluster):
    population = {
        "space": {"beta": [0.1, 0.2, 0.4]}, "searcher": "random", "trials": 3, "seed": 1,
        "scheduler": "pbt", "rungs": 3, "objectives": {"success": "max"},
    }  # fmt: skip
    command = [sys.executable, sweep_trials.__file__, cluster, str(tmp_path), json.dumps(population)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        deadline = time.monotonic() + 120
        while not any(file.read_text().count("\n") == 2 for file in tmp_path.glob("trials/*/rungs.jsonl")):
            assert time.monotonic() < deadline and driver.poll() is None
            time.sleep(0.05)
        os.kill(driver.pid, signal.SIGKILL)
    before = {file: file.read_text() for file in tmp_path.glob("trials/*/rungs.jsonl")}
    said: list[str] = []
    found = run_cheap(tmp_path, 0.3, said=said, **population)
    finished = [trial for trial in found["trials"] if trial["state"] == "done"]
    assert len(finished) == 3
    assert all(file.read_text().startswith(text) for file, text in before.items())
    [laggard] = [t for t in found["trials"] if t["state"] == "stopped" and t["settings"]["beta"] == 0.1]
    assert laggard["rung"] == 1
    # The leader's first rung was worth 0.4; whoever went on from there has more than beta alone gives.
    followers = [trial for trial in finished if "resumed_from" in trial]
    assert followers and all(
        trial["metrics"]["success"] > 3 * trial["settings"]["beta"] - 1e-9 for trial in followers
    )
    assert run_cheap(tmp_path, 0.3, **population)["trials"] == found["trials"]
    assert not (tmp_path / "ray").exists()
