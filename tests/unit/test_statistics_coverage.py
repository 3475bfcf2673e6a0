"""Whether 95% intervals hold the truth 95 times in 100.

Rates are enumerated, `experiments/benchmarks/statistics.py` over a wider range; the others are 1,000
simulated experiments a case, each a column.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from depo.evaluation.crossed import (
    crossed_differences,
    crossed_interval,
    crossed_intervals,
    interquartile_influence,
)
from depo.evaluation.interquartile import stratified_intervals
from depo.evaluation.statistics import (
    Sums,
    excludes_zero,
    intervals,
    paired_differences,
    plain,
    signed_intervals,
)

EXPERIMENTS = 1000


def coverage(found, truth):
    return sum(i.ci_low <= truth <= i.ci_high for i in found) / len(found)


def assert_covers(found, truth, most=0.97):
    assert len(found) == EXPERIMENTS
    assert 0.93 <= coverage(found, truth) <= most


def episodes_of(rng, tasks, seeds=1):
    """Difficulty `[tasks, experiments]`, success and tokens `[seeds, tasks, experiments]` of one method.

    Harder tasks take more tokens and are solved less often: 0.9 on the average.
    """
    difficulty = rng.integers(1, 7, size=(tasks, EXPERIMENTS))
    shape = (seeds, tasks, EXPERIMENTS)
    success = (rng.random(shape) < 1.01 - 0.0314 * difficulty).astype(float)
    tokens = 10 * difficulty * rng.lognormal(0, 0.6, size=shape)
    return difficulty, success, tokens


LEVELS = np.arange(1, 7)
SOLVED = 1.01 - 0.0314 * LEVELS
TOKENS = 10 * LEVELS * np.exp(0.18)


def outcomes_of(n):
    """Every outcome of n tasks, a column each."""
    return (np.arange(n)[:, None] < np.arange(n + 1)).astype(float)


@pytest.mark.parametrize("tasks", [5, 6, 7, 10, 20, 33, 100, 300])
def test_a_rate_is_covered_whatever_it_is(tasks):
    found = intervals(plain(outcomes_of(tasks)))
    low, high = np.array([[i.ci_low, i.ci_high] for i in found]).T
    ends = np.concatenate([low - 1e-9, low + 1e-9, high - 1e-9, high + 1e-9])
    rates = np.clip(np.concatenate([[0, 0.001, 0.01, 0.99, 0.999, 1], ends]), 0, 1)

    def covered(rates):
        chance = stats.binom.pmf(np.arange(tasks + 1)[:, None], tasks, rates)
        return (chance * ((low[:, None] <= rates) & (rates <= high[:, None]))).sum(axis=0)

    assert covered(rates).min() > 0.95
    if tasks >= 20:
        assert covered(np.linspace(0.05, 0.95, 91)).mean() < 0.98


@pytest.mark.parametrize("tasks", [5, 6, 7, 10, 20, 33])
def test_a_paired_difference_of_rates_is_covered_and_seldom_claimed_where_there_is_none(tasks):
    cells = [(i, j) for i in range(tasks + 1) for j in range(tasks + 1 - i)]
    order = np.arange(tasks)[:, None]
    only_a, only_b = np.array(cells).T
    a, b = order < only_a, (order >= only_a) & (order < only_a + only_b)
    found = paired_differences(plain(a.astype(float)), plain(b.astype(float)))
    low, high = np.array([[d.difference.ci_low, d.difference.ci_high] for d in found]).T
    claimed = np.array([excludes_zero(d.difference) for d in found])
    counts = np.column_stack([only_a, only_b, tasks - only_a - only_b])
    shares = (0.0, 0.01, 0.05, 0.15, 0.3, 0.46, 0.5, 0.6, 0.8, 0.95, 0.99, 1.0)
    pairs = [(one, other) for one in shares for other in (*shares, 1 - one)]
    for p, q in (pair for pair in pairs if pair[0] >= pair[1] and sum(pair) <= 1):
        chance = stats.multinomial.pmf(counts, tasks, [p, q, 1 - p - q])
        held = (low <= p - q + 1e-12) & (p - q <= high + 1e-12)
        assert chance[held].sum() > 0.95
        if p == q:
            assert chance[claimed].sum() < 0.05


@pytest.mark.parametrize("tasks", [100, 400])
def test_mean_of_skewed_tokens(tasks):
    _, _, tokens = episodes_of(np.random.default_rng(tasks), tasks)
    assert_covers(intervals(plain(tokens[0])), TOKENS.mean())


@pytest.mark.parametrize(("tasks", "seeds"), [(100, 1), (200, 3)])
def test_tokens_over_successes_with_the_seeds_of_a_task_kept_together(tasks, seeds):
    _, success, tokens = episodes_of(np.random.default_rng(seeds), tasks, seeds)
    sums = Sums((success * tokens).sum(axis=0), success.sum(axis=0))
    truth = (SOLVED * TOKENS).sum() / SOLVED.sum()
    assert_covers(intervals(sums), truth, most=0.98)


def test_cost_of_one_success():
    _, success, tokens = episodes_of(np.random.default_rng(7), 200)
    assert_covers(intervals(Sums(tokens[0], success[0])), TOKENS.mean() / SOLVED.mean())


def test_treating_seeds_as_tasks_would_cover_far_less():
    _, _, tokens = episodes_of(np.random.default_rng(5), 100, 3)
    as_tasks = plain(tokens.reshape(300, EXPERIMENTS))
    assert coverage(intervals(as_tasks), TOKENS.mean()) < 0.9


@pytest.mark.parametrize("tasks", [100, 200])
def test_paired_difference_of_tokens_and_its_ratio(tasks):
    rng = np.random.default_rng(tasks)
    difficulty, _, a = episodes_of(rng, tasks)
    b = 9 * difficulty * rng.lognormal(0, 0.6, size=difficulty.shape)
    found = paired_differences(plain(b), plain(a[0]))
    assert_covers([d.difference for d in found], -0.1 * TOKENS.mean())
    assert_covers([d.relative for d in found], -0.1)


def test_paired_difference_of_tokens_over_tasks_that_both_solve():
    rng = np.random.default_rng(11)
    difficulty, success, a = episodes_of(rng, 200)
    b = 9 * difficulty * rng.lognormal(0, 0.6, size=difficulty.shape)
    both = success[0] * (rng.random(difficulty.shape) < 0.95)
    found = paired_differences(Sums(b * both, both), Sums(a[0] * both, both))
    assert_covers([d.difference for d in found], -0.1 * (SOLVED * TOKENS).sum() / SOLVED.sum())


@pytest.mark.parametrize(("tasks", "seeds"), [(20, 3), (60, 3), (60, 10)])
@pytest.mark.parametrize(("rate", "alike"), [(0.5, 0.5), (0.9, 0.0), (0.9, 0.5), (0.98, 0.3)])
def test_rates_over_seeds_of_tasks_that_differ(tasks, seeds, rate, alike):
    rng = np.random.default_rng([tasks, seeds])
    of_task = np.full((tasks, EXPERIMENTS), rate)
    if alike:
        weight = 1 / alike - 1
        of_task = rng.beta(rate * weight, (1 - rate) * weight, size=of_task.shape)
    a, b = (
        Sums(rng.binomial(seeds, of_task).astype(float), np.full(of_task.shape, float(seeds)))
        for _ in range(2)
    )
    shares = np.ones(EXPERIMENTS, dtype=bool)
    assert_covers(intervals(a, shares=shares), rate, most=1.0)
    assert_covers([d.difference for d in paired_differences(a, b, shares=shares)], 0.0, most=1.0)


def demo_steps(rng, tasks, failures, mean):
    """Failures at the limit of twelve steps beside successes of a few, each easy or hard by its task."""
    ease = rng.choice([0.3, 0.6, 1.0, 1.3, 1.8], size=(tasks, EXPERIMENTS))
    steps = np.minimum(rng.geometric(1 / (1 + (mean - 1) * ease)), 11)
    return np.where(rng.random(ease.shape) < failures * ease, 12.0, steps)


@pytest.mark.parametrize(("failures", "mean"), [(0.03, 1.9), (0.08, 2.8), (0.2, 2.8)])
@pytest.mark.parametrize(("tasks", "least"), [(10, 0.9), (30, 0.93)])
def test_means_of_few_costs_as_the_demos(tasks, least, failures, mean):
    rng = np.random.default_rng([tasks, int(100 * failures)])
    truth = demo_steps(rng, 500, failures, mean).mean()
    a, b = (demo_steps(rng, tasks, failures, mean) for _ in range(2))
    assert coverage(intervals(plain(a)), truth) >= least
    differences = [d.difference for d in paired_differences(plain(a), plain(b))]
    assert np.mean([excludes_zero(d) for d in differences]) <= 0.06


def test_few_costs_of_one_policy_are_seldom_called_different():
    rng = np.random.default_rng(5)
    a, b = (plain(demo_steps(rng, 5, 0.08, 2.8)) for _ in range(2))
    assert np.mean([excludes_zero(d.difference) for d in paired_differences(a, b)]) <= 0.06


def test_probability_that_a_is_better_with_ties_half():
    rng = np.random.default_rng(13)
    better = rng.choice([-1.0, 0.0, 1.0], p=[0.2, 0.5, 0.3], size=(200, EXPERIMENTS))
    assert_covers(signed_intervals(plain(better)), 0.1)


def test_interquartile_mean_over_seeds_of_the_same_tasks():
    rng = np.random.default_rng(14)
    tasks, seeds = 80, 3
    hard = rng.normal(50, 20, size=(tasks, 1, 1))
    truth = np.sort((hard + rng.normal(0, 15, size=(tasks, 20_000, 1))).ravel())
    middle = truth[len(truth) // 4 : -len(truth) // 4].mean()
    scores = (hard + rng.normal(0, 15, size=(tasks, seeds, EXPERIMENTS))).reshape(-1, EXPERIMENTS)
    assert_covers(stratified_intervals(scores, [seeds] * tasks, 400, seed=1), middle)


@pytest.mark.parametrize(("runs", "of_run"), [(3, 0.0), (3, 0.04), (5, 0.04)])
def test_rates_over_runs_and_tasks_alone_and_in_pairs(runs, of_run):
    rng = np.random.default_rng([runs, int(1000 * of_run)])
    one = np.ones((60, EXPERIMENTS))
    task = rng.choice([0.0, 0.1], size=one.shape)

    def tried():
        chances = [0.85 + task + of_run * rng.choice([-1.0, 1.0], size=EXPERIMENTS) for _ in range(runs)]
        return [Sums((rng.random(one.shape) < chance).astype(float), one) for chance in chances]

    a, b = tried(), tried()
    shares = np.ones(EXPERIMENTS, dtype=bool)
    assert_covers(crossed_intervals(a, shares), 0.9, most=1.0)
    found = [d.difference for d in crossed_differences(a, b, shares)]
    assert_covers(found, 0.0, most=1.0)
    apart = [x for x in a for _ in b], [y for _ in a for y in b]
    assert_covers([d.difference for d in crossed_differences(*apart, shares, (runs, runs))], 0.0, most=1.0)


def over_runs(runs, of_run, estimate):
    """Experiments of runs that differ by `of_run`, on 150 tasks that differ by 1 with noise of 1."""
    rng = np.random.default_rng([runs, int(100 * of_run)])
    found = []
    for _ in range(EXPERIMENTS):
        scores = of_run * rng.normal(size=(runs, 1)) + rng.normal(size=150) + rng.normal(size=(runs, 150))
        mean, cells = estimate(scores)
        found.append(crossed_interval(mean, cells.mean(axis=0), [cells], 150))
    return found


def mean_of(scores):
    return scores.mean(), scores - scores.mean()


@pytest.mark.parametrize("estimate", [mean_of, interquartile_influence])
@pytest.mark.parametrize(("runs", "of_run"), [(3, 0.0), (3, 0.1), (5, 0.0), (5, 0.3)])
def test_runs_and_tasks_at_once(runs, of_run, estimate):
    assert_covers(over_runs(runs, of_run, estimate), 0.0)


def test_tasks_alone_would_not_cover_what_runs_vary_by():
    rng = np.random.default_rng(15)
    scores = 0.3 * rng.normal(size=(5, 1, EXPERIMENTS)) + rng.normal(size=(5, 150, EXPERIMENTS))
    assert coverage(intervals(plain(scores.mean(axis=0))), 0.0) < 0.75


def test_a_bootstrap_of_runs_then_tasks_falls_short_at_three_runs():
    rng = np.random.default_rng(17)
    draws = 300
    of_runs = rng.multinomial(3, [1 / 3] * 3, size=draws) / 3
    of_tasks = rng.multinomial(150, [1 / 150] * 150, size=draws) / 150
    bootstrap = crossed = 0
    for _ in range(EXPERIMENTS):
        scores = 0.5 * rng.normal(size=(3, 1)) + rng.normal(size=150) + rng.normal(size=(3, 150))
        drawn = ((of_runs @ scores) * of_tasks).sum(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        bootstrap += low <= 0 <= high
        mean, cells = mean_of(scores)
        interval = crossed_interval(mean, cells.mean(axis=0), [cells], 150)
        crossed += interval.ci_low <= 0 <= interval.ci_high
    assert bootstrap / EXPERIMENTS < 0.85
    assert crossed / EXPERIMENTS > 0.9
