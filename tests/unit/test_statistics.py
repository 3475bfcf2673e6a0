"""Intervals: against closed forms and hand calculation, pairing, and the edges; their coverage beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from depo.evaluation.crossed import crossed_interval
from depo.evaluation.statistics import (
    Interval,
    Sums,
    excludes_zero,
    intervals,
    paired_differences,
    plain,
    probability,
    signed_intervals,
)

NAN = float("nan")


def column(values):
    return plain(np.asarray(values, dtype=np.float64).reshape(-1, 1))


def outcomes(*counts):
    """A column of zeros and ones: `counts` are (how many, of what)."""
    return column([value for count, value in counts for _ in range(count)])


def test_the_interval_of_symmetric_values_is_students():
    values = np.concatenate([np.linspace(1, 9, 9), [3.0, 7.0]])
    [found] = intervals(column(values))
    low, high = stats.t.interval(0.95, 10, values.mean(), stats.sem(values))
    assert (found.ci_low, found.ci_high) == (pytest.approx(low), pytest.approx(high))
    assert (found.mean, found.n, found.reason) == (pytest.approx(5.0), 11, "")


def test_a_skewed_means_interval_reaches_further_where_the_tail_is_by_halls_transformation():
    values = np.random.default_rng(4).exponential(3.0, size=60)
    [found] = intervals(column(values))
    low, high = stats.t.interval(0.95, 59, values.mean(), stats.sem(values))
    assert found.ci_low == pytest.approx(low)
    assert found.ci_high > high + 0.05 * (high - low)
    skewness = 1.5 * stats.skew(values, bias=False) / np.sqrt(60)
    t = (values.mean() - found.ci_high) / stats.sem(values)
    transformed = t + skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6
    assert transformed == pytest.approx(-stats.t.ppf(0.975, 59))


def test_the_spread_of_a_ratio_is_its_standard_error_by_the_delta_method():
    rng = np.random.default_rng(3)
    turns = rng.integers(1, 13, size=400).astype(float)
    spent = turns * rng.normal(5, 1, size=400)
    [found] = intervals(Sums(spent[:, None], turns[:, None]))
    ratio = spent.sum() / turns.sum()
    error = np.sqrt(((spent - ratio * turns) ** 2).sum() * 400 / 399) / turns.sum()
    assert found.mean == pytest.approx(ratio)
    assert (found.ci_high - found.ci_low) / 2 / error == pytest.approx(stats.t.ppf(0.975, 399), rel=0.02)


@pytest.mark.parametrize(("solved", "tasks"), [(0, 5), (0, 20), (1, 7), (11, 20), (99, 100), (1000, 1000)])
def test_a_rate_has_the_interval_of_clopper_and_pearson(solved, tasks):
    [found] = intervals(outcomes((solved, 1.0), (tasks - solved, 0.0)))
    exact = stats.binomtest(solved, tasks).proportion_ci(method="exact")
    assert (found.ci_low, found.ci_high) == (pytest.approx(exact.low), pytest.approx(exact.high))
    assert 0 <= found.ci_low < found.ci_high <= 1


def test_seeds_of_a_task_that_always_agree_tell_no_more_than_one_would():
    solved = np.repeat([1.0, 0.0], [14, 6])[:, None]
    [once], [thrice] = (intervals(Sums(k * solved, np.full((20, 1), k)), shares=[True]) for k in (1.0, 3.0))
    assert thrice.ci_low == pytest.approx(once.ci_low)
    assert thrice.ci_high == pytest.approx(once.ci_high)


def test_seeds_of_a_task_that_have_nothing_to_do_with_each_other_tell_nearly_as_much_as_tasks():
    rng = np.random.default_rng(1)
    solved = rng.binomial(4, 0.7, size=(300, 1)).astype(float)
    [found] = intervals(Sums(solved, np.full((300, 1), 4.0)), shares=[True])
    as_tasks = stats.binomtest(int(solved.sum()), 1200).proportion_ci(method="exact")
    assert found.ci_high - found.ci_low == pytest.approx(as_tasks.high - as_tasks.low, rel=0.1)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_rate_at_the_edge_over_several_seeds_counts_each_task_once(rate):
    [found] = intervals(Sums(np.full((20, 1), 3 * rate), np.full((20, 1), 3.0)), shares=[True])
    [once] = intervals(outcomes((20, rate)))
    assert found == once
    assert found.ci_high - found.ci_low == pytest.approx(1 - 0.025 ** (1 / 20))


def test_a_share_of_turns_without_any_counts_unlike_tasks_for_less():
    turns = np.array([1.0, 1.0, 1.0, 1.0, 16.0])[:, None]
    [uneven] = intervals(Sums(0 * turns, turns), shares=[True])
    [even] = intervals(Sums(0 * turns, np.full((5, 1), 4.0)), shares=[True])
    assert uneven.ci_high == pytest.approx(1 - 0.025 ** (260 / 400))
    assert uneven.ci_high > even.ci_high == pytest.approx(1 - 0.025 ** (1 / 5))


def test_pairing_narrows_the_interval_where_both_methods_share_the_tasks_difficulty():
    rng = np.random.default_rng(5)
    hard = rng.exponential(30.0, size=300)
    a, b = hard + rng.normal(9, 2, 300), hard + rng.normal(10, 2, 300)
    [paired] = paired_differences(column(a), column(b))
    unpaired = 2 * 1.96 * np.sqrt((a.var() + b.var()) / 300)
    assert paired.difference.ci_high - paired.difference.ci_low < 0.2 * unpaired
    assert excludes_zero(paired.difference)


def test_paired_difference_and_its_ratio_by_hand():
    a = column([2.0, 4.0, NAN, 6.0, 5.0, 3.0, 4.0])
    b = column([4.0, 8.0, 1.0, NAN, 9.0, 7.0, 8.0])
    [found] = paired_differences(a, b)
    assert found.difference.mean == pytest.approx(-3.6)  # over the five tasks that both have
    assert found.difference.n == 5
    gaps = np.array([2.0, 4.0, 4.0, 4.0, 4.0])
    half = stats.t.ppf(0.975, 4) * stats.sem(gaps)
    assert found.difference.ci_low == pytest.approx(-3.6 - half)
    assert found.relative.mean == pytest.approx(-0.5)
    rest = np.array([2.0, 4.0, 5.0, 3.0, 4.0]) - 0.5 * np.array([4.0, 8.0, 9.0, 7.0, 8.0])
    assert (
        found.relative.ci_high - found.relative.mean >= stats.t.ppf(0.975, 4) * stats.sem(rest) / 7.2 - 1e-9
    )


@pytest.mark.parametrize(("only_a", "only_b", "tasks"), [(0, 0, 5), (0, 0, 20), (3, 0, 20), (5, 5, 40)])
def test_a_paired_difference_of_rates_is_never_without_width(only_a, only_b, tasks):
    rest = tasks - only_a - only_b
    a = outcomes((only_a, 1.0), (only_b, 0.0), (rest, 1.0))
    b = outcomes((only_a, 0.0), (only_b, 1.0), (rest, 1.0))
    [found] = paired_differences(a, b)
    assert found.difference.mean == pytest.approx((only_a - only_b) / tasks)
    assert found.difference.ci_low < found.difference.mean < found.difference.ci_high
    assert not excludes_zero(found.difference)
    [turned] = paired_differences(b, a)
    assert turned.difference.ci_low == pytest.approx(-found.difference.ci_high)
    assert found.relative.ci_low < found.relative.mean < found.relative.ci_high


def test_a_paired_difference_without_ties_is_that_of_one_binomial():
    [found] = paired_differences(outcomes((9, 1.0), (3, 0.0)), outcomes((9, 0.0), (3, 1.0)))
    exact = stats.binomtest(9, 12).proportion_ci(method="exact")
    assert found.difference.ci_low == pytest.approx(2 * exact.low - 1)
    assert found.difference.ci_high == pytest.approx(2 * exact.high - 1)


def test_five_of_five_are_not_enough_and_six_of_six_are():
    """As the exact test of McNemar has it: 2 / 32 is above 5%, 2 / 64 below."""
    for tasks, claimed in ((5, False), (6, True)):
        [found] = paired_differences(outcomes((tasks, 1.0)), outcomes((tasks, 0.0)))
        assert found.to_json()["excludes_zero"] is claimed


def test_the_chance_of_being_better_says_the_same_as_the_difference_of_rates():
    a, b = outcomes((9, 1.0), (1, 0.0), (30, 1.0)), outcomes((9, 0.0), (1, 1.0), (30, 1.0))
    [difference] = paired_differences(a, b)
    [better] = signed_intervals(column(a.numerator - b.numerator))
    found = probability(better)
    assert found["mean"] == pytest.approx(0.5 + 8 / 80)
    assert found["ci_low"] == pytest.approx((1 + difference.difference.ci_low) / 2)
    [ties] = signed_intervals(column(np.zeros(20)))
    assert probability(ties)["ci_low"] < 0.5 < probability(ties)["ci_high"]


@pytest.mark.parametrize("tasks", [1, 2, 3, 4])
def test_below_five_tasks_there_is_no_interval_and_no_mark_and_it_says_why(tasks):
    a, b = column(11.0 + np.arange(tasks)), column(0.1 * np.arange(tasks))
    [found] = paired_differences(a, b)
    told = found.to_json()
    assert told["difference"] == pytest.approx(11 + 0.45 * (tasks - 1))
    assert (told["ci_low"], told["ci_high"], told["excludes_zero"]) == (None, None, False)
    assert told["reason"] == "fewer than 5 tasks"
    assert intervals(outcomes((tasks, 1.0)))[0].to_json() == {
        "mean": 1.0, "ci_low": None, "ci_high": None, "reason": "fewer than 5 tasks", "n": tasks
    }  # fmt: skip
    assert probability(signed_intervals(column(np.ones(tasks)))[0])["reason"] == "fewer than 5 tasks"
    single = crossed_interval(0.0, np.arange(tasks) - (tasks - 1) / 2, [], tasks)
    assert (single.ci_low, single.reason) == (None, "fewer than 5 tasks")


@given(st.floats(-1e6, 1e6).filter(lambda v: v not in (0.0, 1.0)), st.integers(5, 40))
@settings(max_examples=25, deadline=None)
def test_a_mean_of_equal_values_has_no_interval_rather_than_one_of_no_width(value, tasks):
    [interval] = intervals(column([value] * tasks))
    assert (interval.ci_low, interval.ci_high, interval.reason) == (None, None, "nothing varies")
    assert interval.n == tasks
    rng = np.random.default_rng(tasks)
    other = rng.normal(50, 10, size=tasks)
    [moved] = paired_differences(column(other + value), column(other))
    assert moved.difference.mean == pytest.approx(value, abs=1e-6)
    assert (moved.difference.ci_low, moved.difference.reason) == (None, "nothing varies")


@given(st.lists(st.floats(-1e3, 1e3), min_size=5, max_size=30))
@settings(max_examples=60, deadline=None)
def test_an_interval_holds_its_mean_and_turns_with_the_sign_of_the_values(values):
    [found], [turned] = intervals(column(values)), intervals(column(-np.array(values)))
    if found.ci_low is not None and set(values) - {0.0, 1.0}:
        assert found.ci_low < found.mean < found.ci_high
        assert turned.ci_low == pytest.approx(-found.ci_high, abs=1e-6)


def test_what_is_a_share_is_told_by_the_caller_or_by_zeros_and_ones():
    ones = column([1.0] * 20)
    assert intervals(ones)[0].ci_low == pytest.approx(0.025 ** (1 / 20))
    assert intervals(ones, shares=[False])[0].reason == "nothing varies"
    returns = column([0.4, 0.9, 0.0, 0.8, 0.7, 0.9])
    assert intervals(returns)[0].ci_low < 0 < intervals(returns, shares=[True])[0].ci_low


def test_columns_do_not_touch_each_other():
    values = np.random.default_rng(6).normal(size=(50, 1))
    binary = (values > 0).astype(float)
    both = intervals(plain(np.hstack([values, binary, values])))
    alone = [intervals(plain(values))[0], intervals(plain(binary))[0], intervals(plain(values))[0]]
    for found, expected in zip(both, alone, strict=True):
        ends = (expected.mean, expected.ci_low, expected.ci_high)
        assert (found.mean, found.ci_low, found.ci_high) == pytest.approx(ends)


def test_a_column_without_any_task_is_null():
    [empty] = intervals(plain(np.full((6, 1), NAN)))
    assert empty.to_json() == {"mean": None, "ci_low": None, "ci_high": None, "n": 0}
    assert intervals(plain(np.empty((0, 1)))) == [Interval(None, None, None, 0)]


def test_relative_difference_to_zero_is_null_and_the_difference_stays():
    [found] = paired_differences(column([1.0, 0.0, 2.0, 0.0, 0.0]), column([0.0] * 5))
    assert found.difference.mean == pytest.approx(0.6)
    assert found.relative.mean is None


def test_a_ratio_excludes_zero_only_where_the_difference_does():
    rng = np.random.default_rng(8)
    a, b = (plain(rng.lognormal(3, 1, (7, 2000))) for _ in range(2))
    found = paired_differences(a, b)
    claimed = np.array([[excludes_zero(pair.difference), excludes_zero(pair.relative)] for pair in found])
    assert not (claimed[:, 1] & ~claimed[:, 0]).any()
    assert claimed[:, 1].mean() <= claimed[:, 0].mean() < 0.06


def test_equal_methods_differ_by_zero_and_nothing_is_claimed():
    values = column(np.random.default_rng(8).normal(size=30))
    [found] = paired_differences(values, values)
    assert found.to_json()["difference"] == 0.0
    assert found.to_json()["excludes_zero"] is False


def test_pairs_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        paired_differences(column([1.0]), column([1.0, 2.0]))
    with pytest.raises(ValueError, match="one shape"):
        Sums(np.ones((2, 1)), np.ones((3, 1)))
