"""Intervals over runs and tasks at once: where training was repeated with other seeds.

Each run is tried on the same tasks, so two things vary that a claim should survive: the run and the task.
With three or five runs a bootstrap over runs cannot show it: it has too few values to draw from (drawing
runs, then tasks, covers about 80% at three runs that differ; see the tests). So the variance is put together
from its parts, by the two-way random-effects analysis of variance (Searle, Casella and McCulloch 1992,
"Variance Components", chapter 4), and the interval is Student's with Satterthwaite's degrees of freedom
(1946, doi 10.2307/3002019). A ratio, or a mean of the middle half, enters by the influence of each
(run, task) cell on it; for the latter that is the winsorised score (Tukey and McLaughlin 1963).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from depo.evaluation.interquartile import interquartile_mean
from depo.evaluation.statistics import Interval, Sums, Values, divide, student_quantile


def crossed_interval(mean: float, tasks: Values, sides: Sequence[Values], counted: int) -> Interval:
    """The 95% interval of `mean`, over `counted` tasks, from the influence of tasks and of runs on it.

    `tasks` `[tasks]` is the influence of each task, over all runs; `sides` holds, for each group of runs
    drawn by itself, the influence of its cells, `[runs, tasks]`: two where the runs of a and b have
    nothing to do with each other. A side of one run says nothing on how runs vary, and is taken not to.
    """
    n = tasks.size
    if np.isnan(mean):
        return Interval(None, None, None, counted)
    if n < 2:
        return Interval(mean, mean, mean, counted)
    parts = [(float(tasks.var(ddof=1)) / n, n - 1, 1)]
    for cells in sides:
        runs = len(cells)
        if runs < 2:
            continue
        of_runs = cells.mean(axis=1)
        rest = cells - of_runs[:, None] - cells.mean(axis=0) + of_runs.mean()
        degrees = (runs - 1) * (n - 1)
        parts.append((float(of_runs.var(ddof=1)) / runs, runs - 1, 1))
        # Noise of the single cell is in the spread of tasks and in that of runs: once too often.
        parts.append((float((rest**2).sum()) / degrees / (runs * n), degrees, -1))
    variance = max(sum(sign * part for part, _, sign in parts), max(part for part, _, _ in parts))
    if variance == 0:
        return Interval(mean, mean, mean, counted)
    freedom = variance**2 / sum(part**2 / of_part for part, of_part, _ in parts)
    half = student_quantile(max(freedom, 1.0)) * variance**0.5
    return Interval(mean, mean - half, mean + half, counted)


def ratio_influence(sums: Sequence[Sums]) -> tuple[Values, Values]:
    """Of one `Sums` a run: the columns' ratios over all runs and tasks `[columns]`, and the influence of
    each cell on them, `[runs, tasks, columns]`."""
    numerator = np.stack([s.numerator for s in sums])
    denominator = np.stack([s.denominator for s in sums])
    point = divide(numerator.sum(axis=(0, 1)), denominator.sum(axis=(0, 1)))
    with np.errstate(invalid="ignore"):
        return point, divide(numerator - point * denominator, denominator.mean(axis=(0, 1))[None, None])


def interquartile_influence(scores: Values) -> tuple[float, Values]:
    """The interquartile mean of `scores` `[runs, tasks]`, and the influence of each cell on it."""
    cut = scores.size // 4
    ordered = np.sort(scores, axis=None)
    winsorised = np.clip(scores, ordered[cut], ordered[-cut - 1])
    return interquartile_mean(scores.ravel()), (winsorised - winsorised.mean()) / (1 - 2 * cut / scores.size)
