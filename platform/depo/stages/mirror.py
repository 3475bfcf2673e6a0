"""What MLflow is told of a run: each finished stage as a child of the experiment's run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from depo.config.schema import ExperimentConfig
from depo.records import Manifest
from depo.stages.base import StageSpec
from depo.tracking.mlflow import open_tracker
from depo.training.metrics import METRICS, read_metrics

_LIVE_S = 10.0


class Mirror:
    """Context manager around a run; `stage` mirrors a manifest, the curves and artifacts beside it."""

    def __init__(self, config: ExperimentConfig, run_dir: Path) -> None:
        self._tracker = open_tracker(
            config.tracking,
            default_store=run_dir.parent / "mlflow.db",
            experiment=config.name,
            params=config.model_dump(mode="json"),
            key=str(run_dir.resolve()),
        )

    def __enter__(self) -> Self:
        self._tracker.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tracker.__exit__(kind, error, trace)

    @contextmanager
    def live(self, kind: str, spec: StageSpec) -> Iterator[None]:
        """While a stage runs, its curves every ten seconds."""
        stop = threading.Event()
        tags = {"depo.kind": kind, "depo.fingerprint": spec.fingerprint}
        with self._tracker.child(spec.name, spec.config, tags, spec.fingerprint) as run:

            def loop() -> None:
                while not stop.wait(_LIVE_S):
                    run.curve(read_metrics(spec.out_dir / METRICS))

            thread = threading.Thread(target=loop, daemon=True)
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join()

    def stage(self, kind: str, manifest: Manifest, out_dir: Path) -> None:
        """Mirror one finished stage or trial."""
        tags = {"depo.kind": kind, "depo.fingerprint": manifest.fingerprint}
        with self._tracker.child(manifest.stage, manifest.config, tags, manifest.fingerprint) as run:
            run.metrics({"rows": manifest.rows, "errors": manifest.errors, "seconds": manifest.seconds})
            run.metrics(manifest.metrics)
            run.curve(read_metrics(out_dir / METRICS))
            if kind == "report":
                run.artifact(out_dir / "index.html")
                run.artifact(out_dir.parent / "results.json")
