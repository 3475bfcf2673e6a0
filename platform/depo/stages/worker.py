"""The actor that rollouts run in: many blocks at a time, one engine."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from depo.records import Task
from depo.stages.blocks import Block, Tree
from depo.stages.jobs import RolloutJob, WorkerSettings, unpack
from depo.stages.link import Link
from depo.stages.loop import TRIES, EngineLoop, Halt, name_of
from depo.stages.shards import finished_tasks
from depo.threads import reason


class RolloutWorker:
    """Runs blocks of tasks. Ray calls it from as many threads as it has blocks here; all of them feed
    the one `EngineLoop`, and each call returns when its own trees are on disk.
    """

    def __init__(self, settings: WorkerSettings, jobs: Sequence[RolloutJob]) -> None:
        # What a job needs to know of its tasks comes with each of them.
        self._settings, self._jobs = settings, [replace(job, tasks=()) for job in jobs]
        self._opening = threading.Lock()
        self._loop: EngineLoop | None = None
        self._link = Link(None)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Do one block of work: some tasks of one job.

        What no retry would mend (a missing model, a spent budget) is an answer, not a failure, which
        Ray would wrap in pages of traceback.
        """
        loop = self._open()
        job, tasks = row["job"], unpack(row["tasks"])
        times, accused = self._link.begin(row["block"], [name_of(job, task) for task in tasks])
        if times:
            again = self._settings.runtime.retry_quarantined
            finished = finished_tasks(Path(self._jobs[job].out_dir), again)
            tasks = [task for task in tasks if task.id not in finished]
        # Each earlier beginning ended with a lost process; only a task that was alone in one is to blame.
        deaths = min(times, TRIES - 1)
        refused = ""
        try:
            _do(loop, job, [Tree(t, deaths=deaths, accused=name_of(job, t) in accused) for t in tasks])
        except Halt as halt:
            refused = str(halt)
        except OSError as error:
            refused = f"{self._jobs[job].out_dir} cannot be written ({error})"
        except Exception as error:
            refused = reason(error)
        self._link.send()
        return {"block": row["block"], "refused": refused}

    def run(self, job: RolloutJob, tasks: Sequence[Task]) -> None:
        """Do `tasks` of `job`, known or new, and write their shards, in this process.

        Raises `Halt` where they cannot be done.
        """
        plain = replace(job, tasks=())
        if plain not in self._jobs:
            self._jobs.append(plain)
        _do(self._open(), self._jobs.index(plain), [Tree(task) for task in tasks])

    def close(self) -> None:
        """Give up the engine."""
        if self._loop is not None:
            self._loop.close()
            self._link.close()

    def _open(self) -> EngineLoop:
        with self._opening:
            if self._loop is None:
                board = self._settings.board
                worker = ray.get_runtime_context().get_actor_id() if board is not None else ""
                self._link = Link(board, worker or "")
                self._loop = EngineLoop(self._settings, self._jobs, self._link)
            return self._loop


def _do(loop: EngineLoop, job: int, trees: Sequence[Tree]) -> None:
    block = Block(job, trees)
    loop.put(block)
    block.wait()
