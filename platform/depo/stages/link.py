"""A worker's line to the `Board`: counts go up, and word comes back when to stop."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import ray

from depo.stages.accounting import Spent
from depo.threads import Background, reason

_INTERVAL_S = 1.0


class Link:
    """Gathers one worker's counts and sends them every second; without a board it keeps them."""

    def __init__(self, board: Any, worker: str = "") -> None:
        self._board, self._worker = board, worker
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.running = 0
        """Trees under way."""
        self.stop = ""
        """Why the whole job stops; empty while it does not."""
        self._closed = threading.Event()
        self._thread = None if board is None else Background(self._loop, "link", self._died)

    def count(self, **counts: int) -> None:
        with self._lock:
            self._counts.update(counts)

    def spend(self, spent: Spent) -> None:
        with self._lock:
            self._counts.update({k: v for k, v in asdict(spent).items() if v})

    def begin(self, block: int, tasks: Sequence[str]) -> tuple[int, set[str]]:
        """Say that a block begins: how often it began before, and which of its tasks were alone in a
        worker whose process then died."""
        if self._board is None:
            return 0, set()
        times, accused = ray.get(self._board.begin.remote(block, list(tasks)))
        return times, set(accused)

    def spent_before(self) -> Spent:
        """What this worker has told of, in this process and in those that died before it."""
        if self._board is None:
            return Spent()
        self.send()
        return Spent(**ray.get(self._board.spent_by.remote(self._worker)))

    def accuse(self, task: str) -> None:
        """Say, before it happens, that a task is about to be tried alone."""
        if self._board is not None:
            ray.get(self._board.accuse.remote(task))

    def acquit(self, task: str) -> None:
        if self._board is not None:
            ray.get(self._board.acquit.remote(task))

    def send(self) -> None:
        """Hand over what has been counted; returns when the board has it."""
        if self._board is None:
            return
        with self._lock:
            counts, self._counts = self._counts, Counter()
        self.stop = ray.get(self._board.report.remote(self._worker, dict(counts), self.running)) or self.stop

    def _died(self, error: Exception) -> None:
        self.stop = f"the worker's counts cannot be sent: {reason(error)}"

    def close(self) -> None:
        """Send no more: a thread that still calls Ray while Ray shuts down ends the whole process."""
        self._closed.set()
        if self._thread is not None:
            self._thread.over.wait()

    def _loop(self) -> None:
        while not self._closed.wait(_INTERVAL_S):
            try:
                self.send()
            except ray.exceptions.RayError:
                return  # the job is over, and its board with it
