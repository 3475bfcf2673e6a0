"""KTO (arXiv 2402.01306) and DEPO (arXiv 2511.15392): losses of single labelled samples."""

from __future__ import annotations

import torch
from torch import Tensor

from depo.config.method import MethodConfig
from depo.objectives.bonus import place_bonus
from depo.objectives.scores import Losses, Scores


def kl_estimate(total: Tensor, count: Tensor) -> Tensor:
    """KTO's reference point z0: the mean log-ratio of the KL pairs, never below 0 (scalar).

    `total` and `count` are the sum of `logp - ref_logp` over all pairs of the step and their number,
    already reduced over ranks; without pairs the estimate is 0.
    """
    return torch.clamp(total / torch.clamp(count, min=1), min=0.0)


def moving_average(previous: Tensor, total: Tensor, count: Tensor, decay: float) -> Tensor:
    """Moving average of the steps' mean log-ratios (scalar), `decay * previous + (1 - decay) * mean`.

    `total` and `count` as in `kl_estimate`; a step without samples keeps `previous`. The average starts
    at 0, which is exact: before the first step the policy is the reference. It may be negative; z0 is
    `kl_estimate(average, 1)`.
    """
    mean = total / torch.clamp(count, min=1)
    return torch.where(count > 0, decay * previous + (1 - decay) * mean, previous)


def kto_loss(
    policy_logp: Tensor,
    ref_logp: Tensor,
    desirable: Tensor,
    kl: Tensor,
    beta: float,
    lambda_desirable: float,
    lambda_undesirable: float,
) -> Losses:
    """Loss of each sample `[batch]`, equation 8 of the KTO paper less its constant term.

    With `r = policy_logp - ref_logp` (sums over a trajectory's agent tokens, nats), desirable samples
    cost `lambda_desirable * (1 - sigmoid(beta * (r - kl)))`, undesirable ones
    `lambda_undesirable * (1 - sigmoid(beta * (kl - r)))`. `kl` is a scalar; no gradient flows through it.
    """
    margin = _kto_margin(policy_logp - ref_logp, desirable, kl, beta)
    return _sigmoid_losses(margin, _by_label(margin, desirable, lambda_desirable, lambda_undesirable), beta)


def kto(scores: Scores, kl: Tensor, method: MethodConfig) -> Losses:
    """KTO with the method's beta and lambdas; a bonus in the scores is not read."""
    return kto_loss(
        scores.logp, scores.ref_logp, scores.desirable, kl,
        method.beta, method.lambda_desirable, method.lambda_undesirable,
    )  # fmt: skip


def depo(scores: Scores, kl: Tensor, method: MethodConfig) -> Losses:
    """DEPO: KTO with the efficiency bonus b where `placement` says; without bonuses exactly KTO.

    As published (`offset`) a desirable sample costs
    `lambda_desirable * (1 - sigmoid(beta * (r + b - kl)))`, an undesirable one what it costs in KTO.
    """
    margin = _kto_margin(scores.log_ratio, scores.desirable, kl, method.beta)
    scale = _by_label(margin, scores.desirable, method.lambda_desirable, method.lambda_undesirable)
    margin, factor = place_bonus(margin, scores.bonus.to(margin), method)
    return _sigmoid_losses(margin, scale * factor, method.beta)


def _kto_margin(log_ratio: Tensor, desirable: Tensor, kl: Tensor, beta: float) -> Tensor:
    return beta * _by_label(log_ratio, desirable, 1.0, -1.0) * (log_ratio - kl.detach())


def _by_label(like: Tensor, desirable: Tensor, if_desirable: float, if_undesirable: float) -> Tensor:
    return torch.where(desirable, like.new_tensor(if_desirable), like.new_tensor(if_undesirable))


def _sigmoid_losses(margin: Tensor, scale: Tensor, beta: float) -> Losses:
    # sigmoid(-m) is 1 - sigmoid(m) without the digits that the subtraction loses where the loss is small.
    loss = scale * torch.sigmoid(-margin)
    with torch.no_grad():
        weight = beta * loss * torch.sigmoid(margin)
    return Losses(loss, weight, margin.detach())
