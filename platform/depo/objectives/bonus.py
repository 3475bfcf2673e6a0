"""The efficiency bonus of DEPO (arXiv 2511.15392), and how it enters a loss."""

from __future__ import annotations

import torch
from torch import Tensor

from depo.config.method import MethodConfig


def efficiency_bonus(
    tokens_per_step: Tensor, num_steps: Tensor, alpha_tokens: float, alpha_steps: float
) -> Tensor:
    """Bonus of each trajectory, `alpha_tokens / tokens_per_step + alpha_steps / num_steps` `[batch]`.

    `tokens_per_step` `[batch]` is the mean number of the agent's own tokens in a step, `num_steps`
    `[batch]` the number of steps. Counts below one are taken as one, so that the bonus stays finite.
    """
    return alpha_tokens / _counts(tokens_per_step) + alpha_steps / _counts(num_steps)


def sample_bonus(
    tokens_per_step: Tensor, num_steps: Tensor, desirable: Tensor, group: Tensor | None, method: MethodConfig
) -> Tensor:
    """Bonus of every sample of a data set `[n]`, as the method places and normalises it.

    With `difficulty: none` it is `efficiency_bonus`. With `task` or `level`, `group` `[n]` (integers)
    numbers the tasks or levels, and the bonus becomes `alpha_tokens * n_token / T_token + alpha_steps *
    n_step / T_step`, where `n` is the group's best (fewest) or median count over its desirable
    samples, or over those of all the data where the group has none. `centred` subtracts the mean over
    all samples of the same label, so it depends on the data alone, never on a batch. Undesirable samples
    get 0, unless `penalize_undesirable`.

    Raises `ValueError` where `group` is missing.
    """
    tokens, steps = _counts(tokens_per_step.double()), _counts(num_steps.double())
    if method.difficulty == "none":
        bonus = efficiency_bonus(tokens, steps, method.alpha_tokens, method.alpha_steps)
    else:
        if group is None:
            raise ValueError(
                f"difficulty: {method.difficulty} needs the number of each sample's {method.difficulty}"
            )
        bonus = method.alpha_tokens * _typical(tokens, desirable, group, method.difficulty_by) / tokens
        bonus = bonus + method.alpha_steps * _typical(steps, desirable, group, method.difficulty_by) / steps
    if method.placement == "centred":
        for label in (desirable, ~desirable):
            if label.any():
                bonus = torch.where(label, bonus - bonus[label].mean(), bonus)
    return bonus if method.penalize_undesirable else torch.where(desirable, bonus, torch.zeros_like(bonus))


def place_bonus(margin: Tensor, bonus: Tensor, method: MethodConfig) -> tuple[Tensor, Tensor]:
    """The sigmoid's argument and the loss's factor, both `[batch]`, with the bonus in its place.

    `offset` and `centred` add `beta * bonus` to the margin, `margin` subtracts it, so that an efficient
    sample has further to go, and `weight` makes the factor `1 + bonus`. The margin grows as
    the loss falls for either label: a bonus on an undesirable sample lowers its log-ratio.
    """
    if method.placement == "weight":
        return margin, 1 + bonus
    sign = -1.0 if method.placement == "margin" else 1.0
    return margin + sign * method.beta * bonus, torch.ones_like(bonus)


def _counts(counts: Tensor) -> Tensor:
    return torch.clamp(counts, min=1.0)


def _typical(counts: Tensor, desirable: Tensor, group: Tensor, by: str) -> Tensor:
    """The best or median count of the desirable samples in each sample's group `[n]`."""
    if not desirable.any():
        return torch.ones_like(counts)
    quantile = 0.0 if by == "best" else 0.5
    typical = torch.full_like(counts, counts[desirable].quantile(quantile).item())
    for number in group[desirable].unique():
        members = group == number
        typical[members] = counts[members & desirable].quantile(quantile)
    return typical
