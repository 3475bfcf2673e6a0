"""The bootstrap: against closed forms, pairing, and the edges; its coverage is tested beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depo.evaluation.statistics import (
    Interval,
    Sums,
    bootstrap_ratios,
    excludes_zero,
    intervals,
    paired_differences,
    percentile_intervals,
    plain,
    student_quantile,
)

NAN = float("nan")


def column(values):
    return plain(np.asarray(values, dtype=np.float64).reshape(-1, 1))


def test_interval_of_a_mean_agrees_with_the_normal_approximation():
    values = np.random.default_rng(1).normal(50.0, 12.0, size=400)
    [interval] = intervals(column(values), 10_000, seed=0)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean())
    assert interval.ci_low == pytest.approx(values.mean() - half, abs=0.06 * half)
    assert interval.ci_high == pytest.approx(values.mean() + half, abs=0.06 * half)


def test_spread_of_the_bootstrap_is_the_standard_error_of_the_mean():
    values = np.random.default_rng(2).exponential(3.0, size=250)
    drawn = bootstrap_ratios(column(values), 20_000, seed=3)
    assert drawn.shape == (20_000, 1)
    assert drawn.std() == pytest.approx(values.std() / np.sqrt(250), rel=0.03)


def test_spread_of_a_bootstrapped_ratio_is_its_standard_error_by_the_delta_method():
    rng = np.random.default_rng(3)
    turns = rng.integers(1, 13, size=400).astype(float)
    invalid = rng.binomial(turns.astype(int), 0.1).astype(float)
    sums = Sums(invalid[:, None], turns[:, None])
    ratio = invalid.sum() / turns.sum()
    expected = np.sqrt(((invalid - ratio * turns) ** 2).sum()) / turns.sum()
    assert sums.ratios[0] == pytest.approx(ratio)
    assert bootstrap_ratios(sums, 20_000, seed=1).std() == pytest.approx(expected, rel=0.03)


def test_a_skewed_means_interval_reaches_further_where_the_tail_is():
    values = column(np.random.default_rng(4).exponential(3.0, size=60))
    [bca], [percentile] = intervals(values, 10_000, seed=0), percentile_intervals(values, 10_000, seed=0)
    assert bca.ci_high > percentile.ci_high
    assert bca.ci_low > percentile.ci_low


def test_levels_are_widened_by_students_t_so_small_samples_get_a_wider_interval():
    values = np.random.default_rng(5).normal(size=12)
    [interval] = percentile_intervals(column(values), 20_000, seed=0)
    low, high = np.percentile(bootstrap_ratios(column(values), 20_000, seed=0), [2.5, 97.5])
    width = (interval.ci_high - interval.ci_low) / (high - low)
    assert width == pytest.approx(2.201 / 1.96 * np.sqrt(12 / 11), rel=0.05)


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423)]
)
def test_quantiles_of_students_t_are_those_of_the_tables(freedom, expected):
    assert student_quantile(freedom) == pytest.approx(expected, abs=2e-4)


def test_students_quantile_agrees_with_scipy_at_broken_degrees_of_freedom():
    stats = pytest.importorskip("scipy.stats")
    for freedom in (2.5, 3.3, 7.7, 150.5):
        assert student_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-4)


def test_pairing_narrows_the_interval_where_both_methods_share_the_tasks_difficulty():
    rng = np.random.default_rng(5)
    hard = rng.exponential(30.0, size=300)
    a, b = hard + rng.normal(9, 2, 300), hard + rng.normal(10, 2, 300)
    [paired] = paired_differences(column(a), column(b), 5_000, seed=0)
    unpaired = bootstrap_ratios(column(a), 5_000, 1) - bootstrap_ratios(column(b), 5_000, 2)
    low, high = np.percentile(unpaired, [2.5, 97.5])
    assert paired.difference.ci_high - paired.difference.ci_low < 0.2 * (high - low)
    assert excludes_zero(paired.difference)
    assert low < 0 < high


def test_paired_difference_and_its_ratio_by_hand():
    a, b = column([2.0, 4.0, NAN, 6.0]), column([4.0, 8.0, 1.0, NAN])
    [found] = paired_differences(a, b, 200, seed=0)
    assert found.difference.mean == pytest.approx(-3.0)  # over the two tasks that both have
    assert found.difference.n == 2
    assert found.relative.mean == pytest.approx(-0.5)
    assert found.relative.ci_low == pytest.approx(-0.5)
    assert found.to_json()["relative"]["ci_high"] == pytest.approx(-0.5)


def test_columns_share_the_draws_so_equal_columns_get_equal_intervals():
    values = np.random.default_rng(6).normal(size=(50, 1))
    first, second = intervals(plain(np.hstack([values, values])), 300, seed=9)
    assert first == second


def test_same_seed_same_interval_and_other_seed_other_interval():
    values = column(np.random.default_rng(7).normal(size=60))
    assert intervals(values, 500, seed=1) == intervals(values, 500, seed=1)
    assert intervals(values, 500, seed=1) != intervals(values, 500, seed=2)


def test_blocks_of_draws_add_up_to_the_asked_number_of_resamples():
    values = column(np.arange(5000.0))  # 2,000,000 // 5000 = 400 draws a block
    drawn = bootstrap_ratios(values, 1701, seed=0)
    assert drawn.shape == (1701, 1)
    assert len(np.unique(drawn)) > 1600


@given(st.floats(-1e6, 1e6), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_constant_values_have_an_interval_of_no_width(value, tasks):
    [interval] = intervals(column([value] * tasks), 50, seed=0)
    assert interval.ci_low == pytest.approx(value)
    assert interval.ci_high == pytest.approx(value)
    assert interval.n == tasks


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_the_interval_lies_within_the_values_and_resamples_keep_their_range(values, seed):
    [interval] = intervals(column(values), 100, seed=seed)
    slack = 1e-6
    assert min(values) - slack <= interval.ci_low <= interval.ci_high <= max(values) + slack


def test_a_column_without_any_task_is_null():
    first, second = intervals(plain(np.array([[1.0, NAN], [3.0, NAN]])), 100, seed=0)
    assert first.mean == 2.0
    assert second.to_json() == {"mean": None, "ci_low": None, "ci_high": None, "n": 0}
    assert intervals(plain(np.empty((0, 1))), 100, seed=0) == [Interval(None, None, None, 0)]


def test_relative_difference_to_zero_is_null_and_the_difference_stays():
    [found] = paired_differences(column([1.0, 0.0]), column([0.0, 0.0]), 100, seed=0)
    assert found.difference.mean == 0.5
    assert found.relative.mean is None


def test_equal_methods_differ_by_zero_and_nothing_is_claimed():
    values = column(np.random.default_rng(8).normal(size=30))
    [found] = paired_differences(values, values, 100, seed=0)
    assert found.to_json()["difference"] == 0.0
    assert found.to_json()["excludes_zero"] is False


def test_pairs_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        paired_differences(column([1.0]), column([1.0, 2.0]), 10, seed=0)
    with pytest.raises(ValueError, match="one shape"):
        Sums(np.ones((2, 1)), np.ones((3, 1)))
