"""Intervals over runs and tasks at once: where training was repeated with other seeds.

Each run is tried on the same tasks, so two things vary that a claim should survive: the run and the task.
With three or five runs a bootstrap over runs cannot show it: it has too few values to draw from (drawing
runs, then tasks, covers about 80% at three runs that differ; see the tests). So the variance is put together
from its parts, by the two-way random-effects analysis of variance (Searle, Casella and McCulloch 1992,
"Variance Components", chapter 4), with Satterthwaite's degrees of freedom (1946, doi 10.2307/3002019); the
interval is then made of it as over tasks alone. A ratio, or a mean of the middle half, enters by the
influence of each (run, task) cell on it; for the latter that is the winsorised score (Tukey and McLaughlin
1963).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from depo.evaluation.interquartile import interquartile_mean
from depo.evaluation.statistics import (
    Flags,
    Interval,
    PairedDifference,
    Spread,
    SpreadOf,
    Sums,
    Values,
    as_intervals,
    differences,
    divide,
    estimated,
    mean_limits,
    signed_estimated,
    spread_of,
    varies,
)


def crossed_interval(mean: float, tasks: Values, sides: Sequence[Values], counted: int) -> Interval:
    """The 95% interval of `mean`, over `counted` tasks, from the influence of tasks and of runs on it.

    `tasks` `[tasks]` and `sides`, each `[runs, tasks]`, are as those of `crossed_spread`, of one column.
    """
    point, counts = np.array([mean]), np.array([counted])
    spread = crossed_spread(tasks[:, None], [side[..., None] for side in sides], counts)
    return as_intervals(point, mean_limits(point, spread), counts, varies(spread, point))[0]


def crossed_spread(tasks: Values, sides: Sequence[Values], counts: NDArray[np.intp]) -> Spread:
    """The spread of means over runs and tasks, from the influence of both, 0 for tasks that do not count.

    `tasks` `[tasks, columns]` is the influence of each task, over all runs; `sides` holds, for each group
    of runs drawn by itself, the influence of its cells, `[runs, tasks, columns]`: two where the runs of a
    and b have nothing to do with each other. A side of one run says nothing on how runs vary, and is taken
    not to. `counts` `[columns]` are the tasks that a column counts.
    """
    n = len(tasks)
    of_tasks = spread_of(tasks, counts)
    parts = [of_tasks.variance]
    degrees = [of_tasks.freedom]
    variance = of_tasks.variance
    for cells in (side * (counts / max(n, 1)) for side in sides):
        runs = len(cells)
        if runs < 2 or n < 2:
            continue
        of_runs = cells.mean(axis=1)
        rest = cells - of_runs[:, None] - cells.mean(axis=0) + of_runs.mean(axis=0)
        of_rest = (runs - 1) * (n - 1)
        between = of_runs.var(axis=0, ddof=1) / runs
        # Noise of the single cell is in the spread of tasks and in that of runs: once too often.
        noise = (rest**2).sum(axis=(0, 1)) / of_rest / (runs * n)
        variance = variance + between - noise
        parts += [between, noise]
        degrees += [np.full_like(noise, runs - 1), np.full_like(noise, of_rest)]
    variance = np.maximum(variance, np.max(parts, axis=0))
    freedom = divide(variance**2, (np.square(parts) / np.array(degrees)).sum(axis=0))
    share = np.nan_to_num(divide(of_tasks.variance, variance))
    return Spread(
        variance,
        np.maximum(np.nan_to_num(freedom, nan=1.0), 1.0),
        of_tasks.skewness * share**1.5,
        of_tasks.steadiness,
        alone=len(parts) == 1,
    )


def crossed_intervals(sums: Sequence[Sums], shares: Flags) -> list[Interval]:
    """As `intervals`, of one method's `sums`, one a run."""
    total, influence, counted = _over_runs(sums)
    return estimated(total, influence, shares, _spread(total.counts, counted))


def crossed_differences(
    a: Sequence[Sums], b: Sequence[Sums], shares: Flags, runs: tuple[int, int] | None = None
) -> list[PairedDifference]:
    """As `paired_differences`, of pairs of a and b: one a run, or where `runs` says how many a and b have,
    every run of a against each of b."""
    (total_a, of_a, counted), (total_b, of_b, _) = _over_runs(a), _over_runs(b)
    spread = _spread(total_a.counts, counted, runs)
    return differences(total_a, total_b, of_a, of_b, counted, shares, spread)


def crossed_signed(better: Sequence[Sums], runs: tuple[int, int] | None = None) -> list[Interval]:
    """As `signed_intervals`, with `runs` as of `crossed_differences`."""
    total, influence, counted = _over_runs(better)
    return signed_estimated(total, influence, counted, _spread(total.counts, counted, runs))


def _over_runs(sums: Sequence[Sums]) -> tuple[Sums, Values, Flags]:
    """Of one `Sums` a run: their sum; how far each cell moves the ratios of that, and whether it counts,
    `[runs, tasks, columns]`."""
    numerator = np.stack([s.numerator for s in sums])
    denominator = np.stack([s.denominator for s in sums])
    counted = np.stack([s.counted for s in sums])
    total = Sums(numerator.sum(axis=0), denominator.sum(axis=0))
    rest = np.nan_to_num(numerator - total.ratios * denominator) * counted.sum(axis=(0, 1))
    return total, np.nan_to_num(divide(rest, denominator.sum(axis=(0, 1))[None, None])), counted


def _spread(counts: NDArray[np.intp], counted: Flags, runs: tuple[int, int] | None = None) -> SpreadOf:
    """`counts` are the tasks that some run counts: a cell moves a mean the more, the fewer there are."""
    weight = np.nan_to_num(divide(len(counted) * counts.astype(float), counted.sum(axis=(0, 1))))

    def spread(cells: Values) -> Spread:
        cells = weight * cells
        sides = [cells]
        if runs:
            grid = cells.reshape(*runs, *cells.shape[1:])
            sides = [grid.mean(axis=1), grid.mean(axis=0)]
        return crossed_spread(cells.mean(axis=0), sides, counts)

    return spread


def interquartile_influence(scores: Values) -> tuple[float, Values]:
    """The interquartile mean of `scores` `[runs, tasks]`, and the influence of each cell on it."""
    cut = scores.size // 4
    ordered = np.sort(scores, axis=None)
    winsorised = np.clip(scores, ordered[cut], ordered[-cut - 1])
    return interquartile_mean(scores.ravel()), (winsorised - winsorised.mean()) / (1 - 2 * cut / scores.size)
