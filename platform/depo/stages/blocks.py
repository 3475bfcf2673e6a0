"""Tasks on their way through an engine: trees, and the blocks in which they come and are waited for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from depo.envs.base import TextEnv
from depo.records import Task


class Block:
    """Some tasks of one job, and a way to wait until all their rows are on disk."""

    def __init__(self, job: int, trees: Sequence[Tree]) -> None:
        self.job, self.trees = job, trees
        self._left = len(trees)
        self._error: Exception | None = None
        self._over = threading.Condition()
        for tree in trees:
            tree.block = self

    @property
    def over(self) -> bool:
        return self._left <= 0

    def settled(self, error: Exception | None = None) -> None:
        """One more tree is on disk, or never will be."""
        with self._over:
            self._left -= 1
            self._error = self._error or error
            if self._left <= 0:
                self._over.notify_all()

    def fail(self, error: Exception) -> None:
        """Give up what is left."""
        with self._over:
            self._left, self._error = 0, self._error or error
            self._over.notify_all()

    def wait(self) -> None:
        """Return when every tree is settled; raises what kept one from it."""
        with self._over:
            self._over.wait_for(lambda: self._left <= 0)
        if self._error is not None:
            raise self._error


@dataclass(eq=False)
class Tree:
    """One task on its way."""

    task: Task
    failures: int = 0
    deaths: int = 0
    """Engines that died while it was in them."""
    accused: bool = False
    """The process died while this tree was alone in it."""
    unwritable: bool = False
    """Its rows could not be stored."""
    block: Block = field(init=False)
    env: TextEnv | None = None
