"""Shards of trajectories: written as trees finish, whole or not at all, and never counted twice."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from depo.data.store import finished_ids, write_atomic, write_table
from depo.records import Task, Trajectory, content_hash
from depo.stages.accounting import SPENT_KEY, Spent

QUARANTINE = "quarantine"
_FLUSH_S = 3.0
_LEAST_S = 0.25
"""Between two shards, however eagerly the next one is awaited."""
_MOST_ROWS = 2048
_AT_A_TIME = 4096


def finished_tasks(folder: Path, again: bool = False) -> set[str]:
    """Ids of the tasks that need no more work in `folder`; with `again`, quarantined ones do."""
    return set(finished_array(folder, again).to_pylist())


def finished_array(folder: Path, again: bool = False) -> pa.Array:
    """`finished_tasks` as an array, a fraction of its size."""
    found = finished_ids(folder)
    if not again:
        return found
    return found.filter(pc.invert(pc.is_in(found, pa.array(quarantined(folder), pa.string()))))


def unfinished(tasks: Sequence[Task], finished: pa.Array) -> Iterator[Task]:
    """Those of `tasks` whose ids are not in `finished`, in order."""
    for at in range(0, len(tasks), _AT_A_TIME):
        some = tasks[at : at + _AT_A_TIME]
        if not len(finished):
            yield from some
            continue
        known = pc.is_in(pa.array([task.id for task in some], pa.string()), finished)
        yield from (task for task, is_known in zip(some, known.to_pylist(), strict=True) if not is_known)


def quarantined(folder: Path) -> set[str]:
    """Ids of the tasks that were given up."""
    return {json.loads(file.read_text())["task"] for file in (folder / QUARANTINE).glob("[!.]*.json")}


def quarantine(folder: Path, task: Task, error: str, failures: int, deaths: int) -> None:
    """Leave a note of a tree that is given up."""
    note = {"task": task.id, "error": error, "failures": failures, "engine_deaths": deaths}
    write_atomic(_note(folder, task), json.dumps({**note, "row": task.to_row()}, indent=1))


def _note(folder: Path, task: Task) -> Path:
    return folder / QUARANTINE / f"{quote(task.id, safe='')[:200]}.json"


@dataclass
class _Pending:
    """What is to go into the next shard of one folder."""

    rows: list[Trajectory] = field(default_factory=list)
    spent: Spent = field(default_factory=Spent)
    then: list[Callable[[Exception | None], None]] = field(default_factory=list)


class ShardWriter:
    """Writes shards beside the engine's loop, which never waits for a disk.

    Finished trees gather for a few seconds, less when somebody waits for them. What was used
    since the last shard goes into the shard itself, so that rows and bill are lost or kept together.
    """

    def __init__(self) -> None:
        self._pending: dict[Path, _Pending] = {}
        self._changed = threading.Condition()
        self._hurried = self._closed = self._writing = False
        self._thread = threading.Thread(target=self._loop, name="shards", daemon=True)
        self._thread.start()

    def add(self, folder: Path, rows: Sequence[Trajectory], then: Callable[[Exception | None], None]) -> None:
        """Take the rows of one finished tree. `then` is called once they are on disk, or with the
        error that kept them from it."""
        with self._changed:
            pending = self._pending.setdefault(folder, _Pending())
            pending.rows += rows
            pending.then.append(then)
            self._hurried |= len(pending.rows) >= _MOST_ROWS
            self._changed.notify_all()

    def spend(self, folder: Path, spent: Spent) -> None:
        """Charge `spent` to the next shard of `folder`."""
        with self._changed:
            pending = self._pending.setdefault(folder, _Pending())
            pending.spent += spent

    def hurry(self) -> None:
        """Somebody waits for what is finished."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def flush(self) -> None:
        """Return when all that was added is on disk."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._writing and not self._awaited())

    def close(self) -> None:
        """Write what is left, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _awaited(self) -> bool:
        return any(pending.then for pending in self._pending.values())

    def _loop(self) -> None:
        while not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._awaited())
                self._changed.wait_for(lambda: self._closed or self._hurried, timeout=_FLUSH_S)
                taken, self._pending = self._pending, {}
                self._hurried, self._writing = False, True
            for folder, pending in taken.items():
                _write(folder, pending)
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._closed, timeout=_LEAST_S)
        for folder, pending in self._pending.items():
            _write(folder, pending)
        self._pending = {}


def _write(folder: Path, pending: _Pending) -> None:
    failed: Exception | None = None
    if pending.rows or pending.spent:
        # Equal rows get an equal name, so writing them twice leaves them once.
        name = content_hash([row.id for row in pending.rows]) if pending.rows else uuid.uuid4().hex[:16]
        try:
            write_table(
                folder / f"{name}.parquet", pending.rows, Trajectory, {SPENT_KEY: pending.spent.to_json()}
            )
            _release(folder, pending.rows)
        except OSError as error:
            failed = error
    for then in pending.then:
        then(failed)


def _release(folder: Path, rows: Sequence[Trajectory]) -> None:
    """Drop the notes of quarantined tasks that have since been done."""
    if not (folder / QUARANTINE).is_dir():
        return
    for row in rows:
        if row.stop_reason != "error":
            _note(folder, row.task).unlink(missing_ok=True)
