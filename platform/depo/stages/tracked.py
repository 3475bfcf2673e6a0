"""The experiment's run in the tracking store, and what every mirrored stage and trial asks of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType

from depo.config.schema import ExperimentConfig
from depo.records import Manifest
from depo.stages.base import MANIFEST, read_manifest
from depo.stages.mirrored import Mirrored
from depo.tracking.run import Lineage, TrackedRun
from depo.tracking.store import destination, embedded, open_run

_STORE = "mlflow.db"
_DEPTHS = ("*", "*/*", "*/*/*")
_NOT_STAGES = {"superseded", "sweep", "ray"}


class TrackedExperiment:
    """Opens the store, and imports MLflow, once there is something to tell it."""

    def __init__(self, config: ExperimentConfig, run_dir: Path) -> None:
        self._config, self._run_dir = config, run_dir
        self._store = run_dir.parent / _STORE
        self._root: TrackedRun | None = None
        self._sources: dict[str, tuple[Manifest, Path]] | None = None
        self.mirrored = Mirrored(run_dir, destination(config.tracking, self._store, config.name))
        file = embedded(config.tracking, self._store)
        if file is not None and not file.is_file():
            self.mirrored.forget()

    @property
    def enabled(self) -> bool:
        """Whether the configuration wants anything mirrored."""
        return self._config.tracking.enabled

    def run(self) -> TrackedRun:
        """The experiment's own run."""
        if self._root is None:
            config = self._config
            key = str(self._run_dir.resolve())
            self._root = open_run(config.tracking, self._store, config.name, key)
            self._root.log(params=config.model_dump(mode="json"))
        return self._root

    def close(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the experiment's run, where it was opened."""
        if self._root is not None:
            self._root.__exit__(kind, error, trace)

    def told(self, run: TrackedRun, key: str) -> None:
        """Note that all of `key` is in the store, where nothing failed."""
        if not run.broken:
            self.mirrored.add(key)

    def finished(self) -> list[tuple[Manifest, Path]]:
        """Manifest and directory of the finished stages in the run directory, oldest first."""
        found = []
        for depth in _DEPTHS:
            for path in self._run_dir.glob(f"{depth}/{MANIFEST}"):
                folder = path.parent
                manifest = read_manifest(folder)
                if manifest and not _NOT_STAGES & set(folder.relative_to(self._run_dir).parts):
                    found.append((manifest, folder))
        return sorted(found, key=lambda pair: pair[0].finished)

    def adapter(self, run: TrackedRun, out_dir: Path) -> None:
        """The trained adapter of a stage, where the configuration wants it."""
        folder = out_dir / "adapter"
        if self._config.tracking.adapters and folder.is_dir():
            run.artifact(folder)

    def lineage(self, inputs: Mapping[str, str]) -> list[Lineage]:
        """The data sets that stand behind a stage's inputs (name to fingerprint)."""
        if self._sources is None or not set(inputs.values()) <= self._sources.keys():
            self._sources = {m.fingerprint: (m, folder) for m, folder in self.finished()}
        found = []
        for name, fingerprint in inputs.items():
            manifest, folder = self._sources.get(fingerprint, (None, self._run_dir))
            profile = {"rows": manifest.rows, "errors": manifest.errors} if manifest else {}
            found.append(Lineage(name, fingerprint, str(folder.resolve()), profile))
        return found


def span(manifest: Manifest) -> tuple[float, float]:
    """When a stage started and ended, in seconds since the epoch."""
    ended = datetime.fromisoformat(manifest.finished).timestamp()
    return ended - manifest.seconds, ended
