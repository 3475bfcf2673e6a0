"""What an objective is given, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """A batch of samples as an objective sees them; every tensor is `[batch]`.

    Supervised objectives weigh samples before any forward pass: they read neither `logp` nor
    `ref_logp`, which may be zeros there.
    """

    logp: Tensor
    """Weighted sum of the policy's log-probs over the trained tokens, nats; carries the gradient."""
    ref_logp: Tensor
    """The same under the reference policy; zeros where the objective needs none."""
    desirable: Tensor
    """bool."""
    bonus: Tensor
    """Efficiency bonus as `depo.objectives.bonus.sample_bonus` gives it: 0 where there is none."""
    num_tokens: Tensor
    """Trained tokens."""
    num_steps: Tensor
    """Steps of the trajectory."""
    reward: Tensor
    """Return of the trajectory."""
    length: Tensor
    """The agent's own tokens in the trajectory, trained or not."""

    @property
    def log_ratio(self) -> Tensor:
        """`logp - ref_logp` `[batch]`, nats: the implicit reward over beta."""
        return self.logp - self.ref_logp


@dataclass(frozen=True)
class Losses:
    """An objective's answer for a batch of samples, or of pairs."""

    loss: Tensor
    """`[batch]`, with gradient."""
    weight: Tensor
    """`|d loss / d logp|` `[batch]`, detached: how hard the sample (of a pair: the chosen one) pulls."""
    margin: Tensor
    """Argument of the sigmoid `[batch]`, detached."""
    rejected_weight: Tensor | None = None
    """Of a pair's rejected sample; None for unpaired objectives."""
