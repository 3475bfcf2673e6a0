"""What MLflow is told of a sweep: a run of its own, its trials below, and below each what it did."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from depo.records import Manifest, content_hash
from depo.stages.base import read_manifest
from depo.stages.tracked import TrackedExperiment, span
from depo.tracking.run import TrackedRun
from depo.training.metrics import METRICS, read_metrics

CAUSE_TAG = "depo.cause"
"""Tag of a trial that failed: the root cause, one line."""
STOPPED_TAG = "depo.stopped_rung"
"""Tag of a trial that a scheduler stopped: its last rung."""
RUNGS, RESULTS = "rungs.jsonl", "results.json"
_PAGES = (RESULTS, "index.html", "sweep.md", "sweep.svg")
_STATES = ("done", "stopped", "failed", "missing")
_TRAIN = "train/"
T = TypeVar("T")


class SweepMirror:
    """Context manager of a sweep's run, made when there is a first trial to tell of.

    A trial is told of once, whatever start finished it. On leaving, the trials of the sweep's
    `results.json` that the store still lacks follow, and the sweep's own page.
    """

    def __init__(
        self, experiment: TrackedExperiment, out_dir: Path, params: Mapping[str, Any], fingerprint: str
    ) -> None:
        self._experiment, self._out_dir = experiment, out_dir
        self._params, self._fingerprint = params, fingerprint
        self._run: TrackedRun | None = None
        self._started = time.time()

    def __enter__(self) -> Self:
        self._started = time.time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._experiment.enabled:
            self._complete()
        if self._run is not None:
            self._run.__exit__(kind, error, trace)

    def trial(self, settings: Mapping[str, Any], manifest: Manifest, out_dir: Path) -> None:
        """Mirror a trial that finished or that a scheduler stopped; one mirrored before costs nothing."""
        key = content_hash([self._fingerprint, manifest.fingerprint, manifest.finished])
        if not self._experiment.enabled or key in self._experiment.mirrored:
            return
        started, ended = span(manifest)
        tags = {"depo.kind": "trial", "depo.fingerprint": manifest.fingerprint}
        stopped = manifest.metrics.get("stopped_rung")
        if stopped is not None:
            tags[STOPPED_TAG] = str(int(stopped))
        own = self._own()
        with own.child(manifest.stage, out_dir.name, tags, started) as run:
            rungs = read_metrics(out_dir / RUNGS)
            last = max((int(row["step"]) for row in rungs), default=0)
            run.log(settings, {**manifest.metrics, "seconds": manifest.seconds}, rungs, at=last)
            run.reads(self._experiment.lineage(manifest.inputs), "trial")
            self._parts(run, manifest, out_dir)
            self._experiment.adapter(run, out_dir)
            run.ends(at=ended)
        self._experiment.told(own, key)

    def failed(self, name: str, settings: Mapping[str, Any], error: str) -> None:
        """Mirror a trial that failed; `name` is its directory's, `error` the cause in one line.

        Once the trial is made good, the same run is updated.
        """
        key = content_hash([self._fingerprint, name, error])
        if not self._experiment.enabled or key in self._experiment.mirrored:
            return
        tags = {"depo.kind": "trial", CAUSE_TAG: error}
        own = self._own()
        with own.child(f"trial {name}", name, tags) as run:
            run.log(settings)
            run.ends("FAILED")
        self._experiment.told(own, key)

    def _own(self) -> TrackedRun:
        if self._run is None:
            name = f"sweep {self._out_dir.name}"
            tags = {"depo.kind": "sweep", "depo.fingerprint": self._fingerprint}
            key = content_hash([name, self._fingerprint])
            self._run = self._experiment.run().child(name, key, tags, self._started)
            self._run.log(self._params)
        return self._run

    def _parts(self, run: TrackedRun, manifest: Manifest, out_dir: Path) -> None:
        """Training and evaluation of a trial, each with its own share of settings and metrics."""
        started, ended = span(manifest)
        trained = {k: v for k, v in manifest.metrics.items() if k.startswith(_TRAIN)}
        tried = {k: v for k, v in manifest.metrics.items() if k not in trained}
        config = dict(manifest.config)
        parts: Sequence[tuple[str, Any, dict[str, Any], list[dict[str, float]]]] = (
            ("train", config.pop("method", {}), trained, thinned(read_metrics(out_dir / METRICS))),
            ("evaluate", config, tried, []),
        )
        for kind, params, metrics, rows in parts:
            with run.child(kind, kind, {"depo.kind": kind}, started) as part:
                part.log(params, metrics, rows)
                part.ends(at=ended)

    def _complete(self) -> None:
        """What the sweep's results tell and the store lacks."""
        path = self._out_dir / RESULTS
        if not path.is_file():
            return
        results = json.loads(path.read_text())
        for row in results["trials"]:
            folder = self._out_dir / row["dir"]
            if row["state"] == "failed":
                self.failed(folder.name, row["settings"], row["error"])
            elif (manifest := read_manifest(folder)) is not None:
                self.trial(row["settings"], manifest, folder)
        key = content_hash([self._fingerprint, results["trials"]])
        if key in self._experiment.mirrored:
            return
        own = self._own()
        own.log(metrics=_summary(results))
        for name in _PAGES:
            if (self._out_dir / name).is_file():
                own.artifact(self._out_dir / name)
        self._experiment.told(own, key)


def thinned(rows: Sequence[T], most: int = 100) -> list[T]:
    """At most so many rows at equal distances, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


def _summary(results: Mapping[str, Any]) -> dict[str, float]:
    """How many trials are in which state, and the metrics of the best."""
    trials = results["trials"]
    states = [trial["state"] for trial in trials]
    counts = {f"trials/{state}": float(states.count(state)) for state in _STATES}
    best = results["best"]
    return counts if best is None else {**counts, "best": trials[best]["metrics"]}
