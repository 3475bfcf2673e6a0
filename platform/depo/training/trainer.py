"""What our trainers share, whatever the objective: arguments, totals of a step, metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from depo.config.base import ConfigError
from depo.config.runtime import TrainingRuntime
from depo.config.schema import MethodConfig

Reducer = Callable[[Tensor], Tensor]
"""Sums a tensor over all ranks."""


@dataclass(frozen=True)
class Batching:
    """How a step's global batch is cut up: `device * accumulation * world` samples."""

    device: int
    accumulation: int
    world: int


def batching(batch_size: int, device_batch_size: int, world: int) -> Batching:
    """Cut a step over `world` ranks, each holding at most `device_batch_size` samples at once.

    Raises `ConfigError` where the ranks cannot share the step evenly.
    """
    share, rest = divmod(batch_size, world)
    if rest:
        raise ConfigError(
            f"batch_size: {batch_size} samples do not divide over {world} workers; take a multiple of "
            f"{world}, or another runtime.training.num_workers"
        )
    device = next(d for d in range(min(device_batch_size, share), 0, -1) if share % d == 0)
    return Batching(device, share // device, world)


def deepspeed_config(stage: int, dtype: str) -> dict[str, Any]:
    """DeepSpeed's configuration of a ZeRO stage; sizes follow from the trainer's arguments."""
    return {
        "zero_optimization": {"stage": stage, "stage3_gather_16bit_weights_on_model_save": True},
        "bf16": {"enabled": dtype == "bfloat16"},
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }


def training_arguments(
    method: MethodConfig,
    runtime: TrainingRuntime,
    dtype: str,
    steps: int,
    world: int,
    folder: Path,
    saves: bool,
) -> dict[str, Any]:
    """Arguments common to TRL's configurations."""
    cut = batching(method.batch_size, runtime.device_batch_size, world)
    sharded = runtime.deepspeed_stage > 0 and world > 1
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": cut.device,
        "gradient_accumulation_steps": cut.accumulation,
        "max_steps": steps,
        "learning_rate": method.learning_rate,
        "warmup_steps": round(method.warmup_ratio * steps),
        "lr_scheduler_type": method.scheduler,
        "weight_decay": method.weight_decay,
        "max_grad_norm": method.max_grad_norm,
        # DeepSpeed's own Adam compiles an extension for minutes where there is no GPU.
        "optim": "adamw_torch",
        "seed": method.seed,
        "bf16": dtype == "bfloat16",
        "use_cpu": not runtime.use_gpu,
        "ddp_backend": "gloo" if world > 1 and not runtime.use_gpu else None,
        "deepspeed": deepspeed_config(runtime.deepspeed_stage, dtype) if sharded else None,
        "gradient_checkpointing": runtime.gradient_checkpointing,
        "logging_steps": max(1, min(10, steps // 20)),
        "logging_first_step": True,
        "save_strategy": "steps" if saves else "no",
        "save_steps": runtime.save_steps,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": runtime.use_gpu,
        # The rows come in the order of training, see `training_order`.
        "train_sampling_strategy": "sequential",
    }


class Meter:
    """Sums and counts of named quantities on this rank, reduced when they are read."""

    def __init__(self, names: tuple[str, ...], device: torch.device) -> None:
        self._names = names
        self._totals = torch.zeros(len(names), 2, dtype=torch.float64, device=device)

    def add(self, **values: Tensor) -> None:
        """Add the elements of each tensor to its quantity."""
        for name, value in values.items():
            self._totals[self._names.index(name)] += torch.stack(
                [value.detach().double().sum(), torch.tensor(float(value.numel()), device=value.device)]
            )

    def read(self, reduce: Reducer) -> dict[str, float]:
        """Means over all ranks since the last reading; a quantity nothing was added to is left out."""
        totals = reduce(self._totals.float()).tolist()
        self._totals.zero_()
        return {name: total / n for name, (total, n) in zip(self._names, totals, strict=True) if n}


class StepTrainer:
    """Mixed into a TRL trainer: `prepare_step` sees all micro-batches of an optimizer step at once.

    So losses are normalised by the totals of the whole step, over all ranks, and do not depend on
    how the step is cut up.
    """

    loss_is_scaled_for_ga: Any = True
    meter: Meter
    reduce: Reducer

    def prepare_step(self, batches: list[dict[str, Tensor]]) -> None:
        """Called with the micro-batches of this rank before the first one is trained on."""
        raise NotImplementedError

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: Any
    ) -> tuple[Any, None]:
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)  # type: ignore[misc]
        self.prepare_step(batches)
        return batches, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs | self.meter.read(self.reduce), start_time)  # type: ignore[misc]

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """A checkpoint is for resuming, so it has no card."""

    def _send_telemetry(self) -> None:
        """Runs are nobody else's business."""


def rank_sum(trainer: Any) -> Reducer:
    """The reducer over a trainer's ranks."""
    return lambda tensor: trainer.accelerator.reduce(tensor, reduction="sum")
