"""Several runs: replicas over seeds, other configurations beside them, and what cannot be compared."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from depo.config.base import ConfigError
from depo.config.load import parse_config
from depo.evaluation.metrics import METRICS, by_task
from depo.evaluation.results import compare, summarise
from depo.evaluation.runs import RunEpisodes, compare_runs
from depo.records import Episode

TASKS = 60


def config(name="exp", seed=0, alpha=3.0, evaluation=None, **method):
    return parse_config(
        {
            "name": name,
            "seed": seed,
            "rounds": [{"name": "teacher", "policy": {"kind": "teacher"}}],
            "methods": {
                "bc": {"objective": "sft", "init": "student", "seed": seed},
                "kto": {"objective": "kto", "seed": seed},
                "depo": {"objective": "depo", "alpha_tokens": alpha, "seed": seed, **method},
            },
            "evaluation": {"seeds": [seed], **(evaluation or {})},
        }
    )


def run(name="exp", seed=0, saving=5, tasks=TASKS, **other):
    """Episodes of three methods; `depo` needs `saving` tokens fewer, and a run shifts all by its seed."""
    rng = random.Random(seed)
    episodes = []
    for task in range(tasks):
        hard = random.Random(1000 + task).randrange(20, 200)
        for method in ("bc", "kto", "depo"):
            success = rng.random() < 0.9
            tokens = hard + seed + rng.randrange(6) - saving * (method == "depo")
            episodes.append(
                Episode(
                    method, "sampled", f"t{task:03}", "L", success, 0.9 * success, tokens, 3, 99,
                    "terminated", "x", seed=seed,
                )
            )  # fmt: skip
    return RunEpisodes(name, Path("runs") / f"{name}-{seed}", config(name, seed, **other), episodes)


def row(found, a, b, metric="tokens_all"):
    [one] = [c for c in found["comparisons"] if (c["a"], c["b"], c["metric"]) == (a, b, metric)]
    return one


def test_replicas_are_one_method_over_runs_and_tasks():
    runs = [run(seed=seed) for seed in (0, 1, 2)]
    found = compare_runs(runs)
    assert list(found["methods"]) == ["bc", "kto", "depo"]
    assert found["runs"][2] == {"name": "exp", "path": "runs/exp-2", "seed": 2}
    bc = found["methods"]["bc"]
    means = [np.mean([e.num_tokens for e in r.episodes if e.method == "bc"]) for r in runs]
    assert bc["runs"] == 3
    assert bc["by_run"]["tokens_all"] == pytest.approx(means)
    assert bc["tokens_all"]["mean"] == pytest.approx(np.mean(means))
    assert bc["tokens_all"]["n"] == TASKS
    assert set(bc["iqm"]) == {m.key for m in METRICS if m.over == "all"}
    assert bc["success"]["ci_high"] <= 1.0
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_methods_of_one_configuration_are_paired_within_runs_so_a_shared_shift_cancels():
    found = compare_runs([run(seed=seed) for seed in (0, 20, 40)])
    assert list(dict.fromkeys((c["a"], c["b"]) for c in found["comparisons"])) == [
        ("kto", "bc"), ("depo", "bc"), ("depo", "kto")
    ]  # fmt: skip
    one = row(found, "depo", "bc")
    assert one["difference"] == pytest.approx(-5, abs=0.5)
    assert one["excludes_zero"]
    assert one["ci_high"] - one["ci_low"] < 3
    bc = found["methods"]["bc"]["tokens_all"]
    assert bc["ci_high"] - bc["ci_low"] > 60  # the runs' own level is far less sure
    assert one["relative"]["difference"] == pytest.approx(one["difference"] / bc["mean"], rel=1e-6)
    assert one["probability"]["mean"] > 0.9
    assert one["probability"]["ci_high"] <= 1.0


def test_what_does_not_make_a_policy_does_not_make_another_configuration():
    second = run(name="again", seed=1, evaluation={"bootstrap": 50, "reference": "kto"})
    found = compare_runs([run(), second])
    assert found["methods"]["bc"]["runs"] == 2


def test_other_configurations_go_by_their_run_and_each_method_is_compared_across():
    found = compare_runs([run("low", 0), run("low2", 1), run("high", 7, saving=15, alpha=6.0)])
    assert list(found["methods"]) == [
        "low/bc", "low/kto", "low/depo", "high/bc", "high/kto", "high/depo"
    ]  # fmt: skip
    assert found["methods"]["low/depo"]["runs"] == 2
    assert found["methods"]["high/depo"]["runs"] == 1
    pairs = list(dict.fromkeys((c["a"], c["b"]) for c in found["comparisons"]))
    assert pairs[3:] == [
        ("high/kto", "high/bc"), ("high/depo", "high/bc"), ("high/depo", "high/kto"), ("high/bc", "low/bc"),
        ("high/kto", "low/kto"), ("high/depo", "low/depo"),
    ]  # fmt: skip


def test_runs_of_one_name_are_told_apart_by_their_folders():
    found = compare_runs([run(seed=0), run(seed=1, alpha=6.0)])
    assert {name.rpartition("/")[0] for name in found["methods"]} == {"runs/exp-0", "runs/exp-1"}


def test_across_configurations_every_run_of_one_meets_every_run_of_the_other():
    low = [run("low"), run("low2")]
    high = [run("high", saving=15, alpha=6.0), run("high2", saving=25, alpha=6.0)]
    found = compare_runs([*low, *high])
    one = row(found, "high/depo", "low/depo")
    assert one["difference"] == pytest.approx(-15)
    assert one["n"] == TASKS
    assert one["probability"]["mean"] == 1.0
    assert row(found, "high/bc", "low/bc")["difference"] == 0.0
    assert row(found, "high/bc", "low/bc")["probability"]["mean"] == 0.5


def test_one_run_alone_has_intervals_over_its_tasks():
    found = compare_runs([run()])
    assert found["methods"]["bc"]["runs"] == 1
    own = summarise([e for e in run().episodes if e.method == "bc" and e.decoding == "sampled"])
    for metric in METRICS:
        assert found["methods"]["bc"][metric.key] == pytest.approx(own[metric.key])
    kto, bc = (
        by_task(e for e in run().episodes if e.method == name)[name, "sampled"] for name in ("kto", "bc")
    )
    alone = {r["metric"]: r for r in compare(kto, bc)}
    for key in ("success", "tokens_all", "tokens_success"):
        mine = row(found, "kto", "bc", key)
        for part in ("difference", "ci_low", "ci_high"):
            assert mine[part] == pytest.approx(alone[key][part])
        assert mine["probability"]["ci_low"] == pytest.approx(alone[key]["probability"]["ci_low"])


def test_what_no_run_succeeds_at_is_null():
    runs = [run(seed=seed, evaluation={"success_reward": 2.0}) for seed in (0, 1)]
    found = compare_runs(runs)
    nothing = {"mean": None, "ci_low": None, "ci_high": None, "n": 0}
    assert found["methods"]["bc"]["tokens_success"] == nothing
    assert row(found, "depo", "bc", "tokens_success")["difference"] is None
    assert row(found, "depo", "bc", "success")["difference"] == 0.0
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_runs_on_other_tasks_are_refused_and_both_are_named():
    with pytest.raises(ConfigError, match=r"runs/exp-0 and runs/exp-1 were tried on other tasks .*t059"):
        compare_runs([run(), run(seed=1, tasks=59)])


def test_runs_that_decode_or_judge_otherwise_are_refused():
    with pytest.raises(ConfigError, match="count success differently"):
        compare_runs([run(), run(seed=1, evaluation={"success_reward": 0.5})])
    with pytest.raises(ConfigError, match="runs/exp-1: no greedy episodes"):
        compare_runs([run(), run(seed=1, evaluation={"decoding": ["greedy"]})])
    with pytest.raises(ConfigError, match="no runs"):
        compare_runs([])
