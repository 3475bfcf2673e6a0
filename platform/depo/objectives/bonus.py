"""The efficiency bonus of DEPO (arXiv 2511.15392), and how it enters a reference-based loss."""

from __future__ import annotations

import torch
from torch import Tensor


def efficiency_bonus(
    tokens_per_step: Tensor, num_steps: Tensor, alpha_tokens: float, alpha_steps: float
) -> Tensor:
    """Bonus of each trajectory, `alpha_tokens / tokens_per_step + alpha_steps / num_steps` `[batch]`.

    `tokens_per_step` `[batch]` is the mean number of the agent's own tokens in a step, `num_steps`
    `[batch]` the number of steps. Counts below one are taken as one, so that the bonus stays finite.
    """
    tokens = torch.clamp(tokens_per_step, min=1.0)
    steps = torch.clamp(num_steps, min=1.0)
    return alpha_tokens / tokens + alpha_steps / steps


def shifted_reference(ref_logp: Tensor, bonus: Tensor, desirable: Tensor) -> Tensor:
    """Reference log-probs `[batch]` that carry the bonus into any loss on log-ratios.

    A desirable log-ratio grows by `bonus`, since `logp - (ref_logp - bonus) = (logp - ref_logp) + bonus`;
    undesirable ones stay. `desirable` is a bool tensor `[batch]`.
    """
    return ref_logp - torch.where(desirable, bonus, torch.zeros_like(bonus))
