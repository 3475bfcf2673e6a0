"""What success costs: cost-of-pass, waste on failures, and which methods no other one dominates.

Money is in the currency of the configured prices. The cost of an attempt is its read and generated
tokens at those prices; how many of the read tokens an endpoint had cached is not known of an episode,
so all are priced as uncached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from depo.config.endpoint import PriceConfig
from depo.evaluation.metrics import Tasks, episode_terms, succeeded, sum_by_task
from depo.evaluation.statistics import Interval, Sums, Values, intervals
from depo.records import Episode

Better = Literal["higher", "lower"]

AXES: dict[str, Better] = {"success": "higher", "tokens_all": "lower", "steps_all": "lower"}
"""What the Pareto set and the hypervolume are taken over."""
REFERENCE_MARGIN = 1.1
"""The reference point's tokens and steps are those of the most wasteful method, times this."""


def attempt_cost(episode: Episode, price: PriceConfig) -> float:
    """Money that one episode cost, retries and failures of the endpoint aside."""
    return (episode.input_tokens * price.input + episode.num_tokens * price.output) / 1e6


def economics_of(tasks: Tasks, price: PriceConfig | None) -> dict[str, Any]:
    """Cost of an attempt, cost-of-pass, and share of tokens spent on failures of one method.

    Cost-of-pass is the expected cost of one success, mean cost over success rate (Erol et al. 2025,
    arXiv 2504.13359); None where nothing succeeds. Its upper end is None where none
    may be all that money buys. Without a price the costs are null.
    """
    episodes = [episode for tried in tasks.values() for episode in tried]
    sizes = [len(tried) for tried in tasks.values()]
    success = np.array([float(succeeded(e)) for e in episodes])
    tokens = np.array([float(e.num_tokens) for e in episodes])
    cost = np.array([attempt_cost(e, price) if price else 0.0 for e in episodes])
    one = np.ones(len(episodes))
    terms = Sums(np.column_stack([cost, tokens * (1 - success)]), np.column_stack([one, tokens]))
    each, wasted = intervals(sum_by_task(terms, sizes), shares=[False, True])
    if price is None:
        each = Interval(None, None, None, each.n)
    return {
        "cost": each.to_json(),
        "cost_of_pass": _cost_of_pass(success, cost, sizes) if price is not None and success.any() else None,
        "tokens_on_failures": wasted.to_json(),
    }


def _cost_of_pass(success: Values, cost: Values, sizes: Sequence[int]) -> dict[str, Any]:
    """By what money buys: successes for a unit of it have a mean to build on even where there are few."""
    [bought] = intervals(sum_by_task(Sums(success[:, None], cost[:, None]), sizes), shares=[False])
    high = None if bought.ci_low is None or bought.ci_low <= 0 else 1 / bought.ci_low
    low = None if bought.ci_high is None else 1 / bought.ci_high
    return Interval(cost.sum() / success.sum(), low, high, bought.n, bought.reason).to_json()


def means_on_axes(tasks: Tasks) -> tuple[float, ...]:
    """One method's point: its means of `AXES`, in order."""
    terms = episode_terms([episode for tried in tasks.values() for episode in tried])
    success, _, tokens, steps, *_ = terms.ratios
    return float(success), float(tokens), float(steps)


def frontier(points: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The Pareto set and the hypervolume of methods' points on `AXES`.

    Hypervolume is the share of the box between the ideal (all solved, no token, no step) and the
    reference point (nothing solved; tokens and steps `REFERENCE_MARGIN` times those of the most wasteful
    method) that some method dominates; 0 to 1. `without` is what is left of it without a method, and
    `contributions` the difference: 0 for whoever is dominated.
    """
    names = list(points)
    values = np.array([points[name] for name in names], dtype=np.float64)
    worst = np.array([0.0, *(values[:, 1:].max(axis=0) * REFERENCE_MARGIN)])
    scale = np.where(worst > 0, worst, 1.0)
    scale[0] = 1.0
    corner = np.array([0.0, 1.0, 1.0])
    share = values / scale
    better = list(AXES.values())
    whole = hypervolume(share, corner, better)
    kept = pareto_set(values, better)
    # Who is dominated adds nothing; the sums would say so only up to rounding.
    without = {
        name: hypervolume(np.delete(share, row, axis=0), corner, better) if kept[row] else whole
        for row, name in enumerate(names)
    }
    return {
        "hypervolume": {
            "value": whole,
            "reference_point": dict(zip(AXES, worst.tolist(), strict=True)),
            "without": without,
            "contributions": {name: whole - rest for name, rest in without.items()},
        },
        "pareto": [name for name, best in zip(names, kept, strict=True) if best],
    }


def pareto_set(points: Values | Sequence[Sequence[float]], better: Sequence[Better]) -> list[bool]:
    """Whether each of `points` `[points, axes]` is dominated by no other.

    A point dominates another that it is nowhere worse than and somewhere better. Equal points stay both;
    one with a NaN is never in the set, and dominates nothing.
    """
    costs = _as_costs(np.asarray(points, dtype=np.float64).reshape(-1, len(better)), better)
    known = np.all(np.isfinite(costs), axis=1)
    kept = []
    for row, cost in enumerate(costs):
        nowhere_worse = np.all(costs <= cost, axis=1)
        somewhere_better = np.any(costs < cost, axis=1)
        kept.append(bool(known[row] and not np.any(nowhere_worse & somewhere_better & known)))
    return kept


def hypervolume(
    points: Values | Sequence[Sequence[float]], reference: Values | Sequence[float], better: Sequence[Better]
) -> float:
    """The exact volume that `points` `[points, axes]` dominate and `reference` `[axes]` bounds.

    In the product of the axes' units. A point beyond the reference on some axis adds nothing.
    """
    values = np.asarray(points, dtype=np.float64).reshape(-1, len(better))
    corner = _as_costs(np.asarray(reference, dtype=np.float64)[None], better)[0]
    costs = _as_costs(values, better)
    costs = costs[np.all(np.isfinite(costs), axis=1)]
    return _volume(costs[(costs < corner).all(axis=1)], corner)


def _as_costs(points: Values, better: Sequence[Better]) -> Values:
    """With every axis to be minimised."""
    return np.where([b == "higher" for b in better], -points, points)


def _volume(costs: Values, corner: Values) -> float:
    """By slices along the last axis: between two neighbouring points the section stays the same."""
    if not len(costs):
        return 0.0
    if costs.shape[1] == 1:
        return float(corner[0] - costs.min())
    costs = costs[np.argsort(costs[:, -1], kind="stable")]
    ends = np.append(costs[1:, -1], corner[-1])
    total = 0.0
    for row, end in enumerate(ends):
        height = float(end - costs[row, -1])
        if height > 0:
            total += height * _volume(costs[: row + 1, :-1], corner[:-1])
    return total
