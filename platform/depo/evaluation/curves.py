"""Success within a budget, worked out after the fact from episodes that ran without one.

An episode counts at a budget when it succeeded and took no more than that. A policy that knows its
budget might act otherwise: `evaluation.controlled` tries such ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from depo.evaluation.metrics import Tasks, succeeded, sum_by_task
from depo.evaluation.statistics import Sums, Values, intervals

BUDGETS = 32
"""Points of a curve, at most."""


def success_curves(methods: Mapping[str, Tasks]) -> dict[str, Any]:
    """Share of episodes solved within a budget of tokens, and of steps, with pointwise 95% intervals.

    `{"tokens" | "steps": {"budgets": [...], "methods": {name: {"success", "ci_low", "ci_high"}}}}`,
    each list as long as `budgets`. The methods share the budgets, which end where no success takes more:
    there a curve has reached the success rate. Intervals are pointwise: a whole curve lies within its
    band less often than 95%. Over too few tasks for an interval its ends are null.
    """
    return {
        unit: _curves({name: _used(tasks, column) for name, tasks in methods.items()})
        for column, unit in enumerate(("tokens", "steps"))
    }


def _used(tasks: Tasks, column: int) -> tuple[Values, list[int]]:
    """What each success took, infinite for failures, `[episodes]`; and how many episodes a task has."""
    used = [
        float((e.num_tokens, e.num_steps)[column]) if succeeded(e) else np.inf
        for tried in tasks.values()
        for e in tried
    ]
    return np.array(used), [len(tried) for tried in tasks.values()]


def _curves(used: Mapping[str, tuple[Values, list[int]]]) -> dict[str, Any]:
    budgets = _budgets(np.concatenate([values for values, _ in used.values()]))
    return {
        "budgets": [int(budget) for budget in budgets],
        "methods": {name: _curve(values, sizes, budgets) for name, (values, sizes) in used.items()},
    }


def _budgets(used: Values) -> Values:
    """Whole budgets at which some method solves more: all, or evenly many episodes apart."""
    finite = used[np.isfinite(used)]
    if not len(finite):
        return np.array([0.0])
    amounts = np.unique(finite)
    if len(amounts) > BUDGETS:
        amounts = np.unique(np.quantile(finite, np.linspace(0, 1, BUDGETS), method="higher"))
    return np.ceil(amounts)


def _curve(used: Values, sizes: list[int], budgets: Values) -> dict[str, list[float | None]]:
    within = (used[:, None] <= budgets).astype(np.float64)
    sums = sum_by_task(Sums(within, np.ones_like(within)), sizes)
    found = intervals(sums, shares=[True] * len(budgets))
    return {
        "success": [interval.mean for interval in found],
        "ci_low": [interval.ci_low for interval in found],
        "ci_high": [interval.ci_high for interval in found],
    }
