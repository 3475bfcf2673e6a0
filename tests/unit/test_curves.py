"""Success within a budget, worked out from episodes that ran without one."""

from __future__ import annotations

import random

import pytest

from depo.evaluation.curves import BUDGETS, success_curves
from depo.evaluation.results import summarise
from depo.records import Episode


def tasks(*episodes):
    """(success, tokens, steps) of one task each."""
    return {
        f"{task:03}": [
            Episode("bc", "sampled", f"{task:03}", "L", success, 0.0, tokens, steps, 0, "terminated", "t")
        ]
        for task, (success, tokens, steps) in enumerate(episodes)
    }


def test_an_episode_counts_from_the_budget_it_took_and_failures_never():
    a = tasks((True, 10, 1), (True, 30, 2), (False, 5, 1), (True, 20, 4))
    b = tasks((True, 15, 2), (False, 99, 9), (False, 99, 9), (False, 99, 9))
    found = success_curves({"a": a, "b": b})
    assert found["tokens"]["budgets"] == [10, 15, 20, 30]
    assert found["tokens"]["methods"]["a"]["success"] == [0.25, 0.25, 0.5, 0.75]
    assert found["tokens"]["methods"]["b"]["success"] == [0.0, 0.25, 0.25, 0.25]
    assert found["steps"]["budgets"] == [1, 2, 4]
    assert found["steps"]["methods"]["a"]["success"] == [0.25, 0.5, 0.75]


def test_a_curve_rises_to_the_success_rate_and_lies_within_its_band():
    rng = random.Random(0)
    some = tasks(*((rng.random() < 0.8, rng.randrange(10, 2000), rng.randrange(1, 9)) for _ in range(300)))
    curve = success_curves({"bc": some})["tokens"]
    values = curve["methods"]["bc"]
    assert len(curve["budgets"]) <= BUDGETS
    assert curve["budgets"] == sorted(curve["budgets"])
    assert values["success"] == sorted(values["success"])
    whole = summarise([e for tried in some.values() for e in tried])["success"]
    last = {key: values[key][-1] for key in ("success", "ci_low", "ci_high")}
    assert last == pytest.approx(
        {"success": whole["mean"], "ci_low": whole["ci_low"], "ci_high": whole["ci_high"]}
    )
    bands = zip(values["ci_low"], values["success"], values["ci_high"], strict=True)
    assert all(low <= mean <= high for low, mean, high in bands)


def test_seeds_of_a_task_share_its_weight():
    [first] = tasks((True, 10, 1)).values()
    [second] = tasks((False, 10, 1)).values()
    found = success_curves({"a": {"000": [*first, *second]}})
    assert found["tokens"]["methods"]["a"]["success"] == [0.5]


def test_without_any_success_the_curve_is_a_point_at_nothing():
    found = success_curves({"a": tasks(*[(False, 10, 1)] * 20)})
    assert found["tokens"] == {
        "budgets": [0],
        "methods": {"a": {"success": [0.0], "ci_low": [0.0], "ci_high": [pytest.approx(0.168, abs=1e-3)]}},
    }
    few = success_curves({"a": tasks((False, 10, 1))})["tokens"]["methods"]["a"]
    assert few == {"success": [0.0], "ci_low": [None], "ci_high": [None]}
