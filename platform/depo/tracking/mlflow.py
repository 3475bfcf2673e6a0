"""MLflow as a mirror of a run: one parent run per experiment, a child per stage and trial.

Nothing reads what is written here, so losing it loses nothing: the first failure is told in one
line on stderr and tracking stays silent from then on. Runs are found again by fingerprint, so a
run that is resumed or repeated updates its own runs and makes no new ones.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from depo.config.schema import TrackingConfig
from depo.records import content_hash

T = TypeVar("T")

KEY_TAG = "depo.key"
PARENT_TAG = "mlflow.parentRunId"
CHANGED_TAG = "depo.changed"
"""Tag with the parameters whose value is no longer the one first logged."""
_MAX_VALUE = 500  # characters MLflow keeps of a parameter
_MAX_TAG = 4000  # characters
_METRICS_PER_CALL, _PARAMS_PER_CALL = 1000, 100  # most that `log_batch` takes
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # a dead server must not hold up the run
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


class TrackedRun(Protocol):
    """One run to write to."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Parameters; nested mappings become dotted names."""
        ...

    def metrics(self, values: Mapping[str, Any], step: int = 0) -> None:
        """Numbers at one step, in place of earlier ones; nested mappings become dotted names.

        What is not a finite number is left out.
        """
        ...

    def curve(self, rows: Iterable[Mapping[str, Any]], step: str = "step") -> None:
        """Rows of a `metrics.jsonl`, each with its step under `step`; steps already there are kept."""
        ...

    def artifact(self, path: Path) -> None:
        """A file, or a folder with all that is in it."""
        ...


class Tracker(TrackedRun, Protocol):
    """The parent run of an experiment; a context manager that ends it as FINISHED or FAILED."""

    def child(
        self,
        name: str,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        fingerprint: str = "",
    ) -> Any:
        """Context manager of a `TrackedRun` below the parent.

        The child with the same fingerprint (by default that of name and params) is used again.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class NullTracker:
    """A tracker that keeps nothing."""

    def params(self, values: Mapping[str, Any]) -> None:
        return

    def metrics(self, values: Mapping[str, Any], step: int = 0) -> None:
        return

    def curve(self, rows: Iterable[Mapping[str, Any]], step: str = "step") -> None:
        return

    def artifact(self, path: Path) -> None:
        return

    @contextmanager
    def child(
        self,
        name: str,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        fingerprint: str = "",
    ) -> Iterator[TrackedRun]:
        yield self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


def open_tracker(
    config: TrackingConfig,
    default_store: Path,
    experiment: str,
    params: Mapping[str, Any] | None = None,
    key: str = "",
) -> Tracker:
    """The tracker of one experiment; a silent one where tracking is off or cannot be had.

    `default_store` is the SQLite file that is used, and made, where `config.uri` is not set;
    artifacts then lie beside it, in `<stem>-artifacts/`. `params` are the parent run's parameters.
    The parent run with the same `key` (by default a hash of experiment and params) is used again.
    """
    if not config.enabled:
        return NullTracker()
    guard = _Guard()
    store = default_store.resolve()
    uri = config.uri or f"sqlite:///{store}?timeout=60"
    artifacts = None if config.uri else store.with_name(f"{store.stem}-artifacts").as_uri()
    key = content_hash(key or [experiment, dict(params or {})])
    opened = guard.attempt(
        lambda: _open(uri, config.experiment or experiment, artifacts, experiment, key, store)
    )
    if opened is None:
        return NullTracker()
    tracker = MlflowTracker(*opened, guard)
    tracker.params(params or {})
    return tracker


class _Guard:
    """Lets tracking fail without failing the run: warns once, then drops everything."""

    def __init__(self) -> None:
        self.broken = False

    def attempt(self, action: Callable[[], T], last: bool = False) -> T | None:
        """The action's answer; None after the first failure, of whatever kind it was.

        A `last` action, which ends a run, is still tried then, in silence.
        """
        if self.broken and not last:
            return None
        try:
            return action()
        except Exception as error:  # a mirror: no failure of it may stop what it mirrors
            if self.broken:
                return None
            self.broken = True
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            print(f"tracking: stopped, the run goes on ({reason})", file=sys.stderr, flush=True)
            return None


class MlflowRun:
    """A `TrackedRun` in MLflow."""

    def __init__(self, client: Any, run_id: str, is_new: bool, guard: _Guard) -> None:
        self._client = client
        self.run_id = run_id
        self._is_new = is_new
        self._guard = guard

    def params(self, values: Mapping[str, Any]) -> None:
        self._guard.attempt(lambda: self._log_params(flatten(values)))

    def metrics(self, values: Mapping[str, Any], step: int = 0) -> None:
        row = {**_numbers(values), "step": step}
        self._guard.attempt(lambda: self._log_rows([row], "step", renew=True))

    def curve(self, rows: Iterable[Mapping[str, Any]], step: str = "step") -> None:
        self._guard.attempt(lambda: self._log_rows(list(rows), step))

    def artifact(self, path: Path) -> None:
        self._guard.attempt(lambda: self._log_artifact(Path(path)))

    def finish(self, status: str) -> None:
        self._guard.attempt(lambda: self._client.set_terminated(self.run_id, status), last=True)

    def _log_params(self, values: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        there = {} if self._is_new else self._client.get_run(self.run_id).data.params
        new = [Param(name, value) for name, value in values.items() if name not in there]
        for start in range(0, len(new), _PARAMS_PER_CALL):
            self._client.log_batch(self.run_id, params=new[start : start + _PARAMS_PER_CALL])
        # MLflow keeps a parameter's first value for good: what it is now stands in a tag.
        changed = [f"{name}={value}" for name, value in values.items() if there.get(name, value) != value]
        if changed:
            self._client.set_tag(self.run_id, CHANGED_TAG, ", ".join(changed)[:_MAX_TAG])

    def _log_rows(self, rows: list[Mapping[str, Any]], step: str, renew: bool = False) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = {
            (name, int(row[step])): value
            for row in rows
            if step in row
            for name, value in _numbers(row).items()
            if name != step
        }
        there = self._points_there({name for name, _ in points})
        new = [
            Metric(name, value, now, at)
            for (name, at), value in points.items()
            if (name, at) not in there or (renew and there[name, at] != value)
        ]
        for start in range(0, len(new), _METRICS_PER_CALL):
            self._client.log_batch(self.run_id, metrics=new[start : start + _METRICS_PER_CALL])

    def _points_there(self, names: set[str]) -> dict[tuple[str, int], float]:
        """(metric, step) to the newest value that the run already has."""
        if self._is_new:
            return {}
        known = names & set(self._client.get_run(self.run_id).data.metrics)
        points = [m for name in known for m in self._client.get_metric_history(self.run_id, name)]
        return {(m.key, m.step): m.value for m in sorted(points, key=lambda m: m.timestamp)}

    def _log_artifact(self, path: Path) -> None:
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), path.name)
        else:
            self._client.log_artifact(self.run_id, str(path))


class MlflowTracker(MlflowRun):
    """A `Tracker` in MLflow."""

    def __init__(self, client: Any, experiment_id: str, run_id: str, is_new: bool, guard: _Guard) -> None:
        super().__init__(client, run_id, is_new, guard)
        self._experiment_id = experiment_id

    @contextmanager
    def child(
        self,
        name: str,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        fingerprint: str = "",
    ) -> Iterator[TrackedRun]:
        key = fingerprint or content_hash([name, dict(params or {})])
        marks = {**(tags or {}), PARENT_TAG: self.run_id, KEY_TAG: key}
        found = self._guard.attempt(
            lambda: _find_or_create(self._client, self._experiment_id, name, key, marks, self.run_id)
        )
        if found is None:
            yield NullTracker()
            return
        run = MlflowRun(self._client, *found, self._guard)
        run.params(params or {})
        with _ending(run):
            yield run

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(_status(error))


@contextmanager
def _ending(run: MlflowRun) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        run.finish(_status(error))
        raise
    run.finish("FINISHED")


def _status(error: BaseException | None) -> str:
    if error is None:
        return "FINISHED"
    return "FAILED" if isinstance(error, Exception) else "KILLED"


def _open(
    uri: str, experiment: str, artifacts: str | None, name: str, key: str, store: Path
) -> tuple[Any, str, str, bool]:
    """(client, experiment id, parent run id, whether the parent is new); makes a fresh store."""
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    with _no_info():
        from mlflow import MlflowClient

        if artifacts is not None:
            store.parent.mkdir(parents=True, exist_ok=True)
        client = MlflowClient(tracking_uri=uri)
        known = client.get_experiment_by_name(experiment)
    experiment_id = known.experiment_id if known else client.create_experiment(experiment, artifacts)
    run_id, is_new = _find_or_create(client, experiment_id, name, key, {KEY_TAG: key}, "")
    return client, experiment_id, run_id, is_new


def _find_or_create(
    client: Any, experiment_id: str, name: str, key: str, tags: Mapping[str, str], parent: str
) -> tuple[str, bool]:
    """(id, whether it is new) of the run with `key` below `parent` ("" for parents themselves)."""
    same = client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{key}'")
    for run in same:
        if run.data.tags.get(PARENT_TAG, "") == parent:
            client.update_run(run.info.run_id, status="RUNNING")
            for tag, value in tags.items():
                if run.data.tags.get(tag) != value:
                    client.set_tag(run.info.run_id, tag, value)
            return run.info.run_id, False
    return client.create_run(experiment_id, tags=dict(tags), run_name=name).info.run_id, True


@contextmanager
def _no_info() -> Iterator[None]:
    """Holds back what MLflow and alembic say while they import and lay out a fresh store."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted names with text values, each cut to the length MLflow keeps."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            text = str(value)
            flat[f"{prefix}{name}"] = text if len(text) <= _MAX_VALUE else text[: _MAX_VALUE - 1] + "…"
    return flat


def _numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The finite numbers in nested mappings, under dotted names."""
    flat: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_numbers(value, f"{prefix}{name}."))
        elif isinstance(value, (bool, int, float)) and math.isfinite(value):
            flat[f"{prefix}{name}"] = float(value)
    return flat
