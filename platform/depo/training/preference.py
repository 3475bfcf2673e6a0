"""KTO and DEPO on TRL's KTOTrainer: agent tokens only, cached reference, fixed KL partners."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import KTOTrainer

from depo.config.base import ConfigError
from depo.config.schema import MethodConfig
from depo.objectives.bonus import efficiency_bonus, shifted_reference
from depo.objectives.preference import kl_estimate, kto_loss
from depo.training.logprobs import prepare_scoring, sequence_logps
from depo.training.trainer import Meter, Reducer, StepTrainer, rank_sum

# Before the first step the policy is the reference. Float32 sums over a trajectory agree to 1e-5
# relative whatever the batch shape; bfloat16 keeps 8 bits of each logit, some percent of a sum.
START_TOLERANCE = 1e-3
START_TOLERANCE_RELATIVE = {"float32": 1e-5, "bfloat16": 3e-2}

_METRICS = (
    "logratio_desirable", "logratio_undesirable", "reward_desirable", "reward_undesirable",
    "gradient_weight_desirable", "gradient_weight_undesirable", "kl", "bonus", "nll",
)  # fmt: skip


class PreferenceTrainer(StepTrainer, KTOTrainer):
    """KTO's loss on references shifted by the efficiency bonus, plus an NLL term on desirable samples.

    z0 is the mean over the KL pairs of the whole step, so nothing depends on how the step is cut up.
    """

    def __init__(
        self, *args: Any, method: MethodConfig, dtype: str, reduce: Reducer | None = None, **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        self.method, self.dtype = method, dtype
        self.vocab_size = prepare_scoring(self.accelerator.unwrap_model(self.model).get_base_model())
        self.reduce = reduce or rank_sum(self)
        self.meter = Meter(_METRICS, self.args.device)
        self._kl = self._samples = self._tokens = torch.zeros((), device=self.args.device)

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        """The collator knows the tokens; TRL would tokenise anew."""
        return dataset

    def prepare_step(self, batches: list[dict[str, Tensor]]) -> None:
        totals = torch.zeros(3, device=self.args.device)
        for batch in batches:
            with torch.no_grad(), self.compute_loss_context_manager():
                logp = sequence_logps(
                    self.model_wrapped, batch["kl_input_ids"], batch["kl_agent_mask"], self.vocab_size
                )
            tokens = batch["agent_mask"][batch["desirable"], 1:].sum()
            totals += torch.stack([(logp - batch["ref_kl_logp"]).sum(), _count(logp), tokens.float()])
        kl_sum, self._samples, self._tokens = self.reduce(totals)
        self._kl = kl_estimate(kl_sum, self._samples)

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        method, desirable, ref_logp = self.method, inputs["desirable"], inputs["ref_logp"]
        logp = sequence_logps(model, inputs["input_ids"], inputs["agent_mask"], self.vocab_size)
        if self.state.global_step == 0:
            self._require_reference(logp, ref_logp)
        bonus = efficiency_bonus(
            inputs["tokens_per_step"], inputs["num_steps"], method.alpha_tokens, method.alpha_steps
        )
        losses, stats = kto_loss(
            logp, shifted_reference(ref_logp, bonus, desirable), desirable, self._kl,
            method.beta, method.lambda_desirable, method.lambda_undesirable,
        )  # fmt: skip
        loss = losses.sum() / self._samples
        if method.nll_coefficient:
            nll = -logp[desirable].sum() / self._tokens.clamp(min=1)
            loss = loss + method.nll_coefficient * nll
        self._record(inputs, logp.detach(), bonus, stats["gradient_weight"])
        # Gradients are averaged over ranks afterwards; the totals already count all of them.
        return loss * self.accelerator.num_processes

    def _record(self, inputs: dict[str, Tensor], logp: Tensor, bonus: Tensor, weight: Tensor) -> None:
        desirable, log_ratio = inputs["desirable"], logp - inputs["ref_logp"]
        tokens = inputs["agent_mask"][:, 1:].sum(-1).clamp(min=1)
        for name, chosen in (("desirable", desirable), ("undesirable", ~desirable)):
            self.meter.add(
                **{
                    f"logratio_{name}": log_ratio[chosen],
                    f"reward_{name}": self.method.beta * log_ratio[chosen],
                    f"gradient_weight_{name}": weight[chosen],
                }
            )
        self.meter.add(kl=self._kl, bonus=bonus[desirable], nll=-(logp / tokens)[desirable])

    def _require_reference(self, logp: Tensor, ref_logp: Tensor) -> None:
        gap = (logp.detach() - ref_logp).abs().sum()
        gap, size, count = self.reduce(torch.stack([gap, ref_logp.abs().sum(), _count(logp)]))
        allowed = START_TOLERANCE + START_TOLERANCE_RELATIVE[self.dtype] * float(size / count)
        if not float(gap / count) <= allowed:
            raise ConfigError(
                "reference: the log-probs are not those of the policy that is trained: mean |log-ratio| is "
                f"{gap / count:.4g} before the first step, at most {allowed:.4g} expected; they are stale or "
                "of another model, template or dtype: run the reference stage again"
            )


def _count(values: Tensor) -> Tensor:
    return torch.tensor(float(len(values)), device=values.device)
