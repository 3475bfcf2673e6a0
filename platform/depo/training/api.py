"""DEPO for users of TRL: `DEPOTrainer` and `DEPOConfig` stand where `KTOTrainer` and `KTOConfig` stood.

    from depo.training import DEPOConfig, DEPOTrainer

Needs neither Ray nor a run directory. The reference log-probs are taken once, before the first step.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate.utils import gather_object, is_peft_model
from datasets import Dataset, IterableDataset
from torch import Tensor
from torch.utils.data import Sampler, SequentialSampler
from transformers import Trainer
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl.trainer.utils import create_model_from_path

from depo.config.base import ConfigError
from depo.objectives.registry import Scores
from depo.training.api_config import DEPOConfig, as_depo_config
from depo.training.api_rows import ShowingCollator, join_reference, make_table, shown_rows, shows
from depo.training.audit import AuditTrail
from depo.training.checks import require_targets, require_vocabulary
from depo.training.dataset import IntArray, SampleTable, joined
from depo.training.order import training_order
from depo.training.preference import PreferenceTrainer
from depo.training.reference import ReferenceScorer, score_table
from depo.training.trainer import Meter

__all__ = ["DEPOConfig", "DEPOTrainer"]

_log = logging.getLogger(__name__)

_LABELS = ("chosen", "rejected")
_MEASURED = tuple(f"{kind}/{label}" for kind in ("rewards", "logps") for label in _LABELS)


class DEPOTrainer(PreferenceTrainer):
    """TRL's `KTOTrainer` with DEPO's loss, over all assistant turns of a conversation and nothing else.

    Takes what `KTOTrainer` takes, in its order; docs/training.md lists what is refused. Rows are
    `prompt`, `completion` (text or messages, several turns too) and `label`; or `chosen` and `rejected`; or
    `prompt_ids`, `completion_ids` and `label`. The reference is `ref_model` (a model or its id), else the
    model as it is when training begins. A `KTOConfig` trains plain KTO. Checkpoints, callbacks and saving
    are the Hugging Face trainer's; `audit.parquet` stands in `output_dir` at the end.

    Raises `ConfigError` for data that cannot be trained on, naming the row, and for settings without effect.
    """

    args: Any
    model: Any
    _signature_columns: Any

    def __init__(
        self,
        model: Any,
        ref_model: Any = None,
        args: Any = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        compute_metrics: Any = None,
        callbacks: Any = None,
        optimizers: Any = (None, None),
        quantization_config: Any = None,
        peft_config: Any = None,
    ) -> None:
        self.args = args = as_depo_config(args)
        self.method = args.method()
        self._collator, self._own_reference, self._runs = data_collator, ref_model is None, 0
        self._parts: list[SampleTable] = []
        self._given: list[tuple[Any, Dataset]] = []
        # Named parameters of the reference, kept once training begins; None where nothing is kept.
        self._start: dict[str, Tensor] | None = None
        if isinstance(ref_model, str):
            ref_model = create_model_from_path(
                ref_model, **{"trust_remote_code": args.trust_remote_code} | (args.model_init_kwargs or {})
            )
        _require_own_weights(model, ref_model)
        if isinstance(train_dataset, Dataset | IterableDataset) and not any(True for _ in train_dataset):
            raise ConfigError("train_dataset: holds no row")
        if getattr(peft_config, "lora_dropout", 0) and args.disable_dropout:
            _log.warning("peft_config.lora_dropout is switched off by disable_dropout=True, as in TRL")
        self._precompute = args.precompute_ref_log_probs
        # Told so, TRL neither pairs KL partners by row order nor loads a reference model.
        asked = {name: getattr(args, name) for name in ("loss_type", "precompute_ref_log_probs")}
        args.loss_type, args.precompute_ref_log_probs = "apo_zero_unpaired", True
        if peft_config is not None and not isinstance(model, str):
            require_targets(model, _targets(peft_config), "peft_config.target_modules")
        super().__init__(
            model, ref_model, args, None, train_dataset, eval_dataset, processing_class, compute_metrics,
            callbacks, optimizers, quantization_config, peft_config,
            method=self.method, table=cast(Any, None), dtype="float32", audit=cast(Any, None),
        )  # fmt: skip
        for name, value in asked.items():
            setattr(self.args, name, value)
        self._require_fitting_model()
        if self.args.bf16 or self.args.fp16 or self.model.dtype in (torch.bfloat16, torch.float16):
            self.dtype = "bfloat16"
        self._window = Meter(_MEASURED, self.args.device)
        self._use(self._with_reference(reduce(joined, self._parts), [data["row"] for _, data in self._given]))
        self.audit = AuditTrail(self.table, Path(str(self.args.output_dir)))
        self.add_callback(self.audit)

    def _require_fitting_model(self) -> None:
        if self._is_vlm or self._is_vision_dataset:
            raise ConfigError("processing_class: images are not trained on; give a text model's tokenizer")
        base = self.accelerator.unwrap_model(self.model)
        if is_peft_model(base):
            adapter, base = base.peft_config[base.active_adapter], base.get_base_model()
            require_targets(base, _targets(adapter), "peft_config.target_modules")
        require_vocabulary(self._tokenizer, base.config, "processing_class")
        if self.ref_model is not None:
            require_vocabulary(self._tokenizer, self.ref_model.config, "ref_model")
        if self.aux_loss_enabled:
            raise ConfigError("router_aux_loss_coef: the loss has no such term; set it to 0.0")
        if any(p.dtype == torch.float16 for p in self.model.parameters() if p.requires_grad):
            raise ConfigError(
                "model: its trained weights are float16, where Adam's steps soon are no numbers; load it in "
                "float32 and set fp16=True or bf16=True"
            )

    def train(self, *args: Any, **kwargs: Any) -> Any:
        _require_both_labels(self.table)
        kept = self._own_reference and (is_peft_model(self.model) or not self._precompute)
        if not self._runs and kept:
            self._start = self._weights()
        self._runs += 1
        return super().train(*args, **kwargs)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Loss, bonus included, and metrics of the data set given at the start, or of another one."""
        with self._taken_in(eval_dataset) as data:
            found = Trainer.evaluate(self, data, ignore_keys, metric_key_prefix)
            return cast("dict[str, float]", found)

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> Any:
        with self._taken_in(test_dataset) as data:
            return super().predict(data, ignore_keys, metric_key_prefix)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        before, self._window = self._window, Meter((*_MEASURED, "kl"), self.args.device)
        try:
            output: Any = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
            measured = _with_margin(self._window.read(self.reduce))
        finally:
            self._window = before
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in measured.items()})
        return output

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            kl = torch.zeros_like(self._units)
            if self.preference.needs_kl:
                kl = self._estimate([inputs])
                self._window.add("kl", kl, torch.ones_like(kl))
            scores, nll = self.score(model, inputs)
            self._measure(scores)
            loss = self.preference.loss(scores, kl, self.method).loss.mean()
            wanted = torch.where(scores.desirable, 1.0, 0.0)
            tokens = (wanted * scores.num_tokens).sum().clamp(min=1)
            loss = loss + self.method.nll_coefficient * (wanted * nll).sum() / tokens
            if prediction_loss_only:
                return loss, None, None
            logits = model(input_ids=inputs["input_ids"], use_cache=False).logits
            return loss, logits, inputs["input_ids"]

    def record(self, rows: Tensor, losses: Tensor, scores: Scores, weight: Tensor, margin: Tensor) -> None:
        super().record(rows, losses, scores, weight, margin)
        self._measure(scores)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(
            logs | (_with_margin(self._window.read(self.reduce)) if "loss" in logs else {}), start_time
        )

    def _measure(self, scores: Scores) -> None:
        """Take samples into the metrics that bear TRL's names; rewards are without the bonus."""
        rewards = self.method.beta * scores.log_ratio
        for label, chosen in zip(_LABELS, (scores.desirable, ~scores.desirable), strict=True):
            for kind, values in (("rewards", rewards), ("logps", scores.logp)):
                if kind == "logps" or self.preference.needs_reference:
                    self._window.add(f"{kind}/{label}", torch.where(chosen, values, 0.0).sum(), chosen.sum())

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Dataset:
        name = "eval_dataset" if dataset_name == "eval" else f"eval_dataset[{dataset_name!r}]"
        shown = self._take(dataset, name if self._given else "train_dataset")
        self._given.append((dataset, shown))
        return shown

    def _take(self, data: Any, name: str, scored: bool = False) -> Dataset:
        """A data set as rows behind those that are known, with the reference's log-probs where `scored`."""
        most = None
        if isinstance(data, IterableDataset):
            if self._precompute:
                raise ConfigError(
                    f"{name}: `precompute_ref_log_probs=True` is not supported with IterableDataset; give a "
                    "Dataset, or leave precompute_ref_log_probs out"
                )
            if name == "train_dataset":
                most = self._rows_trained()
        part = make_table(data, name, self._tokenizer, self.args, self.method, self._collator, most)
        if scored:
            part = self._with_reference(part, [part.rows])
        shown = shown_rows(part, sum(len(known.ids) for known in self._parts))
        self._parts.append(part)
        return shown

    def _rows_trained(self) -> int:
        """How many rows of a stream the training takes, over all ranks."""
        if self.args.max_steps <= 0:
            raise ConfigError("max_steps: a streamed train_dataset has no length; set the number of steps")
        accumulated = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return int(self.args.max_steps * accumulated * self.args.world_size)

    @contextmanager
    def _taken_in(self, data: Any) -> Iterator[Any]:
        """Known rows for a data set that may be new, which is forgotten afterwards."""
        before = self.table
        try:
            shown = self._known(data, "eval_dataset")
            if len(self._parts) > 1:
                self._use(reduce(joined, self._parts))
            yield shown
        finally:
            self._use(before)

    def _known(self, data: Any, name: str) -> Any:
        if isinstance(data, str):
            known = self.eval_dataset if isinstance(self.eval_dataset, Mapping) else {}
            if data not in known:
                raise ConfigError(f"{name}: {data!r} was not given at the start; known: {', '.join(known)}")
        if data is None or isinstance(data, str):
            return data
        if isinstance(data, Mapping):
            return {key: self._known(value, f"{name}[{key!r}]") for key, value in data.items()}
        for given, shown in self._given:
            if data is given or data is shown:
                return shown
        return data if shows(data, self.table) else self._take(data, name, scored=True)

    def _use(self, table: SampleTable) -> None:
        self.table, self._parts = table, [table]
        self.data_collator = ShowingCollator(table, self._tokenizer.pad_token_id)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["row"]

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return _EpochOrder(self.table, step, seed, self.args.train_sampling_strategy)

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int] | None:
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None

    def _require_reference(self, *sums: Tensor) -> None:
        noisy = self.args.neftune_noise_alpha or not self.args.disable_dropout
        if self._own_reference and self._runs == 1 and not noisy:
            super()._require_reference(*sums)

    def _with_reference(self, table: SampleTable, rows: Sequence[Any]) -> SampleTable:
        """The table with the log-probs of some of its rows, and of their KL pairs, under the reference."""
        if not self.preference.needs_reference:
            return table
        if is_deepspeed_zero3_enabled() or self.is_fsdp_enabled:
            raise ConfigError(
                "DEPOTrainer takes the reference before weights are shared out: use ZeRO-1 or 2, or a run's "
                "reference stage (depo run), which knows ZeRO-3"
            )
        wanted = np.unique(np.concatenate([np.asarray(some, dtype=np.int64) for some in rows]))
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        with self._reference() as model, self.accelerator.autocast():
            share = score_table(replace(table, rows=wanted[rank::ranks]), ReferenceScorer(model))
        return join_reference(table, gather_object(share))

    @contextmanager
    def _reference(self) -> Iterator[Any]:
        """The model with the reference's weights, where it computes."""
        policy = self.accelerator.unwrap_model(self.model)
        if self._runs and self._own_reference and self._start is None:
            raise ConfigError(
                "Cannot compute reference log-probs for a dataset passed to evaluate or predict once "
                "training has begun: precompute_ref_log_probs=True keeps no reference; give the data set as "
                "eval_dataset at the start, or give a ref_model"
            )
        model = policy if self._own_reference else self.accelerator.unwrap_model(self.ref_model)
        if next(model.parameters()).device != self.args.device:
            model.to(self.args.device)
        if not self._runs or self._start is None:
            yield model
            return
        now = self._weights()
        try:
            self._load(self._start)
            yield model
        finally:
            self._load(now)

    def _weights(self) -> dict[str, Tensor]:
        """Copies, in the host's memory, of all weights that are trained."""
        policy = self.accelerator.unwrap_model(self.model)
        return {n: p.detach().to("cpu", copy=True) for n, p in policy.named_parameters() if p.requires_grad}

    def _load(self, weights: Mapping[str, Tensor]) -> None:
        policy = self.accelerator.unwrap_model(self.model)
        with torch.no_grad():
            for name, value in weights.items():
                policy.get_parameter(name).copy_(value)


class _EpochOrder(Sampler[int]):
    """Places in the rows to train on; each epoch has an order of its own, the same on all ranks."""

    def __init__(self, table: SampleTable, batch_size: int, seed: int, strategy: str) -> None:
        self._table, self._batch_size, self._seed, self._strategy = table, batch_size, seed, strategy
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._table.rows)

    def __iter__(self) -> Iterator[int]:
        table, seed = self._table, self._seed + self._epoch
        if self._strategy == "sequential":
            yield from range(len(table.rows))
            return
        steps = len(table.rows) // self._batch_size if self._strategy == "group_by_length" else 0
        order: IntArray = np.empty(0, dtype=np.int64)
        if steps:
            order = training_order(
                table.rows, self._batch_size, steps, seed, desirable=table.desirable, lengths=table.lengths
            )
        # What fills no whole step ends the epoch.
        rest = np.random.default_rng(seed).permutation(np.setdiff1d(table.rows, order))
        yield from np.searchsorted(table.rows, np.concatenate([order, rest])).tolist()


def _targets(adapter: Any) -> Any:
    # Virtual tokens adapt no module.
    return getattr(adapter, "target_modules", None) or "all-linear"


def _with_margin(measured: dict[str, float]) -> dict[str, float]:
    both = [measured.get(f"rewards/{label}") for label in _LABELS]
    if None in both:
        return measured
    return measured | {"rewards/margins": cast(float, both[0]) - cast(float, both[1])}


def _require_own_weights(model: Any, ref_model: Any) -> None:
    if ref_model is None or isinstance(model, str):
        return
    trained = {id(weight) for weight in model.parameters()}
    if any(id(weight) in trained for weight in ref_model.parameters()):
        raise ConfigError(
            "ref_model: shares its weights with model, so it would be trained too; leave it out, and the "
            "reference is model as it is when training begins"
        )


def _require_both_labels(table: SampleTable) -> None:
    labels = table.desirable[table.rows]
    for wanted, name in ((True, "true"), (False, "false")):
        if not (labels == wanted).any():
            raise ConfigError(
                f"train_dataset: no row of label {name} to train on ({table.dropped} rows are longer than "
                f"max_length={table.max_length}); add some, or raise max_length"
            )
