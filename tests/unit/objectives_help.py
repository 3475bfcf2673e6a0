"""Batches of scores, and the formulas of the papers in plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import settings

from depo.config.method import MethodConfig
from depo.objectives.scores import Scores

any_timing = settings(deadline=None)
"""Timing decides no test, however busy the machine."""


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def softplus(x: float) -> float:
    return max(x, 0) + math.log1p(math.exp(-abs(x)))


def shifted_reference(ref_logp: torch.Tensor, bonus: torch.Tensor, desirable: torch.Tensor) -> torch.Tensor:
    """References that make any loss on log-ratios see `r + b` on desirable samples."""
    return ref_logp - torch.where(desirable, bonus, 0.0)


def scores(
    logp: Sequence[float] | torch.Tensor,
    ref_logp: Sequence[float] | None = None,
    desirable: Sequence[bool] | None = None,
    **others: Sequence[float],
) -> Scores:
    """Scores in float64; what is left out is 0 (1 for counts), and desirable."""
    values = torch.as_tensor(logp, dtype=torch.float64)
    n = len(values)
    fields: dict[str, Any] = {
        "ref_logp": [0.0] * n, "bonus": [0.0] * n, "num_tokens": [1.0] * n, "num_steps": [1.0] * n,
        "reward": [0.0] * n, "length": [1.0] * n,
    } | others  # fmt: skip
    if ref_logp is not None:
        fields["ref_logp"] = ref_logp
    return Scores(
        logp=values,
        desirable=torch.tensor([True] * n if desirable is None else list(desirable)),
        **{name: double(*value) for name, value in fields.items()},
    )


def method(objective: str, **fields: Any) -> MethodConfig:
    return MethodConfig(objective=objective, **fields)
