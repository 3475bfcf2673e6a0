"""Paired objectives on TRL's DPOTrainer: DPO, DMPO, SimPO, one's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from trl import DPOTrainer

from depo.objectives.registry import Losses, Scores
from depo.training.preference import PreferenceStep


class PairedTrainer(PreferenceStep, DPOTrainer):
    """A step is a number of pairs; a batch holds its chosen samples, then its rejected ones."""

    def prepare_step(self, batches: list[dict[str, Tensor]]) -> None:
        super().prepare_step(batches)
        self._units = self._units / 2

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        scores, nll = self.score(model, inputs)
        pairs = len(inputs["rows"]) // 2
        chosen, rejected = _part(scores, slice(None, pairs)), _part(scores, slice(pairs, None))
        losses: Losses = self.preference.loss(chosen, rejected, self.method)
        other = losses.weight if losses.rejected_weight is None else losses.rejected_weight
        both = torch.cat([losses.loss, losses.loss])
        weight, margin = torch.cat([losses.weight, other]), torch.cat([losses.margin, losses.margin])
        self.record(inputs["rows"], both, scores, weight, margin)
        return self.total(losses.loss, scores, nll)


def _part(scores: Scores, rows: slice) -> Scores:
    return Scores(**{name: getattr(scores, name)[rows] for name in Scores.__dataclass_fields__})
