"""The interquartile mean, and its bootstrap within tasks."""

from __future__ import annotations

import numpy as np
import pytest

from depo.evaluation.interquartile import interquartile_mean, stratified_intervals, weighted_means


def test_a_quarter_is_cut_off_each_end():
    assert interquartile_mean(np.array([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -50.0])) == 3.5
    assert interquartile_mean(np.array([1.0, 2.0, 9.0])) == 4.0  # a quarter of three is none


@pytest.mark.parametrize("count", [4, 7, 30, 601])
def test_it_is_scipys_trimmed_mean(count):
    stats = pytest.importorskip("scipy.stats")
    scores = np.random.default_rng(count).exponential(size=count)
    assert interquartile_mean(scores) == pytest.approx(stats.trim_mean(scores, 0.25))


def test_resamples_by_weights_are_those_of_repeated_scores():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 9, size=50).astype(float)
    weights = rng.integers(0, 4, size=(50, 20)).astype(np.uint16)
    expected = [interquartile_mean(np.repeat(scores, column)) for column in weights.T]
    assert weighted_means(scores, weights) == pytest.approx(expected)


def test_only_the_seeds_of_a_task_are_drawn_so_tasks_that_differ_do_not_widen_it():
    hard = np.repeat(np.random.default_rng(1).normal(0, 100, size=48), 3)[:, None]
    [constant] = stratified_intervals(hard, [3] * 48, 300, seed=0)
    assert (constant.ci_low, constant.reason, constant.n) == (None, "nothing varies", 144)
    noise = np.random.default_rng(2).normal(0, 1, size=hard.shape)
    [found] = stratified_intervals(hard + noise, [3] * 48, 300, seed=0)
    assert found.ci_high - found.ci_low < 2


def test_tasks_with_unlike_numbers_of_seeds_and_none_at_all():
    scores = np.arange(15.0)[:, None]
    [found] = stratified_intervals(scores, [1, 2, 3, 4, 5], 300, seed=0)
    assert 0 <= found.ci_low <= found.mean <= found.ci_high <= 14
    [few] = stratified_intervals(scores, [5, 5, 5], 300, seed=0)
    assert (few.mean, few.ci_low, few.reason) == (found.mean, None, "fewer than 5 tasks")
    [empty] = stratified_intervals(np.empty((0, 1)), [], 10, seed=0)
    assert (empty.mean, empty.n) == (None, 0)
