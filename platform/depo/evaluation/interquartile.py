"""The interquartile mean over (seed, task) scores, with a stratified bootstrap.

Agarwal et al. 2021 (arXiv 2108.13264): the mean of the middle half of all scores, which neither a few
hopeless tasks nor a few lucky runs move. Its interval says how far it would move with other seeds on
these same tasks: each task is a stratum, and its seeds are drawn with replacement. Of S seeds S - 1 are
drawn, since S would spread too little by the factor (S - 1) / S, a third at three seeds (McCarthy and
Snowden 1985, "The bootstrap and finite population sampling").
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from depo.evaluation.statistics import FEWEST, TAIL, Interval, Values

MOST_RESAMPLES = 2000
"""Resamples of the interquartile mean, at most: each sorts every score anew."""


def interquartile_mean(scores: Values) -> float:
    """The mean of the middle half of `scores` `[scores]`: a quarter, rounded down, is cut off each end."""
    ordered = np.sort(scores)
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def stratified_intervals(scores: Values, strata: Sequence[int], resamples: int, seed: int) -> list[Interval]:
    """The interquartile mean of each column of `scores` `[scores, columns]`, without NaN.

    Rows of a stratum follow each other; `strata` says how many each has. `n` counts scores. Percentiles,
    whose levels are widened by sqrt(n / (n - 1)) and Student's t (Hesterberg 2015, doi
    10.1080/00031305.2015.1089789), since a resample varies less than a sample does. None over fewer than
    `FEWEST` tasks, nor where all resamples are alike.
    """
    if not len(scores):
        return [Interval(None, None, None, 0)] * scores.shape[1]
    n, few = len(scores), len(strata) < FEWEST
    weights = _stratified(tuple(strata), min(resamples, MOST_RESAMPLES), seed)
    reach = stdtrit(max(n - 1, 1), 1 - TAIL) * (n / max(n - 1, 1)) ** 0.5
    found = []
    for column in scores.T:
        mean = interquartile_mean(column)
        low, high = np.quantile(weighted_means(column, weights), [ndtr(-reach), ndtr(reach)])
        if few or high - low <= 1e-12 * abs(mean):
            reason = f"fewer than {FEWEST} tasks" if few else "nothing varies"
            found.append(Interval(mean, None, None, n, reason))
        else:
            found.append(Interval(mean, float(low), float(high), n))
    return found


def weighted_means(scores: Values, weights: NDArray[np.uint16]) -> Values:
    """Interquartile means of resamples, `[resamples]`; `weights` `[scores, resamples]` says how often
    each holds each score."""
    order = np.argsort(scores, kind="stable")
    values, starts = np.unique(scores[order], return_index=True)
    held = np.add.reduceat(weights[order], starts, axis=0, dtype=np.int32)
    upto = np.cumsum(held, axis=0)
    total = upto[-1]
    cut = total // 4
    kept = np.diff(np.clip(upto, cut, total - cut), axis=0, prepend=cut[None])
    return (values @ kept) / (total - 2 * cut)


@lru_cache(maxsize=2)
def _stratified(strata: tuple[int, ...], resamples: int, seed: int) -> NDArray[np.uint16]:
    """How often each draw took each score, `[scores, resamples]`: S - 1 of each stratum of S, at least 1."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((sum(strata), resamples), dtype=np.uint16)
    draws = np.arange(resamples)
    start = 0
    for size in strata:
        for _ in range(max(size - 1, 1)):
            weights[start + rng.integers(0, size, size=resamples), draws] += 1
        start += size
    return weights
