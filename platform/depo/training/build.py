"""Puts model, data and objective together into a trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from depo.config.runtime import TrainingRuntime
from depo.config.schema import MethodConfig
from depo.training.dataset import SampleTable, training_order
from depo.training.spec import Checkpoints, TrainSpec
from depo.training.trainer import training_arguments


def world_size() -> int:
    """Ranks of the process group, 1 where there is none."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return 1


def sharded(runtime: TrainingRuntime) -> bool:
    """DeepSpeed takes part; one process has nothing to share out."""
    return runtime.deepspeed_stage > 0 and world_size() > 1


def build_trainer(
    spec: TrainSpec, table: SampleTable, steps: int, checkpoints: Checkpoints | None
) -> tuple[Any, Any]:
    """Trainer, ready to train, and tokenizer. `table` holds the rows of `training.run.load_table`."""
    tokenizer = AutoTokenizer.from_pretrained(spec.model_dir)
    folder = checkpoints.folder if checkpoints else Path(spec.out_dir)
    arguments = training_arguments(
        spec.method, spec.runtime, spec.dtype, steps, world_size(), folder, saves=checkpoints is not None
    )
    make = _supervised if spec.method.objective == "sft" else _preference
    trainer = make(spec, table, _ordered_rows(spec, table, steps), tokenizer, arguments)
    trainer.remove_callback(PrinterCallback)
    if checkpoints is not None:
        trainer.add_callback(_TellSaved(checkpoints))
    return trainer, tokenizer


def _supervised(
    spec: TrainSpec, table: SampleTable, rows: Dataset, tokenizer: Any, arguments: dict[str, Any]
) -> Any:
    from trl import SFTConfig

    from depo.training.collator import TokenCollator
    from depo.training.sft import WeightedSFTTrainer

    # Made before the model is loaded, so that ZeRO-3 can shard it while it loads.
    config = SFTConfig(
        **arguments, max_length=None, packing=False, dataset_kwargs={"skip_prepare_dataset": True}
    )
    return WeightedSFTTrainer(
        model=_load(spec),
        args=config,
        data_collator=TokenCollator(table, tokenizer.pad_token_id, spec.observation_weight),
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=None if spec.full_parameters else _lora(spec.method),
    )


def _preference(
    spec: TrainSpec, table: SampleTable, rows: Dataset, tokenizer: Any, arguments: dict[str, Any]
) -> Any:
    from trl import KTOConfig

    from depo.training.collator import PreferenceCollator
    from depo.training.preference import PreferenceTrainer

    # This loss type keeps TRL from pairing KL partners by row order; ours are fixed in the data.
    config = KTOConfig(**arguments, max_length=None, loss_type="apo_zero_unpaired")
    return PreferenceTrainer(
        model=_load(spec),
        args=config,
        data_collator=PreferenceCollator(table, tokenizer.pad_token_id),
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=_lora(spec.method),
        method=spec.method,
        dtype=spec.dtype,
    )


def _load(spec: TrainSpec) -> Any:
    # Weights that are trained rest in float32 unless DeepSpeed keeps such copies itself.
    trained_here = spec.full_parameters and not sharded(spec.runtime)
    dtype = torch.float32 if trained_here else getattr(torch, spec.dtype)
    return AutoModelForCausalLM.from_pretrained(spec.model_dir, dtype=dtype)


def _lora(method: MethodConfig) -> LoraConfig:
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=method.lora.r,
        lora_alpha=method.lora.alpha,  # type: ignore[arg-type]
        lora_dropout=method.lora.dropout,
        target_modules=method.lora.target_modules,
    )


def _ordered_rows(spec: TrainSpec, table: SampleTable, steps: int) -> Dataset:
    method = spec.method
    order = training_order(
        table.rows,
        method.batch_size,
        steps,
        method.seed,
        desirable=None if method.objective == "sft" else table.desirable,
        # Padding is what costs most where all weights are trained on many short episodes.
        lengths=table.lengths if spec.full_parameters else None,
    )
    return Dataset.from_dict({"row": order})


class _TellSaved(TrainerCallback):
    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step
        self._checkpoints.saved(step, self._checkpoints.folder / f"checkpoint-{step}")
