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
from depo.threads import Background, reason

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


Then = Callable[[Exception | None], None]


@dataclass
class _Pending:
    """What is to go into the next shard of one folder."""

    trees: list[tuple[Sequence[Trajectory], Then]] = field(default_factory=list)
    spent: Spent = field(default_factory=Spent)


class ShardWriter:
    """Writes shards beside the engine's loop, which never waits for a disk.

    Finished trees gather for a few seconds, less when somebody waits for them. What was used
    since the last shard goes into the shard itself, so that rows and bill are lost or kept together.
    """

    def __init__(self) -> None:
        self._pending: dict[Path, _Pending] = {}
        self._changed = threading.Condition()
        self._hurried = self._closed = self._writing = False
        self._error: Exception | None = None
        self._thread = Background(self._loop, "writing shards", self._give_up)

    def add(self, folder: Path, rows: Sequence[Trajectory], then: Then) -> None:
        """Take the rows of one finished tree. `then` is called once they are on disk, or with the
        error that kept them from it: an `OSError` concerns all trees of the folder, another this one."""
        with self._changed:
            if self._error is None:
                pending = self._pending.setdefault(folder, _Pending())
                pending.trees.append((rows, then))
                self._hurried |= sum(len(rows) for rows, _ in pending.trees) >= _MOST_ROWS
                self._changed.notify_all()
                return
        then(self._error)

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
            self._changed.wait_for(lambda: (not self._writing and not self._awaited()) or self._closed)

    def close(self) -> None:
        """Write what is left, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _awaited(self) -> bool:
        return any(pending.trees for pending in self._pending.values())

    def _loop(self) -> None:
        while not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._awaited())
                self._changed.wait_for(lambda: self._closed or self._hurried, timeout=_FLUSH_S)
            self._write_pending()
            with self._changed:
                self._changed.wait_for(lambda: self._closed, timeout=_LEAST_S)
        while self._pending:  # who is told of an error may add once more
            self._write_pending()

    def _write_pending(self) -> None:
        with self._changed:
            taken, self._pending = self._pending, {}
            self._hurried, self._writing = False, True
        for folder, pending in taken.items():
            _write(folder, pending)
        with self._changed:
            self._writing = False
            self._changed.notify_all()

    def _give_up(self, error: Exception) -> None:
        """The thread has died: nobody waits for it any longer."""
        failed = OSError(f"the thread that writes shards ended: {reason(error)}")
        with self._changed:
            left, self._pending = self._pending, {}
            self._error, self._closed, self._writing = failed, True, False
            self._changed.notify_all()
        for pending in left.values():
            for _, then in pending.trees:
                then(failed)


def _write(folder: Path, pending: _Pending) -> None:
    """Write one shard, and tell each tree; one whose rows no table can hold does without the others."""
    failed: dict[int, Exception] = {}
    try:
        _write_shard(folder, [row for rows, _ in pending.trees for row in rows], pending.spent)
    except OSError as error:
        failed = dict.fromkeys(range(len(pending.trees)), error)
    except Exception as error:
        if len(pending.trees) > 1:
            for number, tree in enumerate(pending.trees):
                _write(folder, _Pending([tree], pending.spent if number == 0 else Spent()))
            return
        if pending.trees:
            _write(folder, _Pending(spent=pending.spent))
        failed = {0: error}
    for number, (_, then) in enumerate(pending.trees):
        then(failed.get(number))


def _write_shard(folder: Path, rows: Sequence[Trajectory], spent: Spent) -> None:
    if rows or spent:
        # Equal rows get an equal name, so writing them twice leaves them once.
        name = content_hash([row.id for row in rows]) if rows else uuid.uuid4().hex[:16]
        write_table(folder / f"{name}.parquet", rows, Trajectory, {SPENT_KEY: spent.to_json()})
        _release(folder, rows)


def _release(folder: Path, rows: Sequence[Trajectory]) -> None:
    """Drop the notes of quarantined tasks that have since been done."""
    if not (folder / QUARANTINE).is_dir():
        return
    for row in rows:
        if row.stop_reason != "error":
            _note(folder, row.task).unlink(missing_ok=True)
