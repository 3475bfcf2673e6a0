"""The body of a trial: train up to a rung, evaluate there, go on, and after a kill from the last rung."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from depo.config.base import ConfigError
from depo.config.method import MethodConfig
from depo.data.store import read_table, write_atomic
from depo.evaluation.metrics import METRICS, episode_terms, judged
from depo.objectives.registry import objective
from depo.policies.checkpoint import ADAPTER, MERGED
from depo.policies.vllm_engine import serves_adapters
from depo.records import Episode
from depo.stages.base import StageSpec
from depo.stages.evaluate import EPISODES, collect, evaluation_jobs
from depo.stages.jobs import WorkerSettings
from depo.stages.sweep.plan import (
    CHECKPOINTS,
    PLACE,
    RAY,
    RUNGS,
    Report,
    TrialPlan,
    checkpoint_of,
    method_of,
    note_origin,
    read_rungs,
    tell,
)
from depo.stages.sweep.resident import Resident
from depo.training.metrics import METRICS as CURVE
from depo.training.rows import training_rows
from depo.training.run import Checkpoints, TrainSpec, num_steps, rung_steps, train

_SHARED = Resident()
_ADDED_UP = ("train/seconds_starting", "train/seconds_training", "train/seconds_saving")


@dataclass(frozen=True)
class Ascent:
    """A trial on its way from rung to rung."""

    plan: TrialPlan
    spec: StageSpec
    training: TrainSpec

    @property
    def out_dir(self) -> Path:
        return self.spec.out_dir


def climb(
    plan: TrialPlan,
    spec: StageSpec,
    method: MethodConfig,
    resume: Path | None,
    report: Report | None,
    clock: float,
) -> dict[str, Any]:
    """Take a trial from where it stands to its end; the row of its last rung.

    `clock` is `time.monotonic()` when it began: the first rung's seconds hold imports and other beginnings.
    Raises `ConfigError` for what `train` refuses and for a `resume` that `method` cannot go on from.
    """
    by_adapter = _by_adapter(plan, method)
    training = replace(plan.base, method=method, out_dir=str(spec.out_dir), merge=not by_adapter)
    ascent = Ascent(plan, spec, training)
    if resume is not None:
        _require_compatible(method_of(resume), method)
    rows = _standing(spec.out_dir, plan.rungs)
    told = _step_of(resume)
    for row in rows:
        if row["step"] > told:
            tell(spec.out_dir, row, report)
    at = checkpoint_of(spec.out_dir, rows[-1]) if rows else resume
    if rows and rows[-1]["rung"] == plan.rungs:
        return rows[-1]
    for rung, step in enumerate(rung_steps(_length(training), plan.rungs), start=1):
        if step <= _step_of(at):
            continue
        rows.append(_reach(ascent, rung, step, at, rows, clock))
        at = checkpoint_of(spec.out_dir, rows[-1])
        tell(spec.out_dir, rows[-1], report)
        clock = time.monotonic()
        if rows[-1]["rung"] == plan.rungs:
            return rows[-1]
    raise ConfigError(
        f"{at}: is at the end of this trial's {_length(training)} steps; nothing is left to train"
    )


def close_shared() -> None:
    """Give up the engine that this process keeps for its next trial."""
    _SHARED.close()


def _reach(
    ascent: Ascent, rung: int, step: int, at: Path | None, rows: list[dict[str, Any]], clock: float
) -> dict[str, Any]:
    """Train from the checkpoint `at` up to `step`, evaluate, and put the rung on record."""
    plan = ascent.plan
    summary = _train(ascent, at, None if rung == plan.rungs else step)
    if summary["stopped_early"]:
        rung = plan.rungs
    episodes = _evaluate(ascent, rung)
    metrics = {f"train/{name}": value for name, value in summary.items()}
    if rows:
        metrics |= {name: metrics[name] + rows[-1][name] for name in _ADDED_UP}
    place = (rung, plan.rungs, int(summary["steps"]), time.monotonic() - clock, len(episodes))
    row = {**dict(zip(PLACE, place, strict=True)), **metrics, **_means(ascent, episodes)}
    checkpoint = checkpoint_of(ascent.out_dir, row)
    if checkpoint.is_dir():
        note_origin(checkpoint, ascent.spec, row)
        shutil.copyfile(ascent.out_dir / CURVE, checkpoint / CURVE)
    with (ascent.out_dir / RUNGS).open("a") as file:
        file.write(json.dumps(row) + "\n")
    if at is not None and at.parent == checkpoint.parent and not plan.population:
        shutil.rmtree(at)
    return row


def _train(ascent: Ascent, at: Path | None, until: int | None) -> dict[str, float]:
    training, folder = ascent.training, ascent.out_dir / CHECKPOINTS
    if at is not None and at.parent != folder:
        # The curve up to here is the other trial's.
        shutil.copyfile(at / CURVE, ascent.out_dir / CURVE)
    if ascent.plan.runtime.sweep.distributed:
        from depo.stages.train import Part, run_training

        return run_training(training, ascent.out_dir / RAY, lambda _: None, Part(at, until, folder))
    checkpoints = None
    if at is not None or until is not None:
        checkpoints = Checkpoints(folder, at, lambda *_: None, until, periodic=False)
    return train(training, checkpoints=checkpoints, sources=_SHARED.sources)


def _evaluate(ascent: Ascent, rung: int) -> list[Episode]:
    """The episodes of the policy as it is now, on the plan's tasks."""
    plan, folder = ascent.plan, ascent.out_dir / "evaluation"
    # Rollouts of an earlier rung, or of one that was cut short.
    shutil.rmtree(folder, ignore_errors=True)
    # An engine knows a policy by its name, and must not take one rung's for another's.
    name = f"{ascent.out_dir.name}@{rung}"
    policy = ascent.out_dir / (MERGED if ascent.training.merge else ADAPTER)
    jobs = evaluation_jobs(name, str(policy), plan.tasks, plan.evaluation, folder)
    generation = plan.runtime.generation
    if plan.runtime.sweep.distributed:
        from depo.stages.rollouts import run_jobs

        run_jobs(jobs, plan.env, plan.student, generation, ascent.spec.name)
    else:
        settings = WorkerSettings(plan.env, plan.student, generation, None)
        _SHARED.rollouts(settings, plan.base.model_dir, jobs)
    collect(name, plan.evaluation, folder)
    return read_table(folder / EPISODES, Episode)


def _means(ascent: Ascent, episodes: list[Episode]) -> dict[str, float]:
    """The metrics of the primary decoding; one over no episodes is left out."""
    ratios = episode_terms(judged(episodes, ascent.plan.evaluation.success_reward)).ratios
    return {m.key: float(value) for m, value in zip(METRICS, ratios, strict=True) if value == value}


def _standing(out_dir: Path, rungs: int) -> list[dict[str, Any]]:
    """The rungs that a trial need not climb again: those up to the last one it can go on from."""
    rows = read_rungs(out_dir)
    while rows and rows[-1]["rung"] < rungs and not checkpoint_of(out_dir, rows[-1]).is_dir():
        rows.pop()
    if (
        rows
        and rows[-1]["rung"] == rungs
        and not ((out_dir / ADAPTER).is_dir() or (out_dir / MERGED).is_dir())
    ):
        rows = []
    write_atomic(out_dir / RUNGS, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def _length(training: TrainSpec) -> int:
    rows = training_rows(_SHARED.sources.table(training), training.method)
    return num_steps(training.method, rows.count)


def _step_of(checkpoint: Path | None) -> int:
    return 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])


def _by_adapter(plan: TrialPlan, method: MethodConfig) -> bool:
    """Whether the engine takes the trial's adapter as it is."""
    generation = plan.runtime.generation
    if method.full_parameters or plan.base.full_parameters or generation.engine == "transformers":
        return False
    return find_spec("vllm") is not None and serves_adapters(generation.vllm, generation.num_gpus)


def _require_compatible(before: MethodConfig, now: MethodConfig) -> None:
    """Raise `ConfigError` where weights or optimizer of one method do not fit the other."""
    shapes = [
        ("lora", before.lora, now.lora),
        ("full_parameters", before.full_parameters, now.full_parameters),
    ]
    kinds = [("objective", *(objective(m.objective).kind for m in (before, now)))]
    for name, old, new in [*shapes, *kinds]:
        if old != new:
            raise ConfigError(
                f"sweep.space: a trial cannot go on from a checkpoint of another {name}; leave {name} out of "
                "the space of a population"
            )
