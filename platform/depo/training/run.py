"""One training from files to files; the same body runs in a Ray Train worker and in a Ray Tune trial."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

from depo.config.base import ConfigError
from depo.config.schema import MethodConfig
from depo.training import dataset
from depo.training.dataset import SampleTable
from depo.training.metrics import METRICS
from depo.training.spec import Checkpoints, TrainSpec

__all__ = ["Checkpoints", "TrainSpec", "load_table", "num_steps", "train"]

Report = Callable[[dict[str, float]], None]


def train(
    spec: TrainSpec, report: Report | None = None, checkpoints: Checkpoints | None = None
) -> dict[str, float]:
    """Train as `spec` says and write `adapter/`, `model/` and `metrics.jsonl` into `out_dir`; the summary.

    Runs alone, or on every rank of an initialised process group. `report` gets each row of the
    metrics on rank 0. Raises `ConfigError` for data that cannot be trained on, on all ranks alike.
    """
    started = time.monotonic()
    table = load_table(spec)
    _prepare_process(spec)
    steps = num_steps(spec.method, len(table.rows))
    from depo.training.build import build_trainer
    from depo.training.saving import MetricsLog, save_policy

    trainer, tokenizer = build_trainer(spec, table, steps, checkpoints)
    resumed = checkpoints.resume_from if checkpoints else None
    resumed_at = int(resumed.name.rpartition("-")[2]) if resumed else 0
    metrics = Path(spec.out_dir) / METRICS
    log = MetricsLog(metrics, resumed_at, len(table.rows), spec.method.batch_size, report)
    trainer.add_callback(log)
    ready = time.monotonic()
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    trained = time.monotonic()
    save_policy(trainer, tokenizer, spec.model_dir, spec.dtype, Path(spec.out_dir))
    return _summary(table, steps, log.last) | {
        "resumed_at": resumed_at,
        "seconds_starting": ready - started,
        "seconds_training": trained - ready,
        "seconds_saving": time.monotonic() - trained,
    }


def load_table(spec: TrainSpec) -> SampleTable:
    """The samples a training reads, reference joined. Raises `ConfigError` where they do not serve."""
    method = spec.method
    table = dataset.load_samples(spec.samples, method.view, spec.max_length)
    if method.objective == "sft":
        table = dataset.only_desirable(table)
        if not len(table.rows):
            raise ConfigError(f"{spec.samples}: {_nothing(table, 'desirable', method.view)}")
        return table
    for wanted, name in ((True, "desirable"), (False, "undesirable")):
        if not (table.desirable[table.rows] == wanted).any():
            raise ConfigError(f"{spec.samples}: {_nothing(table, name, method.view)}")
    if spec.reference is None:
        raise ConfigError(f"{method.objective}: needs reference log-probs; run the reference stage first")
    if method.balance:
        table = dataset.balanced(table, method.seed)
    return dataset.with_reference(table, spec.reference)


def num_steps(method: MethodConfig, samples: int) -> int:
    """Optimizer steps of a training: `max_steps`, else what `epochs` passes over the samples take."""
    return method.max_steps or max(1, math.ceil(method.epochs * samples / method.batch_size))


def _nothing(table: SampleTable, label: str, view: str) -> str:
    dropped = f" ({table.dropped} are longer than max_length={table.max_length})" if table.dropped else ""
    return f"no {label} sample of view {view!r} to train on{dropped}; change the annotation's thresholds"


def _prepare_process(spec: TrainSpec) -> None:
    """Settings that libraries read once, at import or start."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import torch
    from transformers.utils.logging import disable_progress_bar

    from depo.training.build import sharded

    disable_progress_bar()

    runtime = spec.runtime
    if not runtime.use_gpu:
        torch.set_num_threads(max(1, int(runtime.cpus_per_worker)))
    if sharded(runtime):
        import deepspeed

        if not runtime.use_gpu:
            # Otherwise DeepSpeed compiles a shared-memory operator at each start.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(dist_backend="nccl" if runtime.use_gpu else "gloo", verbose=False)


def _summary(table: SampleTable, steps: int, last: dict[str, float]) -> dict[str, float]:
    trained = table.rows
    return {
        "samples": len(trained),
        "desirable": int(table.desirable[trained].sum()),
        "undesirable": int((~table.desirable[trained]).sum()),
        "too_long": table.dropped,
        "steps": steps,
        **{name: value for name, value in last.items() if name not in ("step", "total_steps", "seconds")},
    }
