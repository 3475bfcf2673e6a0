"""The scripted teacher with real faults: it dies, takes its process down, or spends a budget."""

from __future__ import annotations

import os
import time
from pathlib import Path

from depo.config.schema import TeacherConfig
from depo.policies.base import Answer, BudgetSpent, EngineDead
from depo.policies.teacher import TeacherPolicy


class Slow(TeacherPolicy):
    """Takes `pause_s` over each answer and leaves its process's id in `pids`."""

    def __init__(self, pids: str, pause_s: float = 0.01) -> None:
        super().__init__(TeacherConfig())
        self._pause_s = pause_s
        Path(pids).mkdir(parents=True, exist_ok=True)
        (Path(pids) / str(os.getpid())).touch()

    def collect(self) -> list[Answer]:
        time.sleep(self._pause_s)
        return super().collect()


class Faulty(TeacherPolicy):
    """Fails when asked about a task of `fatal`, `times` times in all; `log` keeps count.

    `how` is "dead" (the engine is gone), "exit" (so is the process) or "error" (this request alone).
    """

    def __init__(self, fatal: list[str], how: str, log: str, times: int = 10**6) -> None:
        super().__init__(TeacherConfig())
        self._fatal, self._how, self._log, self._times = set(fatal), how, Path(log), times
        self._dead = False

    def reply(self, request):
        if self._dead:
            raise EngineDead("it was dead before")
        task = request.env.task.id
        before = len(self._log.read_text().splitlines()) if self._log.exists() else 0
        if task in self._fatal and before < self._times:
            with self._log.open("a") as file:
                file.write(f"{task}\n")
            if self._how == "exit":
                os._exit(9)
            if self._how == "error":
                raise ValueError("no reply to be had")
            self._dead = True
            raise EngineDead("the core is gone")
        return super().reply(request)

    def withdraw(self, key):
        if self._dead:
            raise EngineDead("it was dead before")
        super().withdraw(key)


class Limited(TeacherPolicy):
    """Answers `requests` requests, then says that its budget is spent."""

    def __init__(self, requests: int) -> None:
        super().__init__(TeacherConfig())
        self._left = requests

    def reply(self, request):
        self._left -= 1
        if self._left < 0:
            raise BudgetSpent("max_tokens_total: all of it is spent; raise it to go on")
        return super().reply(request)
