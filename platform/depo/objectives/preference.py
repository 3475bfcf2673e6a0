"""KTO (arXiv 2402.01306) on sums of log-probs; DEPO is the same loss on shifted references."""

from __future__ import annotations

import torch
from torch import Tensor


def kl_estimate(total: Tensor, count: Tensor) -> Tensor:
    """KTO's reference point z0: the mean log-ratio of the KL pairs, never below 0 (scalar).

    `total` and `count` are the sum of `logp - ref_logp` over all pairs of the step and their number,
    already reduced over ranks; without pairs the estimate is 0.
    """
    return torch.clamp(total / torch.clamp(count, min=1), min=0.0)


def kto_loss(
    policy_logp: Tensor,
    ref_logp: Tensor,
    desirable: Tensor,
    kl: Tensor,
    beta: float,
    lambda_desirable: float,
    lambda_undesirable: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each sample `[batch]`, equation 8 of the KTO paper less its constant term.

    With `r = policy_logp - ref_logp` (sums over a trajectory's agent tokens, nats), desirable samples
    cost `lambda_desirable * (1 - sigmoid(beta * (r - kl)))`, undesirable ones
    `lambda_undesirable * (1 - sigmoid(beta * (kl - r)))`. `kl` is a scalar without gradient.

    For DEPO give `shifted_reference(...)` as `ref_logp`.

    The second value holds, detached and per sample `[batch]`: `log_ratio` (r against the `ref_logp`
    given), `gradient_weight` (`|d loss / d policy_logp|`: how strongly the sample pulls).
    """
    log_ratio = policy_logp - ref_logp
    sign = torch.where(desirable, log_ratio.new_tensor(1.0), log_ratio.new_tensor(-1.0))
    scale = torch.where(
        desirable, log_ratio.new_tensor(lambda_desirable), log_ratio.new_tensor(lambda_undesirable)
    )
    margin = beta * sign * (log_ratio - kl.detach())
    losses = scale * torch.sigmoid(-margin)
    with torch.no_grad():
        weight = scale * beta * torch.sigmoid(margin) * torch.sigmoid(-margin)
    return losses, {"log_ratio": log_ratio.detach(), "gradient_weight": weight}
