"""Training on Ray Train: `training.run.train` on every worker, its progress followed by the driver."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from depo.config.base import ConfigError
from depo.config.runtime import TrainingRuntime
from depo.records import content_hash
from depo.threads import Background, awaited, reason
from depo.training.metrics import METRICS, read_metrics
from depo.training.run import Checkpoints, TrainSpec, load_table, train
from depo.training.trainer import batching

Progress = Callable[[Mapping[str, Any]], None]

_POLL_S = 0.5
_LOST = "lost.jsonl"

_RAY_SETTINGS = {
    # How soon the end of the workers is seen.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # Workers import for long where a machine is busy.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
}


@dataclass(frozen=True)
class Part:
    """A part of a training: from one checkpoint to the next."""

    resume_from: Path | None
    until: int | None
    """Step of the checkpoint it ends with; None for the training's end."""
    folder: Path
    """Where that checkpoint is put."""


def run_training(
    spec: TrainSpec, storage: Path, progress: Progress, part: Part | None = None
) -> dict[str, float]:
    """Train on Ray Train's workers, as `spec.runtime` says; the summary of `train`.

    Ray's state and the checkpoints lie under `storage`, which all nodes must see, until the training, or
    `part` of it, is done; called again after a crash with the same `spec` it goes on from the last
    checkpoint. `progress` gets each row of the metrics as it is logged. Raises `ConfigError` for what
    `train` refuses, `ray.train.TrainingFailedError` once workers failed more than `max_failures` times.
    """
    runtime = spec.runtime
    # Asked here too, since an answer from the workers takes their start.
    batching(spec.method.batch_size, runtime.device_batch_size, runtime.num_workers)
    load_table(spec)
    resume_from, until = (part.resume_from, part.until) if part is not None else (None, None)
    name = f"train-{_identity(spec)}" + ("" if until is None else f"-{until}")
    storage.mkdir(parents=True, exist_ok=True)
    for key, value in _RAY_SETTINGS.items():
        os.environ.setdefault(key, value)
    if not runtime.use_gpu:
        # A process that watches for a cloud's notice of reclaiming a node; a lost worker restarts anyway.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    _forget_others(storage, name)
    trainer: Any = TorchTrainer(
        _work,  # type: ignore[arg-type]
        train_loop_config={
            "spec": spec,
            "folder": str((storage / name).resolve()),
            "resume_from": resume_from,
            "until": until,
        },
        torch_config=TorchConfig(backend="nccl" if runtime.use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=runtime.num_workers,
            use_gpu=runtime.use_gpu,
            resources_per_worker=_resources(runtime),
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(storage.resolve()),
            failure_config=ray.train.FailureConfig(max_failures=runtime.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            callbacks=[_Losses(storage.resolve() / name / _LOST, runtime.max_failures)],  # type: ignore[list-item]
        ),
    )
    with _following(Path(spec.out_dir) / METRICS, storage / name / _LOST, progress):
        outcome = awaited(trainer.fit, "training").return_value
    if "refused" not in outcome and part is not None and part.until is not None:
        _put(storage / name / f"checkpoint-{part.until}", part.folder)
    shutil.rmtree(storage / name)
    if "refused" in outcome:
        raise ConfigError(outcome["refused"])
    return outcome


def _put(checkpoint: Path, folder: Path) -> None:
    """Move a checkpoint into `folder`; there is none where the training stopped before it."""
    if checkpoint.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / checkpoint.name, ignore_errors=True)
        checkpoint.rename(folder / checkpoint.name)


def _work(config: dict[str, Any]) -> dict[str, Any]:
    """The training loop of one worker."""
    folder = Path(config["folder"])
    first = ray.train.get_context().get_world_rank() == 0
    last = _last_checkpoint(config["until"]) or config["resume_from"]

    def saved(step: int, path: Path) -> None:
        ray.train.report(
            {"step": step},
            checkpoint=ray.train.Checkpoint.from_directory(str(path)) if first else None,
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.NO_UPLOAD,
        )

    checkpoints = Checkpoints(folder, last, saved, config["until"])
    try:
        return dict(train(config["spec"], checkpoints=checkpoints))
    except ConfigError as error:
        # Raised by every rank alike, and again on every restart: an answer, not a failure.
        return {"refused": str(error)}


def _last_checkpoint(until: int | None) -> Path | None:
    """Where a restarted worker goes on from; not from the end of its part, which leaves nothing to do."""
    last = ray.train.get_checkpoint()
    if last is None or Path(last.path).name == f"checkpoint-{until}":
        return None
    return Path(last.path)


def _identity(spec: TrainSpec) -> str:
    """A checkpoint serves only the very training, on as many ranks, that wrote it."""
    fixed = dataclasses.replace(spec, runtime=TrainingRuntime())
    ranks = [spec.runtime.num_workers, spec.runtime.deepspeed_stage, spec.runtime.offload]
    settings = {f.name: getattr(fixed, f.name) for f in dataclasses.fields(fixed)}
    return content_hash([settings | {"method": spec.method.model_dump(), "runtime": ranks}])


def _resources(runtime: TrainingRuntime) -> dict[str, float]:
    gpus = {"GPU": 1.0} if runtime.use_gpu else {}
    return {"CPU": runtime.cpus_per_worker, **gpus}


def _forget_others(storage: Path, name: str) -> None:
    for other in storage.glob("train-*"):
        if other.name != name:
            shutil.rmtree(other)


class _Losses(ray.train.UserCallback):
    """Notes in a file, from Ray Train's own process, that workers failed and what comes of it."""

    def __init__(self, path: Path, left: int) -> None:
        self._path, self._left = path, left

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        rank, error = min(worker_exceptions.items())
        then = "all start again from the last checkpoint" if self._left else "it was the last try"
        self._left -= 1
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps({"lost": f"worker {rank} failed ({reason(error)[:200]}); {then}"}) + "\n")


@contextmanager
def _following(path: Path, losses: Path, progress: Progress) -> Iterator[None]:
    """Hand each new row of a metrics file, and of the file of losses, to `progress` while the block runs."""
    stop = threading.Event()

    def follow() -> None:
        step, lost = -1.0, len(read_metrics(losses))
        finished = False
        while not finished:
            finished = stop.wait(_POLL_S)
            for row in read_metrics(losses)[lost:]:
                lost += 1
                progress(row)
            for row in read_metrics(path):
                if row["step"] > step:
                    step = row["step"]
                    progress(row)

    thread = Background(follow, "following the training's metrics")
    try:
        yield
    finally:
        stop.set()
        thread.join()
    thread.finish()
