"""One trial of a sweep: a method with some settings replaced, trained and tried on validation tasks.

What lies left of the method (data, pi_BC, reference log-probs) is computed once and shared. A trial is
a stage of its own, known by its settings, so a sweep started again does only what is missing. It is
evaluated at rungs, and goes on from the last one after a kill. What trains and evaluates is imported by
the process that does: the one that leads the sweep has no use for torch.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from depo.config.sweep import with_settings
from depo.policies.checkpoint import ADAPTER, MERGED
from depo.records import Manifest
from depo.stages.base import MANIFEST, Outcome, StageSpec, begin, done, finish
from depo.stages.sweep.failures import FAILED, note_failure
from depo.stages.sweep.plan import (
    CHECKPOINTS,
    RAY,
    STOPPED,
    Report,
    RungResult,
    TrialPlan,
    metrics_of,
    plan_trials,
    read_rungs,
    tell,
    trial_spec,
)

__all__ = [
    "STOPPED", "Report", "RungResult", "TrialPlan", "close_stopped", "plan_trials", "read_rungs", "release",
    "run_trial", "trial_spec",
]  # fmt: skip


def run_trial(
    settings: Mapping[str, Any],
    plan: TrialPlan,
    report: Report | None = None,
    resume: Path | None = None,
    member: str = "",
) -> dict[str, float]:
    """Train and evaluate one setting; the metrics of its primary decoding at its last rung.

    `report` gets each rung once it is in `rungs.jsonl`, also those that an earlier start reached, and may
    never return. `resume` is the checkpoint of a rung, this trial's or another's, to go on from. A trial
    that was stopped goes on. An error is noted in `failed.json` before it is raised.
    """
    spec = trial_spec(plan, settings, resume, member)
    manifest = done(spec)
    if manifest is not None and STOPPED not in manifest.metrics:
        for row in read_rungs(spec.out_dir):
            tell(spec.out_dir, row, report)
        return dict(manifest.metrics)
    (spec.out_dir / MANIFEST).unlink(missing_ok=True)
    started, clock = time.time(), time.monotonic()
    begin(spec)
    (spec.out_dir / FAILED).unlink(missing_ok=True)
    try:
        from depo.stages.sweep.rungs import climb

        row = climb(plan, spec, with_settings(plan.base.method, settings), resume, report, clock)
    except Exception as error:
        note_failure(spec.out_dir, error)
        raise
    manifest = _finish(spec, row, {}, started)
    if not plan.population:
        release(spec.out_dir, weights=False)
    return dict(manifest.metrics)


def close_stopped(spec: StageSpec) -> Manifest:
    """Close a trial that a scheduler stopped: a manifest with its last rung's metrics and `stopped_rung`.

    Raises `ValueError` for a trial that reached no rung.
    """
    rungs = read_rungs(spec.out_dir)
    if not rungs:
        raise ValueError(f"{spec.out_dir}: reached no rung, so there is nothing to close")
    seconds = sum(row["seconds"] for row in rungs)
    return _finish(spec, rungs[-1], {STOPPED: rungs[-1]["rung"]}, time.time() - seconds)


def release(out_dir: Path, weights: bool) -> None:
    """Give back what a trial that is over holds on disk: its checkpoints, and its `weights` too.

    Merged weights are given back in any case where there is the adapter that they were merged with.
    """
    folders = [CHECKPOINTS, RAY]
    if weights or (out_dir / ADAPTER).is_dir():
        folders.append(MERGED)
    for folder in [*folders, *([ADAPTER] if weights else [])]:
        shutil.rmtree(out_dir / folder, ignore_errors=True)


def _finish(spec: StageSpec, row: Mapping[str, Any], more: dict[str, float], started: float) -> Manifest:
    return finish(spec, Outcome(rows=row["episodes"], metrics=metrics_of(row) | more), started)
