"""Supervised training (BC, weighted BC, pre-training) on TRL's SFTTrainer: a loss weight for each token."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from trl import SFTTrainer

from depo.training.dataset import SampleTable
from depo.training.logprobs import prepare_scoring, token_logps
from depo.training.trainer import Meter, StepTrainer, rank_sum


class WeightedSFTTrainer(StepTrainer, SFTTrainer):
    """Minimises the weighted mean NLL per token of a step, all ranks and micro-batches together."""

    def __init__(self, *args: Any, table: SampleTable, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table
        model = self.accelerator.unwrap_model(self.model)
        self.head = prepare_scoring(model.get_base_model() if isinstance(model, PeftModel) else model)
        self.reduce = rank_sum(self)
        self.meter = Meter(("nll",), self.args.device)
        self.totals = Meter(("padding_share",), self.args.device)
        self._step_weight = torch.ones((), device=self.args.device)

    def prepare_step(self, batches: list[dict[str, Tensor]]) -> None:
        total = torch.stack([batch["weights"][:, 1:].sum() for batch in batches]).sum()
        self._step_weight = self.reduce(total)

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        weights, trained = inputs["weights"], inputs["trained"][:, 1:]
        logps = token_logps(model, inputs["input_ids"], weights, self.head)
        losses = -(weights[:, 1:] * logps).sum(-1)
        self.watch(inputs["rows"], losses)
        self.meter.add("nll", -torch.where(trained, logps, 0.0).sum(), trained.sum())
        # Gradients are averaged over ranks afterwards; the total already counts all of them.
        return losses.sum() / self._step_weight * self.accelerator.num_processes
