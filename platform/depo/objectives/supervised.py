"""Sample weights of supervised training: behaviour cloning, plain and weighted."""

from __future__ import annotations

import torch
from torch import Tensor

from depo.config.method import MethodConfig
from depo.objectives.scores import Scores

# L1 gives a trajectory at its budget half the reward, so that shorter ones can earn more.
_AT_BUDGET = 0.5


def sft(scores: Scores, method: MethodConfig) -> Tensor:
    """Behaviour cloning: every sample weighs 1 `[batch]`. Its data are the desirable samples alone."""
    return torch.ones_like(scores.bonus)


def weighted_bc(scores: Scores, method: MethodConfig) -> Tensor:
    """Weight of each sample's NLL `[batch]`, not negative, times `1 + bonus`.

    - `return`: `exp((R - 1) / temperature)` over both labels, R the return (environments pay at most 1).
    - `length`: `exp(-n / (temperature * token_budget))` on desirable samples, 0 on the others; n the
      agent's own tokens.
    - `length_penalty`: the reward of L1-Max (arXiv 2503.04697) as an offline weight, over both labels:
      `R * clip(token_penalty * (token_budget - n) + 1/2, 0, 1)`, never below 0.
    """
    if method.weighting == "return":
        weight = torch.exp((scores.reward - 1) / method.weighting_temperature)
    elif method.weighting == "length":
        weight = torch.exp(-scores.length / (method.weighting_temperature * method.token_budget))
        weight = torch.where(scores.desirable, weight, torch.zeros_like(weight))
    else:
        left = method.token_penalty * (method.token_budget - scores.length) + _AT_BUDGET
        weight = torch.clamp(scores.reward, min=0) * torch.clamp(left, 0, 1)
    return weight * (1 + scores.bonus)
