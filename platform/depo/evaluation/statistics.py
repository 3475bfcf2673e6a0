"""Percentile bootstrap over tasks: intervals of means, and of paired differences of means.

The task is the unit that is resampled, because tasks are what a result should carry over to.
Intervals are the 2.5% and 97.5% quantiles of the resampled statistic (Efron's percentile method).
A comparison is paired: both methods keep the same tasks in every resample, so what makes a task
hard for both cancels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

QUANTILES = (2.5, 97.5)
_CELLS = 4_000_000  # of one block of resampling weights: 32 MB


@dataclass(frozen=True)
class Interval:
    """A mean and its 95% interval; all None over no tasks."""

    mean: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    """Tasks the mean is taken over."""

    def to_json(self) -> dict[str, Any]:
        return {"mean": self.mean, "ci_low": self.ci_low, "ci_high": self.ci_high, "n": self.n}


@dataclass(frozen=True)
class PairedDifference:
    """Mean of a - b over common tasks, and the ratio of the means less one, each with interval."""

    difference: Interval
    relative: Interval

    def to_json(self) -> dict[str, Any]:
        difference, relative = self.difference, self.relative
        return {
            "difference": difference.mean,
            "ci_low": difference.ci_low,
            "ci_high": difference.ci_high,
            "n": difference.n,
            "excludes_zero": excludes_zero(difference),
            "relative": {
                "difference": relative.mean,
                "ci_low": relative.ci_low,
                "ci_high": relative.ci_high,
            },
        }


def excludes_zero(interval: Interval) -> bool:
    """Whether the interval lies wholly above or wholly below zero."""
    if interval.ci_low is None or interval.ci_high is None:
        return False
    return interval.ci_low > 0 or interval.ci_high < 0


def mean_over_tasks(values: Values) -> Values:
    """Column means `[columns]` of `values` `[tasks, columns]`, NaN cells left out; NaN over none."""
    known = ~np.isnan(values)
    sums = np.where(known, values, 0.0).sum(axis=0)
    return _divide(sums, known.sum(axis=0).astype(np.float64))


def bootstrap_means(values: Values, resamples: int, seed: int) -> Values:
    """Column means of `resamples` draws of tasks with replacement, `[resamples, columns]`.

    `values` is `[tasks, columns]`; a NaN cell is a task that the column leaves out. One draw serves
    all columns, so statistics of two columns in the same row are of the same tasks.
    """
    tasks, columns = values.shape
    if tasks == 0:
        return np.full((resamples, columns), np.nan)
    known = ~np.isnan(values)
    stacked = np.hstack([np.where(known, values, 0.0), known.astype(np.float64)])
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS // tasks)
    sums = np.vstack(
        [
            _weights(rng, min(block, resamples - start), tasks) @ stacked
            for start in range(0, resamples, block)
        ]
    )
    return _divide(sums[:, :columns], sums[:, columns:])


def mean_intervals(values: Values, resamples: int, seed: int) -> list[Interval]:
    """One interval for each column of `values` `[tasks, columns]`; NaN cells are left out."""
    counts = (~np.isnan(values)).sum(axis=0)
    return _intervals(mean_over_tasks(values), bootstrap_means(values, resamples, seed), counts)


def paired_differences(a: Values, b: Values, resamples: int, seed: int) -> list[PairedDifference]:
    """Column by column a - b, both `[tasks, columns]` with the same task in the same row.

    A task that either side leaves out (NaN) is left out of that column. The relative difference
    is mean(a) / mean(b) - 1 over the same tasks; None where mean(b) is zero.
    """
    if a.shape != b.shape:
        raise ValueError(f"paired values need one shape, not {a.shape} and {b.shape}")
    unknown = np.isnan(a) | np.isnan(b)
    a, b = np.where(unknown, np.nan, a), np.where(unknown, np.nan, b)
    columns = a.shape[1]
    stacked = np.hstack([a - b, a, b])
    point, drawn = mean_over_tasks(stacked), bootstrap_means(stacked, resamples, seed)
    counts = (~unknown).sum(axis=0)
    ratio = _divide(point[columns : 2 * columns], point[2 * columns :]) - 1
    ratios = _divide(drawn[:, columns : 2 * columns], drawn[:, 2 * columns :]) - 1
    differences = _intervals(point[:columns], drawn[:, :columns], counts)
    relatives = _intervals(ratio, ratios, counts)
    return [PairedDifference(d, r) for d, r in zip(differences, relatives, strict=True)]


def _weights(rng: np.random.Generator, resamples: int, tasks: int) -> Values:
    """How often each draw took each task, `[resamples, tasks]`; every row sums to `tasks`."""
    drawn = rng.integers(0, tasks, size=(resamples, tasks))
    drawn += np.arange(resamples)[:, None] * tasks
    return (
        np.bincount(drawn.ravel(), minlength=resamples * tasks).reshape(resamples, tasks).astype(np.float64)
    )


def _divide(numerator: Values, denominator: Values) -> Values:
    """The quotient, NaN where the denominator is zero."""
    result = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result


def _intervals(point: Values, drawn: Values, counts: NDArray[np.intp]) -> list[Interval]:
    return [
        _interval(float(mean), drawn[:, column], int(counts[column])) for column, mean in enumerate(point)
    ]


def _interval(mean: float, drawn: Values, n: int) -> Interval:
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(mean) or not len(drawn):
        return Interval(None, None, None, n)
    low, high = np.percentile(drawn, QUANTILES)
    return Interval(mean, float(low), float(high), n)
