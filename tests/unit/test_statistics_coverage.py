"""Whether 95% intervals hold the truth 95 times in 100: 1,000 simulated experiments a case.

A simulated experiment is a column: all are resampled at once, by the same draws of tasks.
"""

from __future__ import annotations

import numpy as np
import pytest

from depo.evaluation.crossed import crossed_interval, interquartile_influence
from depo.evaluation.interquartile import stratified_intervals
from depo.evaluation.statistics import Sums, intervals, paired_differences, percentile_intervals, plain

EXPERIMENTS, RESAMPLES = 1000, 2000


def coverage(found, truth):
    return sum(i.ci_low <= truth <= i.ci_high for i in found) / len(found)


def assert_covers(found, truth):
    assert len(found) == EXPERIMENTS
    assert 0.93 <= coverage(found, truth) <= 0.97


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


@pytest.mark.parametrize("tasks", [100, 200, 400])
def test_success_rate(tasks):
    _, success, _ = episodes_of(np.random.default_rng(tasks), tasks)
    assert_covers(intervals(plain(success[0]), RESAMPLES, seed=1), SOLVED.mean())


@pytest.mark.parametrize("tasks", [100, 400])
def test_mean_of_skewed_tokens(tasks):
    _, _, tokens = episodes_of(np.random.default_rng(tasks), tasks)
    assert_covers(intervals(plain(tokens[0]), RESAMPLES, seed=1), TOKENS.mean())


@pytest.mark.parametrize(("tasks", "seeds"), [(100, 1), (200, 3)])
def test_tokens_over_successes_with_the_seeds_of_a_task_kept_together(tasks, seeds):
    _, success, tokens = episodes_of(np.random.default_rng(seeds), tasks, seeds)
    sums = Sums((success * tokens).sum(axis=0), success.sum(axis=0))
    truth = (SOLVED * TOKENS).sum() / SOLVED.sum()
    assert_covers(intervals(sums, RESAMPLES, seed=1), truth)


def test_cost_of_one_success():
    _, success, tokens = episodes_of(np.random.default_rng(7), 200)
    assert_covers(intervals(Sums(tokens[0], success[0]), RESAMPLES, seed=1), TOKENS.mean() / SOLVED.mean())


def test_treating_seeds_as_tasks_would_cover_far_less():
    _, _, tokens = episodes_of(np.random.default_rng(5), 100, 3)
    as_tasks = plain(tokens.reshape(300, EXPERIMENTS))
    assert coverage(intervals(as_tasks, RESAMPLES, seed=1), TOKENS.mean()) < 0.9


@pytest.mark.parametrize("tasks", [100, 200])
def test_paired_difference_of_tokens_and_its_ratio(tasks):
    rng = np.random.default_rng(tasks)
    difficulty, _, a = episodes_of(rng, tasks)
    b = 9 * difficulty * rng.lognormal(0, 0.6, size=difficulty.shape)
    found = paired_differences(plain(b), plain(a[0]), RESAMPLES, seed=1)
    assert_covers([d.difference for d in found], -0.1 * TOKENS.mean())
    assert_covers([d.relative for d in found], -0.1)


def test_paired_difference_of_tokens_over_tasks_that_both_solve():
    rng = np.random.default_rng(11)
    difficulty, success, a = episodes_of(rng, 200)
    b = 9 * difficulty * rng.lognormal(0, 0.6, size=difficulty.shape)
    both = success[0] * (rng.random(difficulty.shape) < 0.95)
    found = paired_differences(Sums(b * both, both), Sums(a[0] * both, both), RESAMPLES, seed=1)
    assert_covers([d.difference for d in found], -0.1 * (SOLVED * TOKENS).sum() / SOLVED.sum())


def test_paired_difference_of_success_rates():
    rng = np.random.default_rng(12)
    gap = rng.choice([-1.0, 0.0, 1.0], p=[0.03, 0.91, 0.06], size=(200, EXPERIMENTS))
    b = (gap < 1) * (gap < 0)
    found = paired_differences(plain(b + gap), plain(b * 1.0), RESAMPLES, seed=1)
    assert_covers([d.difference for d in found], 0.03)


def test_why_means_follow_their_skewness_and_differences_do_not():
    rng = np.random.default_rng(16)
    skewed = plain(rng.lognormal(0, 1.0, size=(200, EXPERIMENTS)))
    truth = np.exp(0.5)
    bca, percentile = (f(skewed, RESAMPLES, seed=1) for f in (intervals, percentile_intervals))
    assert sum(i.ci_high < truth for i in bca) < 0.8 * sum(i.ci_high < truth for i in percentile)
    rare = (rng.random((100, EXPERIMENTS)) < 0.15) * rng.normal(0, 60, size=(100, EXPERIMENTS))
    bca, percentile = (f(plain(rare), RESAMPLES, seed=1) for f in (intervals, percentile_intervals))
    assert coverage(bca, 0.0) < coverage(percentile, 0.0) - 0.01
    assert_covers(percentile, 0.0)


def test_probability_that_a_is_better_with_ties_half():
    rng = np.random.default_rng(13)
    share = rng.choice([0.0, 0.5, 1.0], p=[0.2, 0.5, 0.3], size=(200, EXPERIMENTS))
    assert_covers(percentile_intervals(plain(share), RESAMPLES, seed=1), 0.55)


def test_interquartile_mean_over_seeds_of_the_same_tasks():
    rng = np.random.default_rng(14)
    tasks, seeds = 80, 3
    hard = rng.normal(50, 20, size=(tasks, 1, 1))
    truth = np.sort((hard + rng.normal(0, 15, size=(tasks, 20_000, 1))).ravel())
    middle = truth[len(truth) // 4 : -len(truth) // 4].mean()
    scores = (hard + rng.normal(0, 15, size=(tasks, seeds, EXPERIMENTS))).reshape(-1, EXPERIMENTS)
    assert_covers(stratified_intervals(scores, [seeds] * tasks, 400, seed=1), middle)


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
    assert coverage(intervals(plain(scores.mean(axis=0)), RESAMPLES, seed=1), 0.0) < 0.75


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
