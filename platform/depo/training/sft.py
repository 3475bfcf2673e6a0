"""Supervised training (BC and pre-training) on TRL's SFTTrainer, with a loss weight for each token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from trl import SFTTrainer

from depo.training.logprobs import prepare_scoring, token_logps
from depo.training.trainer import Meter, StepTrainer, rank_sum


class WeightedSFTTrainer(StepTrainer, SFTTrainer):
    """Minimises the weighted mean NLL per token of a step, all ranks and micro-batches together."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.vocab_size = prepare_scoring(self.accelerator.unwrap_model(self.model))
        self.reduce = rank_sum(self)
        self.meter = Meter(("nll",), self.args.device)
        self._step_weight = torch.ones((), device=self.args.device)

    def prepare_step(self, batches: list[dict[str, Tensor]]) -> None:
        total = torch.stack([batch["weights"][:, 1:].sum() for batch in batches]).sum()
        self._step_weight = self.reduce(total)

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        weights = inputs["weights"]
        logps = token_logps(model, inputs["input_ids"], weights, self.vocab_size)
        self.meter.add(nll=-logps[weights[:, 1:] == 1])
        loss = -(weights[:, 1:] * logps).sum() / self._step_weight
        # Gradients are averaged over ranks afterwards; the total already counts all of them.
        return loss * self.accelerator.num_processes
