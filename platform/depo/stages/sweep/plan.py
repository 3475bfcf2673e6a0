"""What a trial of a sweep is known by: its settings, what it reads, how it is judged, where it came from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depo.config.base import RESOLVED, ConfigError
from depo.config.method import MethodConfig
from depo.config.runtime import RuntimeConfig
from depo.config.schema import (
    EnvConfig,
    EvaluationConfig,
    ExperimentConfig,
    StudentConfig,
    SweepConfig,
)
from depo.config.sweep import with_settings
from depo.data.store import write_atomic
from depo.records import Task, content_hash
from depo.stages.base import StageSpec
from depo.stages.tasksets import evaluation_tasks
from depo.training.spec import TrainSpec

RUNGS = "rungs.jsonl"
CHECKPOINTS = "checkpoints"
RAY = "ray"
"""Ray Train's own files, while a trial of several workers trains."""
TRIALS = "trials"
PLACE = ("rung", "rungs", "step", "seconds", "episodes")
"""What a row of `rungs.jsonl` holds beside metrics."""

STOPPED = "stopped_rung"
"""In the metrics of a trial that a scheduler stopped: the rung where it did."""

_ORIGIN = "origin.json"
_LONGEST_NAME = 80
_JUDGED_BY = {"decoding", "temperature", "max_steps", "max_tokens", "seeds", "success_reward"}


@dataclass(frozen=True)
class TrialPlan:
    """What all trials of a sweep share."""

    base: TrainSpec
    """The swept method as configured; a trial replaces settings of its `method`."""
    tasks: tuple[Task, ...]
    evaluation: EvaluationConfig
    env: EnvConfig
    student: StudentConfig
    runtime: RuntimeConfig
    inputs: dict[str, str]
    """Fingerprints of what every trial reads."""
    out_dir: str
    rungs: int = 1
    """Evaluations of a trial, at equal distances during training."""
    population: bool = False
    """Trials go on from each other's checkpoints, which therefore stay until the sweep ends."""


@dataclass(frozen=True)
class RungResult:
    """What a trial is worth at one of its rungs."""

    rung: int
    """From 1; the last is `rungs`, at the end of training."""
    rungs: int
    metrics: dict[str, float]
    checkpoint: Path | None
    """From which this trial, or another with other settings, can go on; None at the last rung."""


Report = Callable[[RungResult], None]


def plan_trials(
    config: ExperimentConfig, sweep: SweepConfig, base: TrainSpec, inputs: dict[str, str], out_dir: Path
) -> TrialPlan:
    """Trials of `base` on the first validation tasks, decoded as the evaluation's first decoding.

    Raises `ConfigError` where there are not so many tasks.
    """
    evaluation = config.evaluation.model_copy(
        update={
            "split": "validation",
            "tasks": sweep.tasks,
            "skip": 0,
            "decoding": config.evaluation.decoding[:1],
            "controlled": {},
            "suites": {},
        }
    )
    return TrialPlan(
        base=base,
        tasks=evaluation_tasks(config.env, evaluation, "sweep"),
        evaluation=evaluation,
        env=config.env,
        student=config.student,
        runtime=config.runtime,
        inputs=inputs,
        out_dir=str(out_dir.resolve()),
        rungs=sweep.rungs,
        population=sweep.scheduler == "pbt",
    )


def trial_spec(
    plan: TrialPlan, settings: Mapping[str, Any], resume: Path | None = None, member: str = ""
) -> StageSpec:
    """The stage that a trial is.

    `member` names one of a population, two of which may come to hold the same settings. A trial that goes
    on from its own checkpoint is the trial that it was; from another's, where that one stood is part of
    what it is. Raises `ConfigError` for settings that the method does not take, or a `resume` that is none.
    """
    method = with_settings(plan.base.method, settings).model_dump(mode="json")
    config = {
        "method": method,
        "dtype": plan.base.dtype,
        "max_length": plan.base.max_length,
        "too_long": plan.base.too_long,
        "env": plan.env.model_dump(mode="json"),
        "evaluation": plan.evaluation.model_dump(mode="json", include=_JUDGED_BY),
        "tasks": content_hash([task.id for task in plan.tasks]),
        "rungs": plan.rungs,
    }
    if member:
        config["member"] = member
    before = _before(resume, method, member) if resume is not None else None
    if before is not None:
        config["from"] = before
    words = [*([member] if member else []), *(f"{key}={_short(value)}" for key, value in settings.items())]
    name = "-".join(words)
    folder = re.sub(r"[^\w.=+-]", "_", name)[:_LONGEST_NAME]
    identity = content_hash([config, plan.inputs], length=8)
    out_dir = Path(plan.out_dir) / TRIALS / f"{folder}-{identity}"
    return StageSpec(f"trial {name}", out_dir, config, plan.inputs)


def note_origin(checkpoint: Path, spec: StageSpec, row: Mapping[str, Any]) -> None:
    """Write into a checkpoint which trial it is of, and where that one stood."""
    origin = {
        "trial": spec.fingerprint,
        "step": row["step"],
        "rung": row["rung"],
        "method": spec.config["method"],
        "member": spec.config.get("member", ""),
        "from": spec.config.get("from"),
    }
    write_atomic(checkpoint / _ORIGIN, json.dumps(origin, indent=1))


def method_of(checkpoint: Path) -> MethodConfig:
    """The settings that a checkpoint was trained with. Raises `ConfigError` where it is none of a trial."""
    return MethodConfig.model_validate(_origin(checkpoint)["method"], context=RESOLVED)


def read_rungs(out_dir: Path) -> list[dict[str, Any]]:
    """The rungs of a trial so far; a last line still being written is left out."""
    path = out_dir / RUNGS
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def metrics_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The metrics in a row of `rungs.jsonl`."""
    return {name: value for name, value in row.items() if name not in PLACE}


def checkpoint_of(out_dir: Path, row: Mapping[str, Any]) -> Path:
    """Where the checkpoint of a rung is, or was."""
    return out_dir / CHECKPOINTS / f"checkpoint-{row['step']}"


def tell(out_dir: Path, row: Mapping[str, Any], report: Report | None) -> None:
    """Report a rung; may never return."""
    if report is not None:
        checkpoint = checkpoint_of(out_dir, row)
        there = checkpoint if checkpoint.is_dir() else None
        report(RungResult(row["rung"], row["rungs"], metrics_of(row), there))


def _before(resume: Path, method: dict[str, Any], member: str) -> dict[str, Any] | None:
    """Which checkpoint of another trial one began with."""
    origin = _origin(resume)
    if (origin["method"], origin["member"]) == (method, member):
        before: dict[str, Any] | None = origin["from"]
        return before
    return {"trial": origin["trial"], "step": origin["step"]}


def _origin(checkpoint: Path) -> dict[str, Any]:
    path = checkpoint / _ORIGIN
    if not path.is_file():
        raise ConfigError(f"{checkpoint}: no checkpoint of a trial there; start the sweep anew")
    origin: dict[str, Any] = json.loads(path.read_text())
    return origin


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
