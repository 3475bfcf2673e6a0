"""The bill: what rollouts have used, kept with the rows they led to, and what a job may come to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from depo.config.endpoint import OpenAIConfig
from depo.config.schema import SearchConfig
from depo.policies.base import BudgetSpent, Usage
from depo.stages.jobs import EpisodePlan, RolloutJob

SPENT_KEY = b"depo.spent"
"""Where a shard's schema metadata says what was used between the shard before and this one."""


@dataclass(frozen=True)
class Spent:
    """What a policy was asked for and what that took."""

    requests: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    """Generated ones, those of replies that no rollout took up included."""
    money: float = 0.0
    engine_seconds: float = 0.0
    retried: int = 0
    """Times that a tree was begun anew."""

    def __add__(self, other: Spent) -> Spent:
        return Spent(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: Spent) -> Spent:
        return Spent(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))

    def __bool__(self) -> bool:
        return self != Spent()

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def of(cls, usage: Usage) -> Spent:
        """What a policy has counted since it was made."""
        return cls(usage.requests, usage.prompt_tokens, usage.tokens, usage.money, usage.seconds)


def within_budget(policy: OpenAIConfig, spent: Spent, workers: int = 1) -> OpenAIConfig:
    """`policy` with its hard budget less what is spent; `spent` by each of `workers` that share it.

    Raises `BudgetSpent` where nothing is left.
    """
    left: dict[str, float] = {}
    if policy.max_money is not None:
        left["max_money"] = policy.max_money - spent.money * workers
    if policy.max_tokens_total is not None:
        left["max_tokens_total"] = policy.max_tokens_total - (spent.prompt_tokens + spent.tokens) * workers
    for name, value in left.items():
        if value <= 0:
            raise BudgetSpent(f"{name}: all of it is spent; raise it to go on")
    return policy.model_copy(update=left)


def total_spent(folder: Path) -> Spent:
    """What all starts of a job together have used, up to their last shards."""
    total = Spent()
    for file in folder.glob("[!.]*.parquet"):
        said = (pq.read_schema(file).metadata or {}).get(SPENT_KEY)
        if said is not None:
            total += Spent(**json.loads(said))
    return total


def spent_metrics(spent: Spent) -> dict[str, Any]:
    """For a manifest; money only where some was spent."""
    metrics = {key: round(value, 6) for key, value in asdict(spent).items()}
    if not spent.money:
        del metrics["money"]
    return metrics


def most_tokens(plan: SearchConfig | EpisodePlan, tasks: int) -> int:
    """Most tokens that so many tasks can generate."""
    if not isinstance(plan, SearchConfig):
        return tasks * plan.max_steps * plan.sampling.max_tokens
    simulation = (plan.width + plan.max_steps - 1) * plan.max_tokens
    most = plan.simulations * simulation
    if plan.budget.tokens is not None:
        # Checked before each simulation, so those in flight may go beyond it.
        most = min(most, plan.budget.tokens + plan.parallel * simulation)
    return tasks * most


def before_text(jobs: Sequence[RolloutJob], left: Sequence[int]) -> str:
    """One line on the size of what is to be done, before any of it is; `left` are each job's tasks."""
    tokens = [most_tokens(job.plan, tasks) for job, tasks in zip(jobs, left, strict=True)]
    text = f"{sum(left):,} tasks to do, at most {short(sum(tokens))} tokens"
    money = sum(
        count / 1e6 * job.policy.prices[job.policy.model].output
        for job, count in zip(jobs, tokens, strict=True)
        if isinstance(job.policy, OpenAIConfig) and job.policy.model in job.policy.prices
    )
    return text + (f" for {money:,.2f} of money, prompts aside" if money else "")


def extrapolated(spent: Spent, done: int, total: int) -> Spent:
    """What `total` trees will have used if they are like the first `done`."""
    factor = total / done
    return Spent(*(type(v)(v * factor) for v in asdict(spent).values()))


def after_text(spent: Spent, done: int, total: int) -> str:
    """One line on what all trees will come to, judged by the first."""
    all_ = extrapolated(spent, done, total)
    parts = [f"{short(all_.tokens)} tokens", f"{short(all_.prompt_tokens)} prompt tokens"]
    if all_.money:
        parts.append(f"{all_.money:,.2f} of money")
    return f"by the first {done:,} trees, all {total:,} will take about {', '.join(parts)}"


def short(number: float) -> str:
    """A number to three digits: 950, 12.3k, 4.5M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"
