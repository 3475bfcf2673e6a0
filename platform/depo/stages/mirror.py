"""What MLflow is told of a run: its finished stages and its sweeps, below the experiment's run."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from depo.config.schema import ExperimentConfig
from depo.records import Manifest
from depo.stages.base import StageSpec
from depo.stages.mirror_sweep import SweepMirror
from depo.stages.tracked import TrackedExperiment, span
from depo.threads import Background
from depo.tracking.run import TrackedRun
from depo.training.metrics import METRICS, read_metrics

_LIVE_S = 10.0


class Mirror:
    """Context manager around a run; `stage` mirrors a manifest, the curves and artifacts beside it.

    Entering it mirrors the finished stages that the store lacks, after an outage or where the store is
    new. MLflow is imported once there is something to tell it.
    """

    def __init__(self, config: ExperimentConfig, run_dir: Path) -> None:
        self._experiment = TrackedExperiment(config, run_dir)
        self._run_dir = run_dir

    def __enter__(self) -> Self:
        for manifest, out_dir in self.missing():
            self.stage(_kind(manifest.stage), manifest, out_dir)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._experiment.close(kind, error, trace)

    def missing(self) -> list[tuple[Manifest, Path]]:
        """Finished stages and their directories that the store lacks; none where tracking is off."""
        if not self._experiment.enabled:
            return []
        mirrored = self._experiment.mirrored
        return [pair for pair in self._experiment.finished() if pair[0].fingerprint not in mirrored]

    @contextmanager
    def live(self, kind: str, spec: StageSpec) -> Iterator[None]:
        """While a stage runs, its curves every ten seconds."""
        stop = threading.Event()
        tags = {"depo.kind": kind, "depo.fingerprint": spec.fingerprint}
        with self._experiment.run().child(spec.name, spec.fingerprint, tags) as run:
            run.log(params=spec.config)

            def loop() -> None:
                while not stop.wait(_LIVE_S):
                    run.log(rows=read_metrics(spec.out_dir / METRICS))

            thread = Background(loop, "tracking", run.failed)
            try:
                yield
            finally:
                stop.set()
                thread.join()

    def stage(self, kind: str, manifest: Manifest, out_dir: Path) -> None:
        """Mirror one finished stage."""
        experiment = self._experiment
        root = experiment.run()
        started, ended = span(manifest)
        tags = {"depo.kind": kind, "depo.fingerprint": manifest.fingerprint}
        with root.child(manifest.stage, manifest.fingerprint, tags, started) as run:
            counts = {"rows": manifest.rows, "errors": manifest.errors, "seconds": manifest.seconds}
            run.log(manifest.config, {**counts, **manifest.metrics}, read_metrics(out_dir / METRICS))
            run.reads(experiment.lineage(manifest.inputs), kind)
            experiment.adapter(run, out_dir)
            if kind == "report":
                self._report(run, out_dir)
            run.ends(at=ended)
        experiment.told(root, manifest.fingerprint)

    def sweep(self, name: str, params: Mapping[str, Any], fingerprint: str) -> SweepMirror:
        """Context manager of a sweep's run, below which its trials stand.

        `params` are what all trials share, and `fingerprint` is the hash of that: where an earlier start
        had the same one, its runs are gone on with.
        """
        out_dir = self._run_dir / "sweep" / name
        return SweepMirror(self._experiment, out_dir, params, fingerprint)

    def _report(self, run: TrackedRun, out_dir: Path) -> None:
        """The page, its tables and the results as files; the methods' means as the experiment's metrics."""
        results = out_dir.parent / "results.json"
        for path in (out_dir / "index.html", *sorted(out_dir.glob("*.md")), results):
            if path.is_file():
                run.artifact(path)
        if results.is_file():
            self._experiment.run().log(metrics=headline(json.loads(results.read_text())))


def headline(results: Mapping[str, Any]) -> dict[str, float]:
    """`<method>/<metric>` to its mean, of all that `results.json` gives a mean of a method."""
    return {
        f"{method}/{metric}": value["mean"]
        for method, values in results["methods"].items()
        for metric, value in values.items()
        if isinstance(value, Mapping) and value.get("mean") is not None
    }


def _kind(stage: str) -> str:
    """A stage's kind, from its name."""
    first = stage.split()[0]
    return "student" if first == "script" else first
