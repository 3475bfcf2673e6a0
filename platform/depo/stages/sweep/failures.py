"""Why something failed, in one line: the root of a chain of errors, and the note that keeps it."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

from ray.exceptions import RayTaskError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from depo.config.base import ConfigError
from depo.data.store import write_atomic

FAILED = "failed.json"


def note_failure(out_dir: Path, error: BaseException) -> None:
    """Write `failed.json`: the error, its cause in one line, the traceback; nothing on a full disk."""
    note = {
        "error": f"{type(error).__name__}: {error}",
        "cause": root_cause(error),
        "traceback": "".join(traceback.format_exception(error)),
    }
    try:
        write_atomic(out_dir / FAILED, json.dumps(note, indent=1))
    except OSError:
        return


def root_cause(error: BaseException) -> str:
    """The error that began it, in one line."""
    seen = {id(error)}
    while (cause := _beneath(error)) is not None and id(cause) not in seen:
        seen.add(id(cause))
        error = cause
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if isinstance(error, ConfigError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _beneath(error: BaseException) -> BaseException | None:
    """What an error wraps, or was raised because of."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        return error.cause
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        return next(iter(error.worker_failures.values()))
    if isinstance(error, ControllerError):
        return error.controller_failure
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)
