"""Metrics of hand-written episodes."""

from __future__ import annotations

import numpy as np
import pytest

from depo.evaluation.metrics import METRICS, by_task, value_matrix
from depo.evaluation.results import summarise
from depo.records import Episode


def episode(task: int, success: bool, tokens: int, steps: int, **other) -> Episode:
    values = {
        "method": "bc", "decoding": "sampled", "task_id": f"babyai/GoTo/{task}", "level": "GoTo",
        "reward": 0.9 if success else 0.0, "input_tokens": 100 * steps,
        "stop_reason": "terminated" if success else "max_steps", "trajectory_id": f"t{task}",
    }  # fmt: skip
    return Episode(success=success, num_tokens=tokens, num_steps=steps, **{**values, **other})


def test_metrics_by_hand():
    found = summarise(
        [episode(1, True, 10, 2), episode(2, False, 90, 12), episode(3, True, 20, 4)], 1000, seed=0
    )
    means = {key: value["mean"] for key, value in found.items() if key not in ("episodes", "errors")}
    assert means == pytest.approx(
        {
            "success": 2 / 3,
            "reward": 0.6,
            "tokens_all": 40.0,
            "steps_all": 6.0,
            "tokens_success": 15.0,
            "steps_success": 3.0,
            "input_tokens_all": 600.0,
        }
    )
    assert found["tokens_all"]["n"] == 3
    assert found["tokens_success"]["n"] == 2


def test_an_episode_that_broke_off_counts_as_a_failure_and_as_an_error():
    broken = episode(2, True, 7, 1, stop_reason="error", reward=0.0)
    found = summarise([episode(1, True, 10, 2), broken], 100, seed=0)
    assert found["success"]["mean"] == 0.5
    assert found["tokens_all"]["mean"] == 8.5
    assert found["tokens_success"] == {"mean": 10.0, "ci_low": 10.0, "ci_high": 10.0, "n": 1}
    assert (found["episodes"], found["errors"]) == (2, 1)


def test_without_any_success_the_means_over_successes_are_null():
    found = summarise([episode(1, False, 10, 2), episode(2, False, 20, 3)], 100, seed=0)
    assert found["success"]["mean"] == 0.0
    assert found["tokens_success"] == {"mean": None, "ci_low": None, "ci_high": None, "n": 0}


def test_one_task_gives_an_interval_of_no_width():
    found = summarise([episode(1, True, 10, 2)], 100, seed=0)
    assert found["tokens_all"] == {"mean": 10.0, "ci_low": 10.0, "ci_high": 10.0, "n": 1}


def test_every_metric_has_a_column_and_only_those_over_successes_are_left_out_of_failures():
    values = value_matrix([episode(1, False, 10, 2)])
    assert values.shape == (1, len(METRICS))
    left_out = [m.key for m, value in zip(METRICS, values[0], strict=True) if np.isnan(value)]
    assert left_out == [m.key for m in METRICS if m.over == "success"]


def test_a_task_tried_twice_by_one_method_is_refused_by_name():
    with pytest.raises(ValueError, match=r"bc/sampled has two episodes of task babyai/GoTo/1"):
        by_task([episode(1, True, 10, 2), episode(1, False, 10, 2)])
