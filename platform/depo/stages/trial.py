"""One trial of a sweep: a method with some settings replaced, trained and tried on validation tasks.

What lies left of the method (data, pi_BC, reference log-probs) is computed once and shared. A trial is
a stage of its own, named by its settings, so a sweep started again does only what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from depo.config.runtime import RuntimeConfig
from depo.config.schema import (
    EnvConfig,
    EvaluationConfig,
    ExperimentConfig,
    MethodConfig,
    StudentConfig,
    SweepConfig,
)
from depo.data.store import read_table
from depo.evaluation.metrics import METRICS
from depo.evaluation.results import summarise
from depo.records import Episode, Task, content_hash
from depo.stages.base import Outcome, StageSpec, begin, done, finish
from depo.stages.cluster import absolute
from depo.stages.evaluate import EPISODES, collect, evaluation_jobs, evaluation_tasks
from depo.stages.jobs import WorkerSettings
from depo.stages.rollouts import run_jobs
from depo.stages.train import run_training
from depo.stages.worker import RolloutWorker
from depo.training.run import TrainSpec, train


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


def plan_trials(
    config: ExperimentConfig, sweep: SweepConfig, base: TrainSpec, inputs: dict[str, str], out_dir: Path
) -> TrialPlan:
    """Trials of `base` on the first validation tasks, decoded as the evaluation's first decoding."""
    evaluation = config.evaluation.model_copy(
        update={
            "split": "validation",
            "tasks": sweep.tasks,
            "skip": 0,
            "decoding": config.evaluation.decoding[:1],
        }
    )
    return TrialPlan(
        base=base,
        tasks=evaluation_tasks(config.env, evaluation),
        evaluation=evaluation,
        env=config.env,
        student=config.student,
        runtime=config.runtime,
        inputs=inputs,
        out_dir=absolute(out_dir),
    )


def trial_spec(plan: TrialPlan, settings: Mapping[str, Any]) -> StageSpec:
    """The stage that a trial is."""
    method = _with(plan.base.method, settings)
    name = "-".join(f"{key}={_short(value)}" for key, value in settings.items())
    config = {
        "method": method.model_dump(mode="json"),
        "evaluation": plan.evaluation.model_dump(mode="json"),
        "tasks": content_hash([task.id for task in plan.tasks]),
    }
    return StageSpec(f"trial {name}", Path(plan.out_dir) / name, config, plan.inputs)


def run_trial(settings: Mapping[str, Any], plan: TrialPlan) -> dict[str, float]:
    """Train and evaluate one setting; the metrics of its primary decoding."""
    spec = trial_spec(plan, settings)
    manifest = done(spec)
    if manifest is None:
        started = time.time()
        begin(spec)
        training = replace(
            plan.base,
            method=_with(plan.base.method, settings),
            out_dir=str(spec.out_dir),
        )
        jobs = evaluation_jobs(
            "trial", str(spec.out_dir / "model"), plan.tasks, plan.evaluation, spec.out_dir / "evaluation"
        )
        generation = plan.runtime.generation
        if plan.runtime.sweep.distributed:
            metrics = run_training(training, spec.out_dir / "ray", lambda _: None)
            run_jobs(jobs, plan.env, plan.student, generation, spec.name)
        else:
            metrics = train(training)
            worker = RolloutWorker(WorkerSettings(plan.env, plan.student, generation, None), jobs)
            for job in jobs:
                worker.run(job, job.tasks)
            worker.close()
        collect("trial", plan.evaluation, spec.out_dir / "evaluation")
        episodes = read_table(spec.out_dir / "evaluation" / EPISODES, Episode)
        measured = {f"train/{k}": v for k, v in metrics.items()} | _means(episodes, plan.evaluation)
        manifest = finish(spec, Outcome(rows=len(episodes), metrics=measured), started)
    return dict(manifest.metrics)


def _with(method: MethodConfig, settings: Mapping[str, Any]) -> MethodConfig:
    """The method with some settings replaced, checked anew."""
    return MethodConfig.model_validate({**method.model_dump(), **settings})


def _means(episodes: list[Episode], config: EvaluationConfig) -> dict[str, float]:
    """Means of the primary decoding by metric; a metric over no tasks is left out."""
    primary = [e for e in episodes if e.decoding == config.decoding[0]]
    found = summarise(primary, config.bootstrap, config.seeds[0])
    return {m.key: found[m.key]["mean"] for m in METRICS if found[m.key]["mean"] is not None}


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
