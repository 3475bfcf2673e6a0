"""Unpaired objectives on TRL's KTOTrainer, and what they share with paired ones.

Agent tokens only, cached reference, KL partners fixed in the data: nothing depends on how a step is
cut up.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState
from trl import KTOTrainer

from depo.config.base import ConfigError
from depo.config.method import MethodConfig
from depo.objectives.preference import kl_estimate, moving_average
from depo.objectives.registry import Losses, Scores, objective
from depo.training.audit import AuditTrail, window_metrics
from depo.training.dataset import SampleTable
from depo.training.logprobs import prepare_scoring, sequence_logps, token_logps
from depo.training.trainer import Meter, Reducer, StepTrainer, count_of, rank_sum

# Before the first step the policy is the reference. Float32 sums over a trajectory agree to 1e-5
# relative whatever the batch shape; bfloat16 keeps 8 bits of each logit, some percent of a sum.
START_TOLERANCE = 1e-3
START_TOLERANCE_RELATIVE = {"float32": 1e-5, "bfloat16": 3e-2}

# KL pairs in a pass, on average. Their lengths are whatever the partners' are, so that larger batches hold
# more padding; a CPU gains nothing from them, a GPU takes as many as in a training pass.
_KL_BATCH_CPU = 2


class PreferenceStep(StepTrainer):
    """A step of any preference objective: its totals, its scores, its audit.

    The audit's rows make the metrics, so that every mean is over samples, never of means.
    """

    def __init__(
        self,
        *args: Any,
        method: MethodConfig,
        table: SampleTable,
        dtype: str,
        audit: AuditTrail,
        reduce: Reducer | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.method, self.table, self.dtype, self.audit = method, table, dtype, audit
        self.preference = objective(method.objective)
        model = self.accelerator.unwrap_model(self.model)  # type: ignore[attr-defined]
        self.head = prepare_scoring(model.get_base_model() if isinstance(model, PeftModel) else model)
        self.reduce = reduce or rank_sum(self)
        self.meter = Meter(("kl", "nll"), self.args.device)  # type: ignore[attr-defined]
        self.totals = Meter(("padding_share",), self.args.device)  # type: ignore[attr-defined]
        self._units = self._tokens = torch.ones((), device=self.args.device)  # type: ignore[attr-defined]
        self._gaps: list[Tensor] = []

    def prepare_step(self, batches: list[dict[str, Tensor]]) -> None:
        totals = [torch.stack([count_of(b["rows"]), _desirable_tokens(b)]) for b in batches]
        self._units, self._tokens = self.reduce(torch.stack(totals).sum(0))
        self._gaps = []

    def score(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Scores, Tensor]:
        """Scores of a batch of samples, and of each the NLL summed over its trained tokens `[batch]`."""
        logps = token_logps(model, inputs["input_ids"], inputs["weights"], self.head)
        logp = (inputs["weights"][:, 1:] * logps).sum(-1)
        known = {name: inputs[name] for name in Scores.__dataclass_fields__ if name != "logp"}
        scores = Scores(logp=logp, **known)
        first = model.training and self.state.global_step == 0  # type: ignore[attr-defined]
        if first and self.preference.needs_reference:
            ref = scores.ref_logp
            gap = (logp.detach() - ref).abs().sum()
            self._gaps.append(torch.stack([gap, ref.abs().sum(), count_of(ref)]))
        return scores, -logps.sum(-1)

    def total(self, losses: Tensor, scores: Scores, nll: Tensor) -> Tensor:
        """The micro-batch's share of the step's loss (scalar): the mean of `losses`, plus the NLL term."""
        loss = losses.sum() / self._units
        nll = torch.where(scores.desirable, nll, 0.0).sum()
        if self.method.nll_coefficient:
            loss = loss + self.method.nll_coefficient * nll / self._tokens.clamp(min=1)
        self.meter.add("nll", nll, torch.where(scores.desirable, scores.num_tokens, 0.0).sum())
        # Gradients are averaged over ranks afterwards; the totals already count all of them.
        return loss * self.accelerator.num_processes  # type: ignore[attr-defined]

    def record(self, rows: Tensor, losses: Tensor, scores: Scores, weight: Tensor, margin: Tensor) -> None:
        """Take samples into the audit; all tensors `[batch]`."""
        # A sigmoid hides an infinite log-ratio.
        self.watch(rows, losses.detach() + scores.log_ratio.detach())
        known = self.preference.needs_reference
        ratio = scores.log_ratio.detach() if known else torch.full_like(scores.ref_logp, torch.nan)
        step = self.state.global_step + 1  # type: ignore[attr-defined]
        self.audit.add(
            step=torch.full_like(rows, step),
            row=rows,
            desirable=scores.desirable,
            num_tokens=scores.length,
            num_steps=scores.num_steps,
            bonus=scores.bonus,
            log_ratio=ratio,
            gradient_weight=weight,
            margin=margin,
        )

    def finish_step(self) -> None:
        super().finish_step()
        if self._gaps:
            self._require_reference(*self.reduce(torch.stack(self._gaps).sum(0)))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" not in logs:
            super().log(logs, start_time)
            return
        measured = window_metrics(self.audit.read(), self.method.beta, self.preference.kind)
        limit = self.method.stop_logratio
        stops = limit is not None and measured.get("logratio_undesirable", 0.0) < limit
        super().log(logs | measured | ({"stopped_early": 1.0} if stops else {}), start_time)
        if stops:
            self.control.should_training_stop = True  # type: ignore[attr-defined]

    def _require_reference(self, gap: Tensor, size: Tensor, count: Tensor) -> None:
        allowed = START_TOLERANCE + START_TOLERANCE_RELATIVE[self.dtype] * float(size / count)
        if not float(gap / count) <= allowed:
            raise ConfigError(
                "reference: the log-probs are not those of the policy that is trained: mean |log-ratio| is "
                f"{gap / count:.4g} before the first step, at most {allowed:.4g} expected; they are stale or "
                "of another model, template or dtype: run the reference stage again"
            )


class PreferenceTrainer(PreferenceStep, KTOTrainer):
    """Any unpaired objective of the registry: KTO, DEPO, one's own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._kl = self._ratio = torch.zeros((), device=self.args.device)
        self._average = KlAverage()
        self.add_callback(self._average)

    def prepare_step(self, batches: list[dict[str, Tensor]]) -> None:
        super().prepare_step(batches)
        self._ratio = torch.zeros((), device=self.args.device)
        if self.preference.needs_kl:
            self._kl = self._estimate(batches)
            self.meter.add("kl", self._kl, torch.ones_like(self._kl))

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        scores, nll = self.score(model, inputs)
        losses: Losses = self.preference.loss(scores, self._kl, self.method)
        self._ratio = self._ratio + scores.log_ratio.detach().sum()
        self.record(inputs["rows"], losses.loss, scores, losses.weight, losses.margin)
        return self.total(losses.loss, scores, nll)

    def finish_step(self) -> None:
        super().finish_step()
        if self.preference.needs_kl and self.method.kl == "moving":
            previous = self._units.new_tensor(self._average.value)
            average = moving_average(previous, self.reduce(self._ratio), self._units, self.method.kl_decay)
            self._average.value = float(average)

    def _estimate(self, batches: list[dict[str, Tensor]]) -> Tensor:
        """z0 of the step (scalar), the same on all ranks."""
        if self.method.kl == "zero":
            return torch.zeros_like(self._units)
        if self.method.kl == "moving":
            return kl_estimate(self._units.new_tensor(self._average.value), torch.ones_like(self._units))
        if self.method.kl == "pairs":
            rows = torch.cat([batch["rows"] for batch in batches]).tolist()
            # As many passes on every rank, since sharded weights are gathered together.
            collator: Any = self.data_collator
            count = len(batches) if self.args.device.type == "cuda" else -(-len(rows) // _KL_BATCH_CPU)
            batches = self.to_device(collator.kl_batches(rows, count))
        shown = []
        for batch in batches:
            self.forward_seen(batch)
            with torch.no_grad(), self.compute_loss_context_manager():
                logp = sequence_logps(self.model_wrapped, batch["input_ids"], batch["weights"], self.head)
            shown.append((batch["rows"], logp - batch["ref_logp"]))
        self.require_finite("log-prob of the KL pair" if self.method.kl == "pairs" else "log-prob", shown)
        ratios = torch.cat([ratio for _, ratio in shown])
        total, count = self.reduce(torch.stack([ratios.sum(), count_of(ratios)]))
        return kl_estimate(total, count)


class KlAverage(TrainerCallback, ExportableState):
    """The moving average behind z0; checkpoints keep it with the trainer's state."""

    def __init__(self) -> None:
        self.value = 0.0

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"value": self.value}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.value = float(state.stateful_callbacks["KlAverage"]["attributes"]["value"])


def _desirable_tokens(batch: dict[str, Tensor]) -> Tensor:
    return torch.where(batch["desirable"], batch["num_tokens"], 0.0).sum()
