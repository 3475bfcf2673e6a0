"""Losses of pairs (chosen, rejected) of the same task: DPO, DMPO, SimPO.

ETO (arXiv 2403.02502) is DPO on pairs of a policy's own successes and failures; which pairs there
are is the data's affair, so it needs no loss of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from depo.config.method import MethodConfig
from depo.objectives.bonus import place_bonus
from depo.objectives.scores import Losses, Scores


def dpo(chosen: Scores, rejected: Scores, method: MethodConfig) -> Losses:
    """DPO (arXiv 2305.18290), loss of each pair `[pairs]`: `-log sigmoid(beta * (r_chosen - r_rejected))`.

    `r = logp - ref_logp`. The bonus raises `r_chosen` (published form of the offset), and lowers
    `r_rejected` where undesirable samples carry one.
    """
    margin = method.beta * (chosen.log_ratio - rejected.log_ratio)
    return _logistic(margin, chosen, rejected, method, method.beta, method.beta)


def dmpo(chosen: Scores, rejected: Scores, method: MethodConfig) -> Losses:
    """DMPO (arXiv 2406.14868): DPO on log-probs in which each turn weighs `phi(t, T)`.

    The weights (`depo.objectives.turns.turn_discounts`) are in the scores' sums already; so is the
    length normalisation, which is part of phi.
    """
    return dpo(chosen, rejected, method)


def simpo(chosen: Scores, rejected: Scores, method: MethodConfig) -> Losses:
    """SimPO (arXiv 2405.14734), loss of each pair `[pairs]`, without a reference.

    `-log sigmoid(beta * logp_chosen / n_chosen - beta * logp_rejected / n_rejected - simpo_margin)`, n the
    numbers of trained tokens. The bonus enters as in `dpo`, in nats a token.
    """
    pull = [
        method.beta / torch.clamp(scores.num_tokens.to(scores.logp), min=1) for scores in (chosen, rejected)
    ]
    margin = pull[0] * chosen.logp - pull[1] * rejected.logp - method.simpo_margin
    return _logistic(margin, chosen, rejected, method, *pull)


def _logistic(
    margin: Tensor,
    chosen: Scores,
    rejected: Scores,
    method: MethodConfig,
    chosen_pull: Tensor | float,
    rejected_pull: Tensor | float,
) -> Losses:
    """`-log sigmoid(margin)` with the pair's bonus; a pull is `|d margin / d logp|` of that sample."""
    margin, factor = place_bonus(margin, (chosen.bonus + rejected.bonus).to(margin), method)
    with torch.no_grad():
        weight = factor * torch.sigmoid(-margin)
    return Losses(-factor * logsigmoid(margin), weight * chosen_pull, margin.detach(), weight * rejected_pull)
