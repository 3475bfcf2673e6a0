"""What our trainers share, whatever the objective: arguments, totals of a step, metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from depo.config.base import ConfigError
from depo.config.limits import check_batch
from depo.config.method import MethodConfig
from depo.config.runtime import TrainingRuntime
from depo.training.dataset import SampleTable
from depo.training.deepspeed import deepspeed_config
from depo.training.optimizer_state import OPTIMIZER, load_optimizer, save_optimizer

Reducer = Callable[[Tensor], Tensor]
"""Sums a tensor over all ranks."""

# Sample ids that an error names.
_SHOWN = 5


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
    check_batch(batch_size, world, "batch_size")
    share = batch_size // world
    device = next(d for d in range(min(device_batch_size, share), 0, -1) if share % d == 0)
    return Batching(device, share // device, world)


def training_arguments(
    method: MethodConfig,
    runtime: TrainingRuntime,
    dtype: str,
    steps: int,
    cut: Batching,
    folder: Path,
    saves: bool,
) -> dict[str, Any]:
    """Arguments common to TRL's configurations."""
    world = cut.world
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
        "deepspeed": deepspeed_config(runtime, dtype) if sharded else None,
        "gradient_checkpointing": runtime.gradient_checkpointing,
        "logging_steps": logging_steps(steps),
        "logging_first_step": True,
        # A loss that is no number ends the training; looking here too would wait for a GPU each time.
        "logging_nan_inf_filter": False,
        "save_strategy": "steps" if saves else "no",
        "save_steps": runtime.save_steps,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": runtime.use_gpu,
        # The rows come in the order of training, see `training_order`.
        "train_sampling_strategy": "sequential",
    }


def logging_steps(steps: int) -> int:
    """Steps that a row of the metrics tells of."""
    return max(1, min(10, steps // 20))


class Meter:
    """Sums and counts of named quantities on this rank, reduced when they are read."""

    def __init__(self, names: tuple[str, ...], device: torch.device) -> None:
        self._names = names
        self._totals = torch.zeros(len(names), 2, dtype=torch.float64, device=device)

    def add(self, name: str, total: Tensor, count: Tensor) -> None:
        """Add `count` elements of a quantity, whose sum is `total`; scalars."""
        self._totals[self._names.index(name)] += torch.stack([total.detach(), count.detach()]).double()

    def read(self, reduce: Reducer) -> dict[str, float]:
        """Means over all ranks since the last reading; a quantity nothing was added to is left out."""
        totals = reduce(self._totals.float()).tolist()
        self._totals.zero_()
        return {name: total / n for name, (total, n) in zip(self._names, totals, strict=True) if n}


class StepTrainer:
    """Mixed into a TRL trainer: `prepare_step` sees all micro-batches of an optimizer step at once.

    So losses are normalised by the totals of the whole step, over all ranks, and do not depend on
    how the step is cut up. What `watch` was shown of a step is looked at when its last micro-batch is
    done: a loss that is no finite number ends the training before anything is saved.
    """

    loss_is_scaled_for_ga: Any = True
    meter: Meter
    totals: Meter
    """`padding_share`, of all tokens that were processed since the trainer was made."""
    reduce: Reducer
    table: SampleTable
    _watched: list[tuple[Tensor, Tensor]]
    _left: int

    def prepare_step(self, batches: list[dict[str, Tensor]]) -> None:
        """Called with the micro-batches of this rank before the first one is trained on."""
        raise NotImplementedError

    def finish_step(self) -> None:
        """Called when the last micro-batch of this rank is done."""
        self.require_finite("loss", self._watched)

    def to_device(self, batches: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """The batches where the trainer computes."""
        device = self.args.device  # type: ignore[attr-defined]
        return [{name: value.to(device) for name, value in batch.items()} for batch in batches]

    def forward_seen(self, batch: dict[str, Tensor]) -> None:
        """Count the tokens of a batch that goes through the model."""
        size = batch["input_ids"].numel()
        padding = size - batch["lengths"].sum()
        self.totals.add("padding_share", padding, torch.full_like(padding, size))

    def watch(self, rows: Tensor, losses: Tensor) -> None:
        """Show the step the losses of some of the table's `rows`, both `[batch]`."""
        self._watched.append((rows, losses.detach()))

    def require_finite(self, name: str, shown: list[tuple[Tensor, Tensor]]) -> None:
        """Raise `ConfigError`, on all ranks alike, that names the rows whose value is not finite."""
        rows, values = (torch.cat(parts) for parts in zip(*shown, strict=True))
        bad = rows[~torch.isfinite(values)]
        if not float(self.reduce(count_of(bad))):
            return
        found = [row for part in gather_object([bad.tolist()]) for row in part]
        step = self.state.global_step + 1  # type: ignore[attr-defined]
        raise ConfigError(_not_finite(name, step, [self.table.ids[row] for row in sorted(set(found))]))

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: Any
    ) -> tuple[Any, None]:
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)  # type: ignore[misc]
        if len(batches) > 1:
            # Of short samples more in a micro-batch, of long ones fewer: less padding, less memory.
            items = torch.cat([batch["items"] for batch in batches]).tolist()
            batches = self.to_device(self.data_collator.cut(items, len(batches)))  # type: ignore[attr-defined]
        self._watched, self._left = [], len(batches)
        self.prepare_step(batches)
        return batches, None

    def training_step(self, model: Any, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        self.forward_seen(inputs)
        loss = super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        self._left -= 1
        if not self._left:
            self.finish_step()
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        # Evaluations tell of themselves.
        measured = self.meter.read(self.reduce) if "loss" in logs else {}
        super().log(logs | measured, start_time)  # type: ignore[misc]

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)  # type: ignore[misc]
        pickled = Path(output_dir) / OPTIMIZER_NAME
        if pickled.exists():
            save_optimizer(self.optimizer, Path(output_dir))  # type: ignore[attr-defined]
            pickled.unlink()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        if checkpoint is not None and (Path(checkpoint) / OPTIMIZER).exists():
            load_optimizer(self.optimizer, Path(checkpoint))  # type: ignore[attr-defined]
            schedule = torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True)
            self.lr_scheduler.load_state_dict(schedule)  # type: ignore[attr-defined]

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """A checkpoint is for resuming, so it has no card."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        """The collator knows the tokens; TRL would tokenise anew."""
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:
        """The table has them; told so, TRL loads no reference model."""
        return dataset

    def _send_telemetry(self) -> None:
        """Runs are nobody else's business."""


def _not_finite(name: str, step: int, ids: list[str]) -> str:
    shown = ", ".join(ids[:_SHOWN])
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return (
        f"step {step}: the {name} is no finite number for sample {shown}{more}; look at what is special "
        "about these samples, or, where they are the whole step, lower learning_rate"
    )


def count_of(values: Tensor) -> Tensor:
    """Number of rows, as a float scalar on the same device."""
    return torch.tensor(float(len(values)), device=values.device)


def rank_sum(trainer: Any) -> Reducer:
    """The reducer over a trainer's ranks."""
    return lambda tensor: trainer.accelerator.reduce(tensor, reduction="sum")
