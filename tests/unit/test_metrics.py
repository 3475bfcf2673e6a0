"""Metrics of hand-written episodes, over one seed and several."""

from __future__ import annotations

import numpy as np
import pytest

from depo.evaluation.metrics import (
    METRICS,
    by_task,
    episode_terms,
    judged,
    paired_sums,
    success_definition,
    task_sums,
)
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
    found = summarise([episode(1, True, 10, 2), episode(2, False, 90, 12), episode(3, True, 20, 4)])
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
            "invalid_rate": 0.0,
            "malformed_rate": 0.0,
            "repeated_rate": 0.0,
        }
    )
    assert found["tokens_all"]["n"] == 3
    assert found["tokens_success"]["n"] == 2


def test_an_episode_that_broke_off_counts_as_a_failure_and_as_an_error():
    broken = episode(2, True, 7, 1, stop_reason="error", reward=0.0)
    found = summarise([episode(1, True, 10, 2), broken])
    assert found["success"]["mean"] == 0.5
    assert found["tokens_all"]["mean"] == 8.5
    assert found["tokens_success"] == {**NONE, "mean": 10.0, "n": 1}
    assert (found["episodes"], found["errors"]) == (2, 1)


def test_without_any_success_the_means_over_successes_are_null():
    found = summarise([episode(1, False, 10, 2), episode(2, False, 20, 3)])
    assert found["success"]["mean"] == 0.0
    assert found["tokens_success"] == {"mean": None, "ci_low": None, "ci_high": None, "n": 0}


NONE = {"ci_low": None, "ci_high": None, "reason": "fewer than 5 tasks"}


def test_few_tasks_have_means_without_intervals():
    found = summarise([episode(t, True, 10 + t, 2) for t in range(4)])
    assert found["tokens_all"] == {**NONE, "mean": 11.5, "n": 4}
    assert found["success"] == {**NONE, "mean": 1.0, "n": 4}


def test_a_return_within_0_and_1_is_bounded_as_a_share_is_and_another_is_not():
    def rewards(*values):
        some = [episode(t, value > 0, 10 + t, 2, reward=value) for t, value in enumerate(values)]
        return summarise(some)["reward"]

    lost = rewards(*[0.0] * 20)
    assert (lost["ci_low"], lost["ci_high"]) == (0.0, pytest.approx(1 - 0.025 ** (1 / 20)))
    assert rewards(0.9, 0.9, 0.95, 0.0, 0.9, 1.0)["ci_high"] < 1
    assert rewards(9.0, 9.0, 9.5, 0.0, 9.0, 10.0)["ci_high"] > 1
    assert rewards(*[-1.0] * 20)["reason"] == "nothing varies"


KEYS = [metric.key for metric in METRICS]


def ratio(sums, key):
    return sums.ratios[KEYS.index(key)]


def test_every_metric_has_a_column_and_only_those_over_successes_are_left_out_of_failures():
    terms = episode_terms([episode(1, False, 10, 2)])
    assert terms.numerator.shape == terms.denominator.shape == (1, len(METRICS))
    left_out = [m.key for m, n in zip(METRICS, terms.denominator[0], strict=True) if n == 0]
    assert left_out == [m.key for m in METRICS if m.over == "success"]


def test_rates_are_shares_of_turns_so_a_long_episode_weighs_more():
    some = [episode(1, True, 10, 2, invalid=1), episode(2, False, 50, 8, malformed=2, repeated=4)]
    found = summarise(some)
    rates = {key: found[key]["mean"] for key in ("invalid_rate", "malformed_rate", "repeated_rate")}
    assert rates == {"invalid_rate": 0.1, "malformed_rate": 0.2, "repeated_rate": 0.4}


def test_an_episode_without_a_turn_has_no_rate():
    broken = episode(1, False, 0, 0, stop_reason="error")
    assert summarise([broken])["invalid_rate"]["mean"] is None


def test_over_several_seeds_a_mean_over_successes_is_all_their_tokens_over_their_number():
    tried = [
        episode(1, True, 10, 1, seed=0), episode(1, True, 20, 1, seed=1),
        episode(2, True, 90, 1, seed=0), episode(2, False, 500, 1, seed=1),
    ]  # fmt: skip
    found = summarise(tried)
    assert found["tokens_success"]["mean"] == 40.0  # 120 / 3, not the mean of 15 and 90
    assert (found["tokens_success"]["n"], found["success"]["n"]) == (2, 2)  # tasks
    assert found["success"]["mean"] == 0.75
    assert found["episodes"] == 4


def test_seeds_of_one_task_do_not_narrow_the_interval():
    once = [episode(t, t % 3 > 0, 10 + t, 2) for t in range(60)]
    again = [episode(t, t % 3 > 0, 10 + t, 2, seed=1) for t in range(60)]
    both, single = summarise(once + again), summarise(once)
    for key in ("tokens_all", "success"):
        assert both[key] == pytest.approx(single[key])


def test_success_is_a_return_of_at_least_the_threshold_and_an_error_is_a_failure_all_the_same():
    some = [
        episode(1, False, 1, 1, reward=0.9),
        episode(2, True, 1, 1, reward=0.89),
        episode(3, True, 1, 1, reward=1.0, stop_reason="error"),
    ]
    assert [e.success for e in judged(some, 0.9)] == [True, False, False]
    assert [e.success for e in judged(some, None)] == [False, True, False]
    assert success_definition(0.9) == "return of at least 0.9"
    assert success_definition(None) == "the environment's own end"


def test_pairs_are_of_the_same_task_and_seed_and_over_successes_of_both():
    a = [episode(1, True, 10, 2, seed=0), episode(1, True, 30, 2, seed=1), episode(2, True, 8, 1, seed=0)]
    b = [episode(1, True, 20, 2, seed=0), episode(1, False, 99, 9, seed=1), episode(2, True, 4, 1, seed=7)]
    [first], [second] = by_task(a).values(), by_task(b).values()
    paired = paired_sums(first, second)
    assert paired.a.numerator.shape == (1, len(METRICS))  # task 2 has no seed in common
    assert (ratio(paired.a, "tokens_all"), ratio(paired.b, "tokens_all")) == (20.0, 59.5)
    assert (ratio(paired.a, "tokens_success"), ratio(paired.b, "tokens_success")) == (10.0, 20.0)
    assert ratio(paired.a_better, "success") == 0.5  # a tie and a win
    assert ratio(paired.a_better, "tokens_all") == 1.0  # fewer is better
    assert ratio(paired.a_better, "tokens_success") == 1.0


def test_rates_of_a_pair_keep_each_sides_own_turns():
    a, b = [episode(1, True, 1, 2, invalid=1)], [episode(1, True, 1, 10, invalid=1)]
    [first], [second] = by_task(a).values(), by_task(b).values()
    paired = paired_sums(first, second)
    assert (ratio(paired.a, "invalid_rate"), ratio(paired.b, "invalid_rate")) == (0.5, 0.1)
    assert ratio(paired.a_better, "invalid_rate") == -1.0


def test_the_same_task_and_seed_twice_is_refused_by_name():
    with pytest.raises(ValueError, match=r"bc/sampled has two episodes of task babyai/GoTo/1 with seed 3"):
        by_task([episode(1, True, 10, 2, seed=3), episode(1, False, 10, 2, seed=3)])


def test_tasks_and_seeds_come_in_order_whatever_order_the_episodes_have():
    some = [episode(2, True, 1, 1, seed=1), episode(1, True, 2, 1), episode(2, True, 3, 1, seed=0)]
    [tasks] = by_task(some).values()
    assert [(task, [e.seed for e in tried]) for task, tried in tasks.items()] == [
        ("babyai/GoTo/1", [0]),
        ("babyai/GoTo/2", [0, 1]),
    ]
    assert np.array_equal(task_sums(tasks).numerator[:, KEYS.index("tokens_all")], [2.0, 4.0])
