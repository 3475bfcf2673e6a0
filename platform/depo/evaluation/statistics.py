"""95% intervals of ratios of sums over tasks, and of paired differences of such ratios.

Every number of a report is a ratio of sums over tasks: what all seeds of a task came to, over how often
it counts (episodes, successes, turns). The task is the unit, because tasks are what a result should carry
over to: a task's seeds stand and fall together, and two methods under comparison are held against each
other on the same tasks, so what makes a task hard for both cancels.

- A share (a success rate, a share of turns) has the interval of Clopper and Pearson (1934, doi
  10.1093/biomet/26.4.404). Over several seeds, or turns, it is that of the number of independent outcomes
  which would vary as much (Korn and Graubard 1998, Survey Methodology 24), which with one outcome a task
  is the number of tasks; where all outcomes are alike nothing varies, and each task counts once.
- A paired difference of shares is that of two cells, only a and only b: their Clopper-Pearson limits are
  put together by the method of variance estimates recovery (Zou and Donner 2008, doi 10.1002/sim.3095),
  with the cells' multinomial correlation taken at those very limits, where it makes both cells one
  binomial as soon as no task is a tie.
- A mean (tokens, steps, costs) and a difference of means have the wider of Student's interval and of
  Hall's transformation for skewed values (1992, doi 10.1111/j.2517-6161.1992.tb01872.x) to either side.

All are closed forms; none is drawn. `experiments/benchmarks/statistics.py` measures what they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, stdtrit

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]

FEWEST = 5
"""Tasks that an interval needs: over fewer, none holds what it claims."""
TAIL = 0.025
_Z = float(stdtrit(np.inf, 1 - TAIL))
_SKEWNESS_WEIGHT = 1.5
"""A small sample of skewed costs shows too little of their skewness; measured."""
_TIES = 1e-12  # relative: sums of the same numbers in another order


@dataclass(frozen=True)
class Sums:
    """Task by task, what a ratio is made of; each column is a statistic of its own."""

    numerator: Values
    """`[tasks, columns]`: a task's total."""
    denominator: Values
    """`[tasks, columns]`: how often the task counts; 0 leaves it out of the column, if it is 0 in both."""

    def __post_init__(self) -> None:
        if self.numerator.shape != self.denominator.shape:
            raise ValueError(f"sums need one shape, not {self.numerator.shape} and {self.denominator.shape}")

    @property
    def counts(self) -> NDArray[np.intp]:
        """Tasks that each column counts, `[columns]`."""
        return np.count_nonzero(self.counted, axis=0)

    @property
    def counted(self) -> Flags:
        """Whether a task has a part in a column, `[tasks, columns]`."""
        return (self.denominator != 0) | (self.numerator != 0)

    @property
    def ratios(self) -> Values:
        """The statistic of each column, `[columns]`; NaN over no tasks."""
        return divide(self.numerator.sum(axis=0), self.denominator.sum(axis=0))

    @property
    def influence(self) -> Values:
        """How far each task moves the column's ratio from what it is without it, `[tasks, columns]`.

        To first order, in units of the ratio: the mean over the tasks that count is 0, and with one
        outcome a task it is the outcome less the mean.
        """
        rest = self.numerator - self.ratios * self.denominator
        return np.nan_to_num(divide(rest * self.counts, self.denominator.sum(axis=0)[None]))

    @property
    def equal_tasks(self) -> Values:
        """How many tasks that count alike would weigh as much, `[columns]`."""
        return divide(self.denominator.sum(axis=0) ** 2, (self.denominator**2).sum(axis=0))

    @property
    def binary(self) -> Flags:
        """Whether a column holds one outcome a task, each 0 or 1, `[columns]`."""
        inside = np.isin(self.numerator, (0.0, 1.0)) & np.isin(self.denominator, (0.0, 1.0))
        return np.all(inside & (self.numerator <= self.denominator), axis=0)


@dataclass(frozen=True)
class Interval:
    """A mean and its 95% interval; all None over no tasks."""

    mean: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    """Tasks the mean is taken over."""
    reason: str = ""
    """Why a mean has no interval."""

    def share(self) -> Interval:
        """The interval of a share, cut at 0 and 1: one from a standard error may reach beyond."""
        if self.ci_low is None or self.ci_high is None:
            return self
        return replace(self, ci_low=max(self.ci_low, 0.0), ci_high=min(self.ci_high, 1.0))

    def to_json(self) -> dict[str, Any]:
        return {"mean": self.mean, **self.limits(), "n": self.n}

    def limits(self) -> dict[str, Any]:
        """The interval as JSON; with its `reason` where there is none."""
        why = {"reason": self.reason} if self.reason else {}
        return {"ci_low": self.ci_low, "ci_high": self.ci_high, **why}


@dataclass(frozen=True)
class PairedDifference:
    """The ratio of a less that of b, and the one over the other less one, each with its interval."""

    difference: Interval
    relative: Interval

    def to_json(self) -> dict[str, Any]:
        difference, relative = self.difference, self.relative
        return {
            "difference": difference.mean,
            **difference.limits(),
            "n": difference.n,
            "excludes_zero": excludes_zero(difference),
            "relative": {"difference": relative.mean, **relative.limits()},
        }


@dataclass(frozen=True)
class Spread:
    """How estimates vary with what was drawn, each `[columns]`."""

    variance: Values
    freedom: Values
    """Degrees of freedom behind the variance."""
    skewness: Values
    """Of the estimate, not of one task."""
    steadiness: Values
    """What is left of the degrees of freedom where few tasks make most of the variance, 0 to 1."""
    alone: bool = True
    """Whether nothing but tasks was drawn: then no share varies more than one outcome a task does."""


SpreadOf = Callable[[Values], Spread]
"""From the influence of what was drawn on some estimates, their spread."""


def excludes_zero(interval: Interval) -> bool:
    """Whether the interval lies wholly above or wholly below zero."""
    if interval.ci_low is None or interval.ci_high is None:
        return False
    return interval.ci_low > 0 or interval.ci_high < 0


def plain(values: Values) -> Sums:
    """Sums of one value a task, `[tasks, columns]`; a NaN cell leaves the task out of the column."""
    known = ~np.isnan(values)
    return Sums(np.where(known, values, 0.0), known.astype(np.float64))


def divide(numerator: Values, denominator: Values) -> Values:
    """The quotient, NaN where the denominator is zero."""
    result = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result


def intervals(
    sums: Sums, resamples: int = 0, seed: int = 0, shares: Sequence[bool] | Flags | None = None
) -> list[Interval]:
    """The interval of each column's ratio.

    `shares` says which columns are shares, lying between 0 and 1 by their nature; None takes those of
    zeros and ones alone. Nothing is drawn: `resamples` and `seed` are read by nobody, and stand here for
    callers that give them.
    """
    shares = sums.binary if shares is None else np.asarray(shares)
    return estimated(sums, sums.influence, shares, lambda moved: spread_of(moved, sums.counts))


def signed_intervals(sums: Sums) -> list[Interval]:
    """As `intervals`, of means of signed shares: values from -1 to 1, as of who did better on a task."""
    return signed_estimated(sums, sums.influence, sums.counted, lambda moved: spread_of(moved, sums.counts))


def paired_differences(
    a: Sums, b: Sums, resamples: int = 0, seed: int = 0, shares: Sequence[bool] | Flags | None = None
) -> list[PairedDifference]:
    """Column by column a - b, with the same task in the same row of both; arguments as of `intervals`.

    A task that either side leaves out of a column is left out of it for both. The relative difference
    is a / b - 1; None where b is zero.
    """
    if a.numerator.shape != b.numerator.shape:
        raise ValueError(f"paired sums need one shape, not {a.numerator.shape} and {b.numerator.shape}")
    both = (a.denominator != 0) & (b.denominator != 0)
    a, b = (Sums(np.where(both, s.numerator, 0.0), np.where(both, s.denominator, 0.0)) for s in (a, b))
    shares = a.binary & b.binary if shares is None else np.asarray(shares)
    influence = a.influence, b.influence
    return differences(a, b, *influence, both, shares, lambda moved: spread_of(moved, a.counts))


def probability(better: Interval) -> dict[str, Any]:
    """P(a better), ties half, from the interval of how often a was better less how often b was."""
    mean, low, high = (
        None if end is None else (1 + end) / 2 for end in (better.mean, better.ci_low, better.ci_high)
    )
    return {"mean": mean, **replace(better, ci_low=low, ci_high=high).limits()}


def estimated(sums: Sums, influence: Values, shares: Flags, spread: SpreadOf) -> list[Interval]:
    """The intervals of the ratios of `sums`, from the influence of what was drawn on them.

    `influence` is `[tasks, columns]`, behind runs where there are several, whose `sums` are then those of
    all; `spread` makes of an influence the spread of the estimate.
    """
    point, varying = sums.ratios, spread(influence)
    share = np.where(shares, point, 0.0)
    exact = share_limits(share, effective_outcomes(share, varying, sums.equal_tasks))
    limits = np.where(shares, exact, mean_limits(point, varying))
    return as_intervals(point, limits, sums.counts, shares | varies(varying, point))


def signed_estimated(sums: Sums, influence: Values, counted: Flags, spread: SpreadOf) -> list[Interval]:
    """As `estimated`, of means of values from -1 to 1; `counted` says where in `influence` there is one."""
    point = sums.ratios
    limits = signed_limits(point + influence, counted, sums.equal_tasks, spread)
    return as_intervals(point, limits, sums.counts, np.ones(len(point), dtype=bool))


def differences(
    a: Sums, b: Sums, of_a: Values, of_b: Values, counted: Flags, shares: Flags, spread: SpreadOf
) -> list[PairedDifference]:
    """Column by column a - b and a / b - 1, from the influence `of_a` and `of_b`; as `signed_estimated`."""
    point_a, point_b, counts = a.ratios, b.ratios, a.counts
    difference, moved = point_a - point_b, of_a - of_b
    varying = spread(moved)
    limits = mean_limits(difference, varying)
    if shares.any():
        values, equal = np.where(shares, difference + moved, 0.0), np.fmin(a.equal_tasks, b.equal_tasks)
        limits = np.where(shares, signed_limits(values, counted, equal, spread), limits)
    known = shares | varies(varying, np.fmax(np.abs(point_a), np.abs(point_b)))
    relative = divide(point_a, point_b) - 1
    of_relative = spread(np.nan_to_num(divide(of_a - (relative + 1) * of_b, point_b[None])))
    ratio_limits = relative_limits(relative, of_relative, limits, point_b, shares)
    return [
        PairedDifference(d, r)
        for d, r in zip(
            as_intervals(difference, limits, counts, known),
            as_intervals(relative, ratio_limits, counts, known),
            strict=True,
        )
    ]


def spread_of(influence: Values, counts: NDArray[np.intp]) -> Spread:
    """The spread of a mean over tasks drawn at random, from their `influence` `[tasks, columns]`.

    `counts` `[columns]` are the tasks that a column counts; the influence of the others is 0.
    """
    n = np.maximum(counts, 3).astype(np.float64)  # below `FEWEST` nothing of it is shown
    second = (influence**2).sum(axis=0) / n
    skewness = np.nan_to_num(divide((influence**3).sum(axis=0) / n, second**1.5))
    adjusted = skewness * np.sqrt(n * (n - 1)) / (n - 2)
    kurtosis = np.nan_to_num(divide((influence**4).sum(axis=0) / n, second**2), nan=3.0)
    steadiness = np.minimum(2 / np.maximum(kurtosis - 1, 2.0), 1.0)
    return Spread(second / (n - 1), n - 1, adjusted / np.sqrt(n), steadiness)


def varies(spread: Spread, scale: Values) -> Flags:
    """Whether there is any spread beyond the rounding of numbers of this `scale`, `[columns]`."""
    return spread.variance > (_TIES * np.nan_to_num(np.abs(scale))) ** 2


def mean_limits(mean: Values, spread: Spread) -> Values:
    """Both ends of a mean's interval, `[2, columns]`."""
    error, reach = np.sqrt(spread.variance), stdtrit(spread.freedom, 1 - TAIL)
    third = _SKEWNESS_WEIGHT * spread.skewness / 3

    def hall(y: Values) -> Values:
        """The studentised mean whose transform, freed from skewness, is `y`."""
        steep = np.where(np.abs(third) < 1e-6, 1.0, third)
        return np.where(steep == third, (np.cbrt(1 + 3 * steep * (y - third / 2)) - 1) / steep, y)

    low = mean - error * np.maximum(reach, hall(reach))
    return np.stack([low, mean - error * np.minimum(-reach, hall(-reach))])


def effective_outcomes(share: Values, spread: Spread, equal_tasks: Values) -> Values:
    """How many independent outcomes of 0 or 1 tell as much about a share, `[columns]`.

    By its variance, less for the degrees of freedom that this rests on; but not less than there are
    tasks, since no values between 0 and 1 vary more than 0 and 1 do. Where nothing varies: `equal_tasks`.
    """
    found = divide(share * (1 - share), spread.variance)
    freedom = np.maximum(spread.freedom * spread.steadiness, 1.0)
    sure = found * (_Z / stdtrit(freedom, 1 - TAIL)) ** 2
    if spread.alone:  # the variance is over n - 1: with one outcome a task this is n
        sure = np.maximum(sure, np.minimum(found * (1 + 1 / spread.freedom), equal_tasks))
    return np.where(varies(spread, share) & (share > 0) & (share < 1), sure, equal_tasks)


def share_limits(share: Values, outcomes: Values) -> Values:
    """Both ends of Clopper and Pearson's interval of a share of so many `outcomes`, `[2, columns]`."""
    share = np.clip(share, 0.0, 1.0)
    found, rest = outcomes * share, outcomes * (1 - share)
    low = np.where(found > 0, betaincinv(np.maximum(found, 1e-300), rest + 1, TAIL), 0.0)
    high = np.where(rest > 0, betaincinv(found + 1, np.maximum(rest, 1e-300), 1 - TAIL), 1.0)
    return np.stack([np.minimum(low, share), np.maximum(high, share)])  # but for rounding they are already


def signed_limits(values: Values, counted: Flags, equal_tasks: Values, spread: SpreadOf) -> Values:
    """Both ends of the interval of the mean of `values` from -1 to 1, `[2, columns]`.

    `values` and `counted`, whether a column counts one, are `[tasks, columns]`, behind runs where there are
    several.
    """
    cells = []
    values = np.where(np.abs(values) < _TIES, 0.0, values)
    drawn = tuple(range(values.ndim - 1))
    for part in (np.maximum(values, 0.0), np.maximum(-values, 0.0)):
        share = divide(np.where(counted, part, 0.0).sum(axis=drawn), counted.sum(axis=drawn))
        varying = spread(np.where(counted, part - share, 0.0))
        cells.append((share, effective_outcomes(share, varying, equal_tasks)))
    (a, of_a), (b, of_b) = cells
    return difference_of_cells(a, b, of_a, of_b, equal_tasks)


def difference_of_cells(a: Values, b: Values, of_a: Values, of_b: Values, tasks: Values) -> Values:
    """Both ends of the interval of a - b, the shares of two cells of a multinomial, `[2, columns]`.

    `of_a` and `of_b` are their effective outcomes: more than `tasks` where values are no mere zeros and
    ones, and by as much the parts of a task exclude each other more.
    """
    (low_a, high_a), (low_b, high_b) = share_limits(a, of_a), share_limits(b, of_b)
    finer = np.maximum(np.sqrt(of_a * of_b) / tasks, 1.0)

    def distance(from_a: Values, from_b: Values, at_a: Values, at_b: Values) -> Values:
        odds = np.nan_to_num(divide(at_a * at_b, (1 - at_a) * (1 - at_b)), nan=1.0)
        correlation = np.minimum(finer * np.sqrt(odds), 1.0)
        return np.sqrt(from_a**2 + from_b**2 + 2 * correlation * from_a * from_b)

    low = a - b - distance(a - low_a, high_b - b, low_a, high_b)
    high = a - b + distance(high_a - a, b - low_b, high_a, low_b)
    return np.clip(np.stack([low, high]), -1.0, 1.0)


def relative_limits(
    relative: Values, spread: Spread, difference: Values, base: Values, shares: Flags
) -> Values:
    """Both ends of a / b - 1, `[2, columns]`; `difference` are those of a - b, `base` is b.

    Of shares it holds at least what the difference allows over b: at 0 and 1 nothing else varies. Both say
    the same of zero: where the difference holds it, so does the ratio's, which errs more often in few tasks.
    """
    limits = mean_limits(relative, spread)
    none = (difference[0] <= 0) & (difference[1] >= 0)
    limits = np.where(none, np.stack([np.fmin(limits[0], 0.0), np.fmax(limits[1], 0.0)]), limits)
    scaled = np.sort(divide(difference, np.broadcast_to(base, difference.shape)), axis=0)
    wider = np.stack([np.fmin(limits[0], scaled[0]), np.fmax(limits[1], scaled[1])])
    return np.where(shares, wider, limits)


def as_intervals(mean: Values, limits: Values, counts: NDArray[np.intp], known: Flags) -> list[Interval]:
    """Columns as intervals: none over fewer than `FEWEST` tasks, nor where it is not `known`."""
    found = []
    for value, low, high, n, spread in zip(mean, *limits, counts, known, strict=True):
        interval = Interval(None if np.isnan(value) else float(value), float(low), float(high), int(n))
        if interval.mean is None:
            interval = replace(interval, ci_low=None, ci_high=None)
        elif n < FEWEST or not spread:
            reason = f"fewer than {FEWEST} tasks" if n < FEWEST else "nothing varies"
            interval = replace(interval, ci_low=None, ci_high=None, reason=reason)
        found.append(interval)
    return found
