"""BabyAI that takes its whole process down, once."""

from __future__ import annotations

import os
from pathlib import Path

from depo.envs.babyai.env import BabyAIEnv


class Mortal(BabyAIEnv):
    """Kills the process that first resets it to `fatal`, an id of a task; `marker` remembers that it did."""

    def __init__(self, levels: list[str], marker: str, fatal: str) -> None:
        super().__init__(levels, show_actions=False, instructions="brief")
        self._marker, self._fatal = Path(marker), fatal

    def reset(self, task):
        if task.id == self._fatal and not self._marker.exists():
            self._marker.touch()
            os._exit(9)
        return super().reset(task)


class Raising(BabyAIEnv):
    """Fails on one task, every time."""

    def __init__(self, levels: list[str], fatal: str) -> None:
        super().__init__(levels, show_actions=False, instructions="brief")
        self._fatal = fatal

    def reset(self, task):
        if task.id == self._fatal:
            raise RuntimeError("no such world")
        return super().reset(task)
