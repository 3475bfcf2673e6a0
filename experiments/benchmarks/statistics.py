"""What the intervals of `depo.evaluation` hold: coverage, and false positives of comparisons.

Rates are enumerated, every outcome with its exact probability, at a close grid of rates and to either side
of every limit, where coverage is least. Costs are drawn (`--draws` experiments a cell) as the demo's: five
levels, each with its share of failures, which end at the limit of twelve steps, beside successes whose
steps are geometric (many short ones, few long ones); generated tokens are the steps times some 15.5. Two
policies on the same tasks share the levels, and on half of the tasks their luck too.

    python experiments/benchmarks/statistics.py            # two minutes on one core
    python experiments/benchmarks/statistics.py --json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln, xlogy
from scipy.stats import binom

from depo.evaluation.statistics import (
    FEWEST,
    Values,
    difference_of_cells,
    excludes_zero,
    intervals,
    paired_differences,
    plain,
)

SINGLE = (*range(FEWEST, 41), 50, 60, 80, 100, 150, 200, 300, 500, 700, 1000)
PAIRED = (*range(FEWEST, 21), 25, 30, 40, 50, 100, 200, 500, 1000)
COSTS = (10, 15, 20, 30, 50, 100, 300)
NULLS = (5, 6, 8, *COSTS)
LISTED = (5, 6, 8, 10, 15, 20, 30, 50, 100, 200, 300, 500, 1000)
MIDDLE = np.linspace(0.05, 0.95, 19)
"""Rates of the mean coverage, of two methods each by itself."""
NEAR = 1e-9
EASE = np.array([0.3, 0.6, 1.0, 1.3, 1.8])
"""Of the five levels: their failures, and their steps beyond the first, as multiples of the mean."""
LIMIT, TOKENS_A_STEP = 12, 15.5


@dataclass(frozen=True)
class Policy:
    """A policy as the demo's table shows one."""

    name: str
    failures: float
    steps: float
    """Mean over its successes, before the limit."""


GREEDY = [Policy("kto greedy", 0.02, 1.9), Policy("bc greedy", 0.04, 1.85)]
SAMPLED = [Policy("bc", 0.07, 2.8), Policy("depo", 0.08, 2.7), Policy("bc_raw", 0.1, 2.9)]
WEAK = [Policy("weak", 0.2, 3.0), Policy("weaker", 0.4, 3.5)]
PAIRS = [
    (GREEDY[0], GREEDY[1]),
    (SAMPLED[0], SAMPLED[1]),
    (SAMPLED[0], SAMPLED[2]),
    (SAMPLED[1], WEAK[0]),
    (WEAK[0], WEAK[1]),
]


def single(n: int) -> dict[str, float]:
    """Least and mean coverage of a rate over `n` tasks."""
    outcomes = np.arange(n + 1)
    found = intervals(plain((np.arange(n)[:, None] < outcomes).astype(float)))
    low, high = np.array([[i.ci_low, i.ci_high] for i in found], dtype=float).T
    ends = np.concatenate([low, high])
    rare = np.geomspace(1e-5, 0.05, 200)
    rates = np.concatenate([np.linspace(0, 1, 401), rare, 1 - rare, ends - NEAR, ends + NEAR])
    rates = np.unique(np.clip(rates, 0, 1))

    def coverage(rates: Values) -> Values:
        held = (low[:, None] <= rates) & (rates <= high[:, None])
        return (binom.pmf(outcomes[:, None], n, rates) * held).sum(axis=0)

    middle = coverage(np.linspace(0.05, 0.95, 181))
    return {"least": float(coverage(rates).min()), "mean": float(middle.mean())}


def paired(n: int) -> dict[str, float]:
    """Least and mean coverage of a difference of two rates over `n` tasks, and most false positives."""
    only_a, only_b = (cell.ravel() for cell in np.meshgrid(np.arange(n + 1), np.arange(n + 1)))
    possible = only_a + only_b <= n
    only_a, only_b = only_a[possible], only_b[possible]
    limits = np.full((2, n + 1, n + 1), np.nan)
    limits[:, only_a, only_b] = cell_limits(n, only_a, only_b)
    grid = np.unique(np.concatenate([[0], np.geomspace(1e-3, 0.03, 4), np.linspace(0.05, 1, 20)]))
    pairs = [(p, q) for p in grid for q in grid if p >= q and p + q <= 1]
    pairs += [(p, 1 - p) for p in np.linspace(0.5, 1, 21)]
    pairs += [(p, (1 - p) * 0.95) for p in np.linspace(0.5, 0.99, 15)]
    null = [(q / 2, q / 2) for q in (*np.geomspace(0.2 / n, 0.1, 8), *np.linspace(0.12, 1, 45))]
    middle = [(a * (1 - b), b * (1 - a)) for a in MIDDLE for b in MIDDLE]
    least = min(covered(n, limits, p, q) for p, q in pairs)
    wrong = max(1 - covered(n, limits, p, q) for p, q in null)
    mean = float(np.mean([covered(n, limits, p, q) for p, q in middle]))
    return {"least": min(least, 1 - wrong), "mean": mean, "false_positives": wrong}


def cell_limits(n: int, only_a: Values, only_b: Values) -> Values:
    """As `paired_differences` has them, of so many tasks that only a, or only b, solves, `[2, outcomes]`."""
    full = np.full(len(only_a), float(n))
    found = difference_of_cells(only_a / n, only_b / n, full, full, full)
    if n <= 20:
        tasks = np.arange(n)[:, None]
        a, b = (tasks < only_a).astype(float), ((tasks >= only_a) & (tasks < only_a + only_b)).astype(float)
        whole = [d.difference for d in paired_differences(plain(a), plain(b))]
        np.testing.assert_allclose(found, np.array([[d.ci_low, d.ci_high] for d in whole], dtype=float).T)
    return found


def covered(n: int, limits: Values, p: float, q: float) -> float:
    """How often the limits of outcomes, `[2, only a, only b]`, hold p - q; exact to 1e-9."""
    rows, columns = (np.arange(int(binom.ppf(1e-10, n, r)), int(binom.isf(1e-10, n, r)) + 1) for r in (p, q))
    i, j = (cell.ravel() for cell in np.meshgrid(rows, columns, indexing="ij"))
    i, j = i[i + j <= n], j[i + j <= n]
    rest = n - i - j
    log = gammaln(n + 1) - gammaln(i + 1) - gammaln(j + 1) - gammaln(rest + 1)
    chance = np.exp(log + xlogy(i, p) + xlogy(j, q) + xlogy(rest, max(1 - p - q, 0.0)))
    low, high = limits[:, i, j]
    held = (low <= p - q + 1e-12) & (p - q <= high + 1e-12)
    return float(chance[held].sum() / chance.sum())


def episodes(
    rng: np.random.Generator, policy: Policy, shape: tuple[int, ...], shared: tuple[Values, ...]
) -> tuple[Values, Values]:
    """Steps and tokens of episodes, `shape`; `shared` is the level of each task and the luck of another."""
    level, luck, stride, alike = shared
    luck = np.where(alike, luck, rng.random(shape))
    stride = np.where(alike, stride, rng.random(shape))
    stop = 1 / (1 + (policy.steps - 1) * EASE[level])
    steps = np.minimum(1 + np.floor(np.log(stride) / np.log1p(-stop)), LIMIT - 1)
    steps = np.where(luck < policy.failures * EASE[level], LIMIT, steps)
    return steps, steps * TOKENS_A_STEP * rng.lognormal(0, 0.15, size=shape)


def drawn(rng: np.random.Generator, shape: tuple[int, ...], alike: float) -> tuple[Values, ...]:
    return (
        rng.integers(0, len(EASE), size=shape),
        rng.random(shape),
        rng.random(shape),
        rng.random(shape) < alike,
    )


def expected(policy: Policy) -> float:
    """The mean steps of a policy, in closed form."""
    stop = 1 / (1 + (policy.steps - 1) * EASE)
    solved = (1 - (1 - stop) ** (LIMIT - 1)) / stop
    failed = policy.failures * EASE
    return float(np.mean(failed * LIMIT + (1 - failed) * solved))


def costs(n: int, draws: int) -> Iterator[tuple[str, str, float]]:
    """(what, of which policies, share of experiments): coverage of means and paired differences."""
    of_tokens = TOKENS_A_STEP * np.exp(0.15**2 / 2)
    for number, policy in enumerate((*GREEDY, *SAMPLED, *WEAK)):
        rng = np.random.default_rng([n, number])
        steps, tokens = episodes(rng, policy, (n, draws), drawn(rng, (n, draws), 0.0))
        mean = expected(policy)
        for unit, values, truth in (("steps", steps, mean), ("tokens", tokens, mean * of_tokens)):
            yield "mean", f"{policy.name}, {unit}", holds(intervals(plain(values)), truth)
    for number, (a, b) in enumerate(PAIRS):
        gap = expected(a) - expected(b)
        for unit, found in compared(n, draws, a, b, 100 + number):
            scale = of_tokens if unit == "tokens" else 1.0
            yield "difference", f"{a.name} − {b.name}, {unit}", holds(found, gap * scale)


def false_positives(n: int, draws: int) -> Iterator[tuple[str, float]]:
    """How often the costs of a policy differ from those of the very same policy."""
    for number, policy in enumerate((GREEDY[1], SAMPLED[0], WEAK[0])):
        for unit, found in compared(n, draws, policy, policy, 200 + number):
            yield f"{policy.name}, {unit}", float(np.mean([excludes_zero(i) for i in found]))


def compared(n: int, draws: int, a: Policy, b: Policy, seed: int) -> Iterator[tuple[str, list]]:
    rng = np.random.default_rng([n, seed])
    shared = drawn(rng, (n, draws), 0.5)
    of_a, of_b = (episodes(rng, policy, (n, draws), shared) for policy in (a, b))
    for unit, x, y in zip(("steps", "tokens"), of_a, of_b, strict=True):
        yield unit, [d.difference for d in paired_differences(plain(x), plain(y))]


def holds(found: list, truth: float) -> float:
    """How often the intervals hold the truth; where nothing varies there is none, and none is counted."""
    known = [i for i in found if i.ci_low is not None]
    return sum(i.ci_low <= truth <= i.ci_high for i in known) / len(known)


def unseen(n: int, draws: int) -> float:
    """Coverage where no sample can show the truth: successes of two to four steps, a tenth at the limit."""
    rng = np.random.default_rng(n)
    steps = np.where(rng.random((n, draws)) < 0.1, LIMIT, rng.integers(2, 5, size=(n, draws)))
    return holds(intervals(plain(steps.astype(float))), 0.1 * LIMIT + 0.9 * 3)


def measure(draws: int) -> dict:
    """All of it: a row for each number of tasks, and the four figures that must hold."""
    rates = {n: single(n) for n in SINGLE}
    differences = {n: paired(n) for n in PAIRED}
    means = {n: list(costs(n, draws)) for n in COSTS}
    nulls = {n: list(false_positives(n, draws)) for n in NULLS}
    rows = [
        {
            "n": n,
            "rate_min": rates.get(n, {}).get("least"),
            "rate_mean": rates.get(n, {}).get("mean"),
            "difference_min": differences.get(n, {}).get("least"),
            "difference_mean": differences.get(n, {}).get("mean"),
            "rate_false_positives": differences.get(n, {}).get("false_positives"),
            **{
                f"cost_{what}_min": min((v for kind, _, v in means.get(n, []) if kind == what), default=None)
                for what in ("mean", "difference")
            },
            "cost_false_positives": max((value for _, value in nulls.get(n, [])), default=None),
        }
        for n in sorted({*SINGLE, *PAIRED, *COSTS, *NULLS})
    ]
    both = [*rates.items(), *differences.items()]
    return {
        "coverage_min": min(found["least"] for _, found in both),
        "coverage_mean": max(found["mean"] for n, found in both if n >= 20),
        "coverage_cost_min": min(v for n, found in means.items() if n >= 30 for _, _, v in found),
        "coverage_cost_min_from_10": min(v for found in means.values() for _, _, v in found),
        "false_positive_max": max(
            *(found["false_positives"] for found in differences.values()),
            *(value for found in nulls.values() for _, value in found),
        ),
        "coverage_unseen": {n: unseen(n, draws) for n in (10, 30, 100)},
        "rows": rows,
        "costs": {n: {name: value for _, name, value in found} for n, found in means.items()},
    }


def table(found: dict) -> str:
    """The rows as Markdown, in per cent."""
    names = {
        "rate_min": "rate, least",
        "rate_mean": "rate, mean",
        "difference_min": "difference of rates, least",
        "difference_mean": "mean",
        "rate_false_positives": "false positives, most",
        "cost_mean_min": "mean cost, least",
        "cost_difference_min": "difference of costs, least",
        "cost_false_positives": "false positives, most",
    }
    lines = [["tasks", *names.values()], ["---:"] * (1 + len(names))]
    for row in found["rows"]:
        if row["n"] in LISTED:
            cells = ["" if row[key] is None else f"{100 * row[key]:.1f}" for key in names]
            lines.append([str(row["n"]), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--draws", type=int, default=20_000, help="experiments behind each cell of the costs")
    options = parser.parse_args()
    found = measure(options.draws)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    print(table(found))
    for key in ("coverage_min", "coverage_mean", "coverage_cost_min", "coverage_cost_min_from_10"):
        print(f"{key}: {100 * found[key]:.1f}%")
    print(f"false_positive_max: {100 * found['false_positive_max']:.1f}%")
    unknown = ", ".join(f"{100 * v:.0f}% over {n} tasks" for n, v in found["coverage_unseen"].items())
    print(f"where failures are rare, dear, and not in the sample: {unknown}")


if __name__ == "__main__":
    main()
