"""DEPO for users of TRL: `DEPOTrainer` and `DEPOConfig` stand where `KTOTrainer` and `KTOConfig` stood.

    from depo.training import DEPOConfig, DEPOTrainer

Needs neither Ray nor a run directory. The reference log-probs are taken once, before the first step.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from peft import PeftModel
from pydantic import ValidationError
from torch.utils.data import Sampler
from transformers import AutoTokenizer
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl import KTOConfig
from trl.data_utils import maybe_extract_prompt, maybe_unpair_preference_dataset

from depo.config.base import ConfigError, explain
from depo.config.method import OBJECTIVE_FACTS, MethodConfig
from depo.objectives.registry import objective
from depo.records import SAMPLE_SCHEMA, ReferenceLogProbs, to_table
from depo.training.audit import AuditTrail
from depo.training.collator import PreferenceCollator
from depo.training.conversations import samples_of
from depo.training.dataset import IntArray, SampleTable, from_arrow
from depo.training.loading import trained, with_bonus
from depo.training.order import training_order
from depo.training.preference import PreferenceTrainer
from depo.training.reference import ReferenceScorer, score_table

_log = logging.getLogger(__name__)


@dataclass
class DEPOConfig(KTOConfig):
    """TRL's `KTOConfig` and what DEPO adds; the fields mean what they mean in `depo.config.method`.

    `desirable_weight` and `undesirable_weight` are the lambdas. `loss_type`, `precompute_ref_log_probs` and
    `train_sampling_strategy` say nothing here: the loss is the objective's, the reference is always
    taken beforehand, and each epoch has an order of its own with like lengths together.
    """

    _VALID_DICT_FIELDS = KTOConfig._VALID_DICT_FIELDS

    beta: float = field(default=0.2, metadata={"help": "Strength of the pull towards the reference."})
    objective: str = field(default="depo", metadata={"help": "An unpaired objective, or module:NAME."})
    alpha_tokens: float | None = field(
        default=None, metadata={"help": "alpha1; None is 3 (published), or 0 where no bonus is read."}
    )
    alpha_steps: float | None = field(
        default=None, metadata={"help": "alpha2; None is 3 (published), or 0 where no bonus is read."}
    )
    placement: str = field(default="offset", metadata={"help": "offset, margin, weight or centred."})
    difficulty: str = field(default="none", metadata={"help": "none, task (equal prompts) or level."})
    difficulty_by: str = field(default="best", metadata={"help": "best or median."})
    penalize_undesirable: bool = field(default=False, metadata={"help": "A bonus for undesirable rows too."})
    kl: str = field(default="pairs", metadata={"help": "Estimate of z0: pairs, batch, moving or zero."})
    kl_decay: float = field(default=0.9, metadata={"help": "What the moving average keeps a step."})
    nll_coefficient: float = field(default=0.0, metadata={"help": "Weight of the NLL of desirable rows."})
    stop_logratio: float | None = field(default=None, metadata={"help": "Ends a run whose policy runs away."})
    trained_tokens: str = field(default="all", metadata={"help": "all, last, actions or thoughts."})
    too_long: str = field(default="drop", metadata={"help": "drop rows over max_length, or cut at a turn."})

    def __post_init__(self) -> None:
        super().__post_init__()
        # TRL then neither pairs KL partners by row order nor loads a reference model.
        self.loss_type, self.precompute_ref_log_probs = "apo_zero_unpaired", True
        self.remove_unused_columns = False

    def method(self) -> MethodConfig:
        """The objective's settings. Raises `ConfigError` for ones that cannot be, in one line."""
        facts = OBJECTIVE_FACTS.get(self.objective)
        published = 3.0 if facts is None or facts.takes_bonus else 0.0
        same = (
            "objective", "beta", "placement", "difficulty", "difficulty_by", "penalize_undesirable", "kl",
            "kl_decay", "nll_coefficient", "stop_logratio", "trained_tokens", "seed",
        )  # fmt: skip
        values = {name: getattr(self, name) for name in same} | {
            "alpha_tokens": published if self.alpha_tokens is None else self.alpha_tokens,
            "alpha_steps": published if self.alpha_steps is None else self.alpha_steps,
            "lambda_desirable": self.desirable_weight,
            "lambda_undesirable": self.undesirable_weight,
        }
        try:
            method = MethodConfig(**values)
        except ValidationError as error:
            raise ConfigError(explain(error, MethodConfig)) from None
        if objective(self.objective).kind != "unpaired":
            raise ConfigError(f"objective {self.objective!r} is not unpaired; take kto or depo")
        return method


class DEPOTrainer(PreferenceTrainer):
    """TRL's `KTOTrainer` with DEPO's loss, over all assistant turns of a conversation and nothing else.

    Takes what `KTOTrainer` takes, but for images, streamed data sets and `compute_metrics`. Rows are
    `prompt`, `completion` (text or messages, several turns too) and `label`, or `chosen` and `rejected`.
    The reference is `ref_model`, else the model as it is when training begins. Checkpoints, callbacks
    and saving are the Hugging Face trainer's; `audit.parquet` stands in `output_dir` at the end.

    Raises `ConfigError` for data that cannot be trained on, naming the row.
    """

    def __init__(
        self,
        model: Any,
        args: DEPOConfig | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | None = None,
        processing_class: Any = None,
        ref_model: Any = None,
        peft_config: Any = None,
        **kwargs: Any,
    ) -> None:
        args = args or DEPOConfig("depo-output")
        if train_dataset is None:
            raise ConfigError("train_dataset: is required, with prompt, completion and label")
        name = model if isinstance(model, str) else model.config._name_or_path
        tokenizer = processing_class or AutoTokenizer.from_pretrained(name)
        method = args.method()
        table = make_table({"train_dataset": train_dataset, "eval_dataset": eval_dataset}, tokenizer, args)
        held_out = np.flatnonzero([i.startswith("eval_dataset/") for i in table.ids])
        table = with_bonus(replace(table, rows=np.setdiff1d(table.rows, held_out)), method)
        _require_both_labels(table)
        audit = AuditTrail(table, Path(str(args.output_dir)))
        super().__init__(
            model=model,
            args=args,
            data_collator=PreferenceCollator(table, 0),
            train_dataset=Dataset.from_dict({"row": table.rows}),
            eval_dataset=Dataset.from_dict({"row": held_out}) if len(held_out) else None,
            processing_class=tokenizer,
            peft_config=peft_config,
            method=method,
            table=table,
            dtype="bfloat16" if args.bf16 or args.fp16 else "float32",
            audit=audit,
            **kwargs,
        )
        self.add_callback(audit)
        self._own_reference = ref_model is None
        self.table = self._with_reference(table, ref_model)
        self.data_collator = PreferenceCollator(self.table, self._tokenizer.pad_token_id)

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The loss on the `eval_dataset` given at the start; another one has no reference log-probs."""
        if eval_dataset is not None and eval_dataset is not self.eval_dataset:
            raise ConfigError("evaluate: give eval_dataset to DEPOTrainer, which takes its reference there")
        return cast("dict[str, float]", super().evaluate(None, *args, **kwargs))

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[torch.Tensor, None, None]:
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            kl = self._estimate([inputs]) if self.preference.needs_kl else torch.zeros_like(self._units)
            scores, _ = self.score(model, inputs)
            return self.preference.loss(scores, kl, self.method).loss.mean(), None, None

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        step = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return _EpochOrder(self.table, step * self.args.world_size, self.args.data_seed or self.args.seed)

    def _require_reference(self, *sums: torch.Tensor) -> None:
        if self._own_reference:
            super()._require_reference(*sums)

    def _with_reference(self, table: SampleTable, ref_model: Any) -> SampleTable:
        """The table with the log-probs of its samples, and of their KL pairs, under the reference."""
        if not self.preference.needs_reference:
            return table
        if is_deepspeed_zero3_enabled() or self.is_fsdp_enabled:
            raise ConfigError(
                "DEPOTrainer takes the reference before weights are shared out: use ZeRO-1 or 2, or a run's "
                "reference stage (depo run), which knows ZeRO-3"
            )
        model = ref_model if ref_model is not None else self.accelerator.unwrap_model(self.model)
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        scorer = ReferenceScorer(base.to(self.args.device))
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        with self.accelerator.autocast():
            share = score_table(replace(table, rows=np.arange(rank, len(table.ids), ranks)), scorer)
        return join_reference(table, gather_object(share))


class _EpochOrder(Sampler[int]):
    """Places in the rows to train on; each epoch has an order of its own, the same on all ranks."""

    def __init__(self, table: SampleTable, batch_size: int, seed: int) -> None:
        self._table, self._batch_size, self._seed = table, batch_size, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._table.rows)

    def __iter__(self) -> Iterator[int]:
        table, seed = self._table, self._seed + self._epoch
        steps = len(table.rows) // self._batch_size
        order: IntArray = np.empty(0, dtype=np.int64)
        if steps:
            order = training_order(
                table.rows, self._batch_size, steps, seed, desirable=table.desirable, lengths=table.lengths
            )
        # What fills no whole step ends the epoch.
        rest = np.random.default_rng(seed).permutation(np.setdiff1d(table.rows, order))
        yield from np.searchsorted(table.rows, np.concatenate([order, rest])).tolist()


def make_table(data: Mapping[str, Dataset | None], tokenizer: Any, args: DEPOConfig) -> SampleTable:
    """The rows of named data sets as one table, each set with KL partners of its own.

    Raises `ConfigError` naming the row that cannot be read or has nothing to train on.
    """
    samples = []
    for name, rows in data.items():
        if rows is not None:
            if not isinstance(rows, Dataset):
                raise ConfigError(f"{name}: is a {type(rows).__name__}; give a datasets.Dataset")
            plain = maybe_unpair_preference_dataset(rows.map(maybe_extract_prompt))
            samples += samples_of(plain.to_list(), tokenizer, name, args.seed)
    longest = args.max_length or max(len(s.token_ids) for s in samples)
    wanted = trained(args.method())
    table = from_arrow(to_table(samples, SAMPLE_SCHEMA), longest, "data", args.too_long, wanted)  # type: ignore[arg-type]
    if table.dropped:
        _log.warning("%d rows are longer than max_length=%d and left out", table.dropped, longest)
    return table


def join_reference(table: SampleTable, scored: Iterable[ReferenceLogProbs]) -> SampleTable:
    """The table with the weighted sums of its rows' reference log-probs; rows not scored get NaN."""
    row_of = {sample: row for row, sample in enumerate(table.ids)}
    sums = np.full((2, len(table.ids)), np.nan)
    for one in scored:
        row = row_of[one.sample_id]
        own, pair = table.span(row), table.kl_part(table.own, row) != 0
        mine = table.own[own] != 0
        sums[0, row] = table.weights[own][mine].astype(np.float64) @ np.array(one.logps)
        sums[1, row] = table.kl_part(table.weights, row)[pair].astype(np.float64) @ np.array(one.kl_logps)
    return replace(table, ref_logp=sums[0], ref_kl_logp=sums[1])


def _require_both_labels(table: SampleTable) -> None:
    labels = table.desirable[table.rows]
    for wanted, name in ((True, "true"), (False, "false")):
        if not (labels == wanted).any():
            raise ConfigError(
                f"train_dataset: no row of label {name} to train on ({table.dropped} rows are longer than "
                f"max_length={table.max_length}); add some, or raise max_length"
            )
