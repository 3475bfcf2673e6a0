"""A run in MLflow and the runs below it, found again by their keys."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from depo.tracking.guard import Guard
from depo.tracking.values import Point, batches, flatten, numbers, points

KEY_TAG = "depo.key"
PARENT_TAG = "mlflow.parentRunId"
CHANGED_TAG = "depo.changed"
"""Tag with the parameters whose value is no longer the one first logged."""
_OURS = "depo."
_MAX_TAG = 4000  # characters
_CONTEXT_TAG = "mlflow.data.context"


@dataclass(frozen=True)
class Lineage:
    """A data set that a run reads."""

    name: str
    digest: str
    """Its fingerprint, at most 36 characters."""
    source: str
    """Where it lies."""
    profile: Mapping[str, Any]
    """What is known of it, such as its rows."""


@dataclass(frozen=True)
class Connection:
    """An experiment in a store, and the guard of all that is written to it."""

    client: Any
    experiment_id: str
    guard: Guard


class TrackedRun:
    """One run; a context manager that ends it as FINISHED, FAILED or KILLED.

    Runs come from `TrackedRun.root` and `child`. Where tracking is off or has failed, every method
    does nothing, and the children do nothing either.
    """

    def __init__(self, connection: Connection, run_id: str = "", found: Any = None) -> None:
        """`found` is the MLflow run of an earlier start; None where the run was made just now."""
        self._connection = connection
        self._client, self._guard = connection.client, connection.guard
        self.run_id = run_id
        self._tags: dict[str, str] = dict(found.data.tags) if found else {}
        self._params: dict[str, str] = dict(found.data.params) if found else {}
        self._metrics: set[str] = set(found.data.metrics) if found else set()
        """Metrics of an earlier start whose points were not read yet."""
        self._points: dict[Point, float] = {}
        self._children: dict[str, TrackedRun] | None = None if found else {}
        """By key; None until those of an earlier start were looked up."""
        self._status, self._ended = "", 0

    @classmethod
    def root(cls, connection: Connection, name: str, key: str) -> TrackedRun:
        """The experiment's own run with `key`, an earlier start's or a new one. May raise: not guarded."""
        same = connection.client.search_runs([connection.experiment_id], f"tags.`{KEY_TAG}` = '{key}'")
        for run in same:
            if PARENT_TAG not in run.data.tags:
                connection.client.update_run(run.info.run_id, status="RUNNING")
                return cls(connection, run.info.run_id, run)
        made = connection.client.create_run(connection.experiment_id, tags={KEY_TAG: key}, run_name=name)
        return cls(connection, made.info.run_id)

    @property
    def broken(self) -> bool:
        """Whether what was written may be missing: tracking is off, or something failed."""
        return self._guard.broken

    def child(
        self,
        name: str,
        key: str,
        tags: Mapping[str, str] | None = None,
        started: float | None = None,
    ) -> TrackedRun:
        """The run with `key` below this one, of an earlier start or a new one.

        `started` is the time of its start in seconds, by default now.
        """
        marks = {name: value[:_MAX_TAG] for name, value in (tags or {}).items()}
        marks |= {PARENT_TAG: self.run_id, KEY_TAG: key}
        run = self._guard.attempt(lambda: self._child(name, key, marks, started))
        return run or TrackedRun(self._connection)

    def log(
        self,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        rows: Iterable[Mapping[str, Any]] = (),
        step: str = "step",
        at: int = 0,
    ) -> None:
        """Parameters, numbers of the step `at`, and rows of numbers that hold their step under `step`.

        Nested mappings become dotted names, and what is not a finite number is no metric. A metric
        takes the place of an earlier one; a parameter keeps its first value, and `CHANGED_TAG` tells.
        """
        wanted = points(rows, step) | {(name, at): value for name, value in numbers(metrics or {}).items()}
        self._guard.attempt(lambda: self._log(flatten(params or {}), wanted))

    def failed(self, error: Exception) -> None:
        """What was to be logged cannot be read; told as a failure of the store is."""
        self._guard.tell(error)

    def reads(self, inputs: Sequence[Lineage], context: str) -> None:
        """The data sets that the run reads, and what for."""
        if inputs:
            self._guard.attempt(lambda: self._log_inputs(inputs, context))

    def artifact(self, path: Path) -> None:
        """A file, or a folder with all that is in it, under its own name."""
        self._guard.attempt(lambda: self._log_artifact(path))

    def ends(self, status: str = "", at: float | None = None) -> None:
        """How and when (seconds) the run ended, where that is not what its context will see."""
        self._status, self._ended = status, int((at or 0) * 1000)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seen = "FINISHED" if error is None else "FAILED" if isinstance(error, Exception) else "KILLED"
        if self.run_id:
            status, ended = self._status or seen, self._ended or None
            self._guard.close(lambda: self._client.set_terminated(self.run_id, status, ended))

    def _child(self, name: str, key: str, tags: dict[str, str], started: float | None) -> TrackedRun:
        if self._children is None:
            self._children = self._children_there()
        run = self._children.get(key)
        if run is None:
            at = int((started or time.time()) * 1000)
            made = self._client.create_run(
                self._connection.experiment_id, start_time=at, tags=tags, run_name=name
            )
            run = TrackedRun(self._connection, made.info.run_id)
            run._tags = tags
        else:
            self._client.update_run(run.run_id, status="RUNNING")
            run._retag(tags)
        self._children[key] = run
        return run

    def _retag(self, tags: dict[str, str]) -> None:
        """Give a run of before the tags it has now; of ours, those that no longer hold go."""
        for tag, value in tags.items():
            if self._tags.get(tag) != value:
                self._client.set_tag(self.run_id, tag, value)
        for tag in self._tags.keys() - tags.keys() - {CHANGED_TAG}:
            if tag.startswith(_OURS):
                self._client.delete_tag(self.run_id, tag)
        self._tags = tags
        self.ends()

    def _children_there(self) -> dict[str, TrackedRun]:
        found: dict[str, TrackedRun] = {}
        where, token = f"tags.`{PARENT_TAG}` = '{self.run_id}'", None
        while True:
            page = self._client.search_runs([self._connection.experiment_id], where, page_token=token)
            for run in page:
                key = run.data.tags.get(KEY_TAG, run.info.run_id)
                found[key] = TrackedRun(self._connection, run.info.run_id, run)
            token = page.token
            if not token:
                return found

    def _log(self, params: Mapping[str, str], wanted: Mapping[Point, float]) -> None:
        from mlflow.entities import Metric, Param

        self._read_points({name for name, _ in wanted})
        now = int(time.time() * 1000)
        fresh = {point: value for point, value in wanted.items() if self._points.get(point) != value}
        new = {name: value for name, value in params.items() if name not in self._params}
        metrics = [Metric(name, value, now, at) for (name, at), value in fresh.items()]
        for some_params, some_metrics in batches([Param(*pair) for pair in new.items()], metrics):
            self._client.log_batch(self.run_id, metrics=some_metrics, params=some_params)
        self._points |= fresh
        self._params |= new
        # MLflow keeps a parameter's first value for good: what it is now stands in a tag.
        changed = [f"{name}={value}" for name, value in params.items() if self._params[name] != value]
        if changed:
            self._client.set_tag(self.run_id, CHANGED_TAG, ", ".join(changed)[:_MAX_TAG])

    def _read_points(self, names: set[str]) -> None:
        """Recall what an earlier start logged of these metrics; the newest value of a step counts."""
        for name in names & self._metrics:
            history = self._client.get_metric_history(self.run_id, name)
            self._points |= {(m.key, m.step): m.value for m in sorted(history, key=lambda m: m.timestamp)}
            self._metrics.discard(name)

    def _log_inputs(self, inputs: Sequence[Lineage], context: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        self._client.log_inputs(
            self.run_id,
            [
                DatasetInput(
                    Dataset(
                        name=data.name,
                        digest=data.digest,
                        source_type="local",
                        source=json.dumps({"uri": data.source}),
                        profile=json.dumps(dict(data.profile)),
                    ),
                    [InputTag(_CONTEXT_TAG, context)],
                )
                for data in inputs
            ],
        )

    def _log_artifact(self, path: Path) -> None:
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), path.name)
        else:
            self._client.log_artifact(self.run_id, str(path))
