"""A sweep: Ray Tune over one method's settings, each trial trained and tried on validation tasks.

What lies left of the method (data, pi_BC, reference log-probs) is computed once and shared. A trial
is a stage of its own, named by its settings, so a sweep started again does only what is missing.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from depo.config.schema import (
    SweepConfig,
)
from depo.records import Manifest
from depo.stages.base import done
from depo.stages.cluster import connect
from depo.stages.progress import say
from depo.stages.trial import TrialPlan, run_trial, trial_spec


@dataclass(frozen=True)
class Trial:
    """One finished setting of a sweep."""

    settings: dict[str, Any]
    manifest: Manifest
    out_dir: Path

    def row(self) -> dict[str, Any]:
        """Settings and metrics side by side, as the report and `--json` show them."""
        return {**self.settings, **self.manifest.metrics, "seconds": self.manifest.seconds}


def combinations(sweep: SweepConfig) -> list[dict[str, Any]]:
    """The settings of every trial: the product of the grid's values, in the grid's order."""
    names = list(sweep.space)
    values = [v for v in sweep.space.values() if isinstance(v, list)]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*values)]


def sweep(plan: TrialPlan, config: SweepConfig) -> list[Trial]:
    """Run every trial that has no manifest yet; all trials, the best by `config.metric` first."""
    settings = combinations(config)
    todo = [s for s in settings if done(trial_spec(plan, s)) is None]
    known = len(settings) - len(todo)
    say(
        f"[sweep] {len(settings)} trials over {', '.join(config.space)}"
        + (f", {known} done" if known else "")
    )
    if todo:
        _tune(plan, todo)
    trials = []
    for setting in settings:
        spec = trial_spec(plan, setting)
        manifest = done(spec)
        if manifest is not None:
            trials.append(Trial(setting, manifest, spec.out_dir))
    metric, mode = next(iter(config.objectives.items()))
    sign = 1 if mode == "min" else -1
    return sorted(trials, key=lambda t: sign * t.manifest.metrics.get(metric, sign * float("inf")))


def _tune(plan: TrialPlan, todo: list[dict[str, Any]]) -> None:
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


def _settings(trial: Any) -> str:
    return " ".join(f"{key}={value}" for key, value in trial.config["settings"].items())
