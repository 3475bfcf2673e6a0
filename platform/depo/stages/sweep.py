"""A sweep: Ray Tune over one method's settings, each trial trained and tried on validation tasks.

What lies left of the method (data, pi_BC, reference log-probs) is computed once and shared. A trial
is a stage of its own, named by its settings, so a sweep started again does only what is missing.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune

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
from depo.records import Episode, Manifest, Task, content_hash
from depo.stages.base import Outcome, StageSpec, begin, done, finish
from depo.stages.cluster import absolute, connect
from depo.stages.evaluate import EPISODES, collect, evaluation_jobs, evaluation_tasks
from depo.stages.jobs import WorkerSettings
from depo.stages.progress import say
from depo.stages.rollouts import run_jobs
from depo.stages.train import run_training
from depo.stages.worker import RolloutWorker
from depo.training.run import TrainSpec, train


@dataclass(frozen=True)
class SweepPlan:
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


@dataclass(frozen=True)
class Trial:
    """One finished setting of a sweep."""

    settings: dict[str, float]
    manifest: Manifest
    out_dir: Path

    def row(self) -> dict[str, Any]:
        """Settings and metrics side by side, as the report and `--json` show them."""
        return {**self.settings, **self.manifest.metrics, "seconds": self.manifest.seconds}


def plan_sweep(
    config: ExperimentConfig, sweep: SweepConfig, base: TrainSpec, inputs: dict[str, str], out_dir: Path
) -> SweepPlan:
    """Trials of `base` on the first validation tasks, decoded as the evaluation's first decoding."""
    evaluation = config.evaluation.model_copy(
        update={
            "split": "validation",
            "tasks": sweep.tasks,
            "skip": 0,
            "decoding": config.evaluation.decoding[:1],
        }
    )
    return SweepPlan(
        base=base,
        tasks=evaluation_tasks(config.env, evaluation),
        evaluation=evaluation,
        env=config.env,
        student=config.student,
        runtime=config.runtime,
        inputs=inputs,
        out_dir=absolute(out_dir),
    )


def combinations(sweep: SweepConfig) -> list[dict[str, float]]:
    """The settings of every trial: the product of the grid's values, in the grid's order."""
    names = list(sweep.grid)
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*sweep.grid.values())]


def trial_spec(plan: SweepPlan, settings: Mapping[str, Any]) -> StageSpec:
    """The stage that a trial is."""
    method = _with(plan.base.method, settings)
    name = "-".join(f"{key}={value:g}" for key, value in settings.items())
    config = {
        "method": method.model_dump(mode="json"),
        "evaluation": plan.evaluation.model_dump(mode="json"),
        "tasks": content_hash([task.id for task in plan.tasks]),
    }
    return StageSpec(f"trial {name}", Path(plan.out_dir) / name, config, plan.inputs)


def run_trial(settings: Mapping[str, Any], plan: SweepPlan) -> dict[str, float]:
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


def sweep(plan: SweepPlan, config: SweepConfig) -> list[Trial]:
    """Run every trial that has no manifest yet; all trials, the best by `config.metric` first."""
    settings = combinations(config)
    todo = [s for s in settings if done(trial_spec(plan, s)) is None]
    known = len(settings) - len(todo)
    say(
        f"[sweep] {len(settings)} trials over {', '.join(config.grid)}" + (f", {known} done" if known else "")
    )
    if todo:
        _tune(plan, todo)
    trials = []
    for setting in settings:
        spec = trial_spec(plan, setting)
        manifest = done(spec)
        if manifest is not None:
            trials.append(Trial(setting, manifest, spec.out_dir))
    sign = 1 if config.mode == "min" else -1
    return sorted(trials, key=lambda t: sign * t.manifest.metrics.get(config.metric, float("inf")))


def _tune(plan: SweepPlan, todo: list[dict[str, float]]) -> None:
    """Let Ray Tune run the trials in `todo`. Raises the error of the first trial that failed."""
    # Tune's own tables would come between our lines, whatever `verbose` says.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    connect(plan.runtime)
    width = plan.runtime.sweep
    shared = ray.put(plan)
    # A trial that starts workers of its own must leave them the room.
    own = (
        {"cpu": 0.01, "gpu": 0}
        if width.distributed
        else {"cpu": width.cpus_per_trial, "gpu": width.gpus_per_trial}
    )

    def trial(setting: dict[str, Any]) -> dict[str, float]:
        return run_trial(setting["settings"], ray.get(shared))

    results = tune.Tuner(
        tune.with_resources(trial, own),
        param_space={"settings": tune.grid_search(todo)},
        tune_config=tune.TuneConfig(max_concurrent_trials=width.max_concurrent, reuse_actors=True),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(Path(plan.out_dir) / "ray"),
            verbose=0,
            callbacks=[_Progress(len(todo))],
        ),
    ).fit()
    for error in results.errors:
        raise error


class _Progress(tune.Callback):
    """A line for every trial that starts or ends."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        say(f"[sweep] {_settings(trial)} starts")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._done += 1
        result = trial.last_result or {}
        shown = " ".join(
            f"{k} {result[k]:.3g}" for k in ("success", "tokens_all", "steps_all") if k in result
        )
        say(f"[sweep] {self._done}/{self._total} trials · {_settings(trial)} · {shown}")


def _with(method: MethodConfig, settings: Mapping[str, Any]) -> MethodConfig:
    """The method with some settings replaced, checked anew."""
    return MethodConfig.model_validate({**method.model_dump(), **settings})


def _settings(trial: Any) -> str:
    return " ".join(f"{key}={value:g}" for key, value in trial.config["settings"].items())


def _means(episodes: list[Episode], config: EvaluationConfig) -> dict[str, float]:
    """Means of the primary decoding by metric; a metric over no tasks is left out."""
    primary = [e for e in episodes if e.decoding == config.decoding[0]]
    found = summarise(primary, config.bootstrap, config.seed)
    return {m.key: found[m.key]["mean"] for m in METRICS if found[m.key]["mean"] is not None}
