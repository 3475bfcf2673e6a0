"""One training from files to files; the same body runs in a Ray Train worker and in a Ray Tune trial."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

from depo.config.base import ConfigError
from depo.config.schema import MethodConfig
from depo.training.deepspeed import join_ranks
from depo.training.loading import load_table
from depo.training.metrics import METRICS
from depo.training.rows import TrainingRows, training_rows
from depo.training.sources import Sources
from depo.training.spec import Checkpoints, TrainSpec
from depo.training.trainer import logging_steps

__all__ = ["Checkpoints", "TrainSpec", "load_table", "num_steps", "rung_steps", "train"]

Report = Callable[[dict[str, float]], None]


def train(
    spec: TrainSpec,
    report: Report | None = None,
    checkpoints: Checkpoints | None = None,
    sources: Sources | None = None,
) -> dict[str, float]:
    """Train as `spec` says and write `adapter/`, `model/` and `metrics.jsonl` into `out_dir`; the summary.

    Runs alone, or on every rank of an initialised process group. `report` gets each row of the
    metrics on rank 0. `sources` may know what earlier trainings of this process have read. Raises
    `ConfigError` for data that cannot be trained on, on all ranks alike.
    """
    started = time.monotonic()
    sources = sources or Sources()
    rows = training_rows(sources.table(spec), spec.method)
    _prepare_process(spec)
    from depo.training.build import build_trainer
    from depo.training.saving import MetricsLog, save_policy

    trainer, tokenizer = build_trainer(spec, rows, num_steps(spec.method, rows.count), checkpoints, sources)
    resumed = checkpoints.resume_from if checkpoints else None
    resumed_at = checkpoints.resumed_step if checkpoints else 0
    log = MetricsLog(Path(spec.out_dir) / METRICS, resumed_at, rows.count, spec.method.batch_size, report)
    trainer.add_callback(log)
    ready = time.monotonic()
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    trained = time.monotonic()
    folder = Path(spec.out_dir)
    save_policy(trainer, tokenizer, spec.model_dir, spec.dtype, folder, spec.merge, sources)
    totals = trainer.totals.read(trainer.reduce)
    return (
        _summary(rows, trainer.state.global_step, log.last)
        | totals
        | {
            "resumed_at": resumed_at,
            "seconds_starting": ready - started,
            "seconds_training": trained - ready,
            "seconds_saving": time.monotonic() - trained,
        }
    )


def rung_steps(steps: int, rungs: int) -> list[int]:
    """The steps of a training of `steps` after which its rungs are, the last at its end.

    At equal distances, but where a row of the metrics ends, so that none is cut in two. Raises
    `ConfigError` where there are not so many places.
    """
    rows = steps // logging_steps(steps)
    if rows < rungs:
        raise ConfigError(
            f"sweep.rungs: {rungs} rungs do not fit into a training of {steps} steps; take {rows} at most, "
            "or train longer"
        )
    return [round(rung * rows / rungs) * logging_steps(steps) for rung in range(1, rungs)] + [steps]


def num_steps(method: MethodConfig, samples: int) -> int:
    """Optimizer steps of a training: `max_steps`, else what `epochs` passes over the samples take."""
    return method.max_steps or max(1, math.ceil(method.epochs * samples / method.batch_size))


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
        join_ranks(runtime)


def _summary(rows: TrainingRows, steps: int, last: dict[str, float]) -> dict[str, float]:
    table, trained = rows.table, rows.table.rows
    return {
        "samples": len(trained),
        "desirable": int(table.desirable[trained].sum()),
        "undesirable": int((~table.desirable[trained]).sum()),
        **({} if rows.pairs is None else {"pairs": rows.count}),
        "tasks": len({table.task[row] for row in trained}),
        "too_long": table.dropped,
        "too_long_cut": table.cut,
        "steps": steps,
        "stopped_early": 0.0,
        **{name: value for name, value in last.items() if name not in ("step", "total_steps", "seconds")},
    }
