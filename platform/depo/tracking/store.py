"""Where MLflow keeps its runs: a file beside them or a server, looked at before it is relied on."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shlex
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from depo.config.schema import TrackingConfig
from depo.records import content_hash
from depo.tracking.guard import Guard
from depo.tracking.run import Connection, TrackedRun

_WAIT_S = 20
"""How long a writer waits for the others of an embedded store; MLflow's own sessions wait as long."""
_OPEN_S = 120
"""How long a process waits for another one that opens the same store, which may take its layout."""
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # a dead server must not hold up the run
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # what fails is told by us, in one line
}
_SQLITE = "sqlite:///"
_UNREACHABLE = ("Max retries exceeded", "timed out", "Connection aborted", "Connection refused")


class StoreError(Exception):
    """A store that cannot be used: which, why, and the mend, in one line."""


def destination(config: TrackingConfig, default_store: Path, experiment: str) -> str:
    """Names the place that is written to, without what its address may keep secret."""
    where = config.uri or str(default_store.resolve())
    return content_hash([where, config.experiment or experiment])


def embedded(config: TrackingConfig, default_store: Path) -> Path | None:
    """The SQLite file that is written to; None where a server or another database is."""
    if config.uri is None:
        return default_store.resolve()
    if config.uri.startswith(_SQLITE):
        return Path(config.uri.removeprefix(_SQLITE).partition("?")[0]).resolve()
    return None


def open_run(config: TrackingConfig, default_store: Path, experiment: str, key: str) -> TrackedRun:
    """The run with `key` of an experiment; one that does nothing where tracking is off or cannot be had.

    `default_store` is the SQLite file that is used, and made, where `config.uri` is not set;
    artifacts then lie beside it, in `<stem>-artifacts/`.
    """
    if not config.enabled:
        return TrackedRun(Connection(None, "", Guard(explain, closed=True)))
    store = embedded(config, default_store)
    guard = Guard(lambda error: explain(error, store or config.uri or ""))
    opened = guard.attempt(lambda: _open(config, store, experiment, key, guard))
    return opened or TrackedRun(Connection(None, "", guard))


def _open(config: TrackingConfig, store: Path | None, experiment: str, key: str, guard: Guard) -> TrackedRun:
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    with _no_info():
        from mlflow import MlflowClient

        name = config.experiment or experiment
        if store is None:
            uri = config.uri or ""
            return _root(MlflowClient(tracking_uri=uri), uri, name, None, experiment, key, guard)
        store.parent.mkdir(parents=True, exist_ok=True)
        with _alone(store):
            if not store.exists():
                _lay_out(store)
            _look(store)
            client = MlflowClient(tracking_uri=f"{_SQLITE}{store}?timeout={_WAIT_S}")
            artifacts = store.with_name(f"{store.stem}-artifacts").as_uri()
            return _root(client, f"{_SQLITE}{store}", name, artifacts, experiment, key, guard)


def _root(
    client: Any, uri: str, name: str, artifacts: str | None, run_name: str, key: str, guard: Guard
) -> TrackedRun:
    known = client.get_experiment_by_name(name)
    if known is not None and known.lifecycle_stage == "deleted":
        restore = f"mlflow experiments restore --experiment-id {known.experiment_id}"
        raise StoreError(
            f"experiment {name!r} was deleted there; restore it with `MLFLOW_TRACKING_URI="
            f"{shlex.quote(_shown(uri))} {restore}`, or set tracking.experiment to another name"
        )
    experiment_id = known.experiment_id if known else client.create_experiment(name, artifacts)
    return TrackedRun.root(Connection(client, experiment_id, guard), run_name, content_hash(key))


def _lay_out(store: Path) -> None:
    """Make a store under another name first: one that a kill left half done could never be opened."""
    from mlflow import MlflowClient

    fresh = store.with_name(f".{store.name}.fresh")
    for file in (fresh, fresh.with_name(f"{fresh.name}-journal")):
        file.unlink(missing_ok=True)
    MlflowClient(tracking_uri=f"{_SQLITE}{fresh}").search_experiments(max_results=1)
    fresh.rename(store)


def _look(store: Path) -> None:
    """Raise where an SQLite file cannot be written, before MLflow tries that for minutes."""
    with closing(sqlite3.connect(store, timeout=_WAIT_S, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


@contextmanager
def _alone(store: Path) -> Iterator[None]:
    """Hold the embedded store against others that open it; they wait, up to `_OPEN_S`."""
    with open(store.with_name(f".{store.name}.lock"), "w") as handle:
        until = time.monotonic() + _OPEN_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise StoreError(
                        f"{store} is being opened by another process for over {_OPEN_S} s; end that one"
                    ) from None
                time.sleep(0.1)
        yield


def explain(error: Exception, place: Path | str = "") -> str:
    """One line: what stands in the way at `place`, a file or an address, and the mend where it is known."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, StoreError):
        return str(error)
    shown = _shown(str(place))
    if "out-of-date database schema" in text:
        address = shlex.quote(f"{_SQLITE}{place}" if isinstance(place, Path) else shown)
        return (
            f"{shown} was made by another MLflow; run `mlflow db upgrade {address}` after a backup, "
            "or set tracking.uri to another store"
        )
    if "database is locked" in text:
        return f"{shown} has been locked by another program for over {_WAIT_S} s; end it"
    if "readonly database" in text or "unable to open database" in text or isinstance(error, PermissionError):
        return f"{shown} cannot be written; set tracking.uri to a store that can"
    if "file is not a database" in text:
        return f"{shown} is no SQLite database; move it away or set tracking.uri to another store"
    if any(sign in text for sign in _UNREACHABLE):
        return f"no answer from {shown}"
    return text[:200]


def _shown(place: str) -> str:
    """An address with asterisks for a password."""
    return re.sub(r"//([^/@:]*):[^/@]*@", r"//\1:***@", place)


@contextmanager
def _no_info() -> Iterator[None]:
    """Holds back what MLflow and alembic say while they import and lay out a fresh store."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)
