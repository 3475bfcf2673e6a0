"""Puts model, data and objective together into a trainer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback

from depo.config.base import ConfigError
from depo.config.method import MethodConfig, no_dropout
from depo.config.runtime import TrainingRuntime
from depo.objectives.registry import objective
from depo.training.checks import require_targets, require_vocabulary
from depo.training.master_weights import MasterAdamW
from depo.training.rows import TrainingRows
from depo.training.sources import Sources
from depo.training.spec import Checkpoints, TrainSpec
from depo.training.trainer import batching, training_arguments


def world_size() -> int:
    """Ranks of the process group, 1 where there is none."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return 1


def sharded(runtime: TrainingRuntime) -> bool:
    """DeepSpeed takes part; one process has nothing to share out."""
    return runtime.deepspeed_stage > 0 and world_size() > 1


def build_trainer(
    spec: TrainSpec,
    rows: TrainingRows,
    steps: int,
    checkpoints: Checkpoints | None,
    sources: Sources | None = None,
) -> tuple[Any, Any]:
    """Trainer, ready to train, and tokenizer."""
    sources = sources or Sources()
    kind = objective(spec.method.objective).kind
    tokenizer = sources.tokenizer(spec.model_dir, spec.chat_template)
    folder = checkpoints.folder if checkpoints else Path(spec.out_dir)
    # A pair is two samples.
    device_batch = max(1, spec.runtime.device_batch_size // (2 if kind == "paired" else 1))
    cut = batching(spec.method.batch_size, device_batch, world_size())
    arguments = training_arguments(
        spec.method, spec.runtime, spec.dtype, steps, cut, folder,
        saves=checkpoints is not None and checkpoints.periodic,
    )  # fmt: skip
    make = _supervised if kind == "supervised" else _preference
    # Made after the trainer's arguments, so that ZeRO-3 can shard the model while it loads.
    load = partial(_load, spec, sources, tokenizer)
    trainer = make(spec, rows, steps, tokenizer, arguments, load, checkpoints)
    if _full(spec) and spec.dtype == "bfloat16" and not sharded(spec.runtime):
        _, settings = trainer.get_optimizer_cls_and_kwargs(trainer.args)
        trainer.optimizer_cls_and_kwargs = MasterAdamW, settings
    trainer.remove_callback(PrinterCallback)
    if checkpoints is not None:
        trainer.add_callback(_OwnSettings(checkpoints))
        trainer.add_callback(_TellSaved(checkpoints))
    return trainer, tokenizer


def _supervised(
    spec: TrainSpec,
    rows: TrainingRows,
    steps: int,
    tokenizer: Any,
    arguments: dict[str, Any],
    load: Callable[[], Any],
    _: Any,
) -> Any:
    from trl import SFTConfig

    from depo.training.collator import TokenCollator
    from depo.training.sft import WeightedSFTTrainer

    config = SFTConfig(
        **arguments, max_length=None, packing=False, dataset_kwargs={"skip_prepare_dataset": True}
    )
    return WeightedSFTTrainer(
        model=load(),
        args=config,
        data_collator=TokenCollator(
            rows.table, tokenizer.pad_token_id, spec.observation_weight, rows.sample_weights
        ),
        train_dataset=Dataset.from_dict({"row": rows.order(spec.method, steps)}),
        processing_class=tokenizer,
        peft_config=None if _full(spec) else _lora(spec.method),
        table=rows.table,
    )


def _preference(
    spec: TrainSpec,
    rows: TrainingRows,
    steps: int,
    tokenizer: Any,
    arguments: dict[str, Any],
    load: Callable[[], Any],
    checkpoints: Checkpoints | None,
) -> Any:
    from depo.training.audit import AuditTrail
    from depo.training.collator import PairCollator, PreferenceCollator

    table, pad_id = rows.table, tokenizer.pad_token_id
    # Told so, TRL loads no reference model beside one without adapters.
    arguments = arguments | {"max_length": None, "precompute_ref_log_probs": _full(spec)}
    if rows.pairs is None:
        from trl import KTOConfig

        from depo.training.preference import PreferenceTrainer

        # This loss type keeps TRL from pairing KL partners by row order; ours are fixed in the data.
        make: Any = PreferenceTrainer
        config: Any = KTOConfig(**arguments, loss_type="apo_zero_unpaired")
        collator: Any = PreferenceCollator(table, pad_id)
    else:
        from trl import DPOConfig

        from depo.training.paired import PairedTrainer

        make, config = PairedTrainer, DPOConfig(**arguments)
        collator = PairCollator(table, pad_id, rows.pairs)
    audit = AuditTrail(table, Path(spec.out_dir), checkpoints.resumed_step if checkpoints else 0)
    return make(
        model=load(),
        args=config,
        data_collator=collator,
        train_dataset=Dataset.from_dict({"row": rows.order(spec.method, steps)}),
        processing_class=tokenizer,
        peft_config=None if _full(spec) else _lora(spec.method),
        callbacks=[audit],
        method=spec.method,
        table=table,
        dtype=spec.dtype,
        audit=audit,
    )


def _full(spec: TrainSpec) -> bool:
    return spec.full_parameters or spec.method.full_parameters


def _load(spec: TrainSpec, sources: Sources, tokenizer: Any) -> Any:
    # Also where all are trained, so that policy and reference compute alike, see `MasterAdamW`.
    model = sources.model(spec.model_dir, spec.dtype, frozen=not _full(spec))
    require_vocabulary(tokenizer, model.config, spec.model_dir)
    if not _full(spec):
        require_targets(model, spec.method.lora.target_modules, "lora.target_modules")
    return model


def _lora(method: MethodConfig) -> LoraConfig:
    # The configuration refuses it already where it knows the objective.
    if method.lora.dropout and objective(method.objective).kind != "supervised":
        raise ConfigError(f"lora.dropout is not read {no_dropout(method.objective)}: leave it out")
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=method.lora.r,
        lora_alpha=method.lora.alpha,  # type: ignore[arg-type]
        lora_dropout=method.lora.dropout,
        target_modules=method.lora.target_modules,
    )


class _OwnSettings(TrainerCallback):
    """Keeps a training to its own settings, whatever those of the checkpoint it goes on from, and ends it
    where it is to end."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._until = checkpoints.until

    def on_train_begin(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, lr_scheduler: Any = None, **kw: Any
    ) -> None:
        if not state.global_step:
            return
        # The optimizer's first group decays, its second one holds what never does.
        optimizer.param_groups[0]["weight_decay"] = args.weight_decay
        lr_scheduler.base_lrs = [args.learning_rate] * len(lr_scheduler.base_lrs)
        for group, factor in zip(optimizer.param_groups, lr_scheduler.lr_lambdas, strict=True):
            group["initial_lr"] = args.learning_rate
            group["lr"] = args.learning_rate * factor(lr_scheduler.last_epoch)
        # What the next row of the metrics tells.
        lr_scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._until:
            control.should_save = control.should_training_stop = True


class _TellSaved(TrainerCallback):
    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step
        self._checkpoints.saved(step, self._checkpoints.folder / f"checkpoint-{step}")
